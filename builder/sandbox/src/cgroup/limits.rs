//! Limits in the words of docker, and in those of both kernel interfaces.

use serde::{Deserialize, Serialize};

/// What a container may use. `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together, -1 for any amount of swap; twice the memory when not given.
    pub memory_swap: Option<i64>,
    /// Bytes of memory that the container is squeezed to when the machine runs short.
    pub memory_reservation: Option<u64>,
    /// How readily its memory is swapped out: 0 to 100.
    pub swappiness: Option<u64>,
    /// Processes and threads; any number when negative.
    pub pids: Option<i64>,
    /// Microseconds of processor time in each period; any amount when negative.
    pub cpu_quota: Option<i64>,
    /// Microseconds; 100,000 when not given.
    pub cpu_period: Option<u64>,
    /// Weight against others, 2 to 262,144; 1024 is usual.
    pub cpu_shares: Option<u64>,
    /// Processors: `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    pub cpuset_mems: Option<String>,
    /// Weight of its disk requests, 10 to 1000.
    pub blkio_weight: Option<u64>,
}

/// A file to write in one of the two interfaces.
pub(crate) struct Setting {
    /// The flag that asks for it.
    pub(crate) flag: &'static str,
    pub(crate) controller: &'static str,
    pub(crate) one: (&'static str, String),
    pub(crate) two: (&'static str, String),
    /// It is no failure when the kernel does not know it.
    pub(crate) optional: bool,
}

const PERIOD: u64 = 100_000;

impl Limits {
    /// Sets [`Self::cpu_quota`] by a number of processors, as `--cpus`.
    pub fn set_cpus(&mut self, cpus: f64) {
        #[allow(clippy::cast_possible_truncation, reason = "saturates, as it should")]
        let quota = (cpus * 100_000.0) as i64;
        self.cpu_quota = Some(quota);
        self.cpu_period = Some(PERIOD);
    }

    /// Takes over those that `other` has.
    pub fn merge(&mut self, other: &Self) {
        fn take<T: Clone>(own: &mut Option<T>, other: Option<&T>) {
            if other.is_some() {
                *own = other.cloned();
            }
        }
        take(&mut self.memory, other.memory.as_ref());
        take(&mut self.memory_swap, other.memory_swap.as_ref());
        take(&mut self.memory_reservation, other.memory_reservation.as_ref());
        take(&mut self.swappiness, other.swappiness.as_ref());
        take(&mut self.pids, other.pids.as_ref());
        take(&mut self.cpu_quota, other.cpu_quota.as_ref());
        take(&mut self.cpu_period, other.cpu_period.as_ref());
        take(&mut self.cpu_shares, other.cpu_shares.as_ref());
        take(&mut self.cpuset_cpus, other.cpuset_cpus.as_ref());
        take(&mut self.cpuset_mems, other.cpuset_mems.as_ref());
        take(&mut self.blkio_weight, other.blkio_weight.as_ref());
    }

    /// Whether there is any.
    pub fn is_any(&self) -> bool {
        !self.settings().is_empty()
    }

    /// Whether one of them is this controller's.
    pub(crate) fn concern(&self, controller: &str) -> bool {
        self.settings()
            .iter()
            .any(|setting| setting.controller == controller || (setting.controller == "io" && controller == "blkio"))
    }

    /// In an order in which the kernel takes them.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let mut all = Vec::new();
        let mut add = |flag, controller, one: (&'static str, String), two: (&'static str, String), optional| {
            all.push(Setting { flag, controller, one, two, optional });
        };
        if let Some(bytes) = self.memory {
            let value = bytes.to_string();
            // Lifted first: the limit of both together may not be below that of memory alone.
            if self.memory_swap.is_some() {
                let lift = ("memory.memsw.limit_in_bytes", "-1".to_owned());
                add("--memory-swap", "memory", lift, ("memory.swap.max", "max".to_owned()), true);
            }
            add("--memory", "memory", ("memory.limit_in_bytes", value.clone()), ("memory.max", value), false);
            let both = match self.memory_swap {
                None | Some(0) => i64::try_from(bytes.saturating_mul(2)).unwrap_or(i64::MAX),
                Some(both) => both,
            };
            let swap =
                if both < 0 { "max".to_owned() } else { (both.unsigned_abs().saturating_sub(bytes)).to_string() };
            let both = both.max(-1).to_string();
            add("--memory-swap", "memory", ("memory.memsw.limit_in_bytes", both), ("memory.swap.max", swap), true);
        }
        if let Some(bytes) = self.memory_reservation {
            let value = bytes.to_string();
            let one = ("memory.soft_limit_in_bytes", value.clone());
            add("--memory-reservation", "memory", one, ("memory.low", value), false);
        }
        if let Some(value) = self.swappiness {
            add("--memory-swappiness", "memory", ("memory.swappiness", value.to_string()), ("", String::new()), true);
        }
        if let Some(count) = self.pids {
            let value = if count <= 0 { "max".to_owned() } else { count.to_string() };
            add("--pids-limit", "pids", ("pids.max", value.clone()), ("pids.max", value), false);
        }
        self.add_cpu(&mut all);
        all
    }

    fn add_cpu(&self, all: &mut Vec<Setting>) {
        let mut add = |flag, controller, one: (&'static str, String), two: (&'static str, String), optional| {
            all.push(Setting { flag, controller, one, two, optional });
        };
        if self.cpu_quota.is_some() || self.cpu_period.is_some() {
            let (quota, period) = (self.cpu_quota.unwrap_or(-1), self.cpu_period.unwrap_or(PERIOD));
            let maximum = if quota <= 0 { "max".to_owned() } else { quota.to_string() };
            let both = ("cpu.max", format!("{maximum} {period}"));
            add("--cpu-period", "cpu", ("cpu.cfs_period_us", period.to_string()), both.clone(), false);
            add("--cpus", "cpu", ("cpu.cfs_quota_us", quota.max(-1).to_string()), both, false);
        }
        if let Some(shares) = self.cpu_shares.filter(|shares| *shares > 0) {
            let shares = shares.clamp(2, 262_144);
            let weight = 1 + (shares - 2) * 9_999 / 262_142;
            add("--cpu-shares", "cpu", ("cpu.shares", shares.to_string()), ("cpu.weight", weight.to_string()), false);
        }
        if let Some(cpus) = &self.cpuset_cpus {
            add("--cpuset-cpus", "cpuset", ("cpuset.cpus", cpus.clone()), ("cpuset.cpus", cpus.clone()), false);
        }
        if let Some(nodes) = &self.cpuset_mems {
            add("--cpuset-mems", "cpuset", ("cpuset.mems", nodes.clone()), ("cpuset.mems", nodes.clone()), false);
        }
        if let Some(weight) = self.blkio_weight.filter(|weight| *weight > 0) {
            let value = weight.to_string();
            add("--blkio-weight", "blkio", ("blkio.weight", value.clone()), ("", String::new()), true);
            add("--blkio-weight", "io", ("", String::new()), ("io.weight", value), true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(limits: &Limits, two: bool) -> Vec<String> {
        let settings = limits.settings();
        let files = settings.iter().map(|setting| if two { &setting.two } else { &setting.one });
        files.filter(|(file, _)| !file.is_empty()).map(|(file, value)| format!("{file}={value}")).collect()
    }

    #[test]
    fn the_same_limits_in_both_interfaces() {
        let mut limits = Limits { memory: Some(1 << 20), pids: Some(5), cpu_shares: Some(1024), ..Limits::default() };
        limits.set_cpus(1.5);
        assert_eq!(
            written(&limits, false),
            [
                "memory.limit_in_bytes=1048576",
                "memory.memsw.limit_in_bytes=2097152",
                "pids.max=5",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=150000",
                "cpu.shares=1024"
            ]
        );
        assert_eq!(
            written(&limits, true),
            [
                "memory.max=1048576",
                "memory.swap.max=1048576",
                "pids.max=5",
                "cpu.max=150000 100000",
                "cpu.max=150000 100000",
                "cpu.weight=39"
            ]
        );
    }

    #[test]
    fn swap_is_given_with_memory_and_may_be_without_end() {
        let limits = |swap| Limits { memory: Some(100), memory_swap: Some(swap), ..Limits::default() };
        assert!(written(&limits(-1), true).contains(&"memory.swap.max=max".to_owned()));
        assert_eq!(written(&limits(150), true).last().unwrap(), "memory.swap.max=50");
        assert_eq!(written(&limits(100), false).last().unwrap(), "memory.memsw.limit_in_bytes=100");
        let unlimited = Limits { pids: Some(-1), ..Limits::default() };
        assert_eq!(written(&unlimited, false), ["pids.max=max"]);
    }
}
