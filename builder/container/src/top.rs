//! The processes of a container.

use serde::{Deserialize, Serialize};

/// One of them, as `ps -ef` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Numeric user.
    pub uid: u32,
    /// In the host's pid namespace.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// When it started: seconds since 1970.
    pub started: i64,
    /// Processor time in seconds.
    pub time: u64,
    /// Device number of its terminal; 0 for none.
    pub terminal: i32,
    /// Arguments, or the name in brackets.
    pub command: String,
}

/// Those in the pid namespace of a process that began it; otherwise those in its mount namespace, and what descends from
/// them.
pub(crate) fn processes(first: i32) -> Vec<Process> {
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(wanted) = namespace(first) else { return Vec::new() };
    let is_in = |pid: &i32| namespace(*pid).as_ref() == Some(&wanted);
    let mut found: Vec<Process> = members(first).into_iter().filter(is_in).filter_map(process).collect();
    found.sort_by_key(|process| process.pid);
    found
}

/// Pids of those, and of all that descend from one of them, in whatever namespace.
pub(crate) fn members(first: i32) -> Vec<i32> {
    let kind = if begins_namespace(first) { "pid" } else { "mnt" };
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
    let Some(wanted) = namespace(first) else { return Vec::new() };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut rest: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let mut members: Vec<i32> = rest.extract_if(.., |pid| namespace(*pid).as_ref() == Some(&wanted)).collect();
    loop {
        let found: Vec<i32> =
            rest.extract_if(.., |pid| parent(*pid).is_some_and(|one| members.contains(&one))).collect();
        if found.is_empty() {
            return members;
        }
        members.extend(found);
    }
}

/// Whether a process is the first one of its pid namespace: a container that shares another's, or the host's, has none.
fn begins_namespace(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    ids.and_then(|ids| ids.split_whitespace().next_back()) == Some("1")
}

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn process(pid: i32) -> Option<Process> {
    use std::os::unix::fs::MetadataExt;
    let directory = std::path::PathBuf::from(format!("/proc/{pid}"));
    let uid = std::fs::metadata(&directory).ok()?.uid();
    let stat = std::fs::read_to_string(directory.join("stat")).ok()?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    // After the name, from field 3 (state) on; see proc(5).
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok();
    let ticks = i64::try_from(rustix::param::clock_ticks_per_second()).ok()?.max(1);
    let arguments = std::fs::read(directory.join("cmdline")).unwrap_or_default();
    let arguments: Vec<_> =
        arguments.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(String::from_utf8_lossy).collect();
    Some(Process {
        uid,
        pid,
        parent: i32::try_from(number(4)?).ok()?,
        started: booted()? + number(22)? / ticks,
        time: u64::try_from((number(14)? + number(15)?) / ticks).ok()?,
        terminal: i32::try_from(number(7)?).unwrap_or(0),
        command: if arguments.is_empty() { format!("[{name}]") } else { arguments.join(" ") },
    })
}

/// Seconds since 1970.
fn booted() -> Option<i64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}
