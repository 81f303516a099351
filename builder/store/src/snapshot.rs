//! A stack of layers read as one file system, without mounting it: overlay's lookup rules in user space.
//! Nothing a layer contains (absolute or `..` symlinks) can lead outside the stack.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::archive::writer::times;
use crate::attributes::{Attributes, Target};
use crate::path::{normal, split};
use crate::store::Privilege;
use crate::{DiffId, Error, Result, Store};

mod copy;
mod directories;
mod resolve;

/// What kind of file a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Kind {
    File,
    Directory,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
}

impl Kind {
    /// What `stat` says a file is.
    pub fn of(stat: &Stat) -> Self {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::CharacterDevice => Self::CharDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::RegularFile | FileType::Unknown => Self::File,
        }
    }
}

/// One file of a snapshot.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its kind.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes, of a file.
    pub size: u64,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Time of the inode's last change on the host: seconds and nanoseconds since 1970.
    pub ctime: (i64, u32),
    /// Device number of a device node.
    pub rdev: u64,
    /// Inode and device on the host: equal for hard links.
    pub inode: (u64, u64),
    /// Number of links on the host.
    pub links: u64,
    /// Path in the snapshot, relative, without symlinks in its parents.
    pub path: PathBuf,
    /// The layer that holds it (0 is the lowest).
    pub layer: usize,
}

/// A stack of layers, lowest first.
#[derive(Debug)]
pub struct Snapshot {
    layers: Vec<DiffId>,
    /// Paths and descriptors of their directories, likewise.
    roots: Vec<(PathBuf, OwnedFd)>,
    privilege: Privilege,
    /// For every directory looked into: the layers that show in it, topmost first.
    directories: Mutex<HashMap<Vec<u8>, Arc<[usize]>>>,
}

impl Snapshot {
    /// Opens the stack; every layer must be in the store.
    ///
    /// # Errors
    /// [`Error::LayerMissing`].
    pub fn open(store: &Store, layers: &[DiffId]) -> Result<Self> {
        let mut roots = Vec::with_capacity(layers.len());
        for diff_id in layers {
            let path = store.unpacked(diff_id)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(CWD, &path, flags, Mode::empty()).map_err(Error::io("open layer", &path))?;
            roots.push((path, fd));
        }
        Ok(Self { layers: layers.to_vec(), roots, privilege: store.privilege(), directories: Mutex::default() })
    }

    /// The lowest-first layers.
    pub fn layers(&self) -> &[DiffId] {
        &self.layers
    }

    /// The node at a path, following no symlink at all: a symlink among the parents gives `None`.
    pub fn lookup(&self, path: &Path) -> Result<Option<Node>> {
        self.find(&normal(path.as_os_str().as_bytes()))
    }

    /// The real path of `path`: symlinks in the parents are followed inside the snapshot, the last one only when
    /// `follow_last`. Components that do not exist are kept as written (`..` is resolved), with `None`.
    ///
    /// # Errors
    /// A loop of symlinks; a parent that is not a directory.
    pub fn resolve(&self, path: &Path, follow_last: bool) -> Result<(PathBuf, Option<Node>)> {
        resolve::resolve(self, path, follow_last)
    }

    /// The merged entries of a directory, sorted by name; whiteouts are gone. Nothing when it is not a directory.
    pub fn read_dir(&self, path: &Path) -> Result<Vec<(OsString, Node)>> {
        self.merged_entries(&normal(path.as_os_str().as_bytes()))
    }

