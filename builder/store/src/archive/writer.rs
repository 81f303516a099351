//! A directory as the one tar that it has: names sorted by their bytes, nothing of the host in it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps};

use super::header::{Header, Kind};
use super::{OPAQUE, WHITEOUT_PREFIX, padding};
use crate::attributes::{Attributes, Target};
use crate::directory::{self, Listing, OPEN_DEPTH};
use crate::store::Privilege;
use crate::{Error, Result};

/// Content is read and passed on in pieces of this size.
const BUFFER: usize = 256 << 10;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    /// Bytes of the tar.
    pub(crate) size: u64,
    /// Its members.
    pub(crate) entries: u64,
}

/// What happens to the directory on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// Nothing.
    Read,
    /// What no layer can hold (sockets, names that mean whiteouts, overlay's notes) is removed, and modification times
    /// later than `clamp` (seconds since 1970) are set to it, so that directory and tar agree.
    Finish {
        /// The latest time.
        clamp: Option<i64>,
    },
}

/// Writes the tar of the directory `root`.
pub(crate) fn write(root: OwnedFd, privilege: Privilege, treatment: Treatment, out: &mut dyn Write) -> Result<Written> {
    let mut writer = Writer {
        out,
        buffer: Vec::with_capacity(BUFFER),
        size: 0,
        entries: 0,
        privilege,
        treatment,
        path: Vec::new(),
        links: HashMap::new(),
    };
    writer.tree(root)?;
    writer.buffer.resize(writer.buffer.len() + 2 * super::BLOCK, 0);
    writer.drain()?;
    Ok(Written { size: writer.size, entries: writer.entries })
}

struct Writer<'a> {
    out: &'a mut dyn Write,
    /// Headers and content on their way out.
    buffer: Vec<u8>,
    size: u64,
    entries: u64,
    privilege: Privilege,
    treatment: Treatment,
    /// Of the entry at hand, relative to the root.
    path: Vec<u8>,
    /// The first path of every file that has more.
    links: HashMap<(u64, u64), FirstLink>,
}

struct FirstLink {
    path: Box<[u8]>,
    /// Paths still to come, as far as the link count tells.
    left: u64,
}

/// A directory whose entries are being written.
struct Level {
    /// `None` below [`OPEN_DEPTH`] while something deeper is open.
    directory: Option<OwnedFd>,
    listing: Listing,
    next: usize,
    /// Length of its path.
    path: usize,
}

