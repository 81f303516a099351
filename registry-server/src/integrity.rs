//! Which blobs' files were read whole and found to be what their names say. A file is hashed the first time it is
//! served, and again when it has changed or some time has gone by; until then its reads cost nothing extra.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_store::Digest;
use kiln_store::digest::Hasher;

/// How long a finding holds: disks also rot without telling.
const VALIDITY: Duration = Duration::from_secs(60 * 60);
/// Findings that are kept, some 4 MiB of them.
const MOST: usize = 32_768;
/// Bytes that are read at once.
const READ: usize = 256 << 10;

/// The findings.
#[derive(Debug, Default)]
pub(crate) struct Integrity(Mutex<HashMap<Digest, (FileIdentity, Instant)>>);

/// One state of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl FileIdentity {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// In bytes.
    pub(crate) fn size(self) -> u64 {
        self.size
    }
}

impl Integrity {
    /// Whether this very file was found whole not long ago.
    pub(crate) fn is_known(&self, digest: &Digest, file: FileIdentity) -> bool {
        self.findings().get(digest).is_some_and(|(known, at)| *known == file && at.elapsed() < VALIDITY)
    }

    pub(crate) fn note(&self, digest: &Digest, file: FileIdentity) {
        let mut findings = self.findings();
        if findings.len() >= MOST {
            findings.clear();
        }
        findings.insert(*digest, (file, Instant::now()));
    }

    pub(crate) fn forget(&self, digest: &Digest) {
        self.findings().remove(digest);
    }

    fn findings(&self) -> MutexGuard<'_, HashMap<Digest, (FileIdentity, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the whole file has this digest. Blocks.
pub(crate) fn is_whole(file: &File, digest: &Digest) -> io::Result<bool> {
    let mut hasher = Hasher::new(digest.algorithm());
    let mut buffer = vec![0; READ];
    let mut offset = 0;
    loop {
        match file.read_at(&mut buffer, offset) {
            Ok(0) => return Ok(hasher.finish() == *digest),
            Ok(count) => {
                hasher.update(buffer.get(..count).unwrap_or_default());
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_holds_for_one_state_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blob");
        let digest = Digest::of(b"whole");
        std::fs::write(&path, b"whole").unwrap();
        let identity = || FileIdentity::of(&std::fs::metadata(&path).unwrap());
        let integrity = Integrity::default();
        assert!(is_whole(&File::open(&path).unwrap(), &digest).unwrap());
        integrity.note(&digest, identity());
        assert!(integrity.is_known(&digest, identity()));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"whale").unwrap();
        assert!(!integrity.is_known(&digest, identity()));
        assert!(!is_whole(&File::open(&path).unwrap(), &digest).unwrap());
    }
}
