//! What files can be taken from: the build context, or a snapshot.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kiln_store::Snapshot;
use kiln_store::snapshot::{Kind, Node};

use crate::Result;

/// The BLAKE3 hash of a file's content and extended attributes.
pub(crate) type ContentHash = [u8; 32];

/// A readable tree of files whose symlinks cannot lead out of it.
pub(crate) trait Tree: Sync {
    /// The node that `path` leads to, symlinks followed, with its real path.
    fn resolve(&self, path: &Path) -> Result<Option<Node>>;
    /// The entries of a directory (a real path), sorted by name.
    fn read_dir(&self, directory: &Path) -> Result<Vec<(OsString, Node)>>;
    /// Everything below a directory (a real path), sorted by path; the directory itself not.
    fn walk(&self, directory: &Path) -> Result<Vec<Node>>;
    /// Opens a regular file.
    fn open(&self, node: &Node) -> Result<File>;
    /// A symlink's target.
    fn read_link(&self, node: &Node) -> Result<PathBuf>;
    /// Extended attributes, sorted by name; of a file that is open already without opening it again.
    fn xattrs(&self, node: &Node, file: Option<&File>) -> Result<Vec<(OsString, Vec<u8>)>>;
    /// Content hashes of regular files, and of directories (whose attributes are their content), in their order.
    fn hash(&self, nodes: &[&Node]) -> Result<Vec<ContentHash>>;
    /// Whether the file is still what was hashed: false when it changed meanwhile.
    fn unchanged(&self, node: &Node, file: &File) -> bool;
    /// What a user can do about a path that is not there.
    fn advise(&self, path: &str) -> String;
}

/// Hashes files on all processors.
pub(crate) fn hash_in_parallel(tree: &dyn Tree, nodes: &[&Node]) -> Result<Vec<ContentHash>> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(nodes.len().max(1));
    let next = std::sync::atomic::AtomicUsize::new(0);
    let results = std::thread::scope(|scope| {
        let work = || -> Result<Vec<(usize, ContentHash)>> {
            let mut done = Vec::new();
            let mut buffer = vec![0; 256 * 1024];
            loop {
                let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let Some(node) = nodes.get(index) else { return Ok(done) };
                done.push((index, hash_file(tree, node, &mut buffer)?));
            }
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let mut hashes = vec![[0; 32]; nodes.len()];
    for result in results {
        let done = result.map_err(|_| crate::Error::Internal("hashing".to_owned()))??;
        for (index, hash) in done {
            hashes[index] = hash;
        }
    }
    Ok(hashes)
}

fn hash_file(tree: &dyn Tree, node: &Node, buffer: &mut [u8]) -> Result<ContentHash> {
    use std::io::Read;
    let mut hasher = blake3::Hasher::new();
    let mut file = if node.kind == Kind::File { Some(tree.open(node)?) } else { None };
    while let Some(file) = &mut file {
        match file.read(buffer) {
            Ok(0) => break,
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(crate::Error::io("read", &node.path, error)),
        };
    }
    for (name, value) in tree.xattrs(node, file.as_ref())? {
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(&(value.len() as u64).to_le_bytes());
        hasher.update(&value);
    }
    Ok(*hasher.finalize().as_bytes())
}

impl Tree for Snapshot {
    fn resolve(&self, path: &Path) -> Result<Option<Node>> {
        Ok(self.resolve(path, true)?.1)
    }

    fn read_dir(&self, directory: &Path) -> Result<Vec<(OsString, Node)>> {
        Ok(self.read_dir(directory)?)
    }

    fn walk(&self, directory: &Path) -> Result<Vec<Node>> {
        Ok(self.walk(directory)?)
    }

    fn open(&self, node: &Node) -> Result<File> {
        Ok(self.open_file(node)?)
    }

    fn read_link(&self, node: &Node) -> Result<PathBuf> {
        Ok(self.read_link(node)?)
    }

    fn xattrs(&self, node: &Node, file: Option<&File>) -> Result<Vec<(OsString, Vec<u8>)>> {
        Ok(match file {
            Some(file) => self.xattrs_of(node, file)?,
            None => self.xattrs(node)?,
        })
    }

    fn hash(&self, nodes: &[&Node]) -> Result<Vec<ContentHash>> {
        hash_in_parallel(self, nodes)
    }

    fn unchanged(&self, _: &Node, _: &File) -> bool {
        true // a layer never changes
    }

    fn advise(&self, path: &str) -> String {
        format!("{path} does not exist in the stage or image that it is copied from")
    }
}
