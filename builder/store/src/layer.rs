//! `layers/<diffID>/`: one unpacked layer, an overlay lower directory with whiteouts in overlay's own form
//! (character device 0:0; `trusted.overlay.opaque` or `user.overlay.opaque` = `y`).

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::{DiffId, Digest, Result, Store};

/// A directory under construction, on the store's file system, removed when dropped.
/// `upper()` is what becomes the layer; `work()` is overlay's work directory beside it.
pub struct Staging {}

impl Staging {
    /// The directory that becomes the layer.
    pub fn upper(&self) -> &Path {
        todo!()
    }
    /// Overlay's work directory.
    pub fn work(&self) -> &Path {
        todo!()
    }
    /// Any other scratch path beside them, created as a directory.
    pub fn scratch(&self, name: &str) -> Result<PathBuf> {
        let _ = name;
        todo!()
    }
}

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
    /// A new staging directory.
    pub fn stage(&self) -> Result<Staging> {
        todo!()
    }
    /// Turns the staging's upper directory into a layer: strips overlay's own xattrs, sockets and the like, clamps
    /// modification times to `clamp` (seconds since 1970) when given, hashes the deterministic tar, renames.
    /// An existing layer of the same diffID is kept and the staging dropped.
    pub fn commit(&self, staging: Staging, clamp: Option<i64>) -> Result<Layer> {
        let _ = (staging, clamp);
        todo!()
    }
    /// Whether the layer is here (and, after an unclean boot, intact).
    pub fn layer(&self, diff_id: &DiffId) -> Result<Option<Layer>> {
        let _ = diff_id;
        todo!()
    }
    /// Its directory.
    pub fn layer_path(&self, diff_id: &DiffId) -> PathBuf {
        let _ = diff_id;
        todo!()
    }
    /// Writes its deterministic tar.
    pub fn write_tar(&self, diff_id: &DiffId, out: &mut dyn Write) -> Result<u64> {
        let _ = (diff_id, out);
        todo!()
    }
    /// Unpacks a layer tar (plain, gzip, zstd, by content), verifying `expected` when given. Hostile input cannot
    /// leave the directory. The bytes are not kept; see [`Store::unpack_blob`].
    pub fn unpack(&self, tar: &mut dyn Read, expected: Option<&DiffId>) -> Result<Layer> {
        let _ = (tar, expected);
        todo!()
    }
    /// Unpacks a blob of the store and remembers it as the layer's compressed form.
    pub fn unpack_blob(&self, blob: &LayerBlob, expected: Option<&DiffId>) -> Result<Layer> {
        let _ = (blob, expected);
        todo!()
    }
    /// The compressed form, when one is known and its blob is here.
    pub fn layer_blob(&self, diff_id: &DiffId, compression: Compression) -> Result<Option<LayerBlob>> {
        let _ = (diff_id, compression);
        todo!()
    }
    /// Any compressed form as it came from elsewhere; what a push prefers to recompressing.
    pub fn original_blob(&self, diff_id: &DiffId) -> Result<Option<LayerBlob>> {
        let _ = diff_id;
        todo!()
    }
    /// Compresses the layer into a blob (in parallel, same bytes on every machine), or returns the one that is here.
    pub fn compress(&self, diff_id: &DiffId, compression: Compression) -> Result<LayerBlob> {
        let _ = (diff_id, compression);
        todo!()
    }
    /// A flattened root file system tar is unpacked as one layer whose diffID is that of our own deterministic tar.
    pub fn import_tar(&self, tar: &mut dyn Read) -> Result<Layer> {
        let _ = tar;
        todo!()
    }
}
