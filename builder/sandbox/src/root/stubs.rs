//! The lowest layer: empty files and directories to mount on, so that layers without them get none.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

use super::target::Kind;

/// Makes a place for each target, as far as their literal paths go: where a layer above has a symlink on the way, the
/// place is looked for (and made) through the overlay.
pub(crate) fn create<'a>(stubs: &Path, targets: impl Iterator<Item = (&'a Path, Kind)>) -> io::Result<()> {
    let root = openat(CWD, stubs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for (path, kind) in targets {
        match create_one(&root, path, kind) {
            Ok(()) | Err(Errno::NOTDIR | Errno::EXIST | Errno::ISDIR | Errno::LOOP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn create_one(root: &OwnedFd, path: &Path, kind: Kind) -> rustix::io::Result<()> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(Some(name)),
        Component::ParentDir => Some(None),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    // `..` means something else when there are symlinks.
    let Some(names) = names.collect::<Option<Vec<_>>>() else { return Ok(()) };
    let Some((last, parents)) = names.split_last() else { return Ok(()) };
    let mut directory: Option<OwnedFd> = None;
    for name in parents {
        let here = directory.as_ref().unwrap_or(root);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = match openat(here, *name, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                mkdirat(here, *name, Mode::from_raw_mode(0o755))?;
                openat(here, *name, flags, Mode::empty())?
            }
            found => found?,
        };
        directory = Some(next);
    }
    let here = directory.as_ref().unwrap_or(root);
    match kind {
        Kind::Directory => mkdirat(here, *last, Mode::from_raw_mode(0o755)),
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(here, *last, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    }
}
