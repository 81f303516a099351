//! Bytes to digests: blobs, layers, snapshots, metadata and locks. Knows no Dockerfile and no registry.

mod archive;
mod attributes;
pub mod blob;
pub mod changeset;
pub mod digest;
mod directory;
pub mod error;
mod garbage;
mod hashing;
#[cfg(any(test, fuzzing))]
pub mod invariants;
pub mod large_file;
pub mod layer;
pub mod layer_writer;
pub mod metadata;
mod path;
pub mod places;
pub mod snapshot;
pub mod store;
mod temporary;

pub use blob::Blobs;
pub use digest::{DiffId, Digest};
pub use error::Error;
pub use places::BlobPlaces;
pub use snapshot::Snapshot;
pub use store::Store;

/// What the store's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
