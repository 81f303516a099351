//! Whoever holds a container: this very binary, started again with a single thread. It starts the command, owns its
//! terminal or pipes, writes the log, listens on the container's socket, and keeps how it ended.

mod client;
mod execute;
mod health;
mod resources;
mod run;
mod runtime;
mod serve;

use std::os::fd::OwnedFd;
use std::path::Path;

use kiln_sandbox::{Channel, supervisor};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::directory::Home;
use crate::protocol::{Event, Job, Packet, Request};
use crate::{Error, Result};

/// `argv[0]` of a supervisor.
pub(crate) const NAME: &str = "kiln-container";
/// Its socket, in the container's directory.
const SOCKET: &str = "socket";

/// Where a process that was started as a supervisor goes.
pub(crate) fn main() -> ! {
    std::process::exit(i32::from(work().is_none()))
}

fn work() -> Option<()> {
    let channel = supervisor::detach(c"kiln-container").ok()?;
    let (packet, fds) = Packet::receive(&channel).ok()??;
    let Packet::Request(Request::Launch(attachment)) = packet else { return None };
    let [job, lock] = <[OwnedFd; 2]>::try_from(fds).ok()?;
    let job: Job = supervisor::read_document(job).ok()?;
    let _ = std::env::set_current_dir("/");
    let home = Home::adopt(job.path.clone(), lock);
    let listener = match listen(&job.path) {
        Ok(listener) => listener,
        Err(error) => {
            let _ = Packet::Event(Event::Failed(125, explain(&error))).send(&channel, &[]);
            return None;
        }
    };
    serve::Supervisor::new(home, job, listener).serve(channel, attachment);
    Some(())
}

/// An error with its causes.
pub(crate) fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// The socket's address, however long the path of the directory is.
fn address(directory: &Path) -> Result<(OwnedFd, SocketAddrUnix)> {
    use std::os::fd::AsRawFd;
    let io = |error: rustix::io::Errno| Error::io("reach the supervisor in", directory, error);
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let opened = rustix::fs::open(directory, flags, rustix::fs::Mode::empty()).map_err(io)?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd())).map_err(io)?;
    Ok((opened, address))
}

fn socket() -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

fn listen(directory: &Path) -> Result<OwnedFd> {
    let io = |error: rustix::io::Errno| Error::io("listen in", directory, error);
    let _ = std::fs::remove_file(directory.join(SOCKET));
    let (_directory, address) = address(directory)?;
    let listener = socket().map_err(io)?;
    rustix::net::bind(&listener, &address).map_err(io)?;
    rustix::net::listen(&listener, 64).map_err(io)?;
    rustix::io::ioctl_fionbio(&listener, true).map_err(io)?;
    Ok(listener)
}

/// Reaches the supervisor of a container; `None` when there is none.
pub(crate) fn connect(directory: &Path) -> Result<Option<Channel>> {
    let Ok((_directory, address)) = address(directory) else { return Ok(None) };
    let io = |error: rustix::io::Errno| Error::io("reach the supervisor in", directory, error);
    let socket = socket().map_err(io)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => Ok(Some(Channel::from_fd(socket))),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED) => Ok(None),
        Err(error) => Err(io(error)),
    }
}
