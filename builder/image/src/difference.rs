//! What differs between the files of two images.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use kiln_store::snapshot::{Kind, Node};
use kiln_store::{Digest, Snapshot, Store};

use crate::{Image, Result};

/// A path that differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Absolute, in the image or container.
    pub path: PathBuf,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// docker's `A`, `C` and `D`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// Only the newer one has it.
    Added,
    /// Content or attributes.
    Changed,
    /// Only the older one has it.
    Deleted,
}

impl ChangeKind {
    /// docker's letter.
    pub fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }

    /// docker's number.
    pub fn number(self) -> u8 {
        match self {
            Self::Changed => 0,
            Self::Added => 1,
            Self::Deleted => 2,
        }
    }
}

/// What an image changes of another one, or, without one, what its last layer changes; sorted by path. Files count as
/// changed when their attributes or times differ; their content is not read.
///
/// # Errors
/// The store cannot be read.
pub fn between(store: &Store, image: &Image, base: Option<&Image>) -> Result<Vec<Change>> {
    let below = match base {
        Some(base) => base.layers.as_slice(),
        None => image.layers.split_last().map_or(&[][..], |(_, below)| below),
    };
    let comparison = Comparison { new: Snapshot::open(store, &image.layers)?, old: Snapshot::open(store, below)? };
    let mut changes = Vec::new();
    comparison.directory(Path::new(""), &mut changes)?;
    // A directory that has other entries has changed, as docker and podman have it.
    let mut known: HashSet<PathBuf> = changes.iter().map(|change| change.path.clone()).collect();
    let entries = changes.iter().filter(|change| change.kind != ChangeKind::Changed);
    let above: Vec<PathBuf> = entries.filter_map(|change| change.path.parent().map(Path::to_path_buf)).collect();
    for path in above.into_iter().filter(|path| path.parent().is_some()) {
        if known.insert(path.clone()) {
            changes.push(Change { path, kind: ChangeKind::Changed });
        }
    }
    changes.sort();
    Ok(changes)
}

struct Comparison {
    new: Snapshot,
    old: Snapshot,
}

impl Comparison {
    fn directory(&self, path: &Path, changes: &mut Vec<Change>) -> Result<()> {
        let entries = |snapshot: &Snapshot| -> Result<BTreeMap<OsString, Node>> {
            let is_directory = snapshot.lookup(path)?.is_some_and(|node| node.kind == Kind::Directory);
            Ok(if is_directory { snapshot.read_dir(path)?.into_iter().collect() } else { BTreeMap::new() })
        };
        let (new, old) = (entries(&self.new)?, entries(&self.old)?);
        let mut add = |name: &OsString, kind| {
            changes.push(Change { path: Path::new("/").join(path).join(name), kind });
        };
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            add(name, ChangeKind::Deleted);
        }
        let mut open = Vec::new();
        for (name, node) in &new {
            let before = old.get(name);
            match before {
                None => add(name, ChangeKind::Added),
                Some(before) if !self.is_same(node, before)? => add(name, ChangeKind::Changed),
                Some(_) => {}
            }
            // What one layer holds whole in both is the same below, too, unless a higher one has something there.
            if node.kind == Kind::Directory {
                open.push(path.join(name));
            }
        }
        open.iter().try_for_each(|below| self.directory(below, changes))
    }

    fn is_same(&self, new: &Node, old: &Node) -> Result<bool> {
        let layer = |snapshot: &Snapshot, node: &Node| -> Option<Digest> { snapshot.layers().get(node.layer).copied() };
        if layer(&self.new, new) == layer(&self.old, old) {
            return Ok(true);
        }
        let attributes = |node: &Node| (node.kind, node.mode, node.uid, node.gid, node.mtime, node.rdev);
        Ok(attributes(new) == attributes(old)
            && (new.kind != Kind::File || new.size == old.size)
            && (new.kind != Kind::Symlink || self.new.read_link(new)? == self.old.read_link(old)?))
    }
}
