//! What is read from files that change while the server runs: users, keys, certificates.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::error::{Error, chain};

type Read<T> = Box<dyn Fn() -> Result<T, Error> + Send + Sync>;

/// A value that was read from files, and is read again when they changed. What cannot be read changes nothing.
pub(crate) struct Reloaded<T> {
    files: Vec<PathBuf>,
    read: Read<T>,
    current: RwLock<Arc<T>>,
    stamp: Mutex<Vec<Option<Stamp>>>,
}

/// Tells one state of a file from another: inode, length, time of the last change in seconds and nanoseconds.
type Stamp = (u64, u64, i64, i64);

impl<T> Reloaded<T> {
    /// Reads it for the first time.
    pub(crate) fn open(
        files: Vec<PathBuf>,
        read: impl Fn() -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let stamp = Mutex::new(stamp(&files));
        let current = RwLock::new(Arc::new(read()?));
        Ok(Self { files, read: Box::new(read), current, stamp })
    }

    pub(crate) fn current(&self) -> Arc<T> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads it again if a file changed. Blocks.
    pub(crate) fn refresh(&self) {
        let mut known = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamp(&self.files);
        if *known == now {
            return;
        }
        *known = now;
        match (self.read)() {
            Ok(value) => {
                tracing::info!(files = ?self.files, "read again");
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "what was read before stays in force");
            }
        }
    }
}

impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloaded").field("files", &self.files).finish()
    }
}

fn stamp(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |metadata: fs::Metadata| (metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec());
    files.iter().map(|file| fs::metadata(file).ok().map(stamp)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("number");
        fs::write(&file, "1").unwrap();
        let path = file.clone();
        let read = move || {
            let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
            text.parse::<u32>().map_err(|error| Error::Config { place: "number".to_owned(), reason: error.to_string() })
        };
        let number = Reloaded::open(vec![file.clone()], read).unwrap();
        for (text, expected) in [("22", 22), ("not a number", 22), ("333", 333)] {
            fs::write(&file, text).unwrap();
            number.refresh();
            assert_eq!(*number.current(), expected);
        }
        fs::remove_file(&file).unwrap();
        number.refresh();
        assert_eq!(*number.current(), 333);
    }
}
