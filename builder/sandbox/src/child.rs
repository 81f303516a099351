//! The first process of the sandbox: from the fork to the exec.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Gid, Mode, OFlags, Uid, openat};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit,
};

use crate::channel::{Channel, Message};
use crate::execute::Command;
use crate::mount::failed;
use crate::process::Error;
use crate::root::target::{Missing, Tree};
use crate::seccomp::Subject;
use crate::spec::{Security, Spec};
use crate::supervisor::tell;
use crate::system_call::{close_from, close_on_exec_from, reset_signals};
use crate::user_namespace::Identity;
use crate::{capabilities, cgroup, init, kernel, program, root, seccomp, terminal};

/// Never returns: it becomes the command, or says why not and exits.
/// With `held` it waits for the parent once its namespaces are there.
pub(crate) fn main(spec: &Spec, supervisor: &Channel, streams: [OwnedFd; 3], held: bool) -> ! {
    let Err(error) = become_command(spec, supervisor, streams, held);
    let _ = tell(supervisor, &error);
    std::process::exit(1)
}

fn become_command(spec: &Spec, supervisor: &Channel, streams: [OwnedFd; 3], held: bool) -> Result<Infallible, Error> {
    die_with(supervisor).map_err(failed("follow the supervisor"))?;
    // Until the exec this is a process of kiln's in the sandbox: nobody there may look into it.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = rustix::process::setsid();
    rustix::process::umask(Mode::empty());
    let command = Command::new(&spec.args, &spec.env)?;
    let identity = Identity::current().map_err(failed("read the user mapping"))?;
    // Before it has a view of control groups of its own, which begins at its place then.
    cgroup::Door::open(&spec.cgroups).and_then(cgroup::Door::enter).map_err(failed("enter the control group"))?;
    kernel::make_namespaces(spec)?;
    if held {
        wait_for_parent(supervisor).map_err(failed("wait for the network"))?;
    }
    kernel::change_settings(spec)?;
    let entered = root::enter(spec, identity != Identity::Root)?;
    for trace in entered.traces {
        supervisor.send(&Message::Trace(trace), &[]).map_err(failed("report a mount point"))?;
    }
    let tree = entered.tree;
    let directory = tree.find(&spec.cwd, Missing::Keep(spec.uid, spec.gid));
    let directory = directory.map_err(failed(format!("enter the directory {}", spec.cwd.display())))?;
    if spec.root.readonly {
        root::make_read_only(&tree)?;
    }
    give_streams(spec, &tree, supervisor, streams)?;
    set_limits(&spec.rlimits);
    rustix::process::fchdir(&directory).map_err(failed(format!("enter the directory {}", spec.cwd.display())))?;
    // From here on, nothing that reaches out of the sandbox is open but sockets, which close on exec.
    drop((tree, directory));
    close_on_exec_from(3).map_err(failed("close what the command must not have"))?;
    restrict(&spec.security, identity)?;
    change_user(spec.uid, spec.gid, &spec.groups, identity)?;
    die_with(supervisor).map_err(failed("follow the supervisor"))?;
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    if spec.init {
        init::stay_behind(supervisor, spec.terminal).map_err(failed("start the init process"))?;
    }
    reset_signals();
    become_program(spec.program.as_deref(), &spec.args, supervisor);
    Err(command.execute())
}

/// One of kiln's own goes on in this very process, with nothing open but its streams.
pub(crate) fn become_program(name: Option<&str>, arguments: &[String], parent: &Channel) {
    if let Some(name) = name {
        let _ = parent;
        // The parent takes the end of its channel for the start of the command.
        let _ = close_from(3);
        program::run(name, arguments);
    }
}

/// The parent works on this process's namespaces meanwhile.
fn wait_for_parent(supervisor: &Channel) -> io::Result<()> {
    supervisor.send(&Message::Namespaces, &[])?;
    match supervisor.receive()? {
        Some((Message::Go, _)) => Ok(()),
        _ => Err(io::Error::other("it gave up")),
    }
}

