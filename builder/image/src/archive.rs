//! Tar archives: docker's (`manifest.json`) and OCI's (a layout in a tar); `save` writes one that is both.

mod docker;
mod entries;
mod load;
mod save;

pub use load::load;
pub use save::save;

#[cfg(test)]
mod tests;
