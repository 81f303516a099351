//! Unpacking a hostile archive into one directory and nowhere else.
//!
//! Names are cleaned of `.` and `..`; the directories on their way are resolved by the kernel with that directory as
//! root (`openat2`, `RESOLVE_IN_ROOT`), so that symlinks work as they do in the container; the last component is
//! never followed. Nothing is remembered of members that are done: the times of directories, which every member in
//! them disturbs, are put back whenever the archive goes on elsewhere.
//!
//! Names are made by one thread in the archive's order; what is in small files, and their metadata, another one writes.

use std::io::{self, BufRead};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::header::Kind;
use super::reader::{Member, Reader};
use super::writer::{is_whiteout, times, timestamps};
use super::{OPAQUE, WHITEOUT_META_PREFIX, WHITEOUT_PREFIX};
use crate::attributes::Target;
use crate::directory;
use crate::path::{normal, split};
use crate::store::Privilege;
use crate::{Error, Result};

mod content;
mod filler;
mod metadata;
mod parents;

use filler::Filler;
use metadata::{Creator, Metadata};

/// What came out of an archive.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extracted {
    /// Members that were made.
    pub(crate) entries: u64,
    /// Devices that this process may not make; they are left out.
    pub(crate) skipped_devices: u64,
}

/// Unpacks the tar stream below `root`, and reads it to its end.
pub(crate) fn extract(input: impl BufRead, root: OwnedFd, privilege: Privilege) -> Result<Extracted> {
    let mut reader = Reader::new(input);
    let mut extractor = Extractor {
        root,
        privilege,
        creator: Creator { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() },
        parent: None,
        extracted: Extracted::default(),
        filler: Filler::new(privilege),
    };
    while let Some(member) = reader.next_member()? {
        extractor.member(member, &mut reader)?;
    }
    extractor.leave_parent()?;
    extractor.filler.finish()?;
    reader.drain()?;
    Ok(extractor.extracted)
}

struct Extractor {
    root: OwnedFd,
    privilege: Privilege,
    creator: Creator,
    /// The directory of the last member.
    parent: Option<Parent>,
    extracted: Extracted,
    filler: Filler,
}

struct Parent {
    /// As the archive names it, cleaned.
    path: Vec<u8>,
    directory: OwnedFd,
    /// What its modification time has to be again.
    mtime: (i64, u32),
    /// Its group is ours, so that new files get ours, whether by its setgid bit, by the mount or by default.
    own_group: bool,
}

/// One member on its way into its directory.
struct Place<'a> {
    member: &'a Member,
    directory: &'a OwnedFd,
    name: &'a [u8],
    privilege: Privilege,
    /// Owner of what is made new here, when it is sure.
    creator: Option<Creator>,
}

impl Extractor {
    fn member<R: BufRead>(&mut self, owned: Member, reader: &mut Reader<R>) -> Result<()> {
        let member = &owned;
        let path = normal(&member.path);
        let (parent, name) = split(&path);
        if name.is_empty() {
            // The layer's own root has no entry here.
            return if member.kind == Kind::Directory { Ok(()) } else { Err(refuse(member, "its name is empty")) };
        }
        if name.starts_with(WHITEOUT_META_PREFIX) && name != OPAQUE {
            return Ok(());
        }
        self.enter_parent(member, parent)?;
        let Some(Parent { directory, own_group, .. }) = &self.parent else { return Ok(()) };
        let creator = own_group.then_some(self.creator);
        let place = Place { member, directory, name, privilege: self.privilege, creator };
        if name == OPAQUE {
            let marked = Target::Open(directory.as_fd()).set_opaque(self.privilege);
            marked.map_err(failed(member, "mark as opaque"))?;
        } else if let Some(name) = name.strip_prefix(WHITEOUT_PREFIX) {
            Place { name, ..place }.make_whiteout()?;
        } else {
            match member.kind {
                Kind::File if member.size < content::HOLE as u64 => {
                    let made = content::make(&place)?;
                    self.filler.add(made, owned, creator, reader)?;
                }
                Kind::File => content::write(&place, reader)?,
                Kind::Directory => place.make_directory()?,
                Kind::Symlink => place.make_symlink()?,
                Kind::HardLink => place.make_hard_link(&self.root)?,
                Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                    if !place.make_node()? {
                        self.extracted.skipped_devices += 1;
                        return Ok(());
                    }
                }
            }
        }
        self.extracted.entries += 1;
        Ok(())
    }

    /// Opens the directory that a member goes to, unless it is open already.
    fn enter_parent(&mut self, member: &Member, path: &[u8]) -> Result<()> {
        if self.parent.as_ref().is_some_and(|parent| parent.path == path) {
            return Ok(());
        }
        self.leave_parent()?;
        let opened = if path.is_empty() { directory::open(&self.root, ".") } else { open_in_root(&self.root, path) };
        let directory = match opened {
            Err(Errno::NOENT | Errno::NOTDIR) => {
                parents::make(&self.root, path, self.privilege).map_err(failed(member, "make the directory of"))?
            }
            opened => opened.map_err(failed(member, "open the directory of"))?,
        };
        let stat = rustix::fs::fstat(&directory).map_err(failed(member, "examine the directory of"))?;
        self.parent = Some(Parent {
            path: path.to_vec(),
            directory,
            mtime: times(&stat),
            own_group: stat.st_gid == self.creator.gid,
        });
        Ok(())
    }

    /// Gives the last member's directory its time back.
    fn leave_parent(&mut self) -> Result<()> {
        let Some(parent) = self.parent.take() else { return Ok(()) };
        rustix::fs::futimens(&parent.directory, &timestamps(parent.mtime))
            .map_err(Error::io("set the time of", String::from_utf8_lossy(&parent.path).as_ref()))
    }
}

