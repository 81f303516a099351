//! What a running container uses at a moment.

use std::fs;

use kiln_sandbox::cgroup::Usage;

use crate::protocol::{Event, Request};
use crate::record::Container;
use crate::stop::{ask, supervisor_of};
use crate::top;

/// Clock ticks of /proc in a second: the kernel's fixed interface to user space.
const TICKS: u64 = 100;

/// One look at a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// Memory, processor time and disks; of its control group, or the sum over its processes where it has none.
    pub usage: Usage,
    /// Bytes that came in by its interfaces.
    pub received: u64,
    /// Bytes that went out.
    pub sent: u64,
}

impl Sample {
    /// Of a container that runs; nothing of one that does not.
    pub fn take(container: &Container) -> Self {
        let pid = container.state.pid;
        if !container.state.is_alive() || pid <= 0 {
            return Self::default();
        }
        let cgroup = &container.state.cgroup;
        let usage = cgroup.usage();
        let usage = usage.unwrap_or_else(|| Usage { memory_limit: cgroup.memory_limit(), ..measured(container) });
        let (received, sent) = traffic(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default());
        Self { usage, received, sent }
    }
}

/// As its supervisor sees it: an ordinary user's containers need not be in the user namespace of whoever asks.
fn measured(container: &Container) -> Usage {
    let channel = supervisor_of(container).ok().flatten();
    match channel.map(|channel| ask(container, &channel, Request::Measure)) {
        Some(Ok(Event::Measured(usage))) => usage,
        _ => Usage::default(),
    }
}

/// What all processes of a container use, of which this is the first.
pub(crate) fn of_processes(first: i32) -> Usage {
    let mut usage = Usage::default();
    for process in top::processes(first) {
        let read = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", process.pid)).unwrap_or_default();
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        let stat = read("stat");
        // Behind the name, which may contain anything: state is the first.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        // Its own and that of its children that have ended, each in user and kernel mode.
        let ticks: u64 = (11..=14).map(|field| number(fields.get(field).copied())).sum();
        usage.cpu += ticks * (1_000_000_000 / TICKS);
        usage.pids += number(fields.get(17).copied());
        // What several share is counted once.
        let share = field(&read("smaps_rollup"), "Pss:").map(|kilobytes| kilobytes * 1024);
        let pages = || number(read("statm").split_whitespace().nth(1));
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        usage.memory += share.unwrap_or_else(|| pages() * page);
        let disks = read("io");
        usage.read += field(&disks, "read_bytes:").unwrap_or_default();
        usage.written += field(&disks, "write_bytes:").unwrap_or_default();
    }
    usage
}

/// The number behind a word.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// Bytes in and out by all interfaces but the loopback.
fn traffic(text: &str) -> (u64, u64) {
    let lines = text.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    lines.fold((0, 0), |(received, sent), (_, numbers)| {
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let at = |place: usize| numbers.get(place).copied().unwrap_or_default();
        (received + at(0), sent + at(8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_does_not_count() {
        let text = "Inter-| Receive\n face |bytes\n    lo: 9 9 0 0 0 0 0 0 9 9\n  eth0: 5 1 0 0 0 0 0 0 7 1\n eth1:1 1 0 0 0 0 0 0 2 1\n";
        assert_eq!(traffic(text), (6, 9));
        assert_eq!(traffic("torn: 1\n eth0"), (1, 0));
    }

    #[test]
    fn processes_are_summed() {
        let usage = of_processes(i32::try_from(std::process::id()).unwrap());
        assert!(usage.memory > 0 && usage.pids > 0, "{usage:?}");
    }
}
