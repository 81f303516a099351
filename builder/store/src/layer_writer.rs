//! Writes files into a layer under construction, as if into the file system that the layer will lie on: symlinks of
//! the parent snapshot are followed inside it, its directories are copied up with their owners and modes.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::snapshot::{Kind, Node};
use crate::{Error, Result, Snapshot};

mod directory;

pub use directory::Directory;

/// Symlinks that may be followed on the way to one file, as the kernel's limit.
const MOST_SYMLINKS: usize = 40;

/// Owner, mode and time of a file that is made.
#[derive(Debug, Clone, Copy)]
pub struct Attributes {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
}

/// Names and values of extended attributes.
pub type Xattrs = [(OsString, Vec<u8>)];

/// What a new file is; `F` is where a regular file's bytes come from.
pub enum Content<'a, F> {
    /// A regular file with these bytes.
    File(F),
    /// A symlink.
    Symlink(&'a Path),
    /// A device node, by kind and number.
    Device(Kind, u64),
    /// A named pipe.
    Fifo,
}

/// What is written: real paths without symlinks among their directories, each directory before what it holds.
pub trait Upper {
    /// Where a regular file's bytes come from.
    type File<'f>;

    /// What was written at a path.
    fn kind(&self, path: &Path) -> Result<Option<Kind>>;
    /// Where a symlink that was written leads.
    fn read_link(&self, path: &Path) -> Result<PathBuf>;
    /// A directory that was not written before, in one that was.
    fn make_directory(&mut self, path: &Path, attributes: Attributes, xattrs: &Xattrs) -> Result<()>;
    /// New attributes for a directory that was written.
    fn change_directory(&mut self, path: &Path, attributes: Attributes, xattrs: &Xattrs) -> Result<()>;
    /// A file that was not written before, in a directory that was.
    fn put(
        &mut self,
        path: &Path,
        content: Content<'_, Self::File<'_>>,
        attributes: Attributes,
        xattrs: &Xattrs,
    ) -> Result<()>;
    /// A second name for a file that was written.
    fn link(&mut self, path: &Path, existing: &Path) -> Result<()>;
    /// Takes a file that was written away.
    fn remove(&mut self, path: &Path) -> Result<()>;
}

/// Writes over one parent.
pub struct LayerWriter<'a, U> {
    parent: &'a Snapshot,
    upper: U,
    /// For directories that nobody described.
    new_directory: Attributes,
    /// Paths that were asked for, and the real directories they lead to (which are in the layer).
    ensured: HashSet<PathBuf>,
}

impl<'a, U: Upper> LayerWriter<'a, U> {
    /// Writes into `upper`; directories that are missing on the way get `new_directory`.
    pub fn new(parent: &'a Snapshot, upper: U, new_directory: Attributes) -> Self {
        Self { parent, upper, new_directory, ensured: HashSet::new() }
    }

    /// What was written.
    pub fn into_upper(self) -> U {
        self.upper
    }

    /// What stands at a real path, in the layer or below it.
    pub fn kind(&self, path: &Path) -> Result<Option<Kind>> {
        if path.as_os_str().is_empty() {
            return Ok(Some(Kind::Directory));
        }
        if let Some(kind) = self.upper.kind(path)? {
            return Ok(Some(kind));
        }
        Ok(self.parent.lookup(path)?.map(|node| node.kind))
    }

    fn read_link(&self, path: &Path) -> Result<PathBuf> {
        if self.upper.kind(path)?.is_some() {
            return self.upper.read_link(path);
        }
        match self.parent.lookup(path)? {
            Some(node) => Ok(self.parent.read_link(&node)?),
            None => Err(failed("read symlink", path, std::io::Error::from(std::io::ErrorKind::NotFound))),
        }
    }

