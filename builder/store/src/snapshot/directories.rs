//! Which layers show in a directory, and what they show: overlay's rules (Linux, Documentation/filesystems/
//! overlayfs.rst). A whiteout or a file ends what is below it; an opaque directory ends what is below itself.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, PoisonError};

use rustix::fs::{FileType, OFlags, Stat};

use super::{Node, Snapshot, split, stat_in};
use crate::archive::writer::is_whiteout;
use crate::attributes::Target;
use crate::directory::Listing;
use crate::{Error, Result};

/// Directories that are remembered; then it starts anew.
const MAX_REMEMBERED: usize = 1 << 16;

impl Snapshot {
    /// The layers that show in the directory at a normal path, topmost first; `None` when it is not a directory.
    pub(super) fn directory(&self, path: &[u8]) -> Result<Option<Arc<[usize]>>> {
        // The nearest directory above that is known, then down from there.
        let mut known = path;
        let mut stack = loop {
            if let Some(stack) = self.remembered(known) {
                break stack;
            }
            if known.is_empty() {
                let all: Vec<usize> = (0..self.roots.len()).rev().collect();
                break self.remember(b"", self.until_opaque(b"", all)?);
            }
            known = split(known).0;
        };
        while known.len() < path.len() {
            let start = if known.is_empty() { 0 } else { known.len() + 1 };
            let end = path[start..].iter().position(|byte| *byte == b'/').map_or(path.len(), |slash| start + slash);
            let next = &path[..end];
            let layers = self.layers_of_directory(next, &stack)?;
            if layers.is_empty() {
                return Ok(None);
            }
            stack = self.remember(next, layers);
            known = next;
        }
        Ok(Some(stack))
    }

    fn remembered(&self, path: &[u8]) -> Option<Arc<[usize]>> {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    fn remember(&self, path: &[u8], layers: Vec<usize>) -> Arc<[usize]> {
        let layers: Arc<[usize]> = layers.into();
        let mut directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        if directories.len() >= MAX_REMEMBERED {
            directories.clear();
        }
        directories.insert(path.to_vec(), Arc::clone(&layers));
        layers
    }

    /// The layers of `stack`, those of the directory above, in which `path` is a directory that shows.
    fn layers_of_directory(&self, path: &[u8], stack: &[usize]) -> Result<Vec<usize>> {
        let mut layers = Vec::new();
        for layer in stack {
            match self.stat(path, *layer)? {
                None => {}
                Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => layers.push(*layer),
                Some(_) => break,
            }
        }
        self.until_opaque(path, layers)
    }

    /// Cuts off what an opaque directory hides.
    fn until_opaque(&self, path: &[u8], mut layers: Vec<usize>) -> Result<Vec<usize>> {
        // The lowest hides nothing, so nobody needs to ask it.
        for index in 0..layers.len().saturating_sub(1) {
            let opened = self.open_node(path, layers[index], OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC);
            let opaque = opened.and_then(|fd| Target::Open(fd.as_fd()).is_opaque(self.privilege));
            if opaque.map_err(Error::io("examine", OsStr::from_bytes(path)))? {
                layers.truncate(index + 1);
                break;
            }
        }
        Ok(layers)
    }

    /// What a layer holds at a path whose directories are known to be real ones in it.
    fn stat(&self, path: &[u8], layer: usize) -> Result<Option<Stat>> {
        let Some((_, root)) = self.roots.get(layer) else { return Ok(None) };
        stat_in(root, if path.is_empty() { b"." } else { path }).map_err(Error::io("examine", OsStr::from_bytes(path)))
    }

    /// The node at a normal path.
    pub(super) fn find(&self, path: &[u8]) -> Result<Option<Node>> {
        if self.roots.is_empty() {
            return Ok(path.is_empty().then(Node::empty_root));
        }
        let Some(stack) = self.directory(split(path).0)? else { return Ok(None) };
        for layer in stack.iter() {
            if let Some(stat) = self.stat(path, *layer)? {
                return Ok((!is_whiteout(&stat)).then(|| Node::new(&stat, path, *layer)));
            }
        }
        Ok(None)
    }

    /// The entries of the directory at a normal path, of all layers that show in it.
    pub(super) fn merged_entries(&self, path: &[u8]) -> Result<Vec<(OsString, Node)>> {
        let Some(stack) = self.directory(path)? else { return Ok(Vec::new()) };
        let mut entries: BTreeMap<OsString, Option<Node>> = BTreeMap::new();
        let mut child = path.to_vec();
        if !child.is_empty() {
            child.push(b'/');
        }
        let length = child.len();
        for layer in stack.iter() {
            let failed = |errno| Error::io("list", OsStr::from_bytes(path))(errno);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = self.open_node(path, *layer, flags).map_err(failed)?;
            let listing = Listing::read(directory.as_fd()).map_err(failed)?;
            for (name, _) in listing.iter() {
                let name_os = OsStr::from_bytes(name);
                // What stands in a layer above, whiteouts included, hides this one.
                if entries.contains_key(name_os) {
                    continue;
                }
                let Some(stat) = stat_in(&directory, name).map_err(failed)? else { continue };
                child.truncate(length);
                child.extend_from_slice(name);
                let node = (!is_whiteout(&stat)).then(|| Node::new(&stat, &child, *layer));
                entries.insert(name_os.to_os_string(), node);
            }
        }
        Ok(entries.into_iter().filter_map(|(name, node)| node.map(|node| (name, node))).collect())
    }
}