impl Writer<'_> {
    fn tree(&mut self, root: OwnedFd) -> Result<()> {
        let root = self.enter(root, None)?;
        let mut levels = vec![root];
        while let Some(level) = levels.last_mut() {
            self.path.truncate(level.path);
            let Some((name, kind)) = level.listing.get(level.next) else {
                let done = levels.pop();
                if let (Some(done), Some(above)) = (done, levels.last_mut())
                    && above.directory.is_none()
                {
                    above.directory = Some(self.io("open directory", directory::open_parent(done.directory.as_ref()))?);
                }
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            level.next += 1;
            if is_left_out(name, kind) {
                continue;
            }
            let Some(directory) = &level.directory else { return Err(Error::ThreadLost("the walk of a layer")) };
            if kind == FileType::Directory {
                let opened = self.io("open directory", directory::open(directory, name))?;
                let stat = self.io("examine directory", rustix::fs::fstat(&opened))?;
                if levels.len() >= OPEN_DEPTH
                    && let Some(level) = levels.last_mut()
                {
                    level.directory = None;
                }
                let below = self.enter(opened, Some(&stat))?;
                levels.push(below);
            } else {
                self.leaf(directory.as_fd(), name, kind)?;
            }
        }
        Ok(())
    }

    /// Writes a directory's own entry (the root has none) and its opaque mark, and lists it.
    fn enter(&mut self, directory: OwnedFd, stat: Option<&Stat>) -> Result<Level> {
        let mut listing = self.io("list directory", Listing::read(directory.as_fd()))?;
        listing.sort();
        let target = Target::Open(directory.as_fd());
        let finishing = self.treatment != Treatment::Read;
        if finishing {
            self.io("clean the attributes of", target.strip_overlay(self.privilege))?;
        }
        let pruned = finishing && self.prune(directory.as_fd(), &listing)?;
        let length = self.path.len();
        if let Some(stat) = stat {
            let mtime = self.clamped(stat);
            if pruned || mtime != times(stat) {
                self.io("set the time of", rustix::fs::futimens(&directory, &timestamps(mtime)))?;
            }
            let attributes = self.io("read the attributes of", target.read())?;
            self.path.push(b'/');
            self.entry(Kind::Directory, stat, mtime, b"", attributes)?;
        }
        if self.io("read the attributes of", target.is_opaque(self.privilege))? {
            self.path.extend_from_slice(OPAQUE);
            self.bare()?;
        }
        self.path.truncate(length);
        Ok(Level { directory: Some(directory), listing, next: 0, path: length })
    }

    /// Removes what the tar leaves out.
    fn prune(&self, directory: BorrowedFd<'_>, listing: &Listing) -> Result<bool> {
        let mut pruned = false;
        for (name, _) in listing.iter().filter(|(name, kind)| is_left_out(name, *kind)) {
            self.io("remove", directory::remove_tree(directory, name))?;
            pruned = true;
        }
        Ok(pruned)
    }

    fn leaf(&mut self, directory: BorrowedFd<'_>, name: &[u8], kind: FileType) -> Result<()> {
        if kind == FileType::RegularFile {
            return self.file(directory, name);
        }
        let stat = self.io("examine", rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW))?;
        if is_whiteout(&stat) {
            let at = self.path.len() - name.len();
            self.path.splice(at..at, WHITEOUT_PREFIX.iter().copied());
            return self.bare();
        }
        let mtime = self.clamped(&stat);
        if mtime != times(&stat) {
            let result = rustix::fs::utimensat(directory, name, &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW);
            self.io("set the time of", result)?;
        }
        if self.linked(&stat, mtime)? {
            return Ok(());
        }
        let target = Target::At(directory, name);
        let attributes = self.io("read the attributes of", target.read())?;
        let mut link = Vec::new();
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                link = self.io("read link", rustix::fs::readlinkat(directory, name, Vec::new()))?.into_bytes();
                Kind::Symlink
            }
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            _ => return Err(self.archive_error("it changed while it was read")),
        };
        self.entry(kind, &stat, mtime, &link, attributes)
    }

    fn file(&mut self, directory: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        // NONBLOCK: should it have become a fifo, opening must not wait for its other end.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = self.io("open", rustix::fs::openat(directory, name, flags, Mode::empty()))?;
        let stat = self.io("examine", rustix::fs::fstat(&file))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.archive_error("it changed while it was read"));
        }
        let mtime = self.clamped(&stat);
        if mtime != times(&stat) {
            self.io("set the time of", rustix::fs::futimens(&file, &timestamps(mtime)))?;
        }
        if self.linked(&stat, mtime)? {
            return Ok(());
        }
        let target = Target::Open(file.as_fd());
        if self.treatment != Treatment::Read {
            self.io("clean the attributes of", target.strip_overlay(self.privilege))?;
        }
        let attributes = self.io("read the attributes of", target.read())?;
        self.entry(Kind::File, &stat, mtime, b"", attributes)?;
        self.content(file.as_fd(), size(&stat))
    }

    /// Copies exactly `size` bytes, and the padding.
    fn content(&mut self, file: BorrowedFd<'_>, size: u64) -> Result<()> {
        let mut left = size;
        while left > 0 {
            let filled = self.buffer.len();
            if filled >= BUFFER {
                self.drain()?;
                continue;
            }
            let want = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER - filled);
            self.buffer.resize(filled + want, 0);
            let read = rustix::io::retry_on_intr(|| rustix::io::read(file, &mut self.buffer[filled..]));
            let count = self.io("read", read)?;
            self.buffer.truncate(filled + count);
            if count == 0 {
                return Err(self.archive_error("it became shorter while it was read"));
            }
            left -= count as u64;
        }
        self.buffer.resize(self.buffer.len() + padding(size) as usize, 0);
        Ok(())
    }

    /// Writes a hard link when this file was written before; remembers it when it will come again.
    fn linked(&mut self, stat: &Stat, mtime: (i64, u32)) -> Result<bool> {
        if stat.st_nlink < 2 {
            return Ok(false);
        }
        let key = (stat.st_dev, stat.st_ino);
        let Some(mut first) = self.links.remove(&key) else {
            self.links.insert(key, FirstLink { path: self.path.as_slice().into(), left: stat.st_nlink - 1 });
            return Ok(false);
        };
        self.entry(Kind::HardLink, stat, mtime, &first.path, Attributes::new())?;
        first.left -= 1;
        if first.left > 0 {
            self.links.insert(key, first);
        }
        Ok(true)
    }

    fn entry(&mut self, kind: Kind, stat: &Stat, mtime: (i64, u32), link: &[u8], attributes: Attributes) -> Result<()> {
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
            _ => (0, 0),
        };
        let header = Header {
            path: &self.path,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: if kind == Kind::File { size(stat) } else { 0 },
            mtime,
            link,
            device,
            attributes,
        };
        header.encode(&mut self.buffer);
        self.written_header()
    }

    /// An empty file with nothing but the current path.
    fn bare(&mut self) -> Result<()> {
        Header::bare(&self.path, Kind::File).encode(&mut self.buffer);
        self.written_header()
    }

    fn written_header(&mut self) -> Result<()> {
        self.entries += 1;
        if self.buffer.len() >= BUFFER { self.drain() } else { Ok(()) }
    }

    fn drain(&mut self) -> Result<()> {
        self.out.write_all(&self.buffer).map_err(Error::ArchiveWrite)?;
        self.size += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn clamped(&self, stat: &Stat) -> (i64, u32) {
        match self.treatment {
            Treatment::Finish { clamp: Some(clamp) } if times(stat) > (clamp, 0) => (clamp, 0),
            _ => times(stat),
        }
    }

    fn io<T, E: Into<io::Error>>(&self, action: &'static str, result: Result<T, E>) -> Result<T> {
        result.map_err(|error| Error::io(action, PathBuf::from(OsStr::from_bytes(&self.path)))(error))
    }

    fn archive_error(&self, reason: &str) -> Error {
        Error::Archive { entry: String::from_utf8_lossy(&self.path).into_owned(), reason: reason.to_owned() }
    }
}

/// Sockets are in no archive; names that mean whiteouts in one cannot be anything else there.
fn is_left_out(name: &[u8], kind: FileType) -> bool {
    kind == FileType::Socket || name.starts_with(WHITEOUT_PREFIX)
}

/// overlay's whiteout: character device 0:0. All of them may be links of one inode.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    stat.st_rdev == 0 && FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
}

/// Seconds and nanoseconds of the modification time.
pub(crate) fn times(stat: &Stat) -> (i64, u32) {
    (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0))
}

/// Both times of a file set to one.
pub(crate) fn timestamps((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}
