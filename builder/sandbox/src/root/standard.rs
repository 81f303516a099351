//! /proc, /dev and /sys as docker makes them.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, mkdirat, mknodat, openat, symlinkat};
use rustix::mount::MountAttrFlags;

use super::target::{Kind, Missing, Tree};
use super::trace::Traces;
use crate::kernel::shared_memory;
use crate::mount::{attach, attach_path, clone_at, clone_path, create, failed};
use crate::process::Error;
use crate::spec::{Sharing, Spec};
use crate::system_call::{MOUNT_READONLY, add_mount_attributes};

const DEFAULT_SHM: u64 = 64 << 20;

/// Name, major and minor number.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 6] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

/// The mount points that every root needs.
pub(crate) const DIRECTORIES: [&str; 3] = ["proc", "dev", "sys"];

/// Mounts that are made while the host's are still visible, and attached when they no longer are.
pub(crate) struct Standard {
    /// Directory and mount, in order.
    mounts: Vec<(&'static str, OwnedFd)>,
    /// Device files.
    devices: Vec<(String, OwnedFd)>,
}

/// Makes them. `scratch` is a directory of the host to mount things on (in this mount namespace only), `mapped` is that
/// this is a user namespace.
pub(crate) fn prepare(spec: &Spec, scratch: &Path, mapped: bool) -> Result<Standard, Error> {
    let (nosuid, nodev, noexec) =
        (MountAttrFlags::MOUNT_ATTR_NOSUID, MountAttrFlags::MOUNT_ATTR_NODEV, MountAttrFlags::MOUNT_ATTR_NOEXEC);
    let proc_advice = if mapped {
        "mount /proc (inside another container it must not be masked: --security-opt systempaths=unconfined)"
    } else {
        "mount /proc"
    };
    let proc = match create("proc", &[], nosuid | nodev | noexec) {
        // A user namespace shows only processes of a pid namespace of its own: the host's tree then.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) && spec.kernel.pid == Sharing::Host => {
            clone_path(Path::new("/proc"))
        }
        mounted => mounted,
    };
    let proc = proc.map_err(failed(proc_advice))?;
    // A privileged one may make its own devices.
    let useless = if spec.security.privileged { MountAttrFlags::empty() } else { nodev };
    let dev_attributes = nosuid | useless | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    let dev = create("tmpfs", &[("mode", Some("755")), ("size", Some("64k"))], dev_attributes);
    let dev = dev.map_err(failed("mount a tmpfs for /dev"))?;
    fill_dev(&dev).map_err(failed("fill /dev"))?;
    let mut devices = devices(scratch, mapped).map_err(failed("make devices"))?;
    if spec.security.privileged {
        devices.extend(host_devices(&dev).map_err(failed("show the host's devices"))?);
    }
    let pts = dev_pts(nosuid | noexec).map_err(failed("mount /dev/pts"))?;
    let size = spec.shm_size.unwrap_or(DEFAULT_SHM).to_string();
    let shm = match shared_memory(spec.kernel.ipc).map_err(failed("share /dev/shm"))? {
        Some(shared) => shared,
        None => create("tmpfs", &[("mode", Some("1777")), ("size", Some(&size))], nosuid | nodev | noexec)
            .map_err(failed("mount /dev/shm"))?,
    };
    let mut mounts = vec![("proc", proc), ("dev", dev), ("dev/pts", pts), ("dev/shm", shm)];
    // Not every kernel has it.
    if let Ok(mqueue) = create("mqueue", &[], nosuid | nodev | noexec) {
        mounts.push(("dev/mqueue", mqueue));
    }
    mounts.push(("sys", sys(spec, nosuid | nodev | noexec)?));
    if let Some(cgroup) = cgroup() {
        mounts.push(("sys/fs/cgroup", cgroup));
    }
    Ok(Standard { mounts, devices })
}

fn fill_dev(dev: &OwnedFd) -> io::Result<()> {
    for name in ["pts", "shm", "mqueue"] {
        mkdirat(dev, name, Mode::from_raw_mode(0o755))?;
    }
    for (name, target) in LINKS {
        symlinkat(target, dev, name)?;
    }
    for (name, ..) in DEVICES {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        drop(openat(dev, name, flags, Mode::from_raw_mode(0o666))?);
    }
    Ok(())
}

