//! Directories by descriptor: listing, opening and removing, never through a symlink.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

/// How deep a walk keeps a descriptor of every directory above it.
pub(crate) const OPEN_DEPTH: usize = 96;

/// The names of one directory, in one allocation: a million of them stay a few tens of megabytes.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    names: Vec<u8>,
    entries: Vec<Slot>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    start: u32,
    length: u16,
    kind: FileType,
}

impl Listing {
    /// Reads the directory, which must just have been opened. Without order.
    pub(crate) fn read(directory: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let mut listing = Self::default();
        let mut buffer = [MaybeUninit::uninit(); 32 << 10];
        let mut entries = RawDir::new(directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let kind = match entry.file_type() {
                // Some file systems do not say.
                FileType::Unknown => {
                    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(stat.st_mode)
                }
                kind => kind,
            };
            let start = u32::try_from(listing.names.len()).map_err(|_| Errno::OVERFLOW)?;
            let length = u16::try_from(name.len()).map_err(|_| Errno::NAMETOOLONG)?;
            listing.names.extend_from_slice(name);
            listing.entries.push(Slot { start, length, kind });
        }
        Ok(listing)
    }

    /// Orders the names by their bytes.
    pub(crate) fn sort(&mut self) {
        let names = &self.names;
        self.entries.sort_unstable_by(|a, b| slot_name(names, a).cmp(slot_name(names, b)));
    }

    pub(crate) fn get(&self, index: usize) -> Option<(&[u8], FileType)> {
        self.entries.get(index).map(|slot| (slot_name(&self.names, slot), slot.kind))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], FileType)> {
        self.entries.iter().map(|slot| (slot_name(&self.names, slot), slot.kind))
    }
}

fn slot_name<'a>(names: &'a [u8], slot: &Slot) -> &'a [u8] {
    let start = slot.start as usize;
    &names[start..start + usize::from(slot.length)]
}

/// Opens a directory for reading; a symlink is refused.
pub(crate) fn open(parent: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Opens the directory above one.
pub(crate) fn open_parent(directory: Option<&OwnedFd>) -> rustix::io::Result<OwnedFd> {
    open(directory.ok_or(Errno::BADF)?, "..")
}

/// Removes `name` and all that is below it. What is not there is no error.
pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    let mut removal = Removal { top: parent, hoisted: 0, done: 0 };
    removal.remove(parent, name, FileType::Unknown, 0)?;
    while removal.done < removal.hoisted {
        let name = removal.hoisted_name(removal.done);
        removal.done += 1;
        removal.remove(parent, name.as_bytes(), FileType::Directory, 0)?;
    }
    Ok(())
}

/// A removal in progress. What lies deeper than [`OPEN_DEPTH`] is moved up beside the tree and removed afterwards, so
/// neither descriptors nor stack grow with the depth.
struct Removal<'a> {
    top: BorrowedFd<'a>,
    hoisted: u64,
    done: u64,
}

impl Removal<'_> {
    fn hoisted_name(&self, number: u64) -> String {
        format!(".removed-{}-{number}", std::process::id())
    }

    fn remove(&mut self, parent: BorrowedFd<'_>, name: &[u8], kind: FileType, depth: usize) -> rustix::io::Result<()> {
        if kind != FileType::Directory {
            match unlink(parent, name, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) => {}
                other => return other,
            }
        }
        if depth > OPEN_DEPTH {
            let hoisted = self.hoisted_name(self.hoisted);
            rustix::fs::renameat(parent, name, self.top, hoisted.as_bytes())?;
            self.hoisted += 1;
            return Ok(());
        }
        let directory = match open(parent, name) {
            Err(Errno::ACCESS) => {
                rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
                open(parent, name)?
            }
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let listing = Listing::read(directory.as_fd())?;
        for (child, kind) in listing.iter() {
            self.remove(directory.as_fd(), child, kind, depth + 1)?;
        }
        unlink(parent, name, AtFlags::REMOVEDIR)
    }
}

/// Unlinks, making the directory writable first when it is ours but is not.
fn unlink(parent: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, flags) {
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::ACCESS) => {
            rustix::fs::fchmod(parent, Mode::RWXU)?;
            rustix::fs::unlinkat(parent, name, flags)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_tree_goes_without_what_its_links_point_at() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(root.path().join("outside"), "stays").unwrap();
        fs::create_dir(root.path().join("other")).unwrap();
        fs::write(root.path().join("other/file"), "stays").unwrap();
        std::os::unix::fs::symlink("../../outside", tree.join("a/file")).unwrap();
        std::os::unix::fs::symlink("../../other", tree.join("a/directory")).unwrap();
        fs::write(tree.join("a/b/x"), "").unwrap();
        fs::set_permissions(tree.join("a/b"), fs::Permissions::from_mode(0o000)).unwrap();
        let fd = open(rustix::fs::CWD, root.path()).unwrap();
        remove_tree(fd.as_fd(), b"tree").unwrap();
        remove_tree(fd.as_fd(), b"tree").unwrap();
        assert!(!tree.exists());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
        assert!(root.path().join("other/file").exists());
    }

    #[test]
    fn a_tree_deeper_than_any_path_goes() {
        let root = tempfile::tempdir().unwrap();
        let top = open(rustix::fs::CWD, root.path()).unwrap();
        rustix::fs::mkdirat(&top, "tree", Mode::RWXU).unwrap();
        let mut directory = open(&top, "tree").unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&directory, "deep", Mode::RWXU).unwrap();
            directory = open(&directory, "deep").unwrap();
        }
        remove_tree(top.as_fd(), b"tree").unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
