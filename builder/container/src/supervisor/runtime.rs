//! A container that somebody else runs: an OCI runtime (crun, runc, or another one by its path) gets a bundle, and this
//! process waits for it. All else (exec, copies, logs, signals) is the same.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use kiln_sandbox::bundle::{Bundle, Extra};
use kiln_sandbox::process::{Error, Signaller};
use kiln_sandbox::{Exit, First, Spec};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::record::Record;
use crate::runtime::Runtime;

/// The control group above those that runtimes make.
const PARENT: &str = "/kiln";

/// A command that runs, whoever started it.
#[derive(Debug)]
pub(crate) enum Process {
    /// kiln did.
    Own(First),
    /// A runtime did.
    Foreign(Foreign),
}

/// A runtime that waits for its container.
#[derive(Debug)]
pub(crate) struct Foreign {
    runtime: Runtime,
    id: String,
    child: Child,
    ended: OwnedFd,
    pid: i32,
    /// None when it had ended before it was looked at.
    first: Option<Signaller>,
    _bundle: Bundle,
}

impl Process {
    /// Its pid on the host.
    pub(crate) fn pid(&self) -> i32 {
        match self {
            Self::Own(first) => first.pid(),
            Self::Foreign(foreign) => foreign.pid,
        }
    }

    /// Becomes readable when it has ended.
    pub(crate) fn ended(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(first) => first.ended(),
            Self::Foreign(foreign) => foreign.ended.as_fd(),
        }
    }

    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        match self {
            Self::Own(first) => first.signal(signal),
            Self::Foreign(foreign) => match &foreign.first {
                Some(first) => first.send(signal),
                None => Err(io::Error::from(io::ErrorKind::NotFound)),
            },
        }
    }

    /// Its terminal has another size.
    pub(crate) fn resized(&self) {
        if let Self::Foreign(foreign) = self {
            let _ = kill_process(Pid::from_child(&foreign.child), Signal::WINCH);
        }
    }

    /// Waits for the end.
    pub(crate) fn reap(self) -> io::Result<Exit> {
        match self {
            Self::Own(first) => first.reap(),
            Self::Foreign(mut foreign) => {
                let status = foreign.child.wait()?;
                foreign.runtime.delete(&foreign.id);
                use std::os::unix::process::ExitStatusExt;
                Ok(match (status.code(), status.signal()) {
                    (Some(code), _) => Exit::Code(u8::try_from(code).unwrap_or(u8::MAX)),
                    (None, signal) => Exit::Signal(signal.unwrap_or(9)),
                })
            }
        }
    }
}

impl Runtime {
    /// Has the bundle of a spec run.
    ///
    /// # Errors
    /// The runtime is not there, or says why it does not start the command.
    pub(crate) fn start(
        self,
        spec: &Spec,
        record: &Record,
        home: &Path,
        streams: [OwnedFd; 3],
    ) -> Result<Foreign, Error> {
        let name = self.name();
        let failed = |source: io::Error| Error::Setup { step: format!("run the OCI runtime {name}"), source };
        // Of a supervisor that was killed.
        self.delete(&record.id);
        let path = home.join("bundle");
        std::fs::create_dir_all(&path).map_err(failed)?;
        let parent = record.settings.cgroup_parent.as_deref().unwrap_or(PARENT);
        let extra = Extra {
            annotations: record.settings.annotations.clone().into_iter().collect(),
            limits: record.settings.limits.clone(),
            cgroup: Path::new("/").join(parent.trim_matches('/')).join(&record.id),
        };
        let bundle = Bundle::prepare(spec, &path, &extra)?;
        let (pid_file, log) = (path.join("pid"), path.join("runtime.log"));
        for file in [&pid_file, &log] {
            let _ = std::fs::remove_file(file);
        }
        let [stdin, stdout, stderr] = streams;
        let mut command = self.command();
        command.arg("--log").arg(&log).args(["run", "--bundle"]).arg(&path).arg("--pid-file").arg(&pid_file);
        let mut child = command.arg(&record.id).stdin(stdin).stdout(stdout).stderr(stderr).spawn().map_err(failed)?;
        // The streams' ends are the runtime's only.
        drop(command);
        let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(|error| failed(error.into()))?;
        let pid = wait_for_pid(&pid_file, &mut child).map_err(failed)?;
        match pid {
            Some(pid) => {
                let first = Signaller::of_process(pid).ok();
                Ok(Foreign { runtime: self, id: record.id.clone(), child, ended, pid, first, _bundle: bundle })
            }
            None => {
                let _ = child.wait();
                self.delete(&record.id);
                Err(explain(&name, &spec.args, &std::fs::read_to_string(&log).unwrap_or_default()))
            }
        }
    }
}

/// The runtime writes it when the command is about to be executed; none when the runtime ended before.
fn wait_for_pid(file: &Path, child: &mut Child) -> io::Result<Option<i32>> {
    loop {
        let written = || std::fs::read_to_string(file).ok()?.trim().parse().ok();
        if let Some(pid) = written() {
            return Ok(Some(pid));
        }
        if child.try_wait()?.is_some() {
            return Ok(written());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What the runtime wrote about why it failed, as kiln says it.
fn explain(name: &str, args: &[String], log: &str) -> Error {
    let line = log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it does not say why").trim();
    let command = args.first().cloned().unwrap_or_default();
    let source = io::Error::other(line.to_owned());
    let says = |words: &str| line.to_lowercase().contains(words);
    if says("exec") && (says("executable file") && says("not found") || says("no such file or directory")) {
        Error::NotFound(command)
    } else if says("exec") && (says("permission denied") || says("is a directory")) {
        Error::NotExecutable(command, source)
    } else {
        Error::Setup { step: format!("start the command by the OCI runtime {name}"), source }
    }
}