/// New device files, or the host's where none can be made.
fn devices(scratch: &Path, mapped: bool) -> io::Result<Vec<(String, OwnedFd)>> {
    let host = |(name, ..): &(&str, u32, u32)| Ok(((*name).to_owned(), clone_path(&Path::new("/dev").join(name))?));
    if mapped {
        return DEVICES.iter().map(host).collect();
    }
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let place = create("tmpfs", &[("mode", Some("700")), ("size", Some("64k"))], attributes)?;
    attach_path(&place, scratch)?;
    let make = |(name, major, minor): &(&str, u32, u32)| {
        let number = rustix::fs::makedev(*major, *minor);
        mknodat(&place, *name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), number)?;
        Ok(((*name).to_owned(), clone_at(&place, Path::new(name))?))
    };
    match DEVICES.iter().map(make).collect::<io::Result<Vec<_>>>() {
        // Root of a container that may not.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => DEVICES.iter().map(host).collect(),
        made => made,
    }
}

/// The other devices that lie in the host's /dev itself; their places are made in `dev`.
fn host_devices(dev: &OwnedFd) -> io::Result<Vec<(String, OwnedFd)>> {
    use std::os::unix::fs::FileTypeExt;
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/dev")?.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let is_device = entry.file_type().is_ok_and(|kind| kind.is_char_device() || kind.is_block_device());
        // The sandbox has these of its own.
        let own = DEVICES.iter().any(|(known, ..)| *known == name) || ["ptmx", "console"].contains(&name.as_str());
        if !is_device || own {
            continue;
        }
        let Ok(device) = clone_path(&entry.path()) else { continue };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        drop(openat(dev, name.as_str(), flags, Mode::from_raw_mode(0o600))?);
        found.push((name, device));
    }
    Ok(found)
}

/// Terminals belong to group 5 (tty) where there is one.
fn dev_pts(attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let options = [("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620")), ("gid", Some("5"))];
    match create("devpts", &options, attributes) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => create("devpts", &options[..3], attributes),
        mounted => mounted,
    }
}

fn sys(spec: &Spec, attributes: MountAttrFlags) -> Result<OwnedFd, Error> {
    let readonly = !spec.security.privileged;
    let ro = if readonly { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
    match create("sysfs", &[], attributes | ro) {
        Ok(sys) => Ok(sys),
        // A user namespace may show only the devices of a network namespace of its own: the host's tree then.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let step = failed("mount /sys from the host");
            (|| {
                let sys = clone_path(Path::new("/sys"))?;
                add_mount_attributes(&sys, MOUNT_READONLY, true)?;
                Ok(sys)
            })()
            .map_err(|error: io::Error| step(error))
        }
        Err(error) => Err(failed("mount /sys")(error)),
    }
}

/// The unified hierarchy, read-only; of the older ones there are too many mounts to be worth it.
fn cgroup() -> Option<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_RDONLY;
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return None;
    }
    create("cgroup2", &[], attributes).ok()
}

/// Puts them into the root, which is `/` by now.
pub(crate) fn attach_all(standard: Standard, tree: &Tree, traces: &mut Traces) -> Result<(), Error> {
    for (name, mount) in standard.mounts {
        let step = || format!("mount /{name}");
        let place = if DIRECTORIES.contains(&name) {
            refuse_symlink(name)?;
            tree.place(Path::new(name), Kind::Directory, traces)?
        } else {
            match tree.find(Path::new(name), Missing::Refuse) {
                Ok(place) => place,
                // A kernel without cgroups has no directory for them.
                Err(_) => continue,
            }
        };
        attach(mount, place).map_err(failed(step()))?;
    }
    for (name, device) in standard.devices {
        let place = tree.find(&Path::new("dev").join(&name), Missing::Refuse);
        place.and_then(|place| attach(device, place)).map_err(failed(format!("mount /dev/{name}")))?;
    }
    Ok(())
}

/// An image whose /proc is a symlink could have its protections mounted somewhere else.
fn refuse_symlink(name: &str) -> Result<(), Error> {
    let path = Path::new("/").join(name);
    match std::fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_symlink() => Err(Error::Setup {
            step: format!("mount {}", path.display()),
            source: io::Error::other("the image has a symlink there"),
        }),
        _ => Ok(()),
    }
}
