//! The mounts of the spec, and the files of /etc that every sandbox gets.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchmod, fchown, openat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::overlay::Layers;
use super::target::{Kind, Missing, Tree};
use crate::mount::{attach_path, clone_at, clone_open, clone_path, create, failed};
use crate::process::Error;
use crate::spec::{Device, Mount, Spec};
use crate::system_call::{MOUNT_NODEV, MOUNT_READONLY, add_mount_attributes, make_private};

/// A mount that waits for its place.
pub(crate) struct Ready {
    pub(crate) target: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) mount: OwnedFd,
}

/// Makes all mounts while the host's paths are visible. `scratch` is a directory of the host to mount things on (in
/// this mount namespace only) before parts of them are cloned.
pub(crate) fn prepare(spec: &Spec, scratch: &Path, mapped: bool) -> Result<Vec<Ready>, Error> {
    let mut files = Files::new(scratch)?;
    let mut ready = Vec::new();
    let etc = [("/etc/resolv.conf", &spec.resolv_conf), ("/etc/hosts", &spec.hosts)];
    for (target, content) in etc {
        if let Some(content) = content {
            let file = files.add(content.as_bytes(), 0o644, (0, 0)).map_err(failed(format!("write {target}")))?;
            ready.push((PathBuf::from(target), file));
        }
    }
    let follows = spec.mounts.iter().any(Mount::is_slave);
    for mount in &spec.mounts {
        let (target, made) = match mount {
            Mount::Bind { source, target, readonly } => {
                let made = bind(source, *readonly)?;
                if follows {
                    make_private(&made).map_err(at("keep the host's mounts out", target))?;
                }
                (target, made)
            }
            Mount::Slave { source, target, readonly } => (target, bind(source, *readonly)?),
            Mount::Overlay { lower, upper, source, target } => {
                let upper = upper.as_ref().map(|(upper, work)| (upper.as_path(), work.as_path()));
                (target, overlay(lower, upper, source, scratch, mapped)?)
            }
            Mount::Tmpfs { target, size, mode } => (target, tmpfs(*size, *mode).map_err(at("mount a tmpfs", target))?),
            Mount::Secret { target, content, mode, uid, gid } => {
                let file = files.add(content, *mode, (*uid, *gid)).map_err(at("write the secret", target))?;
                add_mount_attributes(&file, MOUNT_READONLY, true).map_err(at("protect the secret", target))?;
                (target, file)
            }
        };
        ready.push((target.clone(), made));
    }
    let mut all = ready
        .into_iter()
        .map(|(target, mount)| {
            if !spec.security.privileged {
                add_mount_attributes(&mount, MOUNT_NODEV, true).map_err(at("disable device files", &target))?;
            }
            let kind = Kind::of(&mount).map_err(at("look at the mount", &target))?;
            Ok(Ready { target, kind, mount })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    for device in &spec.devices {
        all.push(work(device)?);
    }
    Ok(all)
}

/// A device that was asked for, which works.
fn work(device: &Device) -> Result<Ready, Error> {
    use std::os::unix::fs::FileTypeExt;
    let step = || failed(format!("give the device {}", device.source.display()));
    let kind = std::fs::metadata(&device.source).map_err(step())?.file_type();
    if !kind.is_char_device() && !kind.is_block_device() {
        return Err(step()(io::Error::other("it is no device")));
    }
    let mount = bind(&device.source, device.readonly)?;
    Ok(Ready { target: device.target.clone(), kind: Kind::File, mount })
}

fn at<E: Into<io::Error>>(step: &str, target: &Path) -> impl FnOnce(E) -> Error {
    failed(format!("{step} at {}", target.display()))
}

fn bind(source: &Path, readonly: bool) -> Result<OwnedFd, Error> {
    let step = || failed(format!("bind {}", source.display()));
    let mount = clone_path(source).map_err(step())?;
    if readonly {
        add_mount_attributes(&mount, MOUNT_READONLY, true).map_err(step())?;
    }
    Ok(mount)
}

fn tmpfs(size: Option<u64>, mode: u32) -> io::Result<OwnedFd> {
    let mode = format!("{:o}", mode & 0o7777);
    let size = size.map(|size| size.to_string());
    let mut options = vec![("source", Some("tmpfs")), ("mode", Some(mode.as_str()))];
    if let Some(size) = &size {
        options.push(("size", Some(size)));
    }
    create("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV)
}

fn overlay(
    lower: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    source: &Path,
    scratch: &Path,
    mapped: bool,
) -> Result<OwnedFd, Error> {
    let layers =
        Layers { lower: lower.iter().map(PathBuf::as_path).collect(), upper, volatile: true, user_attributes: mapped };
    let root = match (lower, upper) {
        // Overlay wants two directories at least.
        ([], None) => tmpfs(Some(4096), 0o755)
            .and_then(|root| attach_path(&root, scratch).map(|()| root))
            .map_err(failed("mount nothing"))?,
        ([], Some((upper, _))) => open_directory(upper)?,
        ([only], None) => open_directory(only)?,
        _ => layers.open()?.mount(scratch)?,
    };
    let step = || failed(format!("find {} to mount", source.display()));
    let tree = Tree::new(root).map_err(step())?;
    let part = tree.find(source, Missing::Refuse).map_err(step())?;
    let mount = clone_open(part).map_err(step())?;
    if upper.is_none() {
        add_mount_attributes(&mount, MOUNT_READONLY, true).map_err(step())?;
    }
    Ok(mount)
}

fn open_directory(path: &Path) -> Result<OwnedFd, Error> {
    openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed(format!("open {}", path.display())))
}

/// Files in memory, each of which can be mounted by itself.
struct Files<'a> {
    scratch: &'a Path,
    directory: Option<OwnedFd>,
    count: usize,
}

impl<'a> Files<'a> {
    fn new(scratch: &'a Path) -> Result<Self, Error> {
        Ok(Self { scratch, directory: None, count: 0 })
    }

    fn add(&mut self, content: &[u8], mode: u32, (uid, gid): (u32, u32)) -> io::Result<OwnedFd> {
        if self.directory.is_none() {
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
            let directory = create("tmpfs", &[("mode", Some("700"))], attributes)?;
            attach_path(&directory, self.scratch)?;
            self.directory = Some(directory);
        }
        let Some(directory) = &self.directory else { return Err(io::Error::other("no tmpfs")) };
        let name = PathBuf::from(self.count.to_string());
        self.count += 1;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut file = std::fs::File::from(openat(directory, &name, flags, Mode::from_raw_mode(0o600))?);
        file.write_all(content)?;
        match fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))) {
            // An id that this namespace does not have: the file stays root's.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
        fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
        clone_at(directory, &name)
    }
}
