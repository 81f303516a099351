//! Extended attributes: which belong to a layer, and overlay's own.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::store::Privilege;

/// The most the kernel gives for a list or a value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const MAX: usize = 64 << 10;

/// Name and value, sorted by name.
pub(crate) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// Whose attributes.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    /// An open file or directory (not by `O_PATH`).
    Open(BorrowedFd<'a>),
    /// A name in a directory, not followed when it is a symlink.
    At(BorrowedFd<'a>, &'a [u8]),
}

impl Target<'_> {
    /// The name in the form that the calls without descriptors take; `/proc` leads through the descriptor.
    fn path(&self) -> PathBuf {
        match self {
            Self::Open(fd) => PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())),
            Self::At(fd, name) => Path::new(&format!("/proc/self/fd/{}", fd.as_raw_fd())).join(OsStr::from_bytes(name)),
        }
    }

    fn list_into(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Self::Open(fd) => rustix::fs::flistxattr(fd, buffer),
            Self::At(..) => rustix::fs::llistxattr(self.path(), buffer),
        }
    }

    /// Every name, overlay's included; none where the file system has no attributes.
    pub(crate) fn names(&self) -> rustix::io::Result<Vec<Vec<u8>>> {
        let mut small = [0; 512];
        let mut large = Vec::new();
        let list = match self.list_into(&mut small) {
            Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Ok(length) => &small[..length],
            Err(Errno::RANGE) => {
                large.resize(MAX, 0);
                let length = self.list_into(&mut large)?;
                &large[..length]
            }
            Err(errno) => return Err(errno),
        };
        Ok(list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
    }

    /// The value; `None` when there is none.
    pub(crate) fn get(&self, name: &[u8]) -> rustix::io::Result<Option<Vec<u8>>> {
        let mut small = [0; 512];
        let read = |buffer: &mut [u8]| match self {
            Self::Open(fd) => rustix::fs::fgetxattr(fd, name, buffer),
            Self::At(..) => rustix::fs::lgetxattr(self.path(), name, buffer),
        };
        match read(&mut small) {
            Ok(length) => Ok(Some(small[..length].to_vec())),
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
            Err(Errno::RANGE) => {
                let mut large = vec![0; MAX];
                let length = read(&mut large)?;
                large.truncate(length);
                Ok(Some(large))
            }
            Err(errno) => Err(errno),
        }
    }

    pub(crate) fn set(&self, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::At(..) => rustix::fs::lsetxattr(self.path(), name, value, XattrFlags::empty()),
        }
    }

    fn remove(&self, name: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => rustix::fs::fremovexattr(fd, name),
            Self::At(..) => rustix::fs::lremovexattr(self.path(), name),
        }
    }

    /// What belongs to the layer, sorted, in the form that does not depend on who looks.
    pub(crate) fn read(&self) -> rustix::io::Result<Attributes> {
        let mut names = self.names()?;
        names.retain(|name| belongs_to_layer(name));
        names.sort_unstable();
        let mut attributes = Vec::with_capacity(names.len());
        for name in names {
            if let Some(value) = self.get(&name)? {
                let value = if name == CAPABILITY { without_namespace(value) } else { value };
                attributes.push((name, value));
            }
        }
        Ok(attributes)
    }

    /// Whether overlay reads this directory as opaque.
    pub(crate) fn is_opaque(&self, privilege: Privilege) -> rustix::io::Result<bool> {
        Ok(self.get(opaque_name(privilege))?.is_some_and(|value| value == b"y"))
    }

    pub(crate) fn set_opaque(&self, privilege: Privilege) -> rustix::io::Result<()> {
        self.set(opaque_name(privilege), b"y")
    }

    /// Removes what overlay, or a process that wanted to look like it, left; the opaque mark stays.
    pub(crate) fn strip_overlay(&self, privilege: Privilege) -> rustix::io::Result<()> {
        for name in self.names()? {
            if is_overlay(&name) && name != opaque_name(privilege) {
                self.remove(&name)?;
            }
        }
        Ok(())
    }
}

const CAPABILITY: &[u8] = b"security.capability";

fn opaque_name(privilege: Privilege) -> &'static [u8] {
    match privilege {
        Privilege::Root => b"trusted.overlay.opaque",
        Privilege::Mapped | Privilege::Single => b"user.overlay.opaque",
    }
}

fn is_overlay(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Labels and signatures are the host's, `trusted.*` cannot be kept without being real root; neither is in a layer.
pub(crate) fn belongs_to_layer(name: &[u8]) -> bool {
    !(name.starts_with(b"trusted.")
        || is_overlay(name)
        || matches!(name, b"security.selinux" | b"security.ima" | b"security.evm"))
}

/// Those of some attributes that belong to a layer, as [`Target::read`] gives them.
pub(crate) fn of_layer(xattrs: &[(OsString, Vec<u8>)]) -> Attributes {
    let kept = xattrs.iter().filter(|(name, _)| belongs_to_layer(name.as_bytes()));
    let mut attributes: Attributes = kept
        .map(|(name, value)| {
            let name = name.as_bytes().to_vec();
            let value = if name == CAPABILITY { without_namespace(value.clone()) } else { value.clone() };
            (name, value)
        })
        .collect();
    attributes.sort_unstable();
    attributes
}

/// A file capability of a user namespace (revision 3, with the namespace's root id) as one of revision 2, which is
/// what the same command writes as real root (linux/capability.h, `struct vfs_ns_cap_data`).
fn without_namespace(mut value: Vec<u8>) -> Vec<u8> {
    if value.len() == 24 && value[3] == 3 {
        value[3] = 2;
        value.truncate(20);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_lose_their_namespace() {
        let mut three = vec![1, 0, 0, 3];
        three.extend([7; 16]);
        three.extend(100_000_u32.to_le_bytes());
        let mut two = vec![1, 0, 0, 2];
        two.extend([7; 16]);
        assert_eq!(without_namespace(three), two);
        assert_eq!(without_namespace(two.clone()), two);
    }

    #[test]
    fn the_hosts_own_attributes_stay_out() {
        for name in ["trusted.overlay.opaque", "user.overlay.origin", "trusted.x", "security.selinux"] {
            assert!(!belongs_to_layer(name.as_bytes()), "{name}");
        }
        for name in ["security.capability", "user.mime", "system.posix_acl_access", "security.NTACL"] {
            assert!(belongs_to_layer(name.as_bytes()), "{name}");
        }
    }
}
