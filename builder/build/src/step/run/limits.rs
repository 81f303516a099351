//! The control group of a step that is limited.

use kiln_sandbox::cgroup::{Cgroup, Limits};

use crate::request::RunOptions;
use crate::step::Job;
use crate::{Error, Result};

/// A step's own group, removed when dropped.
pub(super) struct Group(Cgroup);

impl Group {
    /// Makes it, when a limit or a parent asks for one. A user without a group that could hold a limit was told so.
    pub(super) fn make(job: &Job<'_>, options: &RunOptions) -> Result<Option<Self>> {
        if options.limits == Limits::default() && options.cgroup_parent.is_none() {
            return Ok(None);
        }
        let name = format!("build-{}-{}", std::process::id(), job.id);
        match Cgroup::create(options.cgroup_parent.as_deref(), &name, &options.limits) {
            Ok((group, _)) => Ok(Some(Self(group))),
            Err(error) => Err(Error::io("make the control group of", &job.vertex.name, error)),
        }
    }

    pub(super) fn directories(&self) -> Vec<std::path::PathBuf> {
        self.0.directories()
    }

    /// Whether a process was killed for want of memory.
    pub(super) fn was_out_of_memory(&self) -> bool {
        self.0.out_of_memory() > 0
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.0.remove();
    }
}
