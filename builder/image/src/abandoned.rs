//! What killed processes left beside the places of others: a file or directory is somebody's as long as it is locked.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

/// How often another one is made when somebody took it for abandoned.
const ATTEMPTS: usize = 16;

/// The entries of a directory whose names begin so.
pub(crate) fn named(directory: &Path, prefix: &'static str) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let named = entries.filter(move |entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()));
    named.map(|entry| entry.path())
}

/// The file or directory with the lock on it, if it is ours and nobody else has it.
pub(crate) fn lock(path: &Path, flags: OFlags) -> Option<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    let metadata = file.metadata().ok()?;
    // It may have been removed before it was locked.
    let there = path.symlink_metadata().is_ok_and(|there| there.ino() == metadata.ino());
    (there && metadata.uid() == rustix::process::geteuid().as_raw()).then_some(file)
}

/// What `make` makes and locks; it is asked again when somebody was faster to lock it.
pub(crate) fn make<T>(make: impl Fn() -> io::Result<Option<T>>) -> io::Result<T> {
    for _ in 0..ATTEMPTS {
        if let Some(made) = make()? {
            return Ok(made);
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}
