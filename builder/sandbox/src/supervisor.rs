//! The supervisor: a single-threaded process between the caller and the sandbox. It outlives neither.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::de::DeserializeOwned;

use crate::channel::{Channel, Failure, Message};
use crate::first::{First, is_readable_first};
use crate::mount::failed;
use crate::process::Error;
use crate::system_call::close_from;

/// Where a process that was started as a supervisor goes.
pub(crate) fn main() -> ! {
    // The caller is told over the socket, and there is nobody else to tell.
    std::process::exit(i32::from(serve().is_err()))
}

fn serve() -> io::Result<()> {
    let caller = detach(c"kiln-sandbox")?;
    match caller.receive()? {
        Some((Message::Run, fds)) => run(&caller, fds),
        Some((Message::Join, fds)) => crate::join::serve(&caller, fds),
        Some((Message::Probe, _)) => caller.send(&Message::Probed(crate::host::try_out()), &[]),
        _ => Ok(()),
    }
}

/// Takes leave of whoever started this process with [`crate::process::launch`], but for the socket that is standard
/// input.
///
/// # Errors
/// Too many open files.
pub fn detach(name: &std::ffi::CStr) -> io::Result<Channel> {
    // It was executed by a descriptor, whose number is no name.
    let _ = rustix::thread::set_name(name);
    // What leaked into the caller must not leak any further.
    close_from(3)?;
    let caller = Channel::from_fd(rustix::io::fcntl_dupfd_cloexec(standard_input(), 3)?);
    // Signals of the caller's terminal are the caller's to judge.
    let _ = rustix::process::setsid();
    Ok(caller)
}

#[allow(unsafe_code, reason = "the socket is where `spawn` put it")]
fn standard_input() -> BorrowedFd<'static> {
    // SAFETY: descriptor 0 is open (the Rust runtime sees to that) and stays so.
    unsafe { BorrowedFd::borrow_raw(0) }
}

fn run(caller: &Channel, fds: Vec<OwnedFd>) -> io::Result<()> {
    let first = match start(caller, fds) {
        Ok(Some(first)) => first,
        Ok(None) => return Ok(()),
        Err(error) => return tell(caller, &error),
    };
    let fds: Vec<_> = [first.ended()].into_iter().chain(first.terminal.as_ref().map(AsFd::as_fd)).collect();
    // A caller that is gone is noticed in a moment.
    let _ = caller.send(&Message::Started, &fds);
    if is_readable_first(caller.as_fd(), first.ended()).unwrap_or(true) {
        let _ = first.signal(libc::SIGKILL);
    }
    let exit = first.reap()?;
    caller.send(&Message::Ended(exit), &[])
}

fn start(caller: &Channel, fds: Vec<OwnedFd>) -> Result<Option<First>, Error> {
    let failed = || failed("start the sandbox");
    let [spec, streams @ ..] =
        <[OwnedFd; 4]>::try_from(fds).map_err(|_| failed()(io::Error::from(io::ErrorKind::InvalidData)))?;
    let spec = read_document(spec).map_err(failed())?;
    First::start(&spec, streams, Some(caller.as_fd()), None)
}

/// The caller learns why it did not start.
pub(crate) fn tell(caller: &Channel, error: &Error) -> io::Result<()> {
    let long = |_| Message::Failed(Failure::Setup("report (too long to tell)".to_owned(), 0));
    let message = Message::Failed(Failure::from(error));
    caller.send(&message, &[]).or_else(|error| caller.send(&long(error), &[]))
}

/// What [`crate::process::document`] wrote.
///
/// # Errors
/// It is something else.
pub fn read_document<T: DeserializeOwned>(document: OwnedFd) -> io::Result<T> {
    Ok(serde_json::from_reader(io::BufReader::new(std::fs::File::from(document)))?)
}
