//! Unfinished copies: a directory beside what it becomes. Its process holds a lock on it; when that process was killed,
//! the next copy to the same place removes it.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use crate::{Error, Result};

/// What their names begin with.
pub(super) const PREFIX: &str = ".kiln-copy-";
/// How often another one is made when somebody took it for one of the dead.
const ATTEMPTS: usize = 16;

/// A directory that is removed when it is dropped.
#[derive(Debug)]
pub struct Scratch {
    directory: tempfile::TempDir,
    _lock: File,
}

impl Scratch {
    /// On the file system of what is made in `place`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn within(place: &Path) -> Result<Self> {
        clear(place);
        let failed = || Error::io("create a temporary directory in", place);
        for _ in 0..ATTEMPTS {
            let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(place).map_err(failed())?;
            if let Some(lock) = locked(made.path()) {
                return Ok(Self { directory: made, _lock: lock });
            }
        }
        Err(failed()(std::io::ErrorKind::ResourceBusy.into()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes what killed copies of ours left.
pub(super) fn clear(place: &Path) {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())) {
        let path = entry.path();
        let Some(lock) = locked(&path) else { continue };
        let own = lock.metadata().is_ok_and(|metadata| metadata.uid() == rustix::process::geteuid().as_raw());
        if own && let Err(error) = std::fs::remove_dir_all(&path) {
            tracing::debug!(%error, "remove {}", path.display());
        }
    }
}

/// The directory, if nobody else has it.
fn locked(path: &Path) -> Option<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    flock(&directory, FlockOperation::NonBlockingLockExclusive).ok()?;
    // It may have been removed before it was locked.
    (directory.metadata().ok()?.ino() == path.symlink_metadata().ok()?.ino()).then_some(directory)
}
