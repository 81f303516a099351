//! Walking the context on all processors.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ignore::{DirEntry, WalkBuilder, WalkState};
use kiln_grammar::ignore::IgnorePatterns;
use kiln_store::snapshot::{Kind, Node};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::{Error, Result};

/// Everything below `directory` that is not ignored, sorted by path. A directory that is ignored itself is listed only
/// when something below it is taken back in.
pub(super) fn walk(root: &Path, directory: &Path, patterns: &Arc<IgnorePatterns>) -> Result<Vec<Node>> {
    let start = if directory.as_os_str().is_empty() { root.to_path_buf() } else { root.join(directory) };
    let found = Mutex::new(Vec::new());
    let failed = Mutex::new(None);
    let prune = {
        let (root, patterns) = (root.to_path_buf(), Arc::clone(patterns));
        move |entry: &DirEntry| keeps(&root, &patterns, entry)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let walker = WalkBuilder::new(&start).standard_filters(false).threads(threads).filter_entry(prune).build_parallel();
    walker.run(|| {
        let mut reader = Reader { root, current: None };
        let mut batch = Batch { into: &found, nodes: Vec::new() };
        let failed = &failed;
        Box::new(move |entry| match entry.map_err(into_error).and_then(|entry| reader.read(&entry)) {
            Ok(Some(node)) if node.path != directory => {
                batch.nodes.push(node);
                WalkState::Continue
            }
            Ok(_) => WalkState::Continue,
            Err(error) => {
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                WalkState::Quit
            }
        })
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut nodes = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    // Each thread's batch is a sorted run: a stable sort only has to merge them.
    nodes.sort_by(by_path);
    if !patterns.is_empty() {
        drop_bare_directories(&mut nodes, patterns);
    }
    Ok(nodes)
}

/// What one thread found; handed over once, when the thread ends.
struct Batch<'a> {
    into: &'a Mutex<Vec<Node>>,
    nodes: Vec<Node>,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.nodes.sort_unstable_by(by_path);
        self.into.lock().unwrap_or_else(PoisonError::into_inner).append(&mut self.nodes);
    }
}

fn by_path(a: &Node, b: &Node) -> Ordering {
    a.path.as_os_str().cmp(b.path.as_os_str())
}

fn keeps(root: &Path, patterns: &IgnorePatterns, entry: &DirEntry) -> bool {
    if patterns.is_empty() {
        return true;
    }
    let Ok(path) = entry.path().strip_prefix(root) else { return false };
    let path = path.to_string_lossy();
    if path.is_empty() || !patterns.is_ignored(&path) {
        return true;
    }
    entry.file_type().is_some_and(|kind| kind.is_dir()) && patterns.may_reinclude_below(&path)
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

/// Looks at files by the directory they are in: entries of one directory come one after the other, and a `stat` beside
/// an open directory costs half of one by the whole path.
struct Reader<'a> {
    root: &'a Path,
    current: Option<(PathBuf, OwnedFd)>,
}

impl Reader<'_> {
    fn read(&mut self, entry: &DirEntry) -> Result<Option<Node>> {
        let whole = entry.path();
        let path = below(self.root, whole);
        let io = |error: Errno| Error::io("look at", &path, error);
        let (Some(parent), Some(name), false) = (whole.parent(), whole.file_name(), path.as_os_str().is_empty()) else {
            return Ok(None);
        };
        if self.current.as_ref().is_none_or(|(current, _)| current != parent) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::open(parent, flags, Mode::empty()) {
                Ok(directory) => self.current = Some((parent.to_path_buf(), directory)),
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(io(error)),
            }
        }
        let Some((_, directory)) = &self.current else { return Ok(None) };
        match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(node(&path, &stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(io(error)),
        }
    }
}

/// The rest of a path that begins with the root. By bytes: `strip_prefix` would cost more than the `stat`.
fn below(root: &Path, path: &Path) -> PathBuf {
    let rest = path.as_os_str().as_bytes().get(root.as_os_str().len()..).unwrap_or_default();
    PathBuf::from(OsStr::from_bytes(rest.strip_prefix(b"/").unwrap_or(rest)))
}

fn into_error(error: ignore::Error) -> Error {
    let text = error.to_string();
    let source = error.into_io_error().unwrap_or_else(|| std::io::Error::other(text));
    Error::io("walk", "the build context", source)
}

/// A node of the context: its files belong to root, whoever owns them on the host.
pub(super) fn node(path: &Path, stat: &rustix::fs::Stat) -> Node {
    Node { uid: 0, gid: 0, ..Node::new(stat, path.as_os_str().as_bytes(), 0) }
}
