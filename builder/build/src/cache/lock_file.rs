//! Lock files that come and go: whoever holds one may remove it, and nobody is left with a lock that others cannot see.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// Locks the file at `path`, which is made when it is missing; `None` when it does not wait and somebody has it.
///
/// # Errors
/// The file cannot be opened; `NotFound` when its directory is not there.
pub(crate) fn lock(path: &Path, operation: FlockOperation) -> io::Result<Option<File>> {
    loop {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match rustix::io::retry_on_intr(|| flock(&file, operation)) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // Its last holder may have removed it while we waited.
        let ours = file.metadata()?;
        match std::fs::metadata(path) {
            Ok(there) if (there.ino(), there.dev()) == (ours.ino(), ours.dev()) => return Ok(Some(file)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

/// A lock that is removed with its file.
pub(crate) struct Held<'a> {
    path: &'a Path,
    _file: File,
}

impl<'a> Held<'a> {
    pub(crate) fn new(path: &'a Path, file: File) -> Self {
        Self { path, _file: file }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Still held: whoever waits for it sees that it is gone, and makes a new one.
        let _ = std::fs::remove_file(self.path);
    }
}
