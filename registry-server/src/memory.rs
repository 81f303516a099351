//! A registry in memory: its directory is in the memory file system, and goes with the process.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::Error;

/// Where POSIX shared memory lives on every Linux.
const PLACE: &str = "/dev/shm";
const PREFIX: &str = "kiln-registry-";
const LOCK: &str = "in-use";
/// What `statfs` says of a memory file system.
pub(crate) const TMPFS: u64 = 0x0102_1994;

/// A directory in memory; removed when this is dropped, or by the next one when the process was killed.
#[derive(Debug)]
pub struct MemoryDirectory {
    path: PathBuf,
    /// Held for as long as the directory is used.
    _lock: File,
}

impl MemoryDirectory {
    /// Makes one, and removes those of this user that nobody uses any more.
    ///
    /// # Errors
    /// There is no memory file system, or it cannot be written.
    pub fn create() -> Result<Self, Error> {
        let place = Path::new(PLACE);
        let failed = || Error::io("use the memory file system", place);
        let kind = rustix::fs::statfs(place).map_err(|error| failed()(error.into()))?.f_type;
        if u64::try_from(kind).ok() != Some(TMPFS) {
            return Err(failed()(io::Error::other("it is none")));
        }
        // Nobody takes a directory for abandoned that is only about to be locked.
        let turn = File::open(place).map_err(failed())?;
        rustix::io::retry_on_intr(|| flock(&turn, FlockOperation::LockExclusive)).map_err(|e| failed()(e.into()))?;
        remove_abandoned(place);
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| failed()(io::Error::other(error)))?;
        let path = place.join(format!("{PREFIX}{:016x}", u64::from_le_bytes(random)));
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(Error::io("create", &path))?;
        let lock = File::create(path.join(LOCK)).map_err(Error::io("create", &path))?;
        rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive)).map_err(|e| failed()(e.into()))?;
        Ok(Self { path, _lock: lock })
    }

    /// Where a registry can have its data.
    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }
}

impl Drop for MemoryDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, "remove {}", self.path.display());
        }
    }
}

fn remove_abandoned(place: &Path) {
    let own = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let path = entry.path();
        let ours = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
            && fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == own);
        if !ours {
            continue;
        }
        let lock = File::open(path.join(LOCK));
        if lock.is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok())
            && let Err(error) = fs::remove_dir_all(&path)
        {
            tracing::warn!(%error, "remove {}", path.display());
        }
    }
}
