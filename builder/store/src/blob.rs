//! `blobs/<algorithm>/<hex>`: bytes as they came or go, verified on the way in, never rewritten.
//! Also used on its own by the registry server, so it knows nothing but its directory.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::digest::{Algorithm, Hasher};
use crate::hashing::{BackgroundHasher, Mark};
use crate::large_file::LargeFile;
use crate::{Digest, Error, Result};

/// Bytes of a blob that stay in memory when it is written; who needs more of it soon reads it from the disk.
const KEPT: u64 = 4 << 20;

/// One directory of blobs.
#[derive(Debug, Clone)]
pub struct Blobs {
    directory: PathBuf,
    tmp: PathBuf,
}

/// A blob that is being written: bytes go to a temp file and through the hash at once. Dropping it removes the file.
pub struct BlobWriter {
    blobs: Blobs,
    file: LargeFile<NamedTempFile>,
    hasher: BackgroundHasher,
    written: u64,
}

impl Blobs {
    /// `directory` holds `sha256/…`; `tmp` must be on the same file system. Both are created when missing.
    pub fn open(directory: &Path, tmp: &Path) -> Result<Self> {
        for path in Algorithm::ALL.map(|algorithm| directory.join(algorithm.name())).iter().chain([&tmp.to_path_buf()])
        {
            if !path.is_dir() {
                fs::create_dir_all(path).map_err(Error::io("create directory", path))?;
            }
        }
        Ok(Self { directory: directory.to_path_buf(), tmp: tmp.to_path_buf() })
    }

