//! Bytes to digests: blobs, layers, snapshots, metadata and locks. Knows no Dockerfile and no registry.

pub mod blob;
pub mod digest;
pub mod error;
pub mod layer;
pub mod metadata;
pub mod snapshot;
pub mod store;

pub use blob::Blobs;
pub use digest::{DiffId, Digest};
pub use error::Error;
pub use snapshot::Snapshot;
pub use store::Store;

/// What the store's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
