//! Finding, and where need be making, the place of a mount inside the root.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, fstat, mkdirat, openat, readlinkat};
use rustix::io::Errno;

use super::trace::Traces;
use crate::mount::failed;
use crate::process::Error;

/// As the kernel's.
const SYMLINK_LIMIT: usize = 40;

/// What a mount needs to be put on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
}

impl Kind {
    /// Of an open file that will be mounted.
    pub(crate) fn of(file: impl AsFd) -> io::Result<Self> {
        let directory = FileType::from_raw_mode(fstat(file)?.st_mode) == FileType::Directory;
        Ok(if directory { Self::Directory } else { Self::File })
    }
}

/// A directory tree that paths are looked up in, symlinks included: nothing in it leads out of it.
pub(crate) struct Tree {
    root: OwnedFd,
    device: u64,
}

/// What to do about a path that is not there.
pub(crate) enum Missing<'a> {
    /// Say so.
    Refuse,
    /// Make it, with this mode; what lands in the root file system is noted.
    Create(Kind, RawMode, &'a mut Traces),
    /// Make directories as part of the layer, with this owner.
    Keep(u32, u32),
}

impl Tree {
    pub(crate) fn new(root: OwnedFd) -> io::Result<Self> {
        let device = fstat(&root)?.st_dev;
        Ok(Self { root, device })
    }

    /// Its root.
    pub(crate) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// The place of a mount of this kind, made when missing.
    pub(crate) fn place(&self, path: &Path, kind: Kind, traces: &mut Traces) -> Result<OwnedFd, Error> {
        let failed = || failed(format!("find a place for {} in the sandbox", path.display()));
        let mode = if kind == Kind::Directory { 0o755 } else { 0o644 };
        let place = self.find(path, Missing::Create(kind, mode, traces)).map_err(failed())?;
        match (kind, Kind::of(&place).map_err(failed())?) {
            (Kind::Directory, Kind::File) => Err(failed()(Errno::NOTDIR.into())),
            (Kind::File, Kind::Directory) => Err(failed()(Errno::ISDIR.into())),
            _ => Ok(place),
        }
    }

    /// Opens what a path means, as `OFlags::PATH`.
    pub(crate) fn find(&self, path: &Path, mut missing: Missing<'_>) -> io::Result<OwnedFd> {
        // Directories from the root to here, with their names.
        let mut stack: Vec<(OsString, OwnedFd)> = Vec::new();
        let mut rest: VecDeque<Step> = steps(path);
        let mut links = 0;
        while let Some(step) = rest.pop_front() {
            let name = match step {
                Step::Root => {
                    stack.clear();
                    continue;
                }
                Step::Up => {
                    stack.pop();
                    continue;
                }
                Step::Down(name) => name,
            };
            let here = stack.last().map_or(self.root.as_fd(), |(_, directory)| directory.as_fd());
            let found = match open(here, &name) {
                Err(Errno::NOENT) => {
                    let path = stack.iter().map(|(name, _)| name).chain([&name]).collect::<PathBuf>();
                    self.create(here, &name, &path, rest.is_empty(), &mut missing)?
                }
                found => found?,
            };
            match FileType::from_raw_mode(fstat(&found)?.st_mode) {
                FileType::Symlink => {
                    links += 1;
                    if links > SYMLINK_LIMIT {
                        return Err(Errno::LOOP.into());
                    }
                    let target = readlinkat(here, &*name, Vec::new())?;
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    for step in steps(&target).into_iter().rev() {
                        rest.push_front(step);
                    }
                }
                FileType::Directory => stack.push((name, found)),
                _ if rest.is_empty() => return Ok(found),
                _ => return Err(Errno::NOTDIR.into()),
            }
        }
        match stack.pop() {
            Some((_, directory)) => Ok(directory),
            None => Ok(rustix::io::fcntl_dupfd_cloexec(&self.root, 3)?),
        }
    }

    fn create(
        &self,
        here: impl AsFd,
        name: &OsStr,
        path: &Path,
        last: bool,
        missing: &mut Missing<'_>,
    ) -> io::Result<OwnedFd> {
        let (kind, mode, owner) = match missing {
            Missing::Refuse => return Err(Errno::NOENT.into()),
            Missing::Keep(uid, gid) => (Kind::Directory, 0o755, Some((*uid, *gid))),
            Missing::Create(kind, mode, traces) => {
                if fstat(&here)?.st_dev == self.device {
                    traces.creating(path);
                }
                if last { (*kind, *mode, None) } else { (Kind::Directory, 0o755, None) }
            }
        };
        match kind {
            Kind::Directory => mkdirat(&here, name, Mode::from_raw_mode(mode))?,
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                drop(openat(&here, name, flags, Mode::from_raw_mode(mode))?);
            }
        }
        if let Some((uid, gid)) = owner {
            let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
            match rustix::fs::chownat(&here, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
                // An id that this namespace does not have: the directory stays root's.
                Err(Errno::INVAL | Errno::PERM) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(open(here.as_fd(), name)?)
    }
}

enum Step {
    Root,
    Up,
    Down(OsString),
}

fn steps(path: &Path) -> VecDeque<Step> {
    let step = |component: Component<'_>| match component {
        Component::RootDir => Some(Step::Root),
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Down(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(step).collect()
}

/// Opens one component, following nothing: a symlink, a magic one of /proc too, is only read.
fn open(directory: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}
