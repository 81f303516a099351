//! What a container is doing: its supervisor writes it down, and the lock that the supervisor holds says whether to
//! believe it.

use std::path::Path;

use kiln_sandbox::cgroup::Cgroup;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::directory::{lock, now, write_whole};
use crate::record::Record;
use crate::runtime::Runtime;

/// docker's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It has never run.
    #[default]
    Created,
    /// Its process runs.
    Running,
    /// ... and is frozen.
    Paused,
    /// It ended and will be started again.
    Restarting,
    /// It ended.
    Exited,
}

impl Phase {
    /// docker's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        }
    }
}

/// `state.json` of a container. Times are nanoseconds since 1970, 0 for never.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// What it is doing.
    pub phase: Phase,
    /// Its first process while it runs, in the host's pid namespace.
    pub pid: i32,
    /// When it last started.
    pub started: i64,
    /// When it last ended.
    pub finished: i64,
    /// Its exit status.
    pub status: u8,
    /// It was killed because it, or the machine, was out of memory.
    pub out_of_memory: bool,
    /// Why it could not be started.
    pub error: String,
    /// How often its restart policy started it.
    pub restarts: u32,
    /// Whether it works, when it has a health check.
    pub health: Option<Health>,
    /// Its control group.
    pub cgroup: Cgroup,
    /// Somebody wanted it to end.
    pub stopped: bool,
    /// It was running when its supervisor, or the machine, went down.
    pub cut_off: bool,
    /// The boot of the machine this was written in.
    pub boot: String,
}

/// What the health check says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// Failures one after the other.
    pub failing: u32,
    /// The last five checks.
    pub log: Vec<Check>,
}

/// One health check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// When it began and ended.
    pub times: (i64, i64),
    /// Its exit status; -1 when it took too long.
    pub status: i32,
    /// What it wrote, the first 4 KiB.
    pub output: String,
}

impl State {
    /// Whether it has a process, or will soon have one again.
    pub fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Paused | Phase::Restarting)
    }

    /// What is true of the container in this directory, whatever became of its supervisor.
    pub(crate) fn read(directory: &Path) -> Self {
        let written =
            || -> Option<Self> { serde_json::from_slice(&std::fs::read(directory.join("state.json")).ok()?).ok() };
        let state = written().unwrap_or_default();
        if !state.is_alive() {
            return state;
        }
        match lock(&directory.join("lock"), FlockOperation::NonBlockingLockShared) {
            Err(_) => state,
            // It may have ended since.
            Ok(_held) => {
                let state = written().unwrap_or(state);
                if !state.is_alive() {
                    return state;
                }
                if state.boot == boot() {
                    end_orphan(directory);
                }
                let state = state.buried();
                // So that it has ended at one time. Nobody can have started it meanwhile: the lock is held.
                let _ = state.write(directory);
                state
            }
        }
    }

    /// Of a supervisor that is gone: it took its container along, or the machine both.
    fn buried(self) -> Self {
        let rebooted = self.boot != boot();
        let (status, error) =
            if rebooted { (255, "the machine was restarted") } else { (137, "the container's supervisor was killed") };
        let error = error.to_owned();
        Self { phase: Phase::Exited, pid: 0, finished: now(), status, error, cut_off: true, ..self }
    }

    /// Keeps it.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join("state.json");
        let json = serde_json::to_vec(self).map_err(|error| crate::Error::io("write", &path, error))?;
        write_whole(&path, &json)
    }

    /// It starts now.
    pub(crate) fn begin(&mut self, pid: i32) {
        *self = Self {
            phase: Phase::Running,
            pid,
            status: 0,
            started: now(),
            boot: boot(),
            error: String::new(),
            out_of_memory: false,
            stopped: false,
            cut_off: false,
            ..std::mem::take(self)
        };
    }

    /// It ended now.
    pub(crate) fn end(&mut self, status: u8) {
        *self = Self { phase: Phase::Exited, pid: 0, finished: now(), status, ..std::mem::take(self) };
    }
}

/// Ends what an OCI runtime still runs when the supervisor was killed that waited for it; one that kiln itself runs ends
/// with its supervisor.
fn end_orphan(directory: &Path) {
    let runtime = Record::read(directory).and_then(|record| Some((Runtime::of(&record, directory)?, record.id)));
    if let Some((runtime, id)) = runtime {
        runtime.delete(&id);
    }
}

/// Changes with every boot of the machine.
fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
