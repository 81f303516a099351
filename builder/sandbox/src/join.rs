//! A command in a sandbox that runs already: this process enters its namespaces, and a child of it, which is then in
//! the pid namespace too, becomes the command.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use rustix::thread::ThreadNameSpaceType;

use crate::cgroup::Door;
use crate::channel::{Channel, Message};
use crate::child::{become_program, change_user, restrict, set_limits, set_streams};
use crate::execute::Command;
use crate::first::{exit, is_readable_first};
use crate::mount::failed;
use crate::process::{Error, Exit, document, launch};
use crate::root::target::{Missing, Tree};
use crate::spec::Entry;
use crate::supervisor::{read_document, tell};
use crate::system_call::{Fork, close_on_exec_from, fork, reset_signals, send_signal};
use crate::terminal;
use crate::user_namespace::Identity;

/// The namespaces of a sandbox, by their names in /proc.
const NAMESPACES: [(&str, ThreadNameSpaceType); 6] = [
    ("mnt", ThreadNameSpaceType::MOUNT),
    ("pid", ThreadNameSpaceType::PROCESS_ID),
    ("net", ThreadNameSpaceType::NETWORK),
    ("uts", ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME),
    ("ipc", ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION),
    ("cgroup", ThreadNameSpaceType::CONTROL_GROUP),
];

/// A command in somebody's sandbox, seen from whoever asked for it.
#[derive(Debug)]
pub struct Joined {
    /// The master side of its terminal, when there is one.
    pub terminal: Option<OwnedFd>,
    channel: Channel,
}

impl Joined {
    /// Has a command executed, by a process of kiln's that is started for it. May be called from any process that is
    /// in the user namespace of the sandbox. `caller` is the other end of the channel that [`Joined::follow`] gets.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn request(entry: &Entry, streams: &[OwnedFd; 3], caller: Channel) -> io::Result<std::process::Child> {
        let (child, channel) = launch()?;
        let document = document(entry)?;
        let [stdin, stdout, stderr] = streams;
        let caller = caller.into_fd();
        let fds = [&document, stdin, stdout, stderr, &caller].map(AsFd::as_fd);
        channel.send(&Message::Join, &fds)?;
        Ok(child)
    }

    /// Waits until the command is executed.
    ///
    /// # Errors
    /// It was not.
    pub fn follow(channel: Channel) -> Result<Self, Error> {
        let start = || failed("start the command");
        match channel.receive().map_err(start())? {
            Some((Message::Started, mut fds)) => Ok(Self { terminal: fds.pop(), channel }),
            Some((Message::Failed(failure), _)) => Err(failure.into()),
            _ => Err(start()(io::Error::other("the container ended"))),
        }
    }

    /// [`Joined::follow`] for a channel that does not block: `None` while there is no news.
    pub fn poll(channel: &Channel) -> Option<Result<Self, Error>> {
        let start = || failed("start the command");
        match channel.receive() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Ok(Some((Message::Started, mut fds))) => match channel.as_fd().try_clone_to_owned() {
                Ok(own) => Some(Ok(Self { terminal: fds.pop(), channel: Channel::from_fd(own) })),
                Err(error) => Some(Err(start()(error))),
            },
            Ok(Some((Message::Failed(failure), _))) => Some(Err(failure.into())),
            Ok(_) => Some(Err(start()(io::Error::other("the container ended")))),
            Err(error) => Some(Err(start()(error))),
        }
    }

    /// [`Joined::wait`] for a channel that does not block: `None` while it runs.
    pub fn try_wait(&self) -> Option<Exit> {
        match self.wait() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            ended => Some(ended.unwrap_or(Exit::Signal(libc::SIGKILL))),
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        self.channel.send(&Message::Signal(signal), &[])
    }

    /// Becomes readable when it has ended.
    pub fn ended(&self) -> std::os::fd::BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Whoever would tell was killed, as by the end of the whole sandbox.
    pub fn wait(&self) -> io::Result<Exit> {
        match self.channel.receive()? {
            Some((Message::Ended(exit), _)) => Ok(exit),
            _ => Ok(Exit::Signal(libc::SIGKILL)),
        }
    }
}

