//! The options of a container that limit what it uses.

use anyhow::{Result, bail};
use kiln_sandbox::cgroup::{self, Limits};

use super::bytes;

/// The least that docker takes: a process needs it to start.
const LEAST_MEMORY: u64 = 6 << 20;

/// Limits.
#[derive(Debug, clap::Args)]
pub(crate) struct LimitArgs {
    /// Memory: 64m, 1g, …
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Memory and swap together; -1 for any amount of swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// What the container is squeezed to when the machine runs short of memory
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,
    /// How readily its memory is swapped out: 0 to 100
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    memory_swappiness: Option<i64>,
    /// Processes and threads; -1 for any number
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Processors: 0.5, 2, …
    #[arg(long, value_name = "N")]
    cpus: Option<f64>,
    /// Weight against others: 1024 is usual
    #[arg(short, long, value_name = "WEIGHT")]
    cpu_shares: Option<u64>,
    /// Microseconds of a period
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Microseconds of processor time in each period
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// Processors that it may use: 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes that it may use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Weight of its disk requests: 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u64>,
    /// The control group above the container's own
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<String>,
}

impl LimitArgs {
    /// What they mean; those that will not hold are told.
    pub(crate) fn limits(&self) -> Result<Limits> {
        let size = |text: &Option<String>| text.as_deref().map(bytes).transpose();
        let swap = match self.memory_swap.as_deref() {
            Some("-1") => Some(-1),
            Some(text) => Some(i64::try_from(bytes(text)?)?),
            None => None,
        };
        let mut limits = Limits {
            memory: size(&self.memory)?.filter(|bytes| *bytes > 0),
            memory_swap: swap,
            memory_reservation: size(&self.memory_reservation)?,
            swappiness: self.memory_swappiness.and_then(|value| u64::try_from(value).ok()),
            pids: self.pids_limit.filter(|count| *count != 0),
            cpu_quota: self.cpu_quota.filter(|quota| *quota != 0),
            cpu_period: self.cpu_period.filter(|period| *period != 0),
            cpu_shares: self.cpu_shares,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            blkio_weight: self.blkio_weight,
        };
        self.check(&limits)?;
        if let Some(cpus) = self.cpus.filter(|cpus| *cpus > 0.0) {
            limits.set_cpus(cpus);
        }
        for flag in cgroup::out_of_reach(&limits) {
            crate::failure::tell(&format!(
                "WARNING: {flag} does not hold: this user has no control group with that controller (see `kiln info`)\n"
            ));
        }
        Ok(limits)
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        if limits.memory.is_some_and(|bytes| bytes < LEAST_MEMORY) {
            bail!("Minimum memory limit allowed is 6MB");
        }
        match (limits.memory, limits.memory_swap) {
            (None, Some(1..)) => bail!("You should always set the Memory limit when using Memoryswap limit"),
            (Some(memory), Some(both @ 1..)) if both.unsigned_abs() < memory => {
                bail!("Minimum memoryswap limit should be larger than memory limit");
            }
            _ => {}
        }
        if self.memory_swappiness.is_some_and(|value| !(-1..=100).contains(&value)) {
            bail!(
                "invalid value {}, valid memory swappiness range is 0-100",
                self.memory_swappiness.unwrap_or_default()
            );
        }
        if let Some(cpus) = self.cpus {
            let most = std::thread::available_parallelism().map_or(1, usize::from);
            #[allow(clippy::cast_precision_loss, reason = "machines have fewer processors than that")]
            if !cpus.is_finite() || cpus < 0.0 || cpus > most as f64 {
                bail!("range of CPUs is from 0.01 to {most}.00, as there are only {most} CPUs available");
            }
            if self.cpu_quota.is_some() || self.cpu_period.is_some() {
                bail!("conflicting options: --cpus with --cpu-quota or --cpu-period");
            }
        }
        if limits.blkio_weight.is_some_and(|weight| weight != 0 && !(10..=1000).contains(&weight)) {
            bail!("range of blkio weight is from 10 to 1000");
        }
        Ok(())
    }
}
