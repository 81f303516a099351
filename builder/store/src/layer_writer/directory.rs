//! A layer that is written as a directory.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Attributes, Content, Upper, Xattrs, failed};
use crate::Result;
use crate::snapshot::Kind;
use crate::store::Privilege;

/// A directory that is written into.
pub struct Directory {
    root: OwnedFd,
    privilege: Privilege,
    /// Modification times of directories, set when all is written.
    times: HashMap<PathBuf, (i64, u32)>,
    /// The directory that was written to last.
    current: Option<(PathBuf, OwnedFd)>,
}

impl Directory {
    /// Writes into `path`, a directory that nobody else writes to.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path, privilege: Privilege) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed("open", path, error))?;
        Ok(Self { root, privilege, times: HashMap::new(), current: None })
    }

    /// Owner and mode of the directory itself.
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

    /// Sets the directories' times: nothing may be written afterwards.
    ///
    /// # Errors
    /// They cannot be set.
    pub fn finish(mut self) -> Result<()> {
        let times = std::mem::take(&mut self.times);
        times.into_iter().try_for_each(|(path, mtime)| self.set_times(&path, mtime))
    }

    fn stat(&self, path: &Path) -> Result<Option<Stat>> {
        match rustix::fs::statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(failed("look up", path, error)),
        }
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

    fn set_xattrs(&mut self, path: &Path, xattrs: &Xattrs) -> Result<()> {
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
                Err(Errno::PERM | Errno::OPNOTSUPP) => {}
                Err(error) => return Err(failed("set extended attribute of", path, error)),
            }
        }
        Ok(())
    }

    /// The open directory that holds `path` (a real path), kept for the next file beside it.
    fn open_parent<'p>(&mut self, path: &'p Path) -> Result<(BorrowedFd<'_>, &'p OsStr)> {
        let (parent, name) = split(path);
        if self.current.as_ref().is_none_or(|(current, _)| current != parent) {
            let fd = self.open_directory(parent)?;
            self.current = Some((parent.to_path_buf(), fd));
        }
        match &self.current {
            Some((_, fd)) => Ok((fd.as_fd(), name)),
            None => Err(failed("open directory", path, Errno::BADF)),
        }
    }

    fn open_directory_of<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr)> {
        let (parent, name) = split(path);
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
}

impl Upper for Directory {
    type File<'f> = &'f mut dyn Read;

    fn kind(&self, path: &Path) -> Result<Option<Kind>> {
        Ok(self.stat(path)?.map(|stat| Kind::of(&stat)))
    }

    fn read_link(&self, path: &Path) -> Result<PathBuf> {
        let target = rustix::fs::readlinkat(&self.root, path, Vec::new())
            .map_err(|error| failed("read symlink", path, error))?;
        Ok(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
    }

    fn make_directory(&mut self, path: &Path, attributes: Attributes, xattrs: &Xattrs) -> Result<()> {
        let (directory, name) = self.open_parent(path)?;
        rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o700))
            .map_err(|error| failed("make directory", path, error))?;
        self.change_directory(path, attributes, xattrs)
    }

    fn change_directory(&mut self, path: &Path, attributes: Attributes, xattrs: &Xattrs) -> Result<()> {
        self.set_owner_and_mode(path, attributes)?;
        self.times.insert(path.to_path_buf(), attributes.mtime);
        self.set_xattrs(path, xattrs)
    }

    fn put(
        &mut self,
        path: &Path,
        content: Content<'_, Self::File<'_>>,
        attributes: Attributes,
        xattrs: &Xattrs,
    ) -> Result<()> {
        let (directory, name) = self.open_parent(path)?;
        let io = |error: std::io::Error| failed("write", path, error);
        match content {
            Content::File(bytes) => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600));
                let mut file = File::from(file.map_err(|error| io(error.into()))?);
                copy_bytes(bytes, &mut file).map_err(io)?;
                self.finish_file(&file, attributes).map_err(|error| io(error.into()))?;
                return self.set_xattrs(path, xattrs);
            }
            Content::Symlink(target) => rustix::fs::symlinkat(target, directory, name),
            Content::Device(kind, number) => {
                let kind = if kind == Kind::BlockDevice { FileType::BlockDevice } else { FileType::CharacterDevice };
                rustix::fs::mknodat(directory, name, kind, Mode::from_raw_mode(0o600), number)
            }
            Content::Fifo => rustix::fs::mknodat(directory, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0),
        }
        .map_err(|error| io(error.into()))?;
        self.set_owner_and_mode(path, attributes)?;
        self.set_times(path, attributes.mtime)?;
        self.set_xattrs(path, xattrs)
    }

    fn link(&mut self, path: &Path, existing: &Path) -> Result<()> {
        let (from, from_name) = self.open_directory_of(existing)?;
        let (to, to_name) = self.open_parent(path)?;
        rustix::fs::linkat(&from, from_name, to, to_name, AtFlags::empty()).map_err(|error| failed("link", path, error))
    }

    fn remove(&mut self, path: &Path) -> Result<()> {
        let (directory, name) = self.open_directory_of(path)?;
        rustix::fs::unlinkat(&directory, name, AtFlags::empty()).map_err(|error| failed("replace", path, error))
    }
}

fn fd_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Directory and name.
fn split(path: &Path) -> (&Path, &OsStr) {
    (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default())
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