/// In the process that was started for it: the request's descriptors are the entry, the streams and the channel to
/// whoever waits.
pub(crate) fn serve(_: &Channel, fds: Vec<OwnedFd>) -> io::Result<()> {
    let [entry, stdin, stdout, stderr, caller] =
        <[OwnedFd; 5]>::try_from(fds).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let caller = Channel::from_fd(caller);
    let entered = read_document::<Entry>(entry).map_err(failed("read the entry")).and_then(|entry| {
        let identity = Identity::current().map_err(failed("read the user mapping"))?;
        let door = Door::open(&entry.cgroups).map_err(failed("find the container's control group"))?;
        enter(&entry)?;
        Ok((entry, identity, door))
    });
    let (entry, identity, door) = match entered {
        Ok(entered) => entered,
        Err(error) => return tell(&caller, &error),
    };
    let (channel, theirs) = Channel::pair()?;
    match fork()? {
        Fork::Child => {
            drop((channel, caller));
            let Err(error) = become_command(&entry, identity, door, &theirs, [stdin, stdout, stderr]);
            let _ = tell(&theirs, &error);
            std::process::exit(1)
        }
        Fork::Parent(pid) => {
            drop((theirs, stdin, stdout, stderr));
            supervise(pid, &channel, &caller)
        }
    }
}

/// Enters the namespaces that are not this process's own already: one that is may belong to a user namespace in which
/// this process has no say.
fn enter(entry: &Entry) -> Result<(), Error> {
    let failed = || failed("enter the container");
    let own = |name: &str| std::fs::read_link(Path::new("/proc/self/ns").join(name));
    let theirs = |name: &str| std::fs::read_link(format!("/proc/{}/ns/{name}", entry.pid));
    let pid = Pid::from_raw(entry.pid).ok_or_else(|| failed()(io::Error::from(io::ErrorKind::NotFound)))?;
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| failed()(error.into()))?;
    let mut wanted = ThreadNameSpaceType::empty();
    for (name, kind) in NAMESPACES {
        if own(name).map_err(failed())? != theirs(name).map_err(failed())? {
            wanted |= kind;
        }
    }
    rustix::thread::move_into_thread_name_spaces(process.as_fd(), wanted).map_err(|error| failed()(error.into()))
}

fn become_command(
    entry: &Entry,
    identity: Identity,
    door: Door,
    parent: &Channel,
    streams: [OwnedFd; 3],
) -> Result<Infallible, Error> {
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    door.enter().map_err(failed("enter the container's control group"))?;
    let _ = rustix::process::setsid();
    let command = Command::new(&entry.args, &entry.env)?;
    let step = || format!("enter the directory {}", entry.cwd.display());
    let root = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let tree = root.map_err(Into::into).and_then(Tree::new).map_err(failed("open the root"))?;
    let directory = tree.find(&entry.cwd, Missing::Refuse).map_err(failed(step()))?;
    if entry.terminal {
        let terminal = terminal::open(entry.uid, entry.terminal_size, &streams).map_err(failed("open a terminal"))?;
        parent.send(&Message::Terminal, &[terminal.master.as_fd()]).map_err(failed("hand the terminal over"))?;
        set_streams(terminal.streams)?;
    } else {
        set_streams(streams)?;
    }
    set_limits(&entry.rlimits);
    rustix::process::fchdir(&directory).map_err(failed(step()))?;
    drop((tree, directory));
    close_on_exec_from(3).map_err(failed("close what the command must not have"))?;
    restrict(&entry.security, identity)?;
    change_user(entry.uid, entry.gid, &entry.groups, identity)?;
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    reset_signals();
    become_program(entry.program.as_deref(), &entry.args, parent);
    Err(command.execute())
}

/// Until the command ends, whether or not anybody still waits for it.
fn supervise(pid: Pid, channel: &Channel, caller: &Channel) -> io::Result<()> {
    let mut terminal = None;
    loop {
        match channel.receive()? {
            Some((Message::Terminal, mut fds)) => terminal = fds.pop(),
            Some((failure @ Message::Failed(_), _)) => {
                let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
                return caller.send(&failure, &[]);
            }
            Some(_) => {}
            None => break,
        }
    }
    let fds: Vec<_> = terminal.iter().map(AsFd::as_fd).collect();
    let _ = caller.send(&Message::Started, &fds);
    drop(fds);
    // The terminal hangs up with its last holder, which is the caller.
    drop(terminal);
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    while is_readable_first(caller.as_fd(), process.as_fd())? {
        match caller.receive() {
            Ok(Some((Message::Signal(signal), _))) => {
                let _ = send_signal(process.as_fd(), signal);
            }
            Ok(Some(_)) => {}
            // Nobody waits any more.
            Ok(None) | Err(_) => break,
        }
    }
    let status = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED))?;
    caller.send(&Message::Ended(exit(status.as_ref())), &[])
}