    /// Where the blob is or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.algorithm().name()).join(digest.hex())
    }

    /// Its size in bytes when it is here.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("examine blob", path)(error)),
        }
    }

    /// Opens it for reading; `None` when it is not here.
    pub fn get(&self, digest: &Digest) -> Result<Option<File>> {
        let path = self.path(digest);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open blob", path)(error)),
        }
    }

    /// The bytes of a small blob (manifest, config), at most `limit`, verified against the digest.
    ///
    /// # Errors
    /// [`Error::BlobMissing`], [`Error::TooLarge`], [`Error::DigestMismatch`].
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let file = self.get(digest)?.ok_or(Error::BlobMissing(*digest))?;
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(Error::io("read blob", self.path(digest)))?;
        if bytes.len() as u64 > limit {
            let size = self.size(digest)?.unwrap_or(0);
            return Err(Error::TooLarge { what: format!("blob {digest}"), size, limit });
        }
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        verify(format!("blob {digest}"), digest, &hasher.finish())?;
        Ok(bytes)
    }

    /// Hashes the whole blob; `false` when it is not here or damaged.
    pub fn verify(&self, digest: &Digest) -> Result<bool> {
        let Some(file) = self.get(digest)? else { return Ok(false) };
        Ok(hash_file(file, digest.algorithm()).map_err(Error::io("read blob", self.path(digest)))?.0 == *digest)
    }

    /// Starts a blob of the given algorithm.
    pub fn writer(&self, algorithm: Algorithm) -> Result<BlobWriter> {
        self.writer_with(BackgroundHasher::new(algorithm), KEPT)
    }

    /// One of a tar that was just made: a push or a step will read it soon. It keeps its hasher's states.
    pub(crate) fn tar_writer(&self, algorithm: Algorithm) -> Result<BlobWriter> {
        self.writer_with(BackgroundHasher::marking(algorithm), u64::MAX)
    }

    fn writer_with(&self, hasher: BackgroundHasher, kept: u64) -> Result<BlobWriter> {
        let file = tempfile::Builder::new()
            .prefix("blob-")
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(&self.tmp)
            .map_err(Error::io("create a temporary file in", &self.tmp))?;
        Ok(BlobWriter { blobs: self.clone(), file: LargeFile::new(file, kept), hasher, written: 0 })
    }

    /// Stores bytes in memory; does nothing when they are here.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        // A power loss may have left a file of the right name without its bytes: compare, it is small.
        if fs::read(self.path(&digest)).is_ok_and(|here| here == bytes) {
            return Ok(digest);
        }
        let mut writer = self.writer(Algorithm::Sha256)?;
        let failed = || Error::io("write blob", self.path(&digest));
        writer.write_all(bytes).map_err(failed())?;
        writer
            .file
            .finish()
            .map_err(failed())?
            .persist(self.path(&digest))
            .map_err(|error| Error::io("store blob", self.path(&digest))(error.error))?;
        Ok(digest)
    }

    /// Moves a finished file of the same file system into place: what an upload that outlived its process needs.
    /// `already_verified` skips hashing it once more; the file is gone from its old name in every case but an error.
    /// Returns its size in bytes.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`], with the file left where it is.
    pub fn adopt(
        &self,
        file: impl AsRef<Path>,
        expected: &Digest,
        already_verified: bool,
        durable: bool,
    ) -> Result<u64> {
        let file = file.as_ref();
        let opened = File::open(file).map_err(Error::io("open upload", file))?;
        let size = opened.metadata().map_err(Error::io("examine upload", file))?.len();
        if durable {
            opened.sync_all().map_err(Error::io("flush upload", file))?;
        }
        if !already_verified {
            let (actual, _) = hash_file(opened, expected.algorithm()).map_err(Error::io("read upload", file))?;
            verify(format!("upload {}", file.display()), expected, &actual)?;
        }
        if self.size(expected)? == Some(size) {
            fs::remove_file(file).map_err(Error::io("remove upload", file))?;
        } else {
            fs::rename(file, self.path(expected)).map_err(Error::io("store blob", self.path(expected)))?;
        }
        if durable {
            self.flush_directory(expected)?;
        }
        Ok(size)
    }

    /// Deletes it; `false` when it was not here.
    pub fn remove(&self, digest: &Digest) -> Result<bool> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("remove blob", path)(error)),
        }
    }

    /// Every digest here.
    pub fn list(&self) -> Result<Vec<Digest>> {
        let mut digests = Vec::new();
        for algorithm in Algorithm::ALL {
            let directory = self.directory.join(algorithm.name());
            for entry in fs::read_dir(&directory).map_err(Error::io("list", &directory))? {
                let entry = entry.map_err(Error::io("list", &directory))?;
                // Names that are no digests are not ours.
                if let Some(Ok(digest)) = entry.file_name().to_str().map(|hex| Digest::from_hex(algorithm, hex)) {
                    digests.push(digest);
                }
            }
        }
        Ok(digests)
    }

    fn flush_directory(&self, digest: &Digest) -> Result<()> {
        let directory = self.directory.join(digest.algorithm().name());
        File::open(&directory).and_then(|file| file.sync_all()).map_err(Error::io("flush directory", directory))
    }
}

impl BlobWriter {
    /// Bytes so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// As `write_all`, of bytes that may be kept until they are hashed: so they need not be copied.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write_lent(&mut self, bytes: impl AsRef<[u8]> + Send + 'static) -> io::Result<()> {
        self.file.write_all(bytes.as_ref())?;
        self.written += bytes.as_ref().len() as u64;
        self.hasher.write_lent(bytes)
    }

    /// Flushes (with fsync when `durable`), verifies against `expected` when given, and renames into place.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`]; the bytes are dropped then. `expected` of another algorithm than the writer's is one.
    pub fn commit(self, expected: Option<&Digest>, durable: bool) -> Result<(Digest, u64)> {
        self.commit_with_marks(expected, durable).map(|(digest, size, _)| (digest, size))
    }

    /// As [`BlobWriter::commit`], with what a writer of [`Blobs::tar_writer`] knew on the way.
    pub(crate) fn commit_with_marks(
        self,
        expected: Option<&Digest>,
        durable: bool,
    ) -> Result<(Digest, u64, Vec<Mark>)> {
        let Self { blobs, file, hasher, written } = self;
        let (digest, marks) = hasher.finish_with_marks()?;
        if let Some(expected) = expected {
            verify("blob".to_owned(), expected, &digest)?;
        }
        let path = blobs.path(&digest);
        let file = file.finish().map_err(Error::io("write blob", &path))?;
        if blobs.size(&digest)? != Some(written) {
            if durable {
                file.as_file().sync_all().map_err(Error::io("flush blob", &path))?;
            }
            file.persist(&path).map_err(|error| Error::io("store blob", &path)(error.error))?;
        } else if durable {
            // Kept, but the one who wrote it may not have waited for the disk.
            File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io("flush blob", &path))?;
        }
        if durable {
            blobs.flush_directory(&digest)?;
        }
        Ok((digest, written, marks))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.write_all(&bytes[..count])?;
        self.written += count as u64;
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn verify(what: String, expected: &Digest, actual: &Digest) -> Result<()> {
    if expected == actual {
        return Ok(());
    }
    Err(Error::mismatch(what, expected, actual))
}

