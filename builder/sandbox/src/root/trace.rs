//! What the set-up itself had to leave in the upper directory, and taking it away again.
//!
//! Mount points come from the stubs layer. Only where an upper layer hides that (an opaque directory, a symlink to
//! nowhere) must one be made through the overlay; it is removed after the process, unless the process touched it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, openat, openat2, statat, unlinkat,
    utimensat,
};
use serde::{Deserialize, Serialize};

/// Bytes of a path in a message, at most: longer ones stay behind.
const PATH_LIMIT: usize = 4096;

/// One path of the upper directory.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Trace {
    /// Relative to the root, without symlinks.
    path: PathBuf,
    cause: Cause,
    /// Change time, seconds and nanoseconds, when the set-up was done: later means that the process was there.
    changed: (i64, i64),
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Cause {
    /// A mount point.
    Created,
    /// Parent of one, copied up for it.
    CopiedUp,
    /// Parent of one, in the layer before; its times were these.
    Entered { accessed: (i64, i64), modified: (i64, i64) },
}

/// Collects traces while the root is built.
pub(crate) struct Traces {
    upper: OwnedFd,
    entries: Vec<(PathBuf, Cause)>,
}

impl Traces {
    pub(crate) fn new(upper: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { upper: openat(CWD, upper, flags, Mode::empty())?, entries: Vec::new() })
    }

    /// Something is about to be created at `path`.
    pub(crate) fn creating(&mut self, path: &Path) {
        let mut parents: Vec<&Path> = path.ancestors().skip(1).collect();
        parents.reverse();
        for parent in parents {
            if self.entries.iter().any(|(known, _)| known == parent) {
                continue;
            }
            let cause = match status(&self.upper, parent) {
                Ok(status) => Cause::Entered {
                    accessed: (status.st_atime, status.st_atime_nsec.cast_signed()),
                    modified: (status.st_mtime, status.st_mtime_nsec.cast_signed()),
                },
                Err(_) => Cause::CopiedUp,
            };
            self.entries.push((parent.to_owned(), cause));
        }
        self.entries.push((path.to_owned(), Cause::Created));
    }

    /// The traces, in the order they came about, as of now.
    pub(crate) fn finish(self) -> Vec<Trace> {
        let trace = |(path, cause): (PathBuf, Cause)| {
            let status = status(&self.upper, &path).ok()?;
            (path.as_os_str().len() <= PATH_LIMIT).then(|| Trace { path, cause, changed: changed(&status) })
        };
        self.entries.into_iter().filter_map(trace).collect()
    }
}

/// Takes away what the process did not touch, best effort: what cannot be removed stays, it harms nothing.
pub(crate) fn remove(upper: &OwnedFd, traces: &[Trace]) {
    let untouched = |trace: &&Trace| status(upper, &trace.path).is_ok_and(|now| changed(&now) == trace.changed);
    let mine: Vec<&Trace> = traces.iter().filter(untouched).collect();
    for trace in mine.iter().rev() {
        let Ok((parent, name)) = locate(upper, &trace.path) else { continue };
        let Ok(now) = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let directory = FileType::from_raw_mode(now.st_mode) == FileType::Directory;
        match trace.cause {
            Cause::Created | Cause::CopiedUp if directory => {
                let _ = unlinkat(&parent, name, AtFlags::REMOVEDIR);
            }
            Cause::Created if now.st_size == 0 => {
                let _ = unlinkat(&parent, name, AtFlags::empty());
            }
            Cause::Created | Cause::CopiedUp => {}
            Cause::Entered { accessed, modified } => {
                let time = |(seconds, nanoseconds): (i64, i64)| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
                let times = Timestamps { last_access: time(accessed), last_modification: time(modified) };
                let _ = utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW);
            }
        }
    }
}

/// The directory that holds a path, and its name there. The process may have put a symlink in the way: it leads
/// nowhere.
fn locate<'a>(upper: &OwnedFd, path: &'a Path) -> rustix::io::Result<(OwnedFd, &'a OsStr)> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok((openat2(upper, parent, flags, Mode::empty(), resolve)?, path.file_name().unwrap_or(OsStr::new("."))))
}

fn status(upper: &OwnedFd, path: &Path) -> rustix::io::Result<Stat> {
    let (parent, name) = locate(upper, path)?;
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn changed(status: &Stat) -> (i64, i64) {
    (status.st_ctime, status.st_ctime_nsec.cast_signed())
}
