//! Writes files into a layer under construction, as if into the file system that the layer will lie on: symlinks of
//! the parent snapshot are followed inside it, its directories are copied up with their owners and modes.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};

use crate::snapshot::{Kind, Node};
use crate::store::Privilege;
use crate::{Error, Result, Snapshot};

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

/// What a new file is.
pub enum Content<'a> {
    /// A regular file with these bytes.
    File(&'a mut dyn Read),
    /// A symlink.
    Symlink(&'a Path),
    /// A device node, by kind and number.
    Device(Kind, u64),
    /// A named pipe.
    Fifo,
}

/// Writes into one staging directory over one parent.
pub struct LayerWriter<'a> {
    parent: &'a Snapshot,
    root: OwnedFd,
    privilege: Privilege,
    /// For directories that nobody described.
    new_directory: Attributes,
    /// Paths that were asked for, and the real directories they lead to (which are in the layer).
    ensured: HashSet<PathBuf>,
    /// Modification times of directories, set when all is written.
    times: HashMap<PathBuf, (i64, u32)>,
    /// The directory that was written to last.
    current: Option<(PathBuf, OwnedFd)>,
}

impl<'a> LayerWriter<'a> {
    /// Writes into `upper`; directories that are missing on the way get `new_directory`.
    pub fn new(parent: &'a Snapshot, upper: &Path, privilege: Privilege, new_directory: Attributes) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::open(upper, flags, Mode::empty()).map_err(|error| failed("open", upper, error))?;
        Ok(Self {
            parent,
            root,
            privilege,
            new_directory,
            ensured: HashSet::new(),
            times: HashMap::new(),
            current: None,
        })
    }

    /// What stands at a real path, in the layer or below it.
    pub fn kind(&self, path: &Path) -> Result<Option<Kind>> {
        if path.as_os_str().is_empty() {
            return Ok(Some(Kind::Directory));
        }
        if let Some(stat) = self.stat(path)? {
            return Ok(Some(Kind::of(&stat)));
        }
        Ok(self.parent.lookup(path)?.map(|node| node.kind))
    }

