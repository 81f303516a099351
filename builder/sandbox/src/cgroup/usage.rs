//! What the processes of a group use.

use std::fs;
use std::path::Path;

use super::hierarchy::Version;
use super::{Cgroup, Part};

/// A moment's figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Bytes of memory, without files that were read once and can go.
    pub memory: u64,
    /// Bytes that it may have.
    pub memory_limit: Option<u64>,
    /// Nanoseconds of processor time since its start.
    pub cpu: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes read from disks.
    pub read: u64,
    /// Bytes written to disks.
    pub written: u64,
}

pub(super) fn read(cgroup: &Cgroup) -> Usage {
    let mut usage = Usage::default();
    if let Some(part) = cgroup.part("memory") {
        memory(part, &mut usage);
    }
    if let Some(part) = cgroup.part("cpuacct") {
        usage.cpu = number(&part.path.join("cpuacct.usage")).unwrap_or_default();
    } else if let Some(part) = cgroup.unified().or_else(|| cgroup.part("cpu")) {
        // Version 2 counts it without the controller, too.
        usage.cpu = field(&part.path.join("cpu.stat"), "usage_usec").unwrap_or_default().saturating_mul(1000);
    }
    if let Some(part) = cgroup.part("pids") {
        usage.pids = number(&part.path.join("pids.current")).unwrap_or_default();
    } else if let Some(part) = cgroup.unified() {
        let threads = fs::read_to_string(part.path.join("cgroup.threads")).unwrap_or_default();
        usage.pids = u64::try_from(threads.lines().count()).unwrap_or_default();
    }
    if let Some(part) = cgroup.part("io") {
        let text = fs::read_to_string(part.path.join("io.stat")).unwrap_or_default();
        let sum = |key: &str| {
            text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).sum::<u64>()
        };
        (usage.read, usage.written) = (sum("rbytes="), sum("wbytes="));
    } else if let Some(part) = cgroup.part("blkio") {
        let text = fs::read_to_string(part.path.join("blkio.throttle.io_service_bytes")).unwrap_or_default();
        let sum = |kind: &str| {
            let lines = text.lines().filter_map(|line| line.split_once(' ')?.1.strip_prefix(kind));
            lines.filter_map(|count| count.trim().parse::<u64>().ok()).sum::<u64>()
        };
        (usage.read, usage.written) = (sum("Read "), sum("Write "));
    }
    usage
}

fn memory(part: &Part, usage: &mut Usage) {
    let file = |one: &str, two: &str| part.path.join(if part.version == Version::One { one } else { two });
    let used = number(&file("memory.usage_in_bytes", "memory.current")).unwrap_or_default();
    let inactive = match part.version {
        Version::One => "total_inactive_file",
        Version::Two => "inactive_file",
    };
    usage.memory = used.saturating_sub(field(&part.path.join("memory.stat"), inactive).unwrap_or_default());
    usage.memory_limit = memory_limit(part);
}

/// Version 1 says "no limit" by a number near the largest.
pub(super) fn memory_limit(part: &Part) -> Option<u64> {
    let file = if part.version == Version::One { "memory.limit_in_bytes" } else { "memory.max" };
    number(&part.path.join(file)).filter(|limit| *limit < 1 << 60)
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number behind a word at the beginning of a line.
pub(super) fn field(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}
