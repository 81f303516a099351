//! Building the root file system: everything is made while the host's paths are visible, then the root is changed,
//! then all is put into place by descriptor.
//!
//! Nothing that the sandbox can write to has working device files, unless it is privileged: root may make nodes of any
//! number (CAP_MKNOD is docker's default, and layers contain them), and there is no device cgroup to stop it from
//! using the host's disk by one. /dev has the usual devices, each a mount of its own.

mod mounts;
mod overlay;
pub(crate) mod protection;
mod standard;
pub(crate) mod stubs;
pub(crate) mod target;
pub(crate) mod trace;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};

pub(crate) use overlay::Layers;
use target::{Kind, Tree};
use trace::{Trace, Traces};

use crate::mount::{attach, failed};
use crate::process::Error;
use crate::spec::{Mount, Root, Spec};
use crate::system_call::{MOUNT_NODEV, MOUNT_READONLY, add_mount_attributes};

/// The root as it is after [`enter`].
pub(crate) struct Entered {
    /// For looking up paths in it.
    pub(crate) tree: Tree,
    /// What had to be made in the upper directory.
    pub(crate) traces: Vec<Trace>,
}

/// Makes the spec's root this process's. The process is in a mount namespace of its own; the host is gone afterwards.
pub(crate) fn enter(spec: &Spec, mapped: bool) -> Result<Entered, Error> {
    let Root { lower, upper, work, stubs, volatile, .. } = &spec.root;
    let propagation = match spec.mounts.iter().any(Mount::is_slave) {
        true => MountPropagationFlags::DOWNSTREAM,
        false => MountPropagationFlags::PRIVATE,
    };
    mount_change("/", propagation | MountPropagationFlags::REC).map_err(failed("make the mounts private"))?;
    let lower = lower.iter().chain([stubs]).map(PathBuf::as_path).collect();
    let layers = Layers { lower, upper: Some((upper, work)), volatile: *volatile, user_attributes: mapped }.open()?;
    // Open by now, so its path may be mounted on.
    let ready = mounts::prepare(spec, work, mapped)?;
    let standard = standard::prepare(spec, work, mapped)?;
    let directories = standard::DIRECTORIES.iter().map(|name| (Path::new(*name), Kind::Directory));
    let targets = ready.iter().map(|ready| (ready.target.as_path(), ready.kind));
    stubs::create(stubs, directories.chain(targets))
        .map_err(failed(format!("make mount points in {}", stubs.display())))?;
    let mut traces = Traces::new(upper).map_err(failed(format!("open {}", upper.display())))?;
    let root = layers.mount(stubs)?;
    if !spec.security.privileged {
        add_mount_attributes(&root, MOUNT_NODEV, false).map_err(failed("disable the root's device files"))?;
    }
    change_root(&root).map_err(failed("change the root"))?;
    drop(root);

    let root = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let tree = root.map_err(Into::into).and_then(Tree::new).map_err(failed("open the new root"))?;
    standard::attach_all(standard, &tree, &mut traces)?;
    for mounts::Ready { target, kind, mount } in ready {
        let place = tree.place(&target, kind, &mut traces)?;
        attach(mount, place).map_err(failed(format!("mount {}", target.display())))?;
    }
    if !spec.security.privileged {
        protection::apply(&tree)?;
    }
    Ok(Entered { tree, traces: traces.finish() })
}

fn change_root(root: &OwnedFd) -> rustix::io::Result<()> {
    rustix::process::fchdir(root)?;
    // The old root lands on top of the new one, at the same place, and is taken off.
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

/// No writes to the root from here on; what is mounted in it keeps its own rule.
pub(crate) fn make_read_only(tree: &Tree) -> Result<(), Error> {
    add_mount_attributes(tree.root(), MOUNT_READONLY, false).map_err(failed("make the root read-only"))
}
