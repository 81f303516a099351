//! `tmp/`: one directory for each process, locked for as long as the process lives, so that the next one can tell
//! what is left over.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use crate::directory::{self, Listing};
use crate::{Error, Result};

/// Guards the moment between making a process's directory and locking it.
const GATE: &str = ".lock";

/// This process's directory in `tmp/`, removed when dropped.
#[derive(Debug)]
pub(crate) struct Temporary {
    path: PathBuf,
    parent: OwnedFd,
    /// Open, with the lock on it.
    directory: OwnedFd,
    next: AtomicU64,
}

impl Temporary {
    /// Makes and locks a directory in `tmp`, and removes those whose process is gone.
    pub(crate) fn create(tmp: &Path) -> Result<Self> {
        let parent = directory::open(CWD, tmp).map_err(Error::io("open", tmp))?;
        let gate = open_gate(&parent, tmp)?;
        let lock = |operation| rustix::io::retry_on_intr(|| flock(&gate, operation));
        lock(FlockOperation::LockExclusive).map_err(Error::io("lock", tmp))?;
        let prefix = format!("{}-", crate::metadata::now());
        let made = tempfile::Builder::new().prefix(&prefix).rand_bytes(16).tempdir_in(tmp);
        let path = made.map_err(Error::io("create a directory in", tmp))?.keep();
        let opened = directory::open(CWD, &path).map_err(Error::io("open", &path))?;
        flock(&opened, FlockOperation::NonBlockingLockExclusive).map_err(Error::io("lock", &path))?;
        let temporary = Self { path, parent, directory: opened, next: AtomicU64::new(0) };
        let stale = temporary.take_stale(tmp)?;
        lock(FlockOperation::Unlock).map_err(Error::io("unlock", tmp))?;
        for name in stale {
            // What cannot be removed (another user's ids) must not keep anybody from working.
            if let Err(error) = directory::remove_tree(temporary.directory.as_fd(), name.as_bytes()) {
                tracing::debug!(%error, "left over in {}", temporary.path.display());
            }
        }
        Ok(temporary)
    }

    /// Moves what dead processes left into our directory. Called with the gate locked.
    fn take_stale(&self, tmp: &Path) -> Result<Vec<String>> {
        // A directory reads from where its descriptor stands: list through a fresh one.
        let listing =
            directory::open(CWD, tmp).and_then(|fd| Listing::read(fd.as_fd())).map_err(Error::io("list", tmp))?;
        let own = self.path.file_name().unwrap_or_default().as_bytes();
        let mut stale = Vec::new();
        for (name, _) in listing.iter().filter(|(name, _)| *name != own && *name != GATE.as_bytes()) {
            let abandoned = match directory::open(&self.parent, name) {
                Ok(fd) if flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok() => {
                    // A directory that may not be written may not be moved either. Others' cannot be helped.
                    let _ = rustix::fs::fchmod(&fd, Mode::RWXU);
                    true
                }
                Err(Errno::NOTDIR | Errno::LOOP) => true,
                _ => false,
            };
            let to = format!("stale-{}", stale.len());
            if abandoned && rustix::fs::renameat(&self.parent, name, &self.directory, to.as_str()).is_ok() {
                stale.push(to);
            }
        }
        Ok(stale)
    }

    /// When the oldest of the other processes that use the store opened it, seconds since 1970. No other process can
    /// open it as long as the guard lives.
    pub(crate) fn oldest_other(&self) -> Result<(Option<i64>, OwnedFd)> {
        let tmp = self.path.parent().unwrap_or(Path::new("/"));
        let gate = open_gate(&self.parent, tmp)?;
        rustix::io::retry_on_intr(|| flock(&gate, FlockOperation::LockExclusive)).map_err(Error::io("lock", tmp))?;
        let listing =
            directory::open(CWD, tmp).and_then(|fd| Listing::read(fd.as_fd())).map_err(Error::io("list", tmp))?;
        let own = self.path.file_name().unwrap_or_default().as_bytes();
        let mut oldest: Option<i64> = None;
        for (name, _) in listing.iter().filter(|(name, _)| *name != own && *name != GATE.as_bytes()) {
            let Ok(directory) = directory::open(&self.parent, name) else { continue };
            let alive = flock(&directory, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK);
            let start = name.split(|byte| *byte == b'-').next().and_then(|start| std::str::from_utf8(start).ok());
            // One whose name says nothing may be as old as time.
            let start = start.and_then(|start| start.parse().ok()).unwrap_or(0);
            if alive && oldest.is_none_or(|oldest| start < oldest) {
                oldest = Some(start);
            }
        }
        Ok((oldest, gate))
    }

    /// Nothing is pruned as long as the guard lives.
    pub(crate) fn keep_pruners_out(&self) -> Result<OwnedFd> {
        let tmp = self.path.parent().unwrap_or(Path::new("/"));
        let gate = open_gate(&self.parent, tmp)?;
        rustix::io::retry_on_intr(|| flock(&gate, FlockOperation::LockShared)).map_err(Error::io("lock", tmp))?;
        Ok(gate)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory with a new name.
    pub(crate) fn directory(&self) -> Result<PathBuf> {
        let path = self.unused();
        std::fs::create_dir(&path).map_err(Error::io("create directory", &path))?;
        Ok(path)
    }

    /// A path that nothing has.
    pub(crate) fn unused(&self) -> PathBuf {
        self.path.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Removes one of this process's trees.
    pub(crate) fn remove(&self, path: &Path) {
        let name = path.file_name().unwrap_or_default();
        if let Err(error) = directory::remove_tree(self.directory.as_fd(), name.as_bytes()) {
            // The next process to open the store tries again.
            tracing::debug!(%error, "could not remove {}", path.display());
        }
    }
}

fn open_gate(parent: &OwnedFd, tmp: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(parent, GATE, flags, Mode::RUSR | Mode::WUSR).map_err(Error::io("open lock in", tmp))
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let name = self.path.file_name().unwrap_or_default();
        if let Err(error) = directory::remove_tree(self.parent.as_fd(), name.as_bytes()) {
            tracing::debug!(%error, "could not remove {}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_dead_are_cleared_and_the_living_left_alone() {
        let tmp = tempfile::tempdir().unwrap();
        let living = Temporary::create(tmp.path()).unwrap();
        fs::write(living.path().join("work"), "x").unwrap();
        fs::create_dir_all(tmp.path().join("dead/a/b")).unwrap();
        fs::set_permissions(tmp.path().join("dead/a"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(tmp.path().join("dead"), fs::Permissions::from_mode(0o500)).unwrap();
        let second = Temporary::create(tmp.path()).unwrap();
        assert!(living.path().join("work").exists());
        assert!(!tmp.path().join("dead").exists());
        assert_eq!(fs::read_dir(second.path()).unwrap().count(), 0);
        drop((living, second));
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 1);
    }
}
