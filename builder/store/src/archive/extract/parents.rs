//! Directories that an archive uses without having named them.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use crate::archive::writer::{is_whiteout, times, timestamps};
use crate::attributes::Target;
use crate::directory;
use crate::store::Privilege;

/// As many as the kernel follows.
const MAX_LINKS: u32 = 40;

/// Opens the directory at `path`, as found with `root` as the root directory, making what is missing (mode 755, time
/// 0). Nobody else works in the tree, so looking and making need not be one step.
pub(super) fn make(root: &OwnedFd, path: &[u8], privilege: Privilege) -> rustix::io::Result<OwnedFd> {
    let mut directory = directory::open(root, ".")?;
    let mut links = 0;
    let mut pending: VecDeque<Vec<u8>> = components(path).collect();
    while let Some(name) = pending.pop_front() {
        if name == b".." {
            if !same(&directory, root)? {
                directory = directory::open(&directory, "..")?;
            }
            continue;
        }
        match directory::open(&directory, name.as_slice()) {
            Ok(next) => directory = next,
            Err(Errno::NOENT) => directory = make_one(&directory, &name)?,
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let stat = rustix::fs::statat(&directory, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?;
                if is_whiteout(&stat) {
                    directory::remove_tree(directory.as_fd(), &name)?;
                    directory = make_one(&directory, &name)?;
                    Target::Open(directory.as_fd()).set_opaque(privilege)?;
                    continue;
                }
                links += 1;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                    return Err(Errno::NOTDIR);
                }
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                let target = rustix::fs::readlinkat(&directory, name.as_slice(), Vec::new())?.into_bytes();
                if target.starts_with(b"/") {
                    directory = directory::open(root, ".")?;
                }
                for component in components(&target).collect::<Vec<_>>().into_iter().rev() {
                    pending.push_front(component);
                }
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(directory)
}

fn components(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).map(<[u8]>::to_vec)
}

fn same(a: &OwnedFd, b: &OwnedFd) -> rustix::io::Result<bool> {
    let (a, b) = (rustix::fs::fstat(a)?, rustix::fs::fstat(b)?);
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// Makes a directory without disturbing the time of the one it is in.
fn make_one(parent: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let before = times(&rustix::fs::fstat(parent)?);
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
    rustix::fs::futimens(parent, &timestamps(before))?;
    let made = directory::open(parent, name)?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
    rustix::fs::futimens(&made, &timestamps((0, 0)))?;
    Ok(made)
}
