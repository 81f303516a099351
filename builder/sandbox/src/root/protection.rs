//! What of /proc and /sys is hidden or read-only, as docker's.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::mount::MountAttrFlags;

use super::target::{Kind, Missing, Tree};
use crate::mount::{attach, clone_at, clone_open, create, failed};
use crate::process::Error;
use crate::system_call::{MOUNT_READONLY, add_mount_attributes};

pub(crate) const HIDDEN: [&str; 12] = [
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/timer_list",
    "proc/timer_stats",
    "proc/sched_debug",
    "proc/scsi",
    "sys/firmware",
    "sys/devices/virtual/powercap",
];

pub(crate) const READ_ONLY: [&str; 5] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];

/// Mounts the protections.
pub(crate) fn apply(tree: &Tree) -> Result<(), Error> {
    // One that is not there needs none.
    let present = |name: &&str| tree.find(Path::new(name), Missing::Refuse).ok();
    let mut empty: Option<OwnedFd> = None;
    for name in &HIDDEN {
        let Some(place) = present(name) else { continue };
        hide(tree, place, &mut empty).map_err(failed(format!("hide /{name}")))?;
    }
    for name in &READ_ONLY {
        let Some(place) = present(name) else { continue };
        let protect = || -> io::Result<()> {
            let copy = clone_open(&place)?;
            add_mount_attributes(&copy, MOUNT_READONLY, true)?;
            attach(copy, &place)
        };
        protect().map_err(failed(format!("make /{name} read-only")))?;
    }
    Ok(())
}

fn hide(tree: &Tree, place: OwnedFd, empty: &mut Option<OwnedFd>) -> io::Result<()> {
    match (Kind::of(&place)?, &empty) {
        (Kind::File, _) => {
            let null = tree.find(Path::new("dev/null"), Missing::Refuse)?;
            attach(clone_open(null)?, place)
        }
        // Copies of the first one, by the place it has got.
        (Kind::Directory, Some(first)) => attach(clone_at(first, Path::new("."))?, place),
        (Kind::Directory, None) => {
            let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
                | MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            let directory = create("tmpfs", &[("size", Some("4k")), ("mode", Some("755"))], attributes)?;
            attach(&directory, place)?;
            *empty = Some(directory);
            Ok(())
        }
    }
}
