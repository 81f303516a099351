//! Copying files out of a snapshot: volumes, and exports into a directory.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::{Kind, Node, Snapshot};
use crate::layer_writer::{Attributes, Content, Directory, LayerWriter};
use crate::{Result, Store};

/// What a whiteout has of its own: nothing.
const WHITEOUT: Attributes = Attributes { uid: 0, gid: 0, mode: 0, mtime: (0, 0) };

impl Snapshot {
    /// Everything below a directory (a real path), the directory itself not: every directory's entries by name, each
    /// with what is below it right after it.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn walk(&self, directory: &Path) -> Result<Vec<Node>> {
        let mut found = Vec::new();
        let mut open = vec![self.read_dir(directory)?.into_iter()];
        while let Some(entries) = open.last_mut() {
            let Some((_, node)) = entries.next() else {
                open.pop();
                continue;
            };
            if node.kind == Kind::Directory {
                open.push(self.read_dir(&node.path)?.into_iter());
            }
            found.push(node);
        }
        Ok(found)
    }

    /// Copies everything below `source` (a real path) into an existing directory of the host that nobody else writes
    /// to, which gets the owner and mode of `source`.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn copy_directory(&self, store: &Store, source: &Path, directory: &Path) -> Result<()> {
        let nothing = Self::open(store, &[])?;
        let root = Attributes { uid: 0, gid: 0, mode: 0o755, mtime: (0, 0) };
        let mut upper = Directory::open(directory, store.privilege())?;
        if let Some(node) = self.lookup(source)? {
            upper.set_root(attributes(&node))?;
        }
        let mut writer = LayerWriter::new(&nothing, upper, root);
        let mut links = HashMap::new();
        for node in self.walk(source)? {
            let path = node.path.strip_prefix(source).unwrap_or(&node.path).to_path_buf();
            self.copy_node(&mut writer, &node, &path, &mut links)?;
        }
        writer.into_upper().finish()
    }

    /// Writes what turns `base`, which this stack begins with, into this: a layer, with overlay's whiteouts.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn copy_changes(&self, store: &Store, base: &Self, directory: &Path) -> Result<()> {
        let nothing = Self::open(store, &[])?;
        let mut upper = Directory::open(directory, store.privilege())?;
        if let Some(node) = self.lookup(Path::new(""))? {
            upper.set_root(attributes(&node))?;
        }
        let mut writer = LayerWriter::new(&nothing, upper, WHITEOUT);
        let mut links = HashMap::new();
        let mut made = HashSet::new();
        for node in self.walk(Path::new(""))?.iter().filter(|node| node.layer >= base.layers.len()) {
            self.copy_parents(&mut writer, &node.path, &mut made)?;
            self.copy_node(&mut writer, node, &node.path, &mut links)?;
            if node.kind == Kind::Directory {
                made.insert(node.path.clone());
            }
        }
        for node in base.walk(Path::new(""))? {
            let parent = node.path.parent().unwrap_or(Path::new(""));
            let holds = parent.as_os_str().is_empty()
                || self.lookup(parent)?.is_some_and(|parent| parent.kind == Kind::Directory);
            if holds && self.lookup(&node.path)?.is_none() {
                self.copy_parents(&mut writer, &node.path, &mut made)?;
                writer.put_file(&node.path, Content::Device(Kind::CharDevice, 0), WHITEOUT, &[])?;
            }
        }
        writer.into_upper().finish()
    }

    /// The directories on the way to a path, as they are here.
    fn copy_parents(
        &self,
        writer: &mut LayerWriter<'_, Directory>,
        path: &Path,
        made: &mut HashSet<PathBuf>,
    ) -> Result<()> {
        let missing = path.ancestors().skip(1).take_while(|above| !above.as_os_str().is_empty());
        let missing: Vec<&Path> = missing.take_while(|above| !made.contains(*above)).collect();
        for above in missing.into_iter().rev() {
            if let Some(node) = self.lookup(above)? {
                writer.put_directory(above, attributes(&node), &self.xattrs(&node)?)?;
            }
            made.insert(above.to_path_buf());
        }
        Ok(())
    }

    fn copy_node(
        &self,
        writer: &mut LayerWriter<'_, Directory>,
        node: &Node,
        path: &Path,
        links: &mut HashMap<(u64, u64), PathBuf>,
    ) -> Result<()> {
        let xattrs = self.xattrs(node)?;
        let attributes = attributes(node);
        if node.kind == Kind::Directory {
            return writer.put_directory(path, attributes, &xattrs);
        }
        if node.links > 1 {
            if let Some(first) = links.get(&node.inode)
                && writer.put_link(path, first)?
            {
                return Ok(());
            }
            links.insert(node.inode, path.to_path_buf());
        }
        match node.kind {
            Kind::File => writer.put_file(path, Content::File(&mut self.open_file(node)?), attributes, &xattrs),
            Kind::Symlink => writer.put_file(path, Content::Symlink(&self.read_link(node)?), attributes, &[]),
            Kind::Fifo => writer.put_file(path, Content::Fifo, attributes, &xattrs),
            Kind::CharDevice | Kind::BlockDevice => {
                writer.put_file(path, Content::Device(node.kind, node.rdev), attributes, &xattrs)
            }
            Kind::Socket | Kind::Directory => Ok(()),
        }
    }
}

fn attributes(node: &Node) -> Attributes {
    Attributes { uid: node.uid, gid: node.gid, mode: node.mode, mtime: node.mtime }
}
