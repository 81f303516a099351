//! Tar archives: docker's (`manifest.json`) and OCI's (a layout in a tar); `save` writes one that is both.

pub(crate) mod docker;
pub(crate) mod entries;
pub(crate) mod load;
pub(crate) mod save;

pub use load::load;
pub use save::save;

#[cfg(test)]
mod tests;
