//! Commands that are executed in a container that runs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Child;

use kiln_sandbox::join::Joined;
use kiln_sandbox::spec::Security;
use kiln_sandbox::{Channel, Entry};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::explain;
use super::serve::Supervisor;
use crate::protocol::{Command, Event};
use crate::{Error, Result};

/// Bytes of a container's /etc/passwd and /etc/group, at most.
const FILE_LIMIT: u64 = 1 << 20;

/// The processes that wait for such commands.
#[derive(Debug, Default)]
pub(crate) struct Helpers(Vec<(Child, OwnedFd)>);

impl Helpers {
    /// Readable when one has ended.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|(_, pidfd)| pidfd.as_fd())
    }

    pub(super) fn add(&mut self, child: Child) {
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => self.0.push((child, pidfd)),
            // It is reaped when this process ends.
            Err(_) => drop(child),
        }
    }

    fn reap(&mut self) {
        self.0.retain_mut(|(child, _)| matches!(child.try_wait(), Ok(None)));
    }
}

impl Supervisor {
    pub(super) fn tend_helpers(&mut self) {
        self.helpers.reap();
    }

    pub(super) fn execute(&mut self, at: usize, command: &Command, fds: Vec<OwnedFd>) {
        let answer = match self.join(command, fds) {
            Ok(()) => Event::Done,
            Err(error) => Event::Failed(error.exit_status(), explain(&error)),
        };
        self.clients[at].tell(answer);
    }

    fn join(&mut self, command: &Command, fds: Vec<OwnedFd>) -> Result<()> {
        let wrong = || Error::Invalid("an exec without its streams".to_owned());
        let [stdin, stdout, stderr, caller] = <[OwnedFd; 4]>::try_from(fds).map_err(|_| wrong())?;
        let entry = self.entry(command)?;
        let child = Joined::request(&entry, &[stdin, stdout, stderr], Channel::from_fd(caller));
        self.helpers.add(child.map_err(|error| Error::io("execute a command in", &self.home.path, error))?);
        Ok(())
    }

    /// What the command is to find: the container's own environment, directory and user where it does not say otherwise.
    pub(super) fn entry(&self, command: &Command) -> Result<Entry> {
        let run = self.run.as_ref().ok_or_else(|| Error::NotRunning(self.job.record.name.clone()))?;
        let (pid, spec, settings) = (run.first.pid(), &self.job.spec, &self.job.record.settings);
        let user = command.user.as_deref().unwrap_or(&settings.user);
        let file = |path| read_in(pid, path);
        let user = kiln_image::user::resolve_text(&file("etc/passwd"), &file("etc/group"), user)?;
        let mut env: Vec<String> = spec.env.iter().filter(|line| !line.starts_with("HOME=")).cloned().collect();
        env.push(format!("HOME={}", user.home));
        let has_term = env.iter().any(|line| line.starts_with("TERM="));
        if command.terminal && !has_term {
            env.push("TERM=xterm".to_owned());
        }
        crate::command::merge(&mut env, &command.env);
        let security = match (&command.program, command.privileged) {
            // A copy acts as the container's root, whatever else the container gave up.
            (Some(_), _) => Security::default(),
            (None, true) => Security { privileged: true, ..spec.security.clone() },
            (None, false) => spec.security.clone(),
        };
        Ok(Entry {
            pid,
            args: command.args.clone(),
            env,
            cwd: command.workdir.as_ref().map_or_else(|| spec.cwd.clone(), PathBuf::from),
            uid: user.uid,
            gid: user.gid,
            groups: user.groups,
            security,
            rlimits: spec.rlimits.clone(),
            terminal: command.terminal,
            terminal_size: command.terminal_size,
            program: command.program.clone(),
            cgroups: spec.cgroups.clone(),
        })
    }
}

/// A small file of the container, which may have made anything of it.
fn read_in(pid: i32, path: &str) -> String {
    let read = || -> std::io::Result<String> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, format!("/proc/{pid}/root"), flags, Mode::empty())?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = std::fs::File::from(openat2(&root, path, flags, Mode::empty(), resolve)?);
        if !file.metadata()?.is_file() {
            return Ok(String::new());
        }
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, FILE_LIMIT), &mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}
