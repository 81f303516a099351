//! A stack of layers read as one file system, without mounting it: overlay's lookup rules in user space.
//! Nothing a layer contains (absolute or `..` symlinks) can lead outside the stack.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::{DiffId, Result, Store};

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
pub struct Snapshot {}

impl Snapshot {
    /// Opens the stack; every layer must be in the store.
    pub fn open(store: &Store, layers: &[DiffId]) -> Result<Self> {
        let _ = (store, layers);
        todo!()
    }
    /// The lowest-first layers.
    pub fn layers(&self) -> &[DiffId] {
        todo!()
    }
    /// The node at a path, following no symlink at all: a symlink among the parents gives `None`.
    pub fn lookup(&self, path: &Path) -> Result<Option<Node>> {
        let _ = path;
        todo!()
    }
    /// The real path of `path`: symlinks in the parents are followed inside the snapshot, the last one only when
    /// `follow_last`. Components that do not exist are kept as written (`..` is resolved), with `None`.
    ///
    /// # Errors
    /// A loop of symlinks; a parent that is not a directory.
    pub fn resolve(&self, path: &Path, follow_last: bool) -> Result<(PathBuf, Option<Node>)> {
        let _ = (path, follow_last);
        todo!()
    }
    /// The merged entries of a directory, sorted by name; whiteouts are gone.
    pub fn read_dir(&self, path: &Path) -> Result<Vec<(OsString, Node)>> {
        let _ = path;
        todo!()
    }
    /// Opens a regular file.
    pub fn open_file(&self, node: &Node) -> Result<File> {
        let _ = node;
        todo!()
    }
    /// The target of a symlink.
    pub fn read_link(&self, node: &Node) -> Result<PathBuf> {
        let _ = node;
        todo!()
    }
    /// Extended attributes worth keeping (overlay's own are not), sorted by name.
    pub fn xattrs(&self, node: &Node) -> Result<Vec<(OsString, Vec<u8>)>> {
        let _ = node;
        todo!()
    }
    /// The content of a small file, symlinks followed; `None` when there is none or it is longer than `limit`.
    pub fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
        let _ = (path, limit);
        todo!()
    }
    /// The layers' directories, topmost first: overlay's lower directories.
    pub fn lower_directories(&self) -> Vec<PathBuf> {
        todo!()
    }
}
