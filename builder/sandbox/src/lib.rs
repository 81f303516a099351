//! One process in one root file system. All `unsafe` of the project is here. Knows no image and no store.

pub mod host;
pub mod process;
pub mod spec;
pub mod user_namespace;

pub use process::{Exit, Sandbox};
pub use spec::Spec;

/// Must be the first thing in `main`: when this process was started as a sandbox's child it never returns.
pub fn init() {
    todo!()
}
