//! Walking the context on all processors: one directory is one piece of work. Its entries are looked at beside the open
//! directory, which costs half of a `stat` by the whole path.

use std::ffi::{CStr, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use kiln_grammar::ignore::IgnorePatterns;
use kiln_store::snapshot::{Kind, Node};
use rustix::fs::{AtFlags, FileType, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;

use super::Root;
use crate::{Error, Result};

/// Bytes of names that one call to the kernel may bring.
const LISTING: usize = 32 * 1024;

/// Everything below `directory` that is not ignored: every directory's entries by name, each with what is below it
/// right after it. A directory that is ignored itself is listed only when something below it is taken back in.
pub(super) fn walk(root: &Root, directory: &Path, patterns: &IgnorePatterns) -> Result<Vec<Node>> {
    let walk = Walk { root, patterns, state: Mutex::default(), wake: Condvar::new() };
    walk.lock().add(directory.to_path_buf());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| walk.work());
        }
        walk.work();
    });
    let State { directories, failure, .. } = walk.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = failure {
        return Err(error);
    }
    let mut nodes = in_order(directories);
    if !patterns.is_empty() {
        drop_bare_directories(&mut nodes, patterns);
    }
    Ok(nodes)
}

struct Walk<'a> {
    root: &'a Root,
    patterns: &'a IgnorePatterns,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// By number; empty until it was read.
    directories: Vec<Vec<Entry>>,
    /// Numbers and paths of directories that wait for a thread.
    open: Vec<(usize, PathBuf)>,
    /// Threads that are reading a directory, and may find more.
    busy: usize,
    failure: Option<Error>,
}

impl State {
    fn add(&mut self, path: PathBuf) -> usize {
        let number = self.directories.len();
        self.directories.push(Vec::new());
        self.open.push((number, path));
        number
    }
}

struct Entry {
    node: Node,
    /// Of a directory.
    number: Option<usize>,
}

impl Walk<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some((number, path)) = self.next() {
            let read = self.read(&path);
            let mut state = self.lock();
            state.busy -= 1;
            match read {
                Ok(mut entries) => {
                    for entry in &mut entries {
                        if entry.node.kind == Kind::Directory {
                            entry.number = Some(state.add(entry.node.path.clone()));
                        }
                    }
                    state.directories[number] = entries;
                }
                Err(error) => {
                    state.failure.get_or_insert(error);
                }
            }
            if !state.open.is_empty() || state.busy == 0 {
                self.wake.notify_all();
            }
        }
    }

    /// The next directory; `None` when all are read, or one could not be.
    fn next(&self) -> Option<(usize, PathBuf)> {
        let mut state = self.lock();
        loop {
            if state.failure.is_some() {
                return None;
            }
            if let Some(next) = state.open.pop() {
                state.busy += 1;
                return Some(next);
            }
            if state.busy == 0 {
                return None;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The entries of a directory that are not ignored, sorted by name. One that is gone meanwhile has none.
    fn read(&self, path: &Path) -> Result<Vec<Entry>> {
        let io = |error: Errno| Error::io("read directory of the build context", path, error);
        let flags = OFlags::DIRECTORY | OFlags::RDONLY;
        let directory = match self.root.open_at(path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            directory => directory.map_err(io)?,
        };
        let names = Names::read(&directory).map_err(io)?;
        let mut entries = Vec::with_capacity(names.len());
        let mut whole = path.as_os_str().as_bytes().to_vec();
        if !whole.is_empty() {
            whole.push(b'/');
        }
        let length = whole.len();
        for (name, kind) in names.sorted() {
            whole.truncate(length);
            whole.extend_from_slice(name.to_bytes());
            // What is ignored is not even looked at, where the listing tells what it is.
            if kind != FileType::Unknown && hides(self.patterns, &whole, kind == FileType::Directory) {
                continue;
            }
            if let Some(node) = self.look_at(&directory, name, &whole)? {
                entries.push(Entry { node, number: None });
            }
        }
        Ok(entries)
    }

    fn look_at(&self, directory: &OwnedFd, name: &CStr, path: &[u8]) -> Result<Option<Node>> {
        match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let node = node(path, &stat);
                Ok((!hides(self.patterns, path, node.kind == Kind::Directory)).then_some(node))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::io("look at", PathBuf::from(OsStr::from_bytes(path)), error)),
        }
    }
}

/// What one directory lists: names with their final NUL in one allocation, so that ordering them moves little.
struct Names {
    bytes: Vec<u8>,
    /// Where a name begins, its length with the NUL, and what it is.
    slots: Vec<(usize, usize, FileType)>,
}

impl Names {
    fn read(directory: &OwnedFd) -> rustix::io::Result<Self> {
        let mut names = Self { bytes: Vec::new(), slots: Vec::new() };
        let mut buffer = [MaybeUninit::uninit(); LISTING];
        let mut listing = RawDir::new(directory, &mut buffer);
        while let Some(entry) = listing.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes_with_nul();
            if !matches!(name, b".\0" | b"..\0") {
                names.slots.push((names.bytes.len(), name.len(), entry.file_type()));
                names.bytes.extend_from_slice(name);
            }
        }
        Ok(names)
    }

    fn len(&self) -> usize {
        self.slots.len()
    }

    fn sorted(&self) -> impl Iterator<Item = (&CStr, FileType)> {
        let name = |&(start, length, _): &(usize, usize, FileType)| &self.bytes[start..start + length];
        let mut slots: Vec<&(usize, usize, FileType)> = self.slots.iter().collect();
        slots.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        slots.into_iter().filter_map(move |slot| Some((CStr::from_bytes_with_nul(name(slot)).ok()?, slot.2)))
    }
}

/// Every directory's entries, each followed by what is below it.
fn in_order(mut directories: Vec<Vec<Entry>>) -> Vec<Node> {
    let mut nodes = Vec::with_capacity(directories.iter().map(Vec::len).sum());
    let mut open = vec![std::mem::take(&mut directories[0]).into_iter()];
    while let Some(entries) = open.last_mut() {
        let Some(Entry { node, number }) = entries.next() else {
            open.pop();
            continue;
        };
        nodes.push(node);
        if let Some(number) = number {
            open.push(std::mem::take(&mut directories[number]).into_iter());
        }
    }
    nodes
}

/// Whether patterns hide a path and all that could be below it.
pub(super) fn hides(patterns: &IgnorePatterns, path: &[u8], is_directory: bool) -> bool {
    if patterns.is_empty() || path.is_empty() {
        return false;
    }
    let path = String::from_utf8_lossy(path);
    patterns.is_ignored(&path) && !(is_directory && patterns.may_reinclude_below(&path))
}

/// Directories that were walked only for exceptions below them, and had none.
fn drop_bare_directories(nodes: &mut Vec<Node>, patterns: &IgnorePatterns) {
    let mut needed: std::collections::HashSet<PathBuf> = std::collections::HashSet::new();
    for node in nodes.iter().rev() {
        let taken = needed.contains(&node.path)
            || !(node.kind == Kind::Directory && patterns.is_ignored(&node.path.to_string_lossy()));
        if taken {
            needed.extend(node.path.parent().map(Path::to_path_buf));
        }
    }
    nodes.retain(|node| {
        node.kind != Kind::Directory
            || needed.contains(&node.path)
            || !patterns.is_ignored(&node.path.to_string_lossy())
    });
}

/// A node of the context: its files belong to root, whoever owns them on the host.
pub(super) fn node(path: &[u8], stat: &rustix::fs::Stat) -> Node {
    Node { uid: 0, gid: 0, ..Node::new(stat, path, 0) }
}
