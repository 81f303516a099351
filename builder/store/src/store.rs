//! The root directory: `blobs/ layers/ containers/ cache/ volumes/ tmp/ metadata.db lock`.

use std::collections::HashSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock};

use crate::metadata::Database;
use crate::temporary::Temporary;
use crate::{Blobs, DiffId, Error, Result};

/// An open store. Holds the shared lock for as long as it lives; `Sync`, so threads share one.
pub struct Store {
    root: PathBuf,
    privilege: Privilege,
    blobs: Blobs,
    pub(crate) database: Database,
    pub(crate) temporary: Arc<Temporary>,
    /// Stagings of this process that are alive; garbage is not collected under them.
    pub(crate) stagings: Arc<AtomicUsize>,
    /// Changes with every boot of the machine.
    pub(crate) boot: String,
    /// Layers that this process asked for: it may need them as long as it lives.
    pub(crate) pins: Mutex<HashSet<DiffId>>,
    /// One conversion of the lock at a time.
    pub(crate) converting: Mutex<()>,
    /// Last, so that it is released last.
    pub(crate) lock: OwnedFd,
}

/// Which namespace overlay reads its attributes from, and whether ids can be given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// Real root: `trusted.overlay.*`.
    Root,
    /// Root of a user namespace with a range of ids: `user.overlay.*`.
    Mapped,
    /// Root of a user namespace with one id: `user.overlay.*`, ownership is not kept.
    Single,
}

impl Store {
    /// Opens the store, creating it when it is not there, and clears what dead processes left in `tmp/`.
    /// Waits while another process collects garbage.
    pub fn open(root: &Path, privilege: Privilege) -> Result<Self> {
        make_private(root)?;
        for name in ["layers", "tmp"] {
            make_directory(&root.join(name))?;
        }
        let root = root.canonicalize().map_err(Error::io("find", root))?;
        let lock_path = root.join("lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = rustix::fs::openat(CWD, &lock_path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(Error::io("open lock", &lock_path))?;
        rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::LockShared))
            .map_err(Error::io("lock", &lock_path))?;
        let temporary = Arc::new(Temporary::create(&root.join("tmp"))?);
        let blobs = Blobs::open(&root.join("blobs"), temporary.path())?;
        let database = Database::open(&root.join("metadata.db"))?;
        let boot_path = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = fs::read_to_string(boot_path).map_err(Error::io("read", boot_path))?.trim().to_owned();
        Ok(Self {
            root,
            privilege,
            blobs,
            database,
            temporary,
            stagings: Arc::default(),
            boot,
            pins: Mutex::default(),
            converting: Mutex::new(()),
            lock,
        })
    }

    /// The root directory, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What this process may do.
    pub fn privilege(&self) -> Privilege {
        self.privilege
    }

    /// The blobs.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// A directory of the store that others own: `containers`, `cache`, `volumes`; created when missing.
    pub fn directory(&self, name: &'static str) -> Result<PathBuf> {
        let path = self.root.join(name);
        make_directory(&path)?;
        Ok(path)
    }

    /// Keeps a layer from being pruned as long as this store is open.
    pub(crate) fn pin(&self, diff_id: &DiffId) {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner).insert(*diff_id);
    }

    pub(crate) fn is_pinned(&self, diff_id: &DiffId) -> bool {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner).contains(diff_id)
    }

    /// Removes a tree of the store's own file system, all of it or nothing in anybody's sight.
    pub fn discard(&self, path: &Path) -> Result<()> {
        if let Some(away) = self.take_away(path)? {
            self.temporary.remove(&away);
        }
        Ok(())
    }

    /// Makes everything that was written so far survive a power loss.
    pub fn settle(&self) -> Result<()> {
        // Only what was recorded before the flush is covered by it.
        let mark = self.unsettled_mark()?;
        rustix::fs::syncfs(&self.lock).map_err(Error::io("flush the file system of", &self.root))?;
        match mark {
            Some(mark) => self.mark_settled(mark),
            None => Ok(()),
        }
    }
}

/// Layers hold other people's setuid programs, and whatever is secret in an image: nobody else may come near them.
/// A root directory that is there already is as its owner wants it.
pub(crate) fn make_private(root: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if root.is_dir() {
        return Ok(());
    }
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(root);
    made.map_err(Error::io("create directory", root))
}

fn make_directory(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(Error::io("create directory", path))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What the machine lets this process be: the tests run as root, as root of a user namespace, and as anybody.
    pub(crate) fn privilege() -> Privilege {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap();
        let ids = map.split_whitespace().nth(2).unwrap();
        match (rustix::process::geteuid().is_root(), ids) {
            (true, "4294967295") => Privilege::Root,
            (true, count) if count != "1" || map.lines().count() > 1 => Privilege::Mapped,
            _ => Privilege::Single,
        }
    }

    #[test]
    fn opened_twice_at_once_and_again() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("new/store");
        let first = Store::open(&path, privilege()).unwrap();
        let second = Store::open(&path, privilege()).unwrap();
        assert!(first.root().is_absolute() && second.directory("containers").unwrap().is_dir());
        first.settle().unwrap();
        drop((first, second));
        Store::open(&path, privilege()).unwrap();
        assert_eq!(fs::read_dir(path.join("tmp")).unwrap().count(), 1);
    }
}
