//! Rootless: this very process becomes root of a user namespace.

mod mapping;
pub(crate) mod shared;

use std::io;

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{getegid, geteuid};
use rustix::thread::{CapabilitySet, UnshareFlags};

use crate::mount::failed;
use crate::process::Error;
use crate::system_call::unshare;
pub(crate) use mapping::{Kind as IdKind, find_program, ranges};
pub use shared::{SharedNamespaces, enter_shared, enter_where_shared};

/// What the process has after [`enter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// It was root already.
    Root,
    /// Root of a user namespace with the user's subordinate ids.
    Mapped,
    /// Root of a user namespace with one id: the caller's.
    Single,
}

impl Identity {
    /// What this process, which is root, is by its user mapping.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn current() -> io::Result<Self> {
        let map = std::fs::read_to_string("/proc/self/uid_map")?;
        let counts = map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
        Ok(match counts.sum() {
            0xffff_ffff => Self::Root,
            0 | 1 => Self::Single,
            _ => Self::Mapped,
        })
    }
}

/// Moves this process into a user namespace (and a mount namespace) where it is root, with the caller's subuids and
/// subgids by `newuidmap` and `newgidmap` where there are any. Does nothing as root. Call it single-threaded, early
/// in `main`; the process keeps its pid, terminal and descriptors.
///
/// # Errors
/// User namespaces are off, or the mapping programs fail; the message says what to do.
pub fn enter() -> Result<Identity, Error> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    if uid == 0 && is_privileged()? {
        return Identity::current().map_err(failed("read the user mapping"));
    }
    let uids = ranges(IdKind::User, uid);
    let gids = ranges(IdKind::Group, uid);
    let programs = (find_program("newuidmap"), find_program("newgidmap"));
    let flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNS;
    let identity = match (uids.is_empty() || gids.is_empty(), programs) {
        (false, (Some(newuidmap), Some(newgidmap))) => {
            let helper = mapping::Helper::fork(
                &mapping::arguments(&newuidmap, uid, &uids),
                &mapping::arguments(&newgidmap, gid, &gids),
            )
            .map_err(failed("start the mapping of ids"))?;
            unshare(flags).map_err(refused(uid))?;
            helper.map().map_err(failed("map the subordinate ids of this user (newuidmap, newgidmap)"))?;
            Identity::Mapped
        }
        _ => {
            unshare(flags).map_err(refused(uid))?;
            mapping::map_one(uid, gid).map_err(failed("map this user's id"))?;
            Identity::Single
        }
    };
    // AppArmor (Ubuntu) lets an unprivileged namespace be made, and then be useless.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).map_err(failed(
        "use a user namespace (AppArmor forbids it where sysctl kernel.apparmor_restrict_unprivileged_userns is 1: \
         set it to 0, or give kiln an AppArmor profile with `userns,`)",
    ))?;
    Ok(identity)
}

fn is_privileged() -> Result<bool, Error> {
    let capabilities = rustix::thread::capabilities(None).map_err(failed("read the capabilities"))?;
    Ok(capabilities.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Why the namespace was refused, and what to do.
fn refused(uid: u32) -> impl FnOnce(io::Error) -> Error {
    let advice = match remedy() {
        Some(remedy) => format!("make a user namespace ({remedy})"),
        None if uid == 0 => "make a user namespace: this root lacks CAP_SYS_ADMIN, as inside an unprivileged \
                             container (run that container with --privileged, or with --security-opt seccomp=unconfined)"
            .to_owned(),
        None => "make a user namespace: inside a container, its seccomp profile forbids it (--security-opt \
                 seccomp=unconfined)"
            .to_owned(),
    };
    failed(advice)
}

/// The kernel setting that is in the way.
pub(crate) fn remedy() -> Option<String> {
    let setting = |path: &str| std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    if setting("/proc/sys/user/max_user_namespaces") == Some(0) {
        return Some("they are off: sysctl -w user.max_user_namespaces=15000".to_owned());
    }
    if setting("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        return Some("they are for root only: sysctl -w kernel.unprivileged_userns_clone=1".to_owned());
    }
    if !std::path::Path::new("/proc/self/ns/user").exists() {
        return Some("this kernel has none: CONFIG_USER_NS".to_owned());
    }
    None
}
