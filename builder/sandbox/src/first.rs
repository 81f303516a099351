//! The first process of a sandbox, seen from its parent, which must have one thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, waitid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::channel::{Channel, Message};
use crate::mount::failed;
use crate::process::{Error, Exit};
use crate::root::trace::{self, Trace};
use crate::spec::{Sharing, Spec};
use crate::system_call::{Fork, fork, fork_first, fork_sibling, send_signal};

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
    /// It is not the first process of its pid namespace: the kernel does not end the others with it.
    guest: Option<Guest>,
}

/// A sandbox in a pid namespace that is not its own.
#[derive(Debug)]
enum Guest {
    /// In the host's: what its processes leave behind comes to this one.
    OfHost,
    /// In that of another sandbox, whose first process gets what its processes leave behind. Theirs are those that are
    /// in this mount namespace, once it is known; it is held, so that no other one gets its number.
    OfSandbox(Option<OwnedFd>),
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
        let guest = match spec.kernel.pid {
            Sharing::Own => None,
            Sharing::Host => {
                rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
                    .map_err(failed("look after the processes that it leaves"))?;
                Some(Guest::OfHost)
            }
            Sharing::Of(_) => Some(Guest::OfSandbox(None)),
        };
        let forked = match spec.kernel.pid {
            Sharing::Of(pid) => fork_among(pid),
            _ => fork_first(guest.is_some()),
        };
        match forked.map_err(failed(match spec.kernel.pid {
            Sharing::Of(_) => "join the pid namespace of the other container",
            _ => "make a pid namespace",
        }))? {
            (Fork::Parent(pid), Some(pidfd)) => {
                drop((theirs, streams));
                let first = Self { terminal: None, pid, pidfd, upper, traces: Vec::new(), guest };
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
                Ok(Next::Executed) => {
                    if let Some(Guest::OfSandbox(mounts)) = &mut self.guest {
                        let path = format!("/proc/{}/ns/mnt", self.pid.as_raw_nonzero());
                        *mounts = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok();
                    }
                    return Ok(Some(self));
                }
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
        match &self.guest {
            None | Some(Guest::OfSandbox(None)) => {}
            Some(Guest::OfHost) => end_orphans(),
            Some(Guest::OfSandbox(Some(mounts))) => end_all_in(mounts),
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

/// Forks into the pid namespace that a process is in. An ordinary user who has entered it has no way back: a process in
/// between does so, and its child becomes this one's.
fn fork_among(pid: i32) -> io::Result<(Fork, Option<OwnedFd>)> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = openat(CWD, format!("/proc/{pid}/ns/pid"), flags, Mode::empty())?;
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    match fork()? {
        Fork::Child => {
            let entered = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::ProcessID));
            let number = match entered.map_err(io::Error::from).and_then(|()| fork_sibling()) {
                Ok(Fork::Child) => return Ok((Fork::Child, None)),
                Ok(Fork::Parent(pid)) => pid.as_raw_nonzero().get(),
                Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
            };
            let _ = rustix::io::write(&write, &number.to_ne_bytes());
            std::process::exit(0)
        }
        Fork::Parent(between) => {
            drop(write);
            let mut bytes = [0; 4];
            let read = rustix::io::retry_on_intr(|| rustix::io::read(&read, &mut bytes));
            rustix::io::retry_on_intr(|| waitid(WaitId::Pid(between), WaitIdOptions::EXITED))?;
            let number = if read? == bytes.len() { i32::from_ne_bytes(bytes) } else { -libc::EIO };
            match Pid::from_raw(number).filter(|_| number > 0) {
                Some(pid) => Ok((Fork::Parent(pid), Some(pidfd_open(pid, PidfdFlags::empty())?))),
                None => Err(io::Error::from_raw_os_error(-number)),
            }
        }
    }
}

/// Kills the processes that are in a mount namespace, until none is left.
fn end_all_in(mounts: &OwnedFd) {
    let Ok(wanted) = rustix::fs::fstat(mounts) else { return };
    loop {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let is_inside = |pid: &Pid| {
            let found = rustix::fs::stat(format!("/proc/{}/ns/mnt", pid.as_raw_nonzero()));
            found.is_ok_and(|found| (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino))
        };
        let all = entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
        let inside: Vec<Pid> = all.filter(is_inside).collect();
        if inside.is_empty() {
            return;
        }
        for pid in inside {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
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