    /// The real path that a path leads to; components that do not exist stay as written. The last one is followed
    /// only when `follow_last`.
    pub fn real_path(&self, path: &Path, follow_last: bool) -> Result<PathBuf> {
        let mut todo: Vec<OsString> = Vec::new();
        push_components(&mut todo, path);
        let mut real = PathBuf::new();
        let mut followed = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                real.pop();
                continue;
            }
            let next = real.join(&name);
            let is_last = todo.is_empty();
            if (follow_last || !is_last) && self.kind(&next)? == Some(Kind::Symlink) {
                followed += 1;
                if followed > MOST_SYMLINKS {
                    return Err(failed("follow symlinks of", path, rustix::io::Errno::LOOP));
                }
                let target = self.read_link(&next)?;
                if target.is_absolute() {
                    real.clear();
                }
                push_components(&mut todo, &target);
            } else {
                real = next;
            }
        }
        Ok(real)
    }

    /// Makes a real directory exist in the layer, with all above it.
    pub fn ensure_directory(&mut self, path: &Path) -> Result<()> {
        if path.as_os_str().is_empty() || self.ensured.contains(path) {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            self.ensure_directory_chain(above)?;
        }
        self.ensure_one(path)
    }

    fn ensure_directory_chain(&mut self, path: &Path) -> Result<()> {
        let mut above: Vec<&Path> = path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
        above.reverse();
        above.into_iter().try_for_each(|path| self.ensure_one(path))
    }

    fn ensure_one(&mut self, path: &Path) -> Result<()> {
        if self.ensured.contains(path) {
            return Ok(());
        }
        match self.kind(path)? {
            Some(Kind::Directory) if self.upper.kind(path)?.is_some() => {}
            Some(Kind::Directory) => self.copy_up(path)?,
            Some(_) => return Err(failed("make directory", path, rustix::io::Errno::NOTDIR)),
            None => self.make_directory(path, self.new_directory, &[])?,
        }
        self.ensured.insert(path.to_path_buf());
        Ok(())
    }

    /// A directory of the parent gets an entry in the layer that looks the same.
    fn copy_up(&mut self, path: &Path) -> Result<()> {
        let Some(node) = self.parent.lookup(path)? else { return Ok(()) };
        let attributes = Attributes { uid: node.uid, gid: node.gid, mode: node.mode, mtime: self.new_directory.mtime };
        self.make_directory(path, attributes, &self.parent.xattrs(&node)?)
    }

    fn make_directory(&mut self, path: &Path, attributes: Attributes, xattrs: &Xattrs) -> Result<()> {
        check_name(path)?;
        self.upper.make_directory(path, attributes, xattrs)
    }

    /// A directory that was described: made, or given these attributes when it is there.
    pub fn put_directory(&mut self, path: &Path, attributes: Attributes, xattrs: &Xattrs) -> Result<()> {
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        match self.kind(path)? {
            None => {
                self.ensure_directory(path.parent().unwrap_or(Path::new("")))?;
                self.make_directory(path, attributes, xattrs)?;
                self.ensured.insert(path.to_path_buf());
                Ok(())
            }
            Some(Kind::Directory) => {
                self.ensure_directory(path)?;
                self.upper.change_directory(path, attributes, xattrs)
            }
            Some(_) => Err(failed("copy a directory to a non-directory", path, rustix::io::Errno::NOTDIR)),
        }
    }

    /// A file of any kind but directory; what stood there and is no directory is replaced.
    pub fn put_file(
        &mut self,
        path: &Path,
        content: Content<'_, U::File<'_>>,
        attributes: Attributes,
        xattrs: &Xattrs,
    ) -> Result<()> {
        self.make_room(path)?;
        self.upper.put(path, content, attributes, xattrs)
    }

    /// A hard link to a real path that is in the layer; `false` when it is not.
    pub fn put_link(&mut self, path: &Path, existing: &Path) -> Result<bool> {
        if self.upper.kind(existing)?.is_none_or(|kind| kind == Kind::Directory) {
            return Ok(false);
        }
        if path != existing {
            self.make_room(path)?;
            self.upper.link(path, existing)?;
        }
        Ok(true)
    }

    fn make_room(&mut self, path: &Path) -> Result<()> {
        check_name(path)?;
        let is_directory = Err(failed("copy a file to a directory", path, rustix::io::Errno::ISDIR));
        match self.upper.kind(path)? {
            Some(Kind::Directory) => return is_directory,
            Some(_) => self.upper.remove(path)?,
            None => {
                if self.parent.lookup(path)?.is_some_and(|node: Node| node.kind == Kind::Directory) {
                    return is_directory;
                }
            }
        }
        self.ensure_directory(path.parent().unwrap_or(Path::new("")))
    }
}

fn failed(action: &'static str, path: impl AsRef<Path>, source: impl Into<std::io::Error>) -> Error {
    Error::io(action, path)(source.into())
}

/// Names that a layer cannot hold are refused.
fn check_name(path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default();
    if name.is_empty() || name.as_bytes().starts_with(b".wh.") {
        let source = std::io::Error::other("a layer has no way to store this name");
        return Err(failed("write", path, source));
    }
    Ok(())
}

fn push_components(todo: &mut Vec<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => todo.push(name.to_owned()),
            Component::ParentDir => todo.push("..".into()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
}
