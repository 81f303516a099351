//! The supervisor: a single-threaded process between the caller and the sandbox. It outlives neither.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, waitid};
use rustix::thread::UnshareFlags;

use crate::channel::{Channel, Failure, Message};
use crate::mount::failed;
use crate::process::{Error, Exit};
use crate::root::trace::{self, Trace};
use crate::spec::Spec;
use crate::system_call::{Fork, close_from, fork, unshare};

/// Where a process that was started as a supervisor goes.
pub(crate) fn main() -> ! {
    // The caller is told over the socket, and there is nobody else to tell.
    std::process::exit(i32::from(serve().is_err()))
}

fn serve() -> io::Result<()> {
    // It was executed by a descriptor, whose number is no name.
    let _ = rustix::thread::set_name(c"kiln-sandbox");
    // What leaked into the caller must not leak any further.
    close_from(3)?;
    let caller = Channel::from_fd(rustix::io::fcntl_dupfd_cloexec(standard_input(), 3)?);
    // Signals of the caller's terminal are the caller's to judge.
    let _ = rustix::process::setsid();
    match caller.receive()? {
        Some((Message::Run, fds)) => run(&caller, fds),
        Some((Message::Probe, _)) => caller.send(&Message::Probed(crate::host::try_out()), &[]),
        _ => Ok(()),
    }
}

#[allow(unsafe_code, reason = "the socket is where `spawn` put it")]
fn standard_input() -> BorrowedFd<'static> {
    // SAFETY: descriptor 0 is open (the Rust runtime sees to that) and stays so.
    unsafe { BorrowedFd::borrow_raw(0) }
}

fn run(caller: &Channel, fds: Vec<OwnedFd>) -> io::Result<()> {
    match start(fds) {
        Ok(first) => first.supervise(caller),
        Err(error) => caller.send(&Message::Failed(Failure::from(&error)), &[]),
    }
}

/// The first process of the sandbox, seen from here.
struct First {
    pid: Pid,
    pidfd: OwnedFd,
    /// Closes when it executes the command.
    channel: Channel,
    upper: OwnedFd,
}

fn start(fds: Vec<OwnedFd>) -> Result<First, Error> {
    let failed = || failed("start the sandbox");
    let [spec, stdin, stdout, stderr] =
        <[OwnedFd; 4]>::try_from(fds).map_err(|_| failed()(io::Error::from(io::ErrorKind::InvalidData)))?;
    let spec = io::BufReader::new(std::fs::File::from(spec));
    let spec: Spec = serde_json::from_reader(spec).map_err(|error| failed()(error.into()))?;
    let upper = openat(CWD, &spec.root.upper, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(crate::mount::failed(format!("open {}", spec.root.upper.display())))?;
    let (channel, theirs) = Channel::pair().map_err(failed())?;
    unshare(UnshareFlags::NEWPID).map_err(crate::mount::failed("make a pid namespace"))?;
    match fork().map_err(failed())? {
        Fork::Child => {
            // Nothing of the supervisor's stays open in the sandbox.
            drop((channel, upper));
            crate::child::main(&spec, &theirs, [stdin, stdout, stderr])
        }
        Fork::Parent(pid) => {
            let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| failed()(error.into()))?;
            Ok(First { pid, pidfd, channel, upper })
        }
    }
}

/// How the set-up went.
enum Start {
    /// The command was executed.
    Executed,
    /// It was not, and this says why.
    Failed(Message),
    /// Nobody wants it any more.
    Abandoned,
}

impl First {
    fn supervise(self, caller: &Channel) -> io::Result<()> {
        let mut traces = Vec::new();
        let start = self.set_up(caller, &mut traces);
        if !matches!(start, Ok(Start::Executed)) {
            self.kill();
        }
        let exit = self.reap(caller);
        trace::remove(&self.upper, &traces);
        match start? {
            Start::Executed => caller.send(&Message::Ended(exit?), &[]),
            Start::Failed(failure) => caller.send(&failure, &[]),
            Start::Abandoned => Ok(()),
        }
    }

    /// Until the command is executed.
    fn set_up(&self, caller: &Channel, traces: &mut Vec<Trace>) -> io::Result<Start> {
        let mut terminal = None;
        loop {
            if self.caller_is_gone(caller, self.channel.as_fd())? {
                return Ok(Start::Abandoned);
            }
            match self.channel.receive()? {
                Some((Message::Terminal, mut fds)) => terminal = fds.pop(),
                Some((Message::Trace(trace), _)) => traces.push(trace),
                Some((failure @ Message::Failed(_), _)) => return Ok(Start::Failed(failure)),
                Some(_) => {}
                None => {
                    let fds: Vec<_> = [&self.pidfd].into_iter().chain(&terminal).map(AsFd::as_fd).collect();
                    caller.send(&Message::Started, &fds)?;
                    return Ok(Start::Executed);
                }
            }
        }
    }

    /// Waits for news of the sandbox, or for the end of the caller.
    #[allow(clippy::unused_self, reason = "it is about this process")]
    fn caller_is_gone(&self, caller: &Channel, news: BorrowedFd<'_>) -> io::Result<bool> {
        let mut polled = [PollFd::from_borrowed_fd(news, PollFlags::IN), PollFd::new(caller, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut polled, None))?;
        Ok(!polled[1].revents().is_empty())
    }

    fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
    }

    /// Waits for the first process. When it is reaped the kernel has ended all others of its pid namespace.
    fn reap(&self, caller: &Channel) -> io::Result<Exit> {
        if self.caller_is_gone(caller, self.pidfd.as_fd()).unwrap_or(true) {
            self.kill();
        }
        let status = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED))?;
        Ok(exit(status.as_ref()))
    }
}

fn exit(status: Option<&WaitIdStatus>) -> Exit {
    let code = status.and_then(WaitIdStatus::exit_status);
    match (code, status.and_then(WaitIdStatus::terminating_signal)) {
        (Some(code), _) => Exit::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        (None, signal) => Exit::Signal(signal.unwrap_or(libc::SIGKILL)),
    }
}
