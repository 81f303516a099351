//! Unfinished copies: a directory beside what it becomes. Its process holds a lock on it; when that process was killed,
//! the next copy to the same place removes it.

use std::fs::File;
use std::path::Path;

use rustix::fs::OFlags;

use crate::{Error, Result, abandoned};

/// What their names begin with.
pub(super) const PREFIX: &str = ".kiln-copy-";

/// A directory that is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    directory: tempfile::TempDir,
    _lock: File,
}

impl Scratch {
    /// On the file system of what is made in `place`.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn within(place: &Path) -> Result<Self> {
        clear(place);
        let made = abandoned::make(|| {
            let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(place)?;
            let lock = abandoned::lock(made.path(), OFlags::DIRECTORY);
            Ok(lock.map(|lock| Self { directory: made, _lock: lock }))
        });
        made.map_err(Error::io("create a temporary directory in", place))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes what killed copies of ours left.
pub(super) fn clear(place: &Path) {
    for path in abandoned::named(place, PREFIX) {
        let Some(_lock) = abandoned::lock(&path, OFlags::DIRECTORY) else { continue };
        if let Err(error) = std::fs::remove_dir_all(&path) {
            tracing::debug!(%error, "remove {}", path.display());
        }
    }
}