    fn stat(&self, path: &Path) -> Result<Option<rustix::fs::Stat>> {
        match rustix::fs::statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
            Err(error) => Err(failed("look up", path, error)),
        }
    }

    fn read_link(&self, path: &Path) -> Result<PathBuf> {
        if self.stat(path)?.is_some() {
            let target = rustix::fs::readlinkat(&self.root, path, Vec::new())
                .map_err(|error| failed("read symlink", path, error))?;
            return Ok(PathBuf::from(OsStr::from_bytes(target.as_bytes())));
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
            Some(Kind::Directory) if self.stat(path)?.is_some() => {}
            Some(Kind::Directory) => self.copy_up(path)?,
            Some(_) => return Err(failed("make directory", path, rustix::io::Errno::NOTDIR)),
            None => self.make_directory(path, self.new_directory)?,
        }
        self.ensured.insert(path.to_path_buf());
        Ok(())
    }

    /// A directory of the parent gets an entry in the layer that looks the same.
    fn copy_up(&mut self, path: &Path) -> Result<()> {
        let Some(node) = self.parent.lookup(path)? else { return Ok(()) };
        let attributes = Attributes { uid: node.uid, gid: node.gid, mode: node.mode, mtime: self.new_directory.mtime };
        self.make_directory(path, attributes)?;
        let xattrs = self.parent.xattrs(&node)?;
        self.set_xattrs(path, &xattrs)
    }

    fn make_directory(&mut self, path: &Path, attributes: Attributes) -> Result<()> {
        let (directory, name) = self.open_parent(path)?;
        rustix::fs::mkdirat(directory.as_fd(), name, Mode::from_raw_mode(0o700))
            .map_err(|error| failed("make directory", path, error))?;
        self.set_owner_and_mode(path, attributes)?;
        self.times.insert(path.to_path_buf(), attributes.mtime);
        Ok(())
    }

    /// A directory that was described: made, or given these attributes when it is there.
    pub fn put_directory(&mut self, path: &Path, attributes: Attributes, xattrs: &[(OsString, Vec<u8>)]) -> Result<()> {
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        match self.kind(path)? {
            None => {
                self.ensure_directory(path.parent().unwrap_or(Path::new("")))?;
                self.make_directory(path, attributes)?;
                self.ensured.insert(path.to_path_buf());
            }
            Some(Kind::Directory) => {
                self.ensure_directory(path)?;
                self.set_owner_and_mode(path, attributes)?;
                self.times.insert(path.to_path_buf(), attributes.mtime);
            }
            Some(_) => return Err(failed("copy a directory to a non-directory", path, rustix::io::Errno::NOTDIR)),
        }
        self.set_xattrs(path, xattrs)
    }

    /// Owner and mode of the directory that is written into.
    ///
    /// # Errors
    /// They cannot be set.
    pub fn set_root(&mut self, attributes: Attributes) -> Result<()> {
        let path = fd_path(self.root.as_fd());
        let io = |error: std::io::Error| failed("set owner and mode of", "the directory", error);
        if self.privilege != Privilege::Single {
            std::os::unix::fs::chown(&path, Some(attributes.uid), Some(attributes.gid)).map_err(io)?;
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode(attributes.mode);
        std::fs::set_permissions(&path, mode).map_err(io)
    }

    /// A file of any kind but directory; what stood there and is no directory is replaced.
    pub fn put_file(
        &mut self,
        path: &Path,
        content: Content<'_>,
        attributes: Attributes,
        xattrs: &[(OsString, Vec<u8>)],
    ) -> Result<()> {
        self.make_room(path)?;
        let (directory, name) = self.open_parent(path)?;
        let io = |error: std::io::Error| failed("write", path, error);
        match content {
            Content::File(bytes) => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(directory.as_fd(), name, flags, Mode::from_raw_mode(0o600));
                let mut file = File::from(file.map_err(|error| io(error.into()))?);
                copy_bytes(bytes, &mut file).map_err(io)?;
                self.finish_file(&file, attributes).map_err(|error| io(error.into()))?;
                return self.set_xattrs(path, xattrs);
            }
            Content::Symlink(target) => rustix::fs::symlinkat(target, directory.as_fd(), name),
            Content::Device(kind, number) => {
                let kind = if kind == Kind::BlockDevice { FileType::BlockDevice } else { FileType::CharacterDevice };
                rustix::fs::mknodat(directory.as_fd(), name, kind, Mode::from_raw_mode(0o600), number)
            }
            Content::Fifo => {
                rustix::fs::mknodat(directory.as_fd(), name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            }
        }
        .map_err(|error| io(error.into()))?;
        self.set_owner_and_mode(path, attributes)?;
        self.set_times(path, attributes.mtime)?;
        self.set_xattrs(path, xattrs)
    }

    /// A hard link to a real path that is in the layer; `false` when it is not.
    pub fn put_link(&mut self, path: &Path, existing: &Path) -> Result<bool> {
        if self.stat(existing)?.is_none_or(|stat| Kind::of(&stat) == Kind::Directory) {
            return Ok(false);
        }
        if path == existing {
            return Ok(true);
        }
        self.make_room(path)?;
        let (from, from_name) = self.open_directory_of(existing)?;
        let (to, to_name) = self.open_parent(path)?;
        rustix::fs::linkat(&from, from_name, to.as_fd(), to_name, AtFlags::empty())
            .map_err(|error| failed("link", path, error))?;
        Ok(true)
    }

    fn make_room(&mut self, path: &Path) -> Result<()> {
        let is_directory = Err(failed("copy a file to a directory", path, rustix::io::Errno::ISDIR));
        match self.stat(path)? {
            Some(stat) if Kind::of(&stat) == Kind::Directory => return is_directory,
            Some(_) => {
                let (directory, name) = self.open_directory_of(path)?;
                rustix::fs::unlinkat(&directory, name, AtFlags::empty())
                    .map_err(|error| failed("replace", path, error))?;
            }
            None => {
                if self.parent.lookup(path)?.is_some_and(|node: Node| node.kind == Kind::Directory) {
                    return is_directory;
                }
            }
        }
        self.ensure_directory(path.parent().unwrap_or(Path::new("")))
    }

    fn finish_file(&self, file: &File, attributes: Attributes) -> rustix::io::Result<()> {
        if self.privilege != Privilege::Single {
            rustix::fs::fchown(file, Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))?;
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(attributes.mode))?;
        rustix::fs::futimens(file, &timestamps(attributes.mtime))
    }

    fn set_owner_and_mode(&mut self, path: &Path, attributes: Attributes) -> Result<()> {
        let privilege = self.privilege;
        let (directory, name) = self.open_parent(path)?;
        let io = |error| failed("set owner and mode of", path, error);
        if privilege != Privilege::Single {
            let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
            rustix::fs::chownat(directory.as_fd(), name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(io)?;
        }
        let stat = rustix::fs::statat(directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW).map_err(io)?;
        if Kind::of(&stat) != Kind::Symlink {
            rustix::fs::chmodat(directory.as_fd(), name, Mode::from_raw_mode(attributes.mode), AtFlags::empty())
                .map_err(io)?;
        }
        Ok(())
    }

    fn set_times(&mut self, path: &Path, mtime: (i64, u32)) -> Result<()> {
        let (directory, name) = self.open_parent(path)?;
        rustix::fs::utimensat(directory.as_fd(), name, &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| failed("set times of", path, error))
    }

    fn set_xattrs(&mut self, path: &Path, xattrs: &[(OsString, Vec<u8>)]) -> Result<()> {
        if xattrs.is_empty() {
            return Ok(());
        }
        // The parent is a real directory of the layer: /proc's link to it cannot be redirected by names in it.
        let (directory, name) = self.open_parent(path)?;
        let full = fd_path(directory.as_fd()).join(name);
        for (attribute, value) in xattrs {
            match rustix::fs::lsetxattr(&full, attribute, value, XattrFlags::empty()) {
                Ok(()) => {}
                // Attributes that this user or file system cannot have (trusted.*, security.* without privilege).
                Err(rustix::io::Errno::PERM | rustix::io::Errno::OPNOTSUPP) => {}
                Err(error) => return Err(failed("set extended attribute of", path, error)),
            }
        }
        Ok(())
    }

    /// The open directory that holds `path` (a real path), kept for the next file beside it.
    fn open_parent<'p>(&mut self, path: &'p Path) -> Result<(std::os::fd::BorrowedFd<'_>, &'p OsStr)> {
        let (parent, name) = split(path)?;
        if self.current.as_ref().is_none_or(|(current, _)| current != parent) {
            let fd = self.open_directory(parent)?;
            self.current = Some((parent.to_path_buf(), fd));
        }
        match &self.current {
            Some((_, fd)) => Ok((fd.as_fd(), name)),
            None => Err(failed("open directory", path, rustix::io::Errno::BADF)),
        }
    }

    fn open_directory_of<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr)> {
        let (parent, name) = split(path)?;
        Ok((self.open_directory(parent)?, name))
    }

    fn open_directory(&self, path: &Path) -> Result<OwnedFd> {
        let shown = path;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)
            .map_err(|error| failed("open directory", shown, error))
    }

    /// Sets the directories' times: nothing may be written afterwards.
    pub fn finish(mut self) -> Result<()> {
        let times = std::mem::take(&mut self.times);
        times.into_iter().try_for_each(|(path, mtime)| self.set_times(&path, mtime))
    }
}

fn failed(action: &'static str, path: impl AsRef<Path>, source: impl Into<std::io::Error>) -> Error {
    Error::io(action, path)(source.into())
}

fn fd_path(fd: std::os::fd::BorrowedFd<'_>) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Parent and last name; names that a layer cannot hold are refused.
fn split(path: &Path) -> Result<(&Path, &OsStr)> {
    let name = path.file_name().unwrap_or_default();
    if name.is_empty() || name.as_bytes().starts_with(b".wh.") {
        let source = std::io::Error::other("a layer has no way to store this name");
        return Err(failed("write", path, source));
    }
    Ok((path.parent().unwrap_or(Path::new("")), name))
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

fn copy_bytes(from: &mut dyn Read, to: &mut File) -> std::io::Result<()> {
    let mut buffer = [0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to.write_all(&buffer[..read])?,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn timestamps((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}
