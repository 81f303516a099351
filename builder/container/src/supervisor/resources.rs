//! What a container gets besides its processes: its networks, and its control group.

use std::path::Path;

use kiln_sandbox::cgroup::{Cgroup, Limits};

use super::serve::Supervisor;
use crate::network::{Attachment, Idle, Mode, Who};
use crate::protocol::Event;
use crate::state::{Phase, State};
use crate::{Error, RestartPolicy, Result, record};

/// What is given back at the end.
#[derive(Debug, Default)]
pub(super) struct Resources {
    network: Option<Attachment>,
    /// Processes that were killed for want of memory until its last start.
    out_of_memory: u64,
}

impl Supervisor {
    /// Connects the container and makes its control group where it has limits, at its first start; it keeps them when
    /// its restart policy starts it again. Moving a process into a group takes the kernel milliseconds: one that has no
    /// use for a group gets it when it is paused, or limited later.
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
        let parent = settings.cgroup_parent.as_deref();
        let cgroup = if settings.runtime.is_none() && (parent.is_some() || settings.limits.is_any()) {
            let made = Cgroup::create(parent, id, &settings.limits);
            made.map_err(|error| Error::io("make the control group of", id, error))?.0
        } else {
            Cgroup::default()
        };
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
        let name = self.job.record.name.clone();
        let problem = match (self.state.phase, frozen) {
            (Phase::Running, true) | (Phase::Paused, false) => None,
            (Phase::Paused, true) => Some(format!("container {name} is already paused")),
            (_, true) => Some(format!("container {name} is not running")),
            (_, false) => Some(format!("container {name} is not paused")),
        };
        if let Some(problem) = problem {
            return Event::Failed(1, problem);
        }
        match self.freezable().and_then(|()| self.state.cgroup.freeze(frozen)) {
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

    /// A group that can be frozen, with all of the container's processes in it.
    fn freezable(&mut self) -> std::io::Result<()> {
        let Some(pid) = self.run.as_ref().map(|run| run.first.pid()) else { return Ok(()) };
        let parent = self.job.record.settings.cgroup_parent.as_deref();
        let place = (parent, self.job.record.id.as_str());
        let gathered = self.state.cgroup.extend_for_freezing(place, &|| crate::top::members(pid));
        // Of those that are executed in it from now on.
        self.job.spec.cgroups = self.state.cgroup.directories();
        gathered
    }

    /// Other limits and another restart policy from now on.
    pub(super) fn update(&mut self, limits: Limits, restart: RestartPolicy) -> Event {
        let settings = &mut self.job.record.settings;
        settings.restart = restart;
        let pid = self.run.as_ref().map(|run| run.first.pid());
        if limits != settings.limits
            && let Some(pid) = pid
        {
            let place = (settings.cgroup_parent.as_deref(), self.job.record.id.as_str());
            let cgroup = &mut self.state.cgroup;
            let limited = cgroup
                .extend_for_limits(place, &limits, &|| crate::top::members(pid))
                .and_then(|()| cgroup.limit(&limits));
            self.job.spec.cgroups = self.state.cgroup.directories();
            if let Err(error) = limited {
                return Event::Failed(1, format!("cannot update container {}: {error}", self.job.record.name));
            }
        }
        self.job.record.settings.limits = limits;
        self.write_state();
        Event::Done
    }

    /// A frozen process takes no signal, not even the last one.
    pub(super) fn thaw(&mut self) {
        if self.state.phase == Phase::Paused {
            let _ = self.freeze(false);
        }
    }
}

impl Resources {
    /// Gives back what somebody may want at once: its ports, and its places on networks.
    pub(super) fn leave(&mut self) {
        if let Some(network) = &mut self.network {
            network.leave();
        }
    }

    /// Gives everything back, which may take a while; the container's processes have ended. What is returned is for the
    /// very end.
    pub(super) fn release(self, state: &State) -> Option<Idle> {
        state.cgroup.remove();
        self.network.and_then(Attachment::release)
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
