//! `blobs/<algorithm>/<hex>`: bytes as they came or go, verified on the way in, never rewritten.
//! Also used on its own by the registry server, so it knows nothing but its directory.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::{Digest, Result};

/// One directory of blobs.
#[derive(Debug, Clone)]
pub struct Blobs {}

/// A blob that is being written: bytes go to a temp file and through the hash at once. Dropping it removes the file.
pub struct BlobWriter {}

impl Blobs {
    /// `directory` holds `sha256/…`; `tmp` must be on the same file system.
    pub fn open(directory: &Path, tmp: &Path) -> Result<Self> {
        let _ = (directory, tmp);
        todo!()
    }
    /// Where the blob is or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let _ = digest;
        todo!()
    }
    /// Its size in bytes when it is here.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let _ = digest;
        todo!()
    }
    /// Opens it for reading; `None` when it is not here.
    pub fn get(&self, digest: &Digest) -> Result<Option<File>> {
        let _ = digest;
        todo!()
    }
    /// The bytes of a small blob (manifest, config), at most `limit`, verified against the digest.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let _ = (digest, limit);
        todo!()
    }
    /// Starts a blob of the given algorithm.
    pub fn writer(&self, algorithm: crate::digest::Algorithm) -> Result<BlobWriter> {
        let _ = algorithm;
        todo!()
    }
    /// Stores bytes in memory; does nothing when they are here.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let _ = bytes;
        todo!()
    }
    /// Deletes it; `false` when it was not here.
    pub fn remove(&self, digest: &Digest) -> Result<bool> {
        let _ = digest;
        todo!()
    }
    /// Every digest here.
    pub fn list(&self) -> Result<Vec<Digest>> {
        todo!()
    }
}

impl BlobWriter {
    /// Bytes so far.
    pub fn written(&self) -> u64 {
        todo!()
    }
    /// Flushes (with fsync when `durable`), verifies against `expected` when given, and renames into place.
    pub fn commit(self, expected: Option<&Digest>, durable: bool) -> Result<(Digest, u64)> {
        let _ = (expected, durable);
        todo!()
    }
}
impl std::io::Write for BlobWriter {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        todo!()
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
