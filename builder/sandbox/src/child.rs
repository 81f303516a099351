//! The first process of the sandbox: from the fork to the exec.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Gid, Mode, OFlags, Uid, openat};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use rustix::thread::UnshareFlags;

use crate::channel::{Channel, Failure, Message};
use crate::execute::Command;
use crate::mount::failed;
use crate::process::Error;
use crate::root::target::{Missing, Tree};
use crate::seccomp::Subject;
use crate::spec::{Network, Spec};
use crate::system_call::{close_on_exec_from, raise_loopback, reset_signals, unshare};
use crate::user_namespace::Identity;
use crate::{capabilities, root, seccomp, terminal};

/// Never returns: it becomes the command, or says why not and exits.
pub(crate) fn main(spec: &Spec, supervisor: &Channel, streams: [OwnedFd; 3]) -> ! {
    let Err(error) = become_command(spec, supervisor, streams);
    let _ = supervisor.send(&Message::Failed(Failure::from(&error)), &[]);
    std::process::exit(1)
}

fn become_command(spec: &Spec, supervisor: &Channel, streams: [OwnedFd; 3]) -> Result<Infallible, Error> {
    die_with(supervisor).map_err(failed("follow the supervisor"))?;
    let _ = rustix::process::setsid();
    rustix::process::umask(Mode::empty());
    let command = Command::new(&spec.args, &spec.env)?;
    let identity = Identity::current().map_err(failed("read the user mapping"))?;
    make_namespaces(spec)?;
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
    set_limits(spec);
    rustix::process::fchdir(&directory).map_err(failed(format!("enter the directory {}", spec.cwd.display())))?;
    // From here on, nothing that reaches out of the sandbox is open but sockets, which close on exec.
    drop((tree, directory));
    close_on_exec_from(3).map_err(failed("close what the command must not have"))?;
    restrict(spec, identity)?;
    die_with(supervisor).map_err(failed("follow the supervisor"))?;
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    reset_signals();
    Err(command.execute())
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

fn make_namespaces(spec: &Spec) -> Result<(), Error> {
    let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP;
    if spec.network == Network::None {
        flags |= UnshareFlags::NEWNET;
    }
    unshare(flags).map_err(failed("make namespaces"))?;
    rustix::system::sethostname(spec.hostname.as_bytes())
        .map_err(failed(format!("set the host name {:?}", spec.hostname)))?;
    if spec.network == Network::None {
        raise_loopback().map_err(failed("bring the loopback interface up"))?;
    }
    Ok(())
}

/// Standard input, output and error: the caller's, or a terminal.
fn give_streams(spec: &Spec, tree: &Tree, supervisor: &Channel, streams: [OwnedFd; 3]) -> Result<(), Error> {
    let [stdin, stdout, stderr] = if spec.terminal {
        let terminal = terminal::open(tree, spec, &streams).map_err(failed("open a terminal"))?;
        supervisor.send(&Message::Terminal, &[terminal.master.as_fd()]).map_err(failed("hand the terminal over"))?;
        terminal.streams
    } else {
        streams
    };
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
fn set_limits(spec: &Spec) {
    for (name, (soft, hard)) in &spec.rlimits {
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

/// Gives up all that the spec does not leave, ending as the spec's user.
fn restrict(spec: &Spec, identity: Identity) -> Result<(), Error> {
    let security = &spec.security;
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
    change_user(spec, identity)
}

fn change_user(spec: &Spec, identity: Identity) -> Result<(), Error> {
    let groups: Vec<Gid> = spec.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
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
    let gid = Gid::from_raw(spec.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(unmapped("group", spec.gid))?;
    let uid = Uid::from_raw(spec.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(unmapped("user", spec.uid))
}

/// /dev/null, for streams that the caller does not have.
pub(crate) fn null() -> io::Result<OwnedFd> {
    Ok(openat(rustix::fs::CWD, Path::new("/dev/null"), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}
