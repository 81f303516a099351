//! The terminal of a sandbox.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, openat};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};

use crate::mount::{attach, clone_path};
use crate::root::target::{Missing, Tree};

/// Both sides.
pub(crate) struct Terminal {
    pub(crate) master: OwnedFd,
    /// Standard input, output and error.
    pub(crate) streams: [OwnedFd; 3],
}

/// Opens one in the sandbox's own /dev/pts and makes it this session's. It gets this size (rows and columns),
/// or that of the caller's, if that is one of the `streams`.
pub(crate) fn open(uid: u32, size: Option<(u16, u16)>, streams: &[OwnedFd]) -> io::Result<Terminal> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let multiplexer = Path::new("/dev/pts/ptmx");
    let master = openat(rustix::fs::CWD, multiplexer, flags, Mode::empty())?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    match fchown(&slave, Some(Uid::from_raw(uid)), None::<Gid>) {
        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
        Err(error) => return Err(error.into()),
    }
    let given = size.map(|(ws_row, ws_col)| Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 });
    if let Some(size) = given.or_else(|| streams.iter().find_map(|stream| tcgetwinsize(stream).ok())) {
        tcsetwinsize(&master, size)?;
    }
    rustix::process::ioctl_tiocsctty(&slave)?;
    let streams = [slave.try_clone()?, slave.try_clone()?, slave];
    Ok(Terminal { master, streams })
}

/// Makes it /dev/console.
pub(crate) fn call_console(terminal: &Terminal, tree: &Tree) -> io::Result<()> {
    let name = rustix::pty::ptsname(&terminal.master, Vec::new())?;
    let console = Path::new("/dev/console");
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    drop(openat(rustix::fs::CWD, console, create, Mode::from_raw_mode(0o600))?);
    let mount = clone_path(Path::new(std::ffi::OsStr::new(&*name.to_string_lossy())))?;
    attach(mount, tree.find(console, Missing::Refuse)?)
}