impl Place<'_> {
    fn metadata(&self) -> Metadata<'_> {
        Metadata { member: self.member, privilege: self.privilege, creator: self.creator }
    }

    /// Runs `make`; when something of that name is here, removes it and runs `make` again.
    fn replace<T>(&self, action: &'static str, make: impl Fn() -> rustix::io::Result<T>) -> Result<T> {
        match make() {
            Err(Errno::EXIST) => {
                directory::remove_tree(self.directory.as_fd(), self.name).map_err(failed(self.member, "replace"))?;
                make().map_err(failed(self.member, action))
            }
            made => made.map_err(failed(self.member, action)),
        }
    }

    fn make_directory(&self) -> Result<()> {
        let make = || rustix::fs::mkdirat(self.directory, self.name, Mode::RWXU);
        let (mut new, mut opaque) = (true, false);
        match make() {
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(self.directory, self.name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(failed(self.member, "examine"))?;
                new = FileType::from_raw_mode(stat.st_mode) != FileType::Directory;
                if new {
                    // A directory in place of a removed one hides what the lower one held.
                    opaque = is_whiteout(&stat);
                    self.replace("make directory", make)?;
                }
            }
            made => made.map_err(failed(self.member, "make directory"))?,
        }
        let made = directory::open(self.directory, self.name).map_err(failed(self.member, "open directory"))?;
        if opaque {
            Target::Open(made.as_fd()).set_opaque(self.privilege).map_err(failed(self.member, "mark as opaque"))?;
        }
        self.metadata().set(&made, new)
    }

    fn make_symlink(&self) -> Result<()> {
        self.replace("make symlink", || rustix::fs::symlinkat(self.member.link.as_slice(), self.directory, self.name))?;
        self.metadata().set_by_name(self.directory, self.name)
    }

    /// Links to a file that this archive had before; other layers are out of reach.
    fn make_hard_link(&self, root: &OwnedFd) -> Result<()> {
        let target = normal(&self.member.link);
        let (parent, name) = split(&target);
        let missing = |errno| match errno {
            Errno::NOENT | Errno::NOTDIR => {
                let target = String::from_utf8_lossy(&self.member.link);
                refuse(self.member, &format!("it is a hard link to `{target}`, which is not in this layer"))
            }
            errno => failed(self.member, "make hard link")(errno),
        };
        let opened = if parent.is_empty() { directory::open(root, ".") } else { open_in_root(root, parent) };
        let from = opened.map_err(missing)?;
        let link = || rustix::fs::linkat(&from, name, self.directory, self.name, AtFlags::empty());
        match link() {
            Err(Errno::EXIST) => {
                let stat = |directory, name| rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
                let source = stat(&from, name).map_err(missing)?;
                let here = stat(self.directory, self.name).map_err(missing)?;
                if (source.st_dev, source.st_ino) == (here.st_dev, here.st_ino) {
                    return Ok(());
                }
                directory::remove_tree(self.directory.as_fd(), self.name).map_err(failed(self.member, "replace"))?;
                link().map_err(missing)
            }
            linked => linked.map_err(missing),
        }
    }

    /// Devices and fifos; `false` when this process may not make devices.
    fn make_node(&self) -> Result<bool> {
        let kind = match self.member.kind {
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let (major, minor) = self.member.device;
        let device = if kind == FileType::Fifo { 0 } else { rustix::fs::makedev(major, minor) };
        let make = || match rustix::fs::mknodat(self.directory, self.name, kind, Mode::RUSR, device) {
            Err(Errno::PERM) if kind != FileType::Fifo => Ok(false),
            made => made.map(|()| true),
        };
        let made = self.replace("make node", make)?;
        if made {
            self.metadata().set_by_name(self.directory, self.name)?;
        }
        Ok(made)
    }

    /// What this layer has itself stays, but hides what is below.
    fn make_whiteout(&self) -> Result<()> {
        if matches!(self.name, b"" | b"." | b"..") {
            return Err(refuse(self.member, "it is a whiteout of nothing"));
        }
        let made = rustix::fs::mknodat(self.directory, self.name, FileType::CharacterDevice, Mode::empty(), 0);
        match made {
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(self.directory, self.name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(failed(self.member, "examine"))?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    let target = Target::At(self.directory.as_fd(), self.name);
                    target.set_opaque(self.privilege).map_err(failed(self.member, "mark as opaque"))?;
                }
                Ok(())
            }
            made => made.map_err(failed(self.member, "make whiteout")),
        }
    }
}

/// Opens a directory as it would be found with `root` as the root directory.
fn open_in_root(root: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

fn failed<E: Into<io::Error>>(member: &Member, action: &'static str) -> impl FnOnce(E) -> Error {
    let path = String::from_utf8_lossy(&member.path).into_owned();
    move |error| Error::io(action, path)(error)
}

fn refuse(member: &Member, reason: &str) -> Error {
    Error::Archive { entry: String::from_utf8_lossy(&member.path).into_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
