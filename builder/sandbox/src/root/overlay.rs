//! Overlay mounts. Directories are handed over as descriptors' names (`/proc/self/fd/7`), so no path is too long and
//! no character needs escaping; several hundred layers fit even into the one page of options of older kernels.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FsWord, Mode, OFlags, fstatfs, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};

use crate::mount::{attach_path, failed};
use crate::process::Error;

/// Set explicitly, whatever the kernel's defaults: with any of them on, the upper directory is not a plain diff.
const OPTIONS: [(&str, &str); 4] =
    [("index", "off"), ("metacopy", "off"), ("redirect_dir", "nofollow"), ("xino", "off")];

/// OVL_MAX_STACK
const LOWER_LIMIT: usize = 500;
const OVERLAY_MAGIC: FsWord = 0x794c_7630;

/// What overlay stacks.
pub(crate) struct Layers<'a> {
    /// Topmost first.
    pub(crate) lower: Vec<&'a Path>,
    /// Upper and work directory; none makes a read-only mount.
    pub(crate) upper: Option<(&'a Path, &'a Path)>,
    /// Never wait for the disk.
    pub(crate) volatile: bool,
    /// `user.overlay.*` instead of `trusted.overlay.*`.
    pub(crate) user_attributes: bool,
}

/// The directories, open: what is mounted on their paths from here on does not matter.
pub(crate) struct Opened {
    lower: Vec<OwnedFd>,
    upper: Option<(OwnedFd, OwnedFd)>,
    volatile: bool,
    user_attributes: bool,
}

impl Layers<'_> {
    /// Opens the directories.
    pub(crate) fn open(&self) -> Result<Opened, Error> {
        let directory = |path: &Path| {
            openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(failed(format!("open layer {}", path.display())))
        };
        let lower = self.lower.iter().map(|path| directory(path)).collect::<Result<_, _>>()?;
        let upper = match self.upper {
            Some((upper, work)) => Some((directory(upper)?, directory(work)?)),
            None => None,
        };
        Ok(Opened { lower, upper, volatile: self.volatile, user_attributes: self.user_attributes })
    }
}

impl Opened {
    /// Mounts over `place`, a path of the host; returns the root of the mount.
    ///
    /// A volatile mount leaves a mark in the work directory, which refuses another one: it is not for the kernel to
    /// know what the upper directory is still good for.
    pub(crate) fn mount(&self, place: &Path) -> Result<OwnedFd, Error> {
        if let Some((_, work)) = self.upper.as_ref().filter(|_| self.volatile) {
            let _ = unlinkat(work, "work/incompat/volatile/dirty", AtFlags::empty());
            let _ = unlinkat(work, "work/incompat/volatile", AtFlags::REMOVEDIR);
        }
        let mounted = if crate::host::kernel_version() >= (6, 5) {
            self.mount_by_context(place)
        } else {
            self.mount_by_options(place).map_err(Refusal::from)
        };
        mounted.map_err(|Refusal(error, log)| {
            let hint = if log.is_empty() { self.hint().to_owned() } else { format!(" ({log})") };
            failed(format!("mount an overlay of {} directories{hint}", self.lower.len()))(error)
        })
    }

    /// What is likely to be wrong: the kernel says so only in its log.
    fn hint(&self) -> &'static str {
        let on_overlay =
            |(upper, _): &(OwnedFd, OwnedFd)| fstatfs(upper).is_ok_and(|statistics| statistics.f_type == OVERLAY_MAGIC);
        if self.lower.len() > LOWER_LIMIT {
            " (the kernel stacks 500 at most)"
        } else if self.upper.as_ref().is_some_and(on_overlay) {
            " (the store is on an overlay itself, as in a container: put it on a volume)"
        } else {
            ""
        }
    }

    /// Since Linux 6.5.
    fn mount_by_context(&self, place: &Path) -> Result<OwnedFd, Refusal> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let set = |key: &str, value: &str| fsconfig_set_string(&context, key, value);
        for lower in &self.lower {
            set("lowerdir+", &name(lower)).map_err(|error| Refusal(error.into(), log(&context)))?;
        }
        let configured = (|| {
            if let Some((upper, work)) = &self.upper {
                set("upperdir", &name(upper))?;
                set("workdir", &name(work))?;
            }
            for (key, value) in OPTIONS {
                set(key, value)?;
            }
            if self.user_attributes {
                fsconfig_set_flag(&context, "userxattr")?;
            }
            if self.volatile && self.upper.is_some() {
                fsconfig_set_flag(&context, "volatile")?;
            }
            fsconfig_create(&context)
        })();
        configured.map_err(|error| Refusal(error.into(), log(&context)))?;
        let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        attach_path(&root, place)?;
        Ok(root)
    }

    /// Before Linux 6.5: one page of options. Names relative to /proc/self/fd keep each layer at a few bytes.
    fn mount_by_options(&self, place: &Path) -> io::Result<OwnedFd> {
        let mut options = String::from("lowerdir=");
        for (number, lower) in self.lower.iter().enumerate() {
            let separator = if number == 0 { "" } else { ":" };
            let _ = write!(options, "{separator}{}", lower.as_raw_fd());
        }
        if let Some((upper, work)) = &self.upper {
            let _ = write!(options, ",upperdir={},workdir={}", upper.as_raw_fd(), work.as_raw_fd());
        }
        for (key, value) in OPTIONS {
            let _ = write!(options, ",{key}={value}");
        }
        if self.user_attributes {
            options.push_str(",userxattr");
        }
        if self.volatile && self.upper.is_some() {
            options.push_str(",volatile");
        }
        if options.len() > 4000 {
            return Err(io::Error::other(format!("{} layers need Linux 6.5 or newer", self.lower.len())));
        }
        let directory =
            |path: &Path| openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let options = std::ffi::CString::new(options)?;
        // By its descriptor, since the working directory changes.
        let (here, target) = (directory(Path::new("."))?, directory(place)?);
        rustix::process::chdir("/proc/self/fd")?;
        let mounted =
            rustix::mount::mount("overlay", name(&target), "overlay", MountFlags::empty(), Some(options.as_c_str()));
        rustix::process::fchdir(&here)?;
        mounted?;
        Ok(open_tree(CWD, place, OpenTreeFlags::OPEN_TREE_CLOEXEC)?)
    }
}

/// With what the kernel says about it.
struct Refusal(io::Error, String);

impl From<Errno> for Refusal {
    fn from(error: Errno) -> Self {
        Self(error.into(), String::new())
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self(error, String::new())
    }
}

fn name(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// What the kernel says about a refused configuration.
fn log(context: &OwnedFd) -> String {
    let mut lines = Vec::new();
    let mut buffer = [0; 1024];
    while lines.len() < 8 {
        match rustix::io::read(context, &mut buffer) {
            Ok(length) if length > 0 => {
                let line = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
                lines.push(line.trim_end().trim_start_matches("e ").to_owned());
            }
            _ => break,
        }
    }
    lines.join("; ")
}
