//! A layer under construction.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{CWD, Mode};

use crate::temporary::Temporary;
use crate::{Error, Result, Store};

/// A directory under construction, on the store's file system, removed when dropped.
/// `upper()` is what becomes the layer; `work()` is overlay's work directory beside it.
pub struct Staging {
    directory: PathBuf,
    upper: PathBuf,
    work: PathBuf,
    temporary: Arc<Temporary>,
    alive: Arc<AtomicUsize>,
}

impl Staging {
    /// The directory that becomes the layer.
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// Overlay's work directory.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Any other scratch path beside them, created as a directory. `name` is one component.
    pub fn scratch(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.join(format!("scratch-{name}"));
        std::fs::create_dir_all(&path).map_err(Error::io("create directory", &path))?;
        Ok(path)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.temporary.remove(&self.directory);
        self.alive.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Store {
    /// A new staging directory.
    pub fn stage(&self) -> Result<Staging> {
        let directory = self.temporary.directory()?;
        self.stagings.fetch_add(1, Ordering::AcqRel);
        let staging = Staging {
            upper: directory.join("upper"),
            work: directory.join("work"),
            directory,
            temporary: Arc::clone(&self.temporary),
            alive: Arc::clone(&self.stagings),
        };
        for path in [&staging.upper, &staging.work] {
            let mode = Mode::from_raw_mode(0o755);
            rustix::fs::mkdir(path, mode).map_err(Error::io("create directory", path))?;
            // The umask has no say: this is the mode of the root directory in the container.
            rustix::fs::chmodat(CWD, path, mode, rustix::fs::AtFlags::empty())
                .map_err(Error::io("set the mode of", path))?;
        }
        Ok(staging)
    }
}
