//! The content of a part of a file system, as a key sees it: what a bind mount shows to a step.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kiln_store::snapshot::{Kind, Node};

use crate::selection::{self, Item};
use crate::tree::Tree;
use crate::{Error, Result};

/// What a path leads to, with everything below it.
pub(crate) struct Content {
    items: Vec<Item>,
}

impl Content {
    /// Reads it.
    ///
    /// # Errors
    /// The path leads nowhere.
    pub(crate) fn read(tree: &dyn Tree, path: &Path) -> Result<Self> {
        let path = path.strip_prefix("/").unwrap_or(path);
        let missing = || Error::io("mount", path, std::io::Error::from(std::io::ErrorKind::NotFound));
        let root = tree.resolve(path)?.ok_or_else(missing)?;
        let mut nodes = if root.kind == Kind::Directory { tree.walk(&root.path)? } else { Vec::new() };
        nodes.insert(0, root.clone());
        let mut links: HashMap<(u64, u64), PathBuf> = HashMap::new();
        let mut items = Vec::with_capacity(nodes.len());
        for node in nodes {
            let above = selection::above(&root, &node);
            let target = if node.kind == Kind::Symlink { Some(tree.read_link(&node)?) } else { None };
            let mut link_to = None;
            if node.links > 1 && node.kind == Kind::File {
                link_to = links.get(&node.inode).cloned();
                let path = node.path.strip_prefix(&root.path).unwrap_or(&node.path);
                links.entry(node.inode).or_insert_with(|| path.to_path_buf());
            }
            items.push(Item { above, node, content: None, target, link_to });
        }
        hash(tree, &mut items)?;
        Ok(Self { items })
    }

    /// Of everything that counts; no times.
    pub(crate) fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut bytes = Vec::new();
        for item in &self.items {
            bytes.clear();
            let path = item.path().as_os_str().as_bytes();
            bytes.extend((path.len() as u64).to_le_bytes());
            bytes.extend(path);
            item.describe(&mut bytes);
            hasher.update(&bytes);
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Its files below `target`, each with the beginning of a hash: what a miss is explained with.
    pub(crate) fn list(&self, target: &Path) -> Vec<(String, u64)> {
        let short = |item: &Item| {
            let mut bytes = Vec::new();
            item.describe(&mut bytes);
            blake3::hash(&bytes).as_bytes().first_chunk().map_or(0, |head| u64::from_le_bytes(*head))
        };
        let files = self.items.iter().filter(|item| item.node.kind != Kind::Directory);
        let name = |item: &Item| {
            let below = !item.path().as_os_str().is_empty();
            if below { target.join(item.path()).display().to_string() } else { target.display().to_string() }
        };
        files.map(|item| (name(item), short(item))).collect()
    }
}

fn hash(tree: &dyn Tree, items: &mut [Item]) -> Result<()> {
    let mut files: Vec<&mut Item> =
        items.iter_mut().filter(|item| matches!(item.node.kind, Kind::File | Kind::Directory)).collect();
    let nodes: Vec<&Node> = files.iter().map(|item| &item.node).collect();
    let hashes = tree.hash(&nodes)?;
    for (item, hash) in files.iter_mut().zip(hashes) {
        item.content = Some(hash);
    }
    Ok(())
}
