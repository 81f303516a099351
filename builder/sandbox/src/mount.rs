//! Mounts as descriptors: made, cloned and attached without a path in between.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::process::Error;

/// An error of a set-up step, `step` being what was done to what.
pub(crate) fn failed<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Error {
    move |source| Error::Setup { step: step.into(), source: source.into() }
}

/// A new file system of this type, mounted nowhere yet. An option without a value is a flag.
pub(crate) fn create(kind: &str, options: &[(&str, Option<&str>)], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&context, *name, *value)?,
            None => fsconfig_set_flag(&context, *name)?,
        }
    }
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A copy, mounted nowhere yet, of what is mounted at a path, with all below it.
pub(crate) fn clone_path(path: &Path) -> io::Result<OwnedFd> {
    clone_at(CWD, path)
}

/// The same, of a path below a directory.
pub(crate) fn clone_at(directory: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    Ok(open_tree(directory, path, flags)?)
}

/// The same, of an open file.
pub(crate) fn clone_open(file: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    Ok(open_tree(file, c"", flags | OpenTreeFlags::AT_EMPTY_PATH)?)
}

/// Mounts over an open file or directory.
pub(crate) fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, c"", target, c"", flags)?)
}

/// Mounts over a path of the host, on top of what is there.
pub(crate) fn attach_path(mount: impl AsFd, target: &Path) -> io::Result<()> {
    Ok(move_mount(mount, c"", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}
