//! A layer is its tar among the blobs, its directory, or both. A build's COPY makes the tar, a RUN the directory; what is
//! missing is made of the other when somebody needs it.
//!
//! `layers/<diffID>/`: one unpacked layer, an overlay lower directory with whiteouts in overlay's own form
//! (character device 0:0; `trusted.overlay.opaque` or `user.overlay.opaque` = `y`).

use std::path::PathBuf;

use crate::{DiffId, Digest, Store};

mod adopt;
mod blocks;
mod commit;
mod compress;
mod directory_archive;
mod duplicate;
mod encoder;
mod form;
mod noted_tar;
mod pack;
mod parts;
mod sampling;
mod staging;
mod unpack;
mod verify;

pub use compress::{compress_stream, recompress_stream};
pub use pack::Files;
pub use staging::Staging;
pub use unpack::Unpacked;

/// A layer in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Its name.
    pub diff_id: DiffId,
    /// Bytes of its tar.
    pub tar_size: u64,
    /// It has no entry at all.
    pub empty: bool,
}

/// How a layer's blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A plain tar.
    None,
    /// gzip in fixed 1 MiB members.
    Gzip,
    /// zstd.
    Zstd,
}

impl Compression {
    /// The OCI media type of a layer compressed so (OCI image specification, "Image Layer Filesystem Changeset").
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    /// Bytes of the layer's tar that are compressed at once; the last block is shorter.
    pub fn block_size(self) -> u64 {
        encoder::block_size(self) as u64
    }

    /// Its name in the metadata.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The opposite of [`Compression::name`].
    pub(crate) fn from_name(name: &str) -> Self {
        match name {
            "gzip" => Self::Gzip,
            "zstd" => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// A layer's compressed form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerBlob {
    /// Digest of the compressed bytes.
    pub digest: Digest,
    /// Their size.
    pub size: u64,
    /// OCI media type (`application/vnd.oci.image.layer.v1.tar+gzip`, …), as it came when it came from elsewhere.
    pub media_type: String,
}

impl Store {
    /// Its directory.
    pub fn layer_path(&self, diff_id: &DiffId) -> PathBuf {
        self.root().join("layers").join(diff_id.hex())
    }
}

/// A list of parts that can be read is written again as it was.
#[cfg(any(test, fuzzing))]
pub(crate) fn check_parts(bytes: &[u8]) {
    if let Some(parts) = parts::Parts::decode(bytes) {
        assert!(parts::Parts::decode(&parts.encode()).is_some_and(|again| again == parts), "other parts");
    }
}

#[cfg(test)]
mod tests;