/// The kernel kills this process when the supervisor ends; it may have ended already. Credentials that change
/// forget this.
fn die_with(supervisor: &Channel) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut polled = [PollFd::new(supervisor, PollFlags::empty())];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    if polled[0].revents().contains(PollFlags::HUP) {
        std::process::exit(1);
    }
    Ok(())
}

/// Standard input, output and error: the caller's, or a terminal.
fn give_streams(spec: &Spec, tree: &Tree, supervisor: &Channel, streams: [OwnedFd; 3]) -> Result<(), Error> {
    if !spec.terminal {
        return set_streams(streams);
    }
    let terminal = terminal::open(spec.uid, spec.terminal_size, &streams).map_err(failed("open a terminal"))?;
    terminal::call_console(&terminal, tree).map_err(failed("make /dev/console"))?;
    supervisor.send(&Message::Terminal, &[terminal.master.as_fd()]).map_err(failed("hand the terminal over"))?;
    set_streams(terminal.streams)
}

/// Makes these standard input, output and error.
pub(crate) fn set_streams([stdin, stdout, stderr]: [OwnedFd; 3]) -> Result<(), Error> {
    (|| {
        rustix::stdio::dup2_stdin(stdin)?;
        rustix::stdio::dup2_stdout(stdout)?;
        rustix::stdio::dup2_stderr(stderr)
    })()
    .map_err(failed("set standard input and output"))
}

const LIMITS: [(&str, Resource); 16] = [
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

/// As asked, or as near as this process may go.
pub(crate) fn set_limits(limits: &BTreeMap<String, (u64, u64)>) {
    for (name, (soft, hard)) in limits {
        let Some((_, resource)) = LIMITS.iter().find(|(known, _)| known == name) else { continue };
        let number = |value: u64| (value != u64::MAX).then_some(value);
        let wanted = Rlimit { current: number(*soft), maximum: number(*hard) };
        if setrlimit(*resource, wanted).is_err() {
            let highest = getrlimit(*resource).maximum.unwrap_or(u64::MAX);
            let reachable = Rlimit { current: number((*soft).min(highest)), maximum: number((*hard).min(highest)) };
            let _ = setrlimit(*resource, reachable);
        }
    }
}

/// Gives up all that is not left to a sandbox; [`change_user`] comes next.
pub(crate) fn restrict(security: &Security, identity: Identity) -> Result<(), Error> {
    let allowed = capabilities::allowed(security)?;
    capabilities::limit(allowed).map_err(failed("give up capabilities"))?;
    if security.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(failed("forbid new privileges"))?;
    }
    if security.seccomp && !security.privileged {
        // While CAP_SYS_ADMIN is here, which loading one needs without no_new_privs.
        let subject = Subject { capabilities: allowed, single_id: identity == Identity::Single };
        seccomp::restrict(subject).map_err(failed("load the seccomp filter"))?;
    }
    Ok(())
}

/// Becomes the command's user.
pub(crate) fn change_user(uid: u32, gid: u32, groups: &[u32], identity: Identity) -> Result<(), Error> {
    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match rustix::thread::set_thread_groups(&groups) {
        Ok(()) => {}
        // A namespace with one id has no say in groups.
        Err(Errno::PERM | Errno::INVAL) if identity == Identity::Single => {}
        Err(error) => return Err(failed("set the supplementary groups")(error)),
    }
    let unmapped = |kind: &str, id: u32| {
        failed(match identity {
            Identity::Root => format!("become {kind} {id}"),
            Identity::Mapped => format!("become {kind} {id} (beyond the subordinate ids of this user)"),
            Identity::Single => {
                format!("become {kind} {id} (this user has no subordinate ids, see /etc/subuid: only root exists)")
            }
        })
    };
    let group = Gid::from_raw(gid);
    rustix::thread::set_thread_res_gid(group, group, group).map_err(unmapped("group", gid))?;
    let user = Uid::from_raw(uid);
    rustix::thread::set_thread_res_uid(user, user, user).map_err(unmapped("user", uid))
}

/// /dev/null, for streams that the caller does not have.
pub(crate) fn null() -> io::Result<OwnedFd> {
    Ok(openat(rustix::fs::CWD, Path::new("/dev/null"), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}
