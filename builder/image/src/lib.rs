//! References, image configuration, and the sources and sinks that images come from and go to. Runs nothing.

mod abandoned;
pub mod annotation;
pub mod archive;
pub mod artifacts;
pub mod attestation;
pub mod bundle;
pub mod config;
pub mod copy;
pub mod credentials;
pub mod difference;
pub mod edit;
pub mod error;
mod hashed;
pub mod history;
pub mod image;
pub mod index;
pub mod inspect;
#[cfg(any(test, fuzzing))]
pub mod invariants;
pub mod layout;
pub mod listing;
pub mod manifest;
pub mod platform;
pub mod reference;
pub mod referrer;
pub mod registry;
pub mod remote;
pub mod user;
pub mod validate;
pub mod whole_file;

pub use config::ImageConfig;
pub use error::Error;
pub use image::Image;
pub use platform::Platform;
pub use reference::Reference;

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
