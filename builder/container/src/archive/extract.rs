//! Unpacking an archive of a stranger into a directory: nothing in it leads out of there.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, fchmod, fchown, linkat,
    mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::attributes;

/// How to unpack.
#[derive(Debug, Clone, Default)]
pub(super) struct Treatment {
    /// The first component of every path becomes this; `Some(None)` takes it away.
    pub(super) rename: Option<Option<OsString>>,
    /// Owners as in the archive; else everything is this process's own.
    pub(super) owners: bool,
}

/// Unpacks; returns the bytes of the files.
pub(super) fn extract(input: impl Read, directory: &Path, treatment: &Treatment) -> io::Result<u64> {
    let base = openat(CWD, directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| io::Error::other(format!("{}: {}", directory.display(), io::Error::from(error))))?;
    let mut archive = tar::Archive::new(input);
    let mut total = 0;
    // Times of directories change with what is put into them: they come last.
    let mut times: Vec<(PathBuf, i64)> = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let target = relative(&path, treatment)?;
        total += entry.header().size().unwrap_or(0);
        let mtime = i64::try_from(entry.header().mtime().unwrap_or(0)).unwrap_or(0);
        let describe = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        place(&mut entry, &base, &target, treatment).map_err(describe)?;
        if entry.header().entry_type() == tar::EntryType::Directory {
            times.push((target, mtime));
        } else {
            set_time(&base, &target, mtime);
        }
    }
    for (path, mtime) in times.iter().rev() {
        set_time(&base, path, *mtime);
    }
    Ok(total)
}

/// Where an entry goes below the base: normal components only.
fn relative(path: &Path, treatment: &Treatment) -> io::Result<PathBuf> {
    let mut components = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => components.push(name.to_owned()),
            Component::CurDir | Component::RootDir => {}
            _ => return Err(io::Error::other(format!("the archive has the path {}", path.display()))),
        }
    }
    if let Some(name) = &treatment.rename
        && !components.is_empty()
    {
        match name {
            Some(name) => components[0].clone_from(name),
            None => drop(components.remove(0)),
        }
    }
    Ok(components.iter().collect())
}

/// Opens the directory of a path, by real directories only; makes those that are missing.
fn parent<'a>(base: &OwnedFd, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
    let name = path.file_name().ok_or_else(|| io::Error::other("an entry without a name"))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match open_directory(base, parent) {
        Err(Errno::NOENT) => {
            let mut made = PathBuf::new();
            for component in parent.components() {
                made.push(component);
                let (above, name) = (made.parent().filter(|above| !above.as_os_str().is_empty()), made.file_name());
                let above = open_directory(base, above.unwrap_or(Path::new(".")))?;
                match mkdirat(&above, name.unwrap_or_default(), Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok((open_directory(base, parent)?, name))
        }
        opened => Ok((opened?, name)),
    }
}

fn open_directory(base: impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(base, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn place(entry: &mut tar::Entry<'_, impl Read>, base: &OwnedFd, path: &Path, treatment: &Treatment) -> io::Result<()> {
    use tar::EntryType as Kind;
    let header = entry.header();
    let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
    let kind = header.entry_type();
    let id = |id: u64| u32::try_from(id).unwrap_or(u32::MAX);
    let owner = if treatment.owners { (id(header.uid()?), id(header.gid()?)) } else { own() };
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    let attributes = attributes::read(entry)?;
    let (directory, name) = parent(base, path)?;
    if kind == Kind::Directory {
        return make_directory(&directory, name, mode, owner, &attributes);
    }
    match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            return Err(io::Error::other("cannot overwrite a directory with something else"));
        }
        Ok(_) => unlinkat(&directory, name, AtFlags::empty())?,
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    match kind {
        Kind::Symlink => {
            let target = entry.link_name_bytes().unwrap_or_default();
            symlinkat(OsStr::from_bytes(&target), &directory, name)?;
            let (uid, gid) = ids(owner);
            return permitted(rustix::fs::chownat(&directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW));
        }
        Kind::Link => {
            let target = entry.link_name()?.ok_or_else(|| io::Error::other("a link to nowhere"))?.into_owned();
            let target = relative(&target, treatment)?;
            let (other, other_name) = parent(base, &target)?;
            return Ok(linkat(&other, other_name, &directory, name, AtFlags::empty())?);
        }
        Kind::Fifo => mknodat(&directory, name, FileType::Fifo, mode, 0)?,
        Kind::Char | Kind::Block => {
            let file_type = if kind == Kind::Char { FileType::CharacterDevice } else { FileType::BlockDevice };
            let (major, minor) = (entry.header().device_major()?, entry.header().device_minor()?);
            let number = rustix::fs::makedev(major.unwrap_or(0), minor.unwrap_or(0));
            mknodat(&directory, name, file_type, mode, number)?;
        }
        _ => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let mut file = File::from(openat(&directory, name, flags, Mode::from_raw_mode(0o600))?);
            io::copy(entry, &mut file)?;
            let (uid, gid) = ids(owner);
            permitted(fchown(&file, uid, gid))?;
            attributes::set(&file, &attributes);
            return Ok(fchmod(&file, mode)?);
        }
    }
    let (uid, gid) = ids(owner);
    permitted(rustix::fs::chownat(&directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW))
}

fn make_directory(
    directory: &OwnedFd,
    name: &OsStr,
    mode: Mode,
    owner: (u32, u32),
    attributes: &[(String, Vec<u8>)],
) -> io::Result<()> {
    match mkdirat(directory, name, Mode::from_raw_mode(0o700)) {
        Ok(()) => {}
        // What was there keeps its owner and mode.
        Err(Errno::EXIST) => return open_directory(directory, Path::new(name)).map(drop).map_err(Into::into),
        Err(error) => return Err(error.into()),
    }
    let made = open_directory(directory, Path::new(name))?;
    let (uid, gid) = ids(owner);
    permitted(fchown(&made, uid, gid))?;
    attributes::set(&made, attributes);
    Ok(fchmod(&made, mode)?)
}

fn own() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

fn ids((uid, gid): (u32, u32)) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

/// An id that this user cannot give leaves the file this user's own.
fn permitted(changed: rustix::io::Result<()>) -> io::Result<()> {
    match changed {
        Ok(()) | Err(Errno::PERM | Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn set_time(base: &OwnedFd, path: &Path, seconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    if let Ok((directory, name)) = parent(base, path) {
        let _ = utimensat(&directory, name, &times, AtFlags::SYMLINK_NOFOLLOW);
    }
}
