//! Directories that are no layers, such as those of cache mounts, as archives and back.

use std::io::{Read, Write};
use std::path::Path;

use super::blocks::in_blocks;
use super::compress::Both;
use super::encoder::LEVEL;
use super::{Compression, Staging};
use crate::archive::decompress::{buffered, decompress};
use crate::archive::writer::Treatment;
use crate::digest::Algorithm;
use crate::hashing::BackgroundHasher;
use crate::{DiffId, Error, Result, Store};

impl Store {
    /// Writes a directory as a zstd tar, its times and owners included; sockets, and names that mean whiteouts in an
    /// image, are left out. Returns the digest and the bytes of the tar.
    ///
    /// # Errors
    /// A file cannot be read, or became shorter meanwhile.
    pub fn archive_directory(&self, path: &Path, out: &mut (dyn Write + Send)) -> Result<(DiffId, u64)> {
        let mut hasher = BackgroundHasher::new(Algorithm::Sha256);
        let mut size = 0;
        let mut sink = |block: Vec<u8>| out.write_all(&block).map_err(Error::ArchiveWrite);
        in_blocks((Compression::Zstd, LEVEL), &mut sink, |blocks| {
            size = self.write_directory(path, Treatment::Read, &mut Both(&mut hasher, blocks))?.size;
            Ok(())
        })?;
        Ok((hasher.finish()?, size))
    }

    /// Unpacks what [`Store::archive_directory`] made into a staging's upper directory, verified.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`]; no more than `size` bytes are unpacked.
    pub fn unpack_directory(&self, archive: impl Read, expected: &DiffId, size: u64, into: &Staging) -> Result<()> {
        let (_, tar) = decompress(archive).map_err(Error::ArchiveRead)?;
        self.unpack_into(into, buffered(tar.take(size)), Some(expected)).map(drop)
    }
}

#[cfg(test)]
mod tests;
