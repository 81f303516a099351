//! What a container gets besides its processes: its networks, and its control group.

use std::path::Path;

use kiln_sandbox::cgroup::Cgroup;

use super::serve::Supervisor;
use crate::network::{Attachment, Mode, Who};
use crate::protocol::Event;
use crate::state::{Phase, State};
use crate::{Error, Result, record};

/// What is given back at the end.
#[derive(Debug, Default)]
pub(super) struct Resources {
    network: Option<Attachment>,
    /// Processes that were killed for want of memory until its last start.
    out_of_memory: u64,
}

impl Supervisor {
    /// Connects the container and makes its control group, at its first start; it keeps them when its restart policy
    /// starts it again.
    pub(super) fn provide(&mut self) -> Result<()> {
        self.resources.out_of_memory = self.state.cgroup.out_of_memory();
        if self.resources.network.is_some() {
            return Ok(());
        }
        let settings = &self.job.record.settings;
        let root = self.home.path.ancestors().nth(2).unwrap_or(Path::new("/")).to_owned();
        let id = &self.job.record.id;
        // Of an earlier run whose supervisor was killed.
        self.state.cgroup.remove();
        let (cgroup, _) = Cgroup::create(settings.cgroup_parent.as_deref(), id, &settings.limits)
            .map_err(|error| Error::io("make the control group of", id, error))?;
        self.job.spec.cgroups = cgroup.directories();
        self.state.cgroup = cgroup;
        let who = Who { id, name: &self.job.record.name, hostname: &self.job.spec.hostname };
        let other = match &settings.network.mode {
            Mode::Container(name) => Some(running(&root, name)?),
            _ => None,
        };
        let other = other.as_ref().map(|(pid, id)| (*pid, id.as_str()));
        let attachment = Attachment::new(&root, who, &settings.network, other)?;
        self.job.spec.network = attachment.network.clone();
        self.job.spec.hosts = Some(attachment.connected.hosts.clone());
        self.job.spec.resolv_conf = Some(attachment.connected.resolv_conf.clone());
        self.resources.network = Some(attachment);
        Ok(())
    }

    /// Whether the kernel killed a process of this run for want of memory.
    pub(super) fn was_out_of_memory(&self) -> bool {
        self.state.cgroup.out_of_memory() > self.resources.out_of_memory
    }

    /// Stops all its processes where they are, or lets them go on.
    pub(super) fn freeze(&mut self, frozen: bool) -> Event {
        let name = &self.job.record.name;
        let problem = match (self.state.phase, frozen) {
            (Phase::Running, true) | (Phase::Paused, false) => None,
            (Phase::Paused, true) => Some(format!("container {name} is already paused")),
            (_, true) => Some(format!("container {name} is not running")),
            (_, false) => Some(format!("container {name} is not paused")),
        };
        if let Some(problem) = problem {
            return Event::Failed(1, problem);
        }
        match self.state.cgroup.freeze(frozen) {
            Ok(()) => {
                self.state.phase = if frozen { Phase::Paused } else { Phase::Running };
                self.write_state();
                Event::Done
            }
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Event::Failed(
                1,
                format!(
                    "cannot pause container {name}: this user has no control group of its own that could (see \
                     `kiln info`)"
                ),
            ),
            Err(error) => Event::Failed(1, format!("cannot pause container {name}: {error}")),
        }
    }

    /// A frozen process takes no signal, not even the last one.
    pub(super) fn thaw(&mut self) {
        if self.state.phase == Phase::Paused {
            let _ = self.freeze(false);
        }
    }
}

impl Resources {
    /// Gives everything back; the container's processes have ended.
    pub(super) fn release(self, state: &State) {
        state.cgroup.remove();
        drop(self.network);
    }
}

/// The pid and the id of a container that runs.
fn running(root: &Path, name: &str) -> Result<(u32, String)> {
    let container = record::find_in(&root.join("containers"), name)?;
    let pid = u32::try_from(container.state.pid).ok().filter(|pid| *pid > 0);
    match pid {
        Some(pid) if container.state.is_alive() => Ok((pid, container.record.id)),
        _ => Err(Error::Invalid(format!("cannot join network of a non running container: {name}"))),
    }
}
