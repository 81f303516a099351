//! Other limits and another restart policy for a container that is there already.

use kiln_sandbox::cgroup::Limits;

use crate::protocol::Request;
use crate::record::Container;
use crate::settings::RestartPolicy;
use crate::stop::{ask, supervisor_of};
use crate::{Error, Result};

/// Changes a container's limits (those that are given) and its restart policy, at once when it runs.
///
/// # Errors
/// The kernel refuses a limit; a container that is removed when it ends has no restart policy.
pub fn update(container: &Container, limits: &Limits, restart: Option<RestartPolicy>) -> Result<()> {
    let mut record = container.record.clone();
    if record.settings.remove && restart.is_some_and(|policy| policy != RestartPolicy::No) {
        return Err(Error::Invalid(
            "Restart policy cannot be updated because AutoRemove is enabled for the container".to_owned(),
        ));
    }
    record.settings.limits.merge(limits);
    record.settings.restart = restart.unwrap_or(record.settings.restart);
    if let Some(channel) = supervisor_of(container)? {
        let limits = Box::new(record.settings.limits.clone());
        ask(container, &channel, Request::Update(limits, record.settings.restart))?;
    }
    crate::directory::write_record(&container.path, &record)
}
