//! The first process of a sandbox, seen from its parent, which must have one thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus, waitid};

use crate::channel::{Channel, Message};
use crate::mount::failed;
use crate::process::{Error, Exit};
use crate::root::trace::{self, Trace};
use crate::spec::{Sharing, Spec};
use crate::system_call::{Fork, fork_first, send_signal};

/// What the parent does when the namespaces are there and nothing has been executed yet: the process is named by its
/// pid.
pub type Prepare<'a> = &'a mut dyn FnMut(i32) -> Result<(), Error>;

/// A command that was executed as the first process of a new sandbox. Dropping it does not end it; the end of this
/// process does.
#[derive(Debug)]
pub struct First {
    /// The master side of its terminal, when the spec asked for one.
    pub terminal: Option<OwnedFd>,
    pid: Pid,
    pidfd: OwnedFd,
    upper: OwnedFd,
    traces: Vec<Trace>,
    /// It is in the host's pid namespace: the kernel does not end the others with it.
    of_host: bool,
}

impl First {
    /// Starts it with standard input, output and error, as a child of this process; returns once it has been executed.
    /// Only for a process with a single thread. Gives up with `None` when `wanted` (if there is one) becomes readable.
    ///
    /// # Errors
    /// The command is not there or not executable, or a step of the set-up (`prepare` among them) failed.
    pub fn start(
        spec: &Spec,
        streams: [OwnedFd; 3],
        wanted: Option<BorrowedFd<'_>>,
        prepare: Option<Prepare<'_>>,
    ) -> Result<Option<Self>, Error> {
        let start = || failed("start the sandbox");
        let upper = openat(CWD, &spec.root.upper, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed(format!("open {}", spec.root.upper.display())))?;
        let (channel, theirs) = Channel::pair().map_err(start())?;
        let of_host = spec.kernel.pid == Sharing::Host;
        if of_host {
            // What its processes leave behind comes to this one.
            rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
                .map_err(failed("look after the processes that it leaves"))?;
        }
        match fork_first(of_host).map_err(failed("make a pid namespace"))? {
            (Fork::Parent(pid), Some(pidfd)) => {
                drop((theirs, streams));
                let first = Self { terminal: None, pid, pidfd, upper, traces: Vec::new(), of_host };
                first.set_up(&channel, wanted, prepare)
            }
            _ => {
                // Nothing of the parent's stays open in the sandbox.
                drop((channel, upper));
                crate::child::main(spec, &theirs, streams, prepare.is_some())
            }
        }
    }

    /// Until the command is executed.
    fn set_up(
        mut self,
        channel: &Channel,
        wanted: Option<BorrowedFd<'_>>,
        mut prepare: Option<Prepare<'_>>,
    ) -> Result<Option<Self>, Error> {
        let failure = loop {
            match next(channel, wanted) {
                Ok(Next::Message(Message::Terminal, mut fds)) => self.terminal = fds.pop(),
                Ok(Next::Message(Message::Trace(trace), _)) => self.traces.push(trace),
                Ok(Next::Message(Message::Failed(failure), _)) => break Some(failure.into()),
                Ok(Next::Message(Message::Namespaces, _)) => {
                    let prepared = prepare.as_mut().map_or(Ok(()), |prepare| prepare(self.pid()));
                    let told = prepared.and_then(|()| channel.send(&Message::Go, &[]).map_err(failed("go on")));
                    if let Err(error) = told {
                        break Some(error);
                    }
                }
                Ok(Next::Message(..)) => {}
                Ok(Next::Executed) => return Ok(Some(self)),
                Ok(Next::Abandoned) => break None,
                Err(error) => break Some(failed("start the sandbox")(error)),
            }
        };
        let _ = self.signal(libc::SIGKILL);
        let _ = self.reap();
        failure.map_or(Ok(None), Err)
    }

    /// Its pid in this process's namespace.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Becomes readable when it has ended.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Sends it a signal. As the first process of its namespace it ignores what it has no handler for, but SIGKILL
    /// and SIGSTOP.
    ///
    /// # Errors
    /// It has ended (ESRCH); there is no such signal.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        send_signal(self.pidfd.as_fd(), signal)
    }

    /// Waits for the end, after which the kernel has ended all others of its pid namespace, and takes away what the
    /// set-up left in the upper directory.
    ///
    /// # Errors
    /// Somebody else has waited for it.
    pub fn reap(self) -> io::Result<Exit> {
        let status = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED));
        if self.of_host {
            end_orphans();
        }
        trace::remove(&self.upper, &self.traces);
        Ok(exit(status?.as_ref()))
    }
}

/// Kills what was left to this process, until nothing is left any more. Its own helpers execute the same file as it does.
fn end_orphans() {
    use std::os::unix::fs::MetadataExt;
    let file = |pid: &str| std::fs::metadata(format!("/proc/{pid}/exe")).ok().map(|one| (one.dev(), one.ino()));
    let own = file("self");
    loop {
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        let orphans = children.split_whitespace().filter(|pid| file(pid).is_some() && file(pid) != own);
        let orphans: Vec<Pid> = orphans.filter_map(|pid| pid.parse().ok().and_then(Pid::from_raw)).collect();
        if orphans.is_empty() {
            return;
        }
        for pid in orphans {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            let _ = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED));
        }
    }
}

/// What happens next during the set-up.
enum Next {
    Message(Message, Vec<OwnedFd>),
    /// The channel closed with the exec.
    Executed,
    /// Nobody wants it any more.
    Abandoned,
}

fn next(channel: &Channel, wanted: Option<BorrowedFd<'_>>) -> io::Result<Next> {
    if let Some(wanted) = wanted
        && is_readable_first(wanted, channel.as_fd())?
    {
        return Ok(Next::Abandoned);
    }
    Ok(channel.receive()?.map_or(Next::Executed, |(message, fds)| Next::Message(message, fds)))
}

/// Waits for either; whether the first one has news.
pub(crate) fn is_readable_first(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    let mut polled = [PollFd::from_borrowed_fd(one, PollFlags::IN), PollFd::from_borrowed_fd(other, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut polled, None))?;
    Ok(!polled[0].revents().is_empty())
}

pub(crate) fn exit(status: Option<&WaitIdStatus>) -> Exit {
    let code = status.and_then(WaitIdStatus::exit_status);
    match (code, status.and_then(WaitIdStatus::terminating_signal)) {
        (Some(code), _) => Exit::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        (None, signal) => Exit::Signal(signal.unwrap_or(libc::SIGKILL)),
    }
}

/// The status that a shell would give: 128 + n for signal n.
pub(crate) fn exit_of(status: rustix::process::WaitStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, signal) => 128 + signal.unwrap_or(libc::SIGKILL),
    }
}