/// The digest and the length of a file from where it stands.
fn hash_file(mut file: File, algorithm: Algorithm) -> io::Result<(Digest, u64)> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((hasher.finish(), size)),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blobs() -> (tempfile::TempDir, Blobs) {
        let root = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&root.path().join("blobs"), &root.path().join("tmp")).unwrap();
        (root, blobs)
    }

    #[test]
    fn written_read_listed_removed() {
        let (root, blobs) = blobs();
        let mut writer = blobs.writer(Algorithm::Sha256).unwrap();
        writer.write_all(b"some ").unwrap();
        writer.write_all(b"bytes").unwrap();
        assert_eq!(writer.written(), 10);
        let (digest, size) = writer.commit(Some(&Digest::of(b"some bytes")), true).unwrap();
        assert_eq!((size, blobs.size(&digest).unwrap()), (10, Some(10)));
        assert_eq!(blobs.read(&digest, 10).unwrap(), b"some bytes");
        assert!(matches!(blobs.read(&digest, 9), Err(Error::TooLarge { size: 10, limit: 9, .. })));
        assert_eq!(blobs.put(b"some bytes").unwrap(), digest);
        assert_eq!(blobs.list().unwrap(), [digest]);
        assert!(blobs.remove(&digest).unwrap() && !blobs.remove(&digest).unwrap());
        assert!(blobs.get(&digest).unwrap().is_none());
        assert_eq!(fs::read_dir(root.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn wrong_bytes_never_get_in_and_damage_is_seen() {
        let (root, blobs) = blobs();
        let promised = Digest::of(b"promised");
        let mut writer = blobs.writer(Algorithm::Sha256).unwrap();
        writer.write_all(b"other").unwrap();
        assert!(matches!(writer.commit(Some(&promised), false), Err(Error::DigestMismatch { .. })));
        assert_eq!(blobs.size(&promised).unwrap(), None);
        drop(blobs.writer(Algorithm::Sha512).unwrap());
        assert_eq!(fs::read_dir(root.path().join("tmp")).unwrap().count(), 0);

        let digest = blobs.put(b"promised").unwrap();
        fs::write(blobs.path(&digest), b"promise!").unwrap();
        assert!(matches!(blobs.read(&digest, 100), Err(Error::DigestMismatch { .. })));
        assert!(!blobs.verify(&digest).unwrap());
        blobs.put(b"promised").unwrap();
        assert!(blobs.verify(&digest).unwrap());
    }

    #[test]
    fn an_upload_is_adopted_only_with_its_digest() {
        let (root, blobs) = blobs();
        let upload = root.path().join("tmp/upload");
        fs::write(&upload, b"upload").unwrap();
        assert!(blobs.adopt(&upload, &Digest::of(b"else"), false, true).is_err());
        assert!(upload.exists());
        assert_eq!(blobs.adopt(&upload, &Digest::of(b"upload"), false, true).unwrap(), 6);
        assert!(!upload.exists() && blobs.verify(&Digest::of(b"upload")).unwrap());
    }
}