    /// Opens a regular file.
    pub fn open_file(&self, node: &Node) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = self.open_node(node.path.as_os_str().as_bytes(), node.layer, flags);
        let file = File::from(file.map_err(Error::io("open", &node.path))?);
        let stat = rustix::fs::fstat(&file).map_err(Error::io("examine", &node.path))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::io("open", &node.path)(Errno::INVAL));
        }
        Ok(file)
    }

    /// The target of a symlink.
    pub fn read_link(&self, node: &Node) -> Result<PathBuf> {
        let path = node.path.as_os_str().as_bytes();
        let target =
            self.in_directory(path, node.layer, |directory, name| rustix::fs::readlinkat(directory, name, Vec::new()));
        let target = target.map_err(Error::io("read link", &node.path))?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// Extended attributes worth keeping (overlay's own are not), sorted by name.
    pub fn xattrs(&self, node: &Node) -> Result<Vec<(OsString, Vec<u8>)>> {
        if self.roots.is_empty() {
            return Ok(Vec::new());
        }
        let path = node.path.as_os_str().as_bytes();
        let attributes = if path.is_empty() {
            let root = self.roots.get(node.layer).ok_or(Errno::NOENT);
            root.and_then(|(_, root)| Target::Open(root.as_fd()).read())
        } else {
            self.in_directory(path, node.layer, |directory, name| Target::At(directory.as_fd(), name).read())
        };
        Ok(named(attributes.map_err(Error::io("read the attributes of", &node.path))?))
    }

    /// Those of a file that is open.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn xattrs_of(&self, node: &Node, file: &File) -> Result<Vec<(OsString, Vec<u8>)>> {
        Ok(named(Target::Open(file.as_fd()).read().map_err(Error::io("read the attributes of", &node.path))?))
    }

    /// The content of a small file, symlinks followed; `None` when there is none or it is longer than `limit`.
    pub fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
        let (path, node) = match self.resolve(path, true) {
            Err(Error::NotADirectory(_)) => return Ok(None),
            resolved => resolved?,
        };
        let Some(node) = node.filter(|node| node.kind == Kind::File && node.size <= limit) else { return Ok(None) };
        let mut bytes = Vec::new();
        let file = self.open_file(&node)?;
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
        Ok((bytes.len() as u64 <= limit).then_some(bytes))
    }

    /// The layers' directories, topmost first: overlay's lower directories. A layer whose root is opaque ends them,
    /// which overlay itself would not see. A layer that comes twice is there once, where it is uppermost: it hides all
    /// that it brought below, and overlay refuses the same directory twice.
    pub fn lower_directories(&self) -> Vec<PathBuf> {
        // The root's stack cannot fail to be read where the layers could be opened; all of them are right then, too.
        let shown = self.directory(b"").ok().flatten();
        let all = || (0..self.roots.len()).rev().collect();
        let shown = shown.unwrap_or_else(all);
        let mut directories = Vec::new();
        for (path, _) in shown.iter().filter_map(|layer| self.roots.get(*layer)) {
            if !directories.contains(path) {
                directories.push(path.clone());
            }
        }
        directories
    }

    /// Opens what a layer holds at a path, by real directories only.
    fn open_node(&self, path: &[u8], layer: usize, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let (_, root) = self.roots.get(layer).ok_or(Errno::NOENT)?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let path = if path.is_empty() { b"." } else { path };
        rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
    }

    /// Calls `act` with the directory that holds the last component of `path`, and that component.
    fn in_directory<T>(
        &self,
        path: &[u8],
        layer: usize,
        act: impl FnOnce(&OwnedFd, &[u8]) -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        let (parent, name) = split(path);
        let directory = self.open_node(parent, layer, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
        act(&directory, name)
    }
}

impl Node {
    /// What `stat` says of the file at a path of a snapshot.
    pub fn new(stat: &Stat, path: &[u8], layer: usize) -> Self {
        Self {
            kind: Kind::of(stat),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: times(stat),
            ctime: changed(stat),
            rdev: stat.st_rdev,
            inode: (stat.st_ino, stat.st_dev),
            links: stat.st_nlink,
            path: PathBuf::from(OsStr::from_bytes(path)),
            layer,
        }
    }

    /// The root directory of a stack without layers.
    fn empty_root() -> Self {
        Self {
            kind: Kind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            ctime: (0, 0),
            rdev: 0,
            inode: (0, 0),
            links: 1,
            path: PathBuf::new(),
            layer: 0,
        }
    }
}

fn named(attributes: Attributes) -> Vec<(OsString, Vec<u8>)> {
    attributes.into_iter().map(|(name, value)| (OsString::from_vec(name), value)).collect()
}

fn changed(stat: &Stat) -> (i64, u32) {
    (stat.st_ctime, u32::try_from(stat.st_ctime_nsec).unwrap_or(0))
}

fn stat_in(directory: impl AsFd, name: &[u8]) -> rustix::io::Result<Option<Stat>> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        // A name that is too long for the file system is not there.
        Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(None),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests;
