//! Walking the context on all processors.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ignore::{WalkBuilder, WalkState};
use kiln_grammar::ignore::IgnorePatterns;
use kiln_store::snapshot::{Kind, Node};

use crate::{Error, Result};

/// Everything below `directory` that is not ignored, sorted by path. A directory that is ignored itself is listed only
/// when something below it is taken back in.
pub(super) fn walk(root: &Path, directory: &Path, patterns: &Arc<IgnorePatterns>) -> Result<Vec<Node>> {
    let start = if directory.as_os_str().is_empty() { root.to_path_buf() } else { root.join(directory) };
    let found = Mutex::new(Vec::new());
    let failed = Mutex::new(None);
    let prune = {
        let (root, patterns) = (root.to_path_buf(), Arc::clone(patterns));
        move |entry: &ignore::DirEntry| keeps(&root, &patterns, entry)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let walker = WalkBuilder::new(&start).standard_filters(false).threads(threads).filter_entry(prune).build_parallel();
    walker.run(|| {
        let mut batch = Batch { into: &found, nodes: Vec::new() };
        let failed = &failed;
        Box::new(move |entry| match entry.map_err(into_error).and_then(|entry| read(root, &entry)) {
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
    nodes.sort_unstable_by(|a: &Node, b: &Node| a.path.as_os_str().cmp(b.path.as_os_str()));
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
        self.into.lock().unwrap_or_else(PoisonError::into_inner).append(&mut self.nodes);
    }
}

fn keeps(root: &Path, patterns: &IgnorePatterns, entry: &ignore::DirEntry) -> bool {
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

fn read(root: &Path, entry: &ignore::DirEntry) -> Result<Option<Node>> {
    let metadata = match entry.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.io_error().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound) => return Ok(None),
        Err(error) => return Err(into_error(error)),
    };
    let path = below(root, entry.path());
    let kind = match metadata.file_type() {
        kind if kind.is_dir() => Kind::Directory,
        kind if kind.is_symlink() => Kind::Symlink,
        kind if kind.is_fifo() => Kind::Fifo,
        kind if kind.is_socket() => Kind::Socket,
        kind if kind.is_char_device() => Kind::CharDevice,
        kind if kind.is_block_device() => Kind::BlockDevice,
        _ => Kind::File,
    };
    Ok(Some(Node {
        kind,
        mode: metadata.mode() & 0o7777,
        uid: 0,
        gid: 0,
        size: metadata.len(),
        mtime: (metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap_or(0)),
        ctime: (metadata.ctime(), u32::try_from(metadata.ctime_nsec()).unwrap_or(0)),
        rdev: metadata.rdev(),
        inode: (metadata.ino(), metadata.dev()),
        links: metadata.nlink(),
        path,
        layer: 0,
    }))
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
