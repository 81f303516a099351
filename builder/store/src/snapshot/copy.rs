//! Copying files out of a snapshot: volumes, and exports into a directory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{Kind, Node, Snapshot};
use crate::layer_writer::{Attributes, Content, LayerWriter};
use crate::{Result, Store};

impl Snapshot {
    /// Everything below a directory (a real path), sorted by path; the directory itself not.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn walk(&self, directory: &Path) -> Result<Vec<Node>> {
        let mut found = Vec::new();
        let mut open = vec![directory.to_path_buf()];
        while let Some(directory) = open.pop() {
            for (_, node) in self.read_dir(&directory)? {
                if node.kind == Kind::Directory {
                    open.push(node.path.clone());
                }
                found.push(node);
            }
        }
        found.sort_unstable_by(|a, b| a.path.as_os_str().cmp(b.path.as_os_str()));
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
        let mut writer = LayerWriter::new(&nothing, directory, store.privilege(), root)?;
        if let Some(node) = self.lookup(source)? {
            writer.set_root(attributes(&node))?;
        }
        let mut links = HashMap::new();
        for node in self.walk(source)? {
            let path = node.path.strip_prefix(source).unwrap_or(&node.path).to_path_buf();
            self.copy_node(&mut writer, &node, &path, &mut links)?;
        }
        writer.finish()
    }

    fn copy_node(
        &self,
        writer: &mut LayerWriter<'_>,
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
