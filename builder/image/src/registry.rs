//! Pulling from and pushing to registries.

use kiln_store::{Digest, Store, layer::Compression};

use crate::{Image, Platform, Reference, Result};

/// What happens during a transfer, for whoever draws it.
pub trait TransferProgress: Send + Sync {
    /// A blob is about to move, or is known to be there already.
    fn begin(&self, blob: &Digest, size: u64, already_there: bool);
    /// Bytes moved since the last call.
    fn advance(&self, blob: &Digest, bytes: u64);
    /// It is done (verified, and unpacked when pulling).
    fn finish(&self, blob: &Digest);
}

/// How registries are talked to.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Use plain HTTP, or HTTPS without verification, with these registries; loopback ones always may.
    pub insecure: bool,
}

/// Fetches the image of `platform`, verifies and unpacks it, and points the reference at it.
pub async fn pull(
    store: &Store,
    reference: &Reference,
    platform: &Platform,
    options: &Options,
    progress: &dyn TransferProgress,
) -> Result<Image> {
    let _ = (store, reference, platform, options, progress);
    todo!()
}

/// Uploads an image under a reference; what the registry has is not sent. Returns the manifest's digest.
pub async fn push(
    store: &Store,
    image: &Image,
    reference: &Reference,
    compression: Compression,
    options: &Options,
    progress: &dyn TransferProgress,
) -> Result<Digest> {
    let _ = (store, image, reference, compression, options, progress);
    todo!()
}
