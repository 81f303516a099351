//! Control groups: limits, usage, freezing; of version 2, of version 1, and of hosts that have both.

mod hierarchy;
mod limits;
mod usage;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use hierarchy::{Hierarchy, Version};
pub use limits::Limits;
pub use usage::Usage;

/// Above the groups of all containers, unless another is asked for.
const PARENT: &str = "kiln";
/// How often processes outside are looked for, at most.
const GATHERINGS: u32 = 1000;
/// A group stays busy for a moment after its last process has ended.
const BUSY: Duration = Duration::from_secs(2);

/// The control group of a container: one directory in each hierarchy that matters. Not removed when dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    parts: Vec<Part>,
    /// It was made while its processes were running: what they used before is not counted in it.
    #[serde(default)]
    late: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    version: Version,
    controllers: Vec<String>,
    path: PathBuf,
}

impl Cgroup {
    /// Makes the group of a container with its limits, below `parent` when that is given. What this process may not
    /// do (an ordinary user without a delegated group) is left out; the second value tells the limits that do not hold
    /// for that reason.
    ///
    /// # Errors
    /// A limit was refused by the kernel, as one that is too small.
    pub fn create(parent: Option<&str>, name: &str, limits: &Limits) -> io::Result<(Self, Vec<String>)> {
        let mut cgroup = Self::default();
        cgroup.extend(parent, name, &|hierarchy| hierarchy.is_counted() || hierarchy.is_for(limits));
        match cgroup.limit(limits) {
            Ok(missing) => Ok((cgroup, missing)),
            Err(error) => {
                cgroup.remove();
                Err(error)
            }
        }
    }

    /// The group that a process is in already, made by somebody else; none where it is in that of this process, as when
    /// an ordinary user's runtime could make none.
    pub fn of_process(pid: i32) -> Self {
        let of = |process: &str| fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
        let (own, theirs) = (of("self"), of(&pid.to_string()));
        let part = |hierarchy: Hierarchy| {
            let path = hierarchy.place_in(&theirs).filter(|path| hierarchy.place_in(&own).as_ref() != Some(path))?;
            Some(Part { version: hierarchy.version, controllers: hierarchy.controllers, path })
        };
        Self { parts: hierarchy::find().into_iter().filter_map(part).collect(), late: false }
    }

    /// Makes what is missing of it in the hierarchies that are wanted; what this process may not do is left out.
    fn extend(&mut self, parent: Option<&str>, name: &str, is_wanted: &dyn Fn(&Hierarchy) -> bool) {
        for hierarchy in hierarchy::find().iter().filter(|hierarchy| is_wanted(hierarchy)) {
            let is_there = |part: &Part| part.path.starts_with(&hierarchy.mount);
            if !self.parts.iter().any(is_there) {
                self.parts.extend(make(hierarchy, parent, name).ok());
            }
        }
    }

    /// Makes what is missing of it so that these limits can be set, for processes that run already: `processes` tells
    /// their pids, each time anew.
    ///
    /// # Errors
    /// The kernel refuses to move one.
    pub fn extend_for_limits(
        &mut self,
        (parent, name): (Option<&str>, &str),
        limits: &Limits,
        processes: &dyn Fn() -> Vec<i32>,
    ) -> io::Result<()> {
        self.late |= self.parts.is_empty();
        self.extend(parent, name, &|hierarchy| hierarchy.is_for(limits));
        self.gather(processes)
    }

    /// The same, so that they can be frozen.
    ///
    /// # Errors
    /// The kernel refuses to move one.
    pub fn extend_for_freezing(
        &mut self,
        (parent, name): (Option<&str>, &str),
        processes: &dyn Fn() -> Vec<i32>,
    ) -> io::Result<()> {
        if self.can_freeze() {
            return Ok(());
        }
        self.late |= self.parts.is_empty();
        self.extend(parent, name, &Hierarchy::can_freeze);
        self.gather(processes)
    }

    /// Moves processes in until none is left outside: those that are forked meanwhile are where their parent was.
    fn gather(&self, processes: &dyn Fn() -> Vec<i32>) -> io::Result<()> {
        for part in &self.parts {
            let file = part.path.join("cgroup.procs");
            for round in 0.. {
                let inside: Vec<i32> = fs::read_to_string(&file)?.lines().filter_map(|pid| pid.parse().ok()).collect();
                let outside: Vec<i32> = processes().into_iter().filter(|pid| !inside.contains(pid)).collect();
                if outside.is_empty() {
                    break;
                }
                if round > GATHERINGS {
                    return Err(io::Error::other("its processes multiply faster than they can be gathered"));
                }
                for pid in outside {
                    match fs::write(&file, pid.to_string()) {
                        // It ended meanwhile.
                        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                        moved => moved?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Sets limits; tells those that do not hold because their controller is out of reach.
    ///
    /// # Errors
    /// The kernel refused one.
    pub fn limit(&self, limits: &Limits) -> io::Result<Vec<String>> {
        let mut missing = Vec::new();
        for setting in limits.settings() {
            match self.part(setting.controller) {
                None if setting.optional => {}
                None => missing.push(setting.flag.to_owned()),
                Some(part) => {
                    let (file, value) = match part.version {
                        Version::One => setting.one,
                        Version::Two => setting.two,
                    };
                    if file.is_empty() {
                        continue;
                    }
                    let path = part.path.join(file);
                    match fs::write(&path, &value) {
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {
                            // A kernel without accounting of swap, for one.
                            if !setting.optional {
                                missing.push(setting.flag.to_owned());
                            }
                        }
                        Err(_) if setting.optional => {}
                        Err(error) => {
                            let text = format!("{} {value:?} to {}: {error}", setting.flag, path.display());
                            return Err(io::Error::new(error.kind(), text));
                        }
                        Ok(()) => {}
                    }
                }
            }
        }
        missing.dedup();
        Ok(missing)
    }

    /// The directories that a process has to be moved into (see [`crate::Spec::cgroups`]).
    pub fn directories(&self) -> Vec<PathBuf> {
        self.parts.iter().map(|part| part.path.clone()).collect()
    }

    /// How many of its processes the kernel has killed for want of memory.
    pub fn out_of_memory(&self) -> u64 {
        let count = self.part("memory").and_then(|part| {
            let file = match part.version {
                Version::One => "memory.oom_control",
                Version::Two => "memory.events",
            };
            usage::field(&part.path.join(file), "oom_kill")
        });
        count.unwrap_or_default()
    }

    /// What its processes use; `None` without a group that has counted it from their start.
    pub fn usage(&self) -> Option<Usage> {
        (!self.parts.is_empty() && !self.late).then(|| usage::read(self))
    }

    /// Bytes of memory that its processes may have.
    pub fn memory_limit(&self) -> Option<u64> {
        self.part("memory").and_then(usage::memory_limit)
    }

    fn can_freeze(&self) -> bool {
        self.part("freezer").is_some() || self.unified().is_some()
    }

    /// Stops all its processes where they are, or lets them go on.
    ///
    /// # Errors
    /// There is no group that could do it (`Unsupported`), or the kernel refuses.
    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
        if let Some(part) = self.part("freezer") {
            let state = if frozen { "FROZEN" } else { "THAWED" };
            let path = part.path.join("freezer.state");
            fs::write(&path, state)?;
            return wait_until(|| fs::read_to_string(&path).is_ok_and(|now| now.trim() == state));
        }
        let Some(part) = self.unified() else { return Err(io::Error::from(io::ErrorKind::Unsupported)) };
        fs::write(part.path.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
        let events = part.path.join("cgroup.events");
        wait_until(|| usage::field(&events, "frozen") == Some(u64::from(frozen)))
    }

    /// Removes it; its processes have ended.
    pub fn remove(&self) {
        for part in &self.parts {
            let began = Instant::now();
            while let Err(error) = fs::remove_dir(&part.path) {
                let is_busy = error.raw_os_error() == Some(libc::EBUSY);
                if !is_busy || began.elapsed() > BUSY {
                    break;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    fn unified(&self) -> Option<&Part> {
        self.parts.iter().find(|part| part.version == Version::Two)
    }

    fn part(&self, controller: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.controllers.iter().any(|own| own == controller))
    }
}

/// The way into a group, which stays open when its directories are out of sight.
pub(crate) struct Door(Vec<fs::File>);

impl Door {
    pub(crate) fn open(directories: &[PathBuf]) -> io::Result<Self> {
        let open = |directory: &PathBuf| fs::File::options().write(true).open(directory.join("cgroup.procs"));
        directories.iter().map(open).collect::<io::Result<_>>().map(Self)
    }

    /// Moves this process in.
    pub(crate) fn enter(self) -> io::Result<()> {
        self.0.iter().try_for_each(|mut processes| processes.write_all(b"0"))
    }
}

fn wait_until(is_so: impl Fn() -> bool) -> io::Result<()> {
    let began = Instant::now();
    while !is_so() {
        if began.elapsed() > Duration::from_secs(10) {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn make(hierarchy: &Hierarchy, parent: Option<&str>, name: &str) -> io::Result<Part> {
    let parent = match parent {
        Some(parent) => hierarchy.mount.join(inside(parent)),
        None => hierarchy.base()?.join(PARENT),
    };
    let path = parent.join(name);
    fs::create_dir_all(&parent)?;
    let controllers = match hierarchy.version {
        Version::Two => hierarchy.delegate(&parent),
        Version::One => {
            if hierarchy.controllers.iter().any(|controller| controller == "cpuset") {
                hierarchy.fill_cpusets(&parent)?;
            }
            hierarchy.controllers.clone()
        }
    };
    match fs::create_dir(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if controllers.iter().any(|controller| controller == "cpuset") && hierarchy.version == Version::One {
        hierarchy.fill_cpusets(&path)?;
    }
    Ok(Part { version: hierarchy.version, controllers, path })
}

/// A relative path that goes nowhere but down.
fn inside(path: &str) -> PathBuf {
    let parts = Path::new(path).components().filter_map(|part| match part {
        std::path::Component::Normal(name) => Some(name),
        _ => None,
    });
    parts.collect()
}

/// The flags of those limits that will not hold, because this process can make no group with their controller.
pub fn out_of_reach(limits: &Limits) -> Vec<String> {
    let reached: Vec<String> = hierarchy::find()
        .into_iter()
        .filter(|hierarchy| hierarchy.base().is_ok())
        .flat_map(|hierarchy| hierarchy.controllers)
        .collect();
    let settings = limits.settings();
    let missing =
        settings.iter().filter(|setting| !setting.optional && !reached.iter().any(|one| one == setting.controller));
    let mut flags: Vec<String> = missing.map(|setting| setting.flag.to_owned()).collect();
    flags.dedup();
    flags
}

/// Which hierarchies this process can make groups in, for `kiln info`: version, controllers, and whether it can.
pub(crate) fn survey() -> Vec<(String, Vec<String>, bool)> {
    let describe = |hierarchy: Hierarchy| {
        let version = match hierarchy.version {
            Version::One => "v1",
            Version::Two => "v2",
        };
        let can = hierarchy.base().is_ok();
        (version.to_owned(), hierarchy.controllers, can)
    };
    hierarchy::find().into_iter().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_stays_below() {
        assert_eq!(inside("/a/../../b/./c"), PathBuf::from("a/b/c"));
    }

    /// On this very kernel, whatever it has: needs root.
    #[test]
    fn a_group_is_made_limited_frozen_and_removed() {
        let limits = Limits { memory: Some(64 << 20), pids: Some(17), ..Limits::default() };
        let name = format!("test-{}", std::process::id());
        let (cgroup, missing) = Cgroup::create(None, &name, &limits).unwrap();
        for directory in cgroup.directories() {
            assert!(directory.is_dir(), "{}", directory.display());
        }
        if let (Some(pids), Some(memory)) = (cgroup.part("pids"), cgroup.part("memory")) {
            assert_eq!(missing, Vec::<String>::new());
            assert_eq!(fs::read_to_string(pids.path.join("pids.max")).unwrap().trim(), "17");
            assert_eq!(cgroup.usage().unwrap().memory_limit, Some(64 << 20), "{}", memory.path.display());
            cgroup.freeze(true).unwrap();
            cgroup.freeze(false).unwrap();
            let less = Limits { memory: Some(32 << 20), ..Limits::default() };
            cgroup.limit(&less).unwrap();
            assert_eq!(cgroup.usage().unwrap().memory_limit, Some(32 << 20));
        }
        assert_eq!(cgroup.out_of_memory(), 0);
        assert_eq!(cgroup.memory_limit(), cgroup.usage().unwrap().memory_limit);
        let directories = cgroup.directories();
        cgroup.remove();
        assert!(directories.iter().all(|directory| !directory.exists()));
    }

    /// Version 2 even where the controllers are version 1's: gathering and freezing need none. Needs root.
    #[test]
    fn version_2_gathers_and_freezes() {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mount =
            fields.find(|fields| fields[2] == "cgroup2").expect("a kernel with version 2 has it mounted")[1].to_owned();
        let path = Path::new(&mount).join(format!("kiln-test-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let part = Part { version: Version::Two, controllers: Vec::new(), path: path.clone() };
        let cgroup = Cgroup { parts: vec![part], late: false };
        let mut sleeper = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = sleeper.id().cast_signed();
        cgroup.gather(&|| vec![pid]).unwrap();
        assert!(cgroup.can_freeze());
        cgroup.freeze(true).unwrap();
        assert_eq!(usage::field(&path.join("cgroup.events"), "frozen"), Some(1));
        cgroup.freeze(false).unwrap();
        assert_eq!(fs::read_to_string(path.join("cgroup.procs")).unwrap().trim(), pid.to_string());
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        cgroup.remove();
        assert!(!path.exists());
    }

    /// On this very kernel: needs root.
    #[test]
    fn processes_that_run_are_gathered_and_frozen() {
        let mut shell = std::process::Command::new("sh").args(["-c", "sleep 1000 & wait"]).spawn().unwrap();
        let shell_pid = shell.id().cast_signed();
        let children = format!("/proc/{shell_pid}/task/{shell_pid}/children");
        let processes = || -> Vec<i32> {
            let text = fs::read_to_string(&children).unwrap_or_default();
            text.split_whitespace().filter_map(|pid| pid.parse().ok()).chain([shell_pid]).collect()
        };
        while processes().len() < 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let name = format!("gather-{}", std::process::id());
        let mut cgroup = Cgroup::default();
        cgroup.extend_for_freezing((None, &name), &processes).unwrap();
        cgroup.freeze(true).unwrap();
        assert_eq!(cgroup.usage(), None, "what they used before is not known");
        let limits = Limits { pids: Some(17), ..Limits::default() };
        cgroup.freeze(false).unwrap();
        cgroup.extend_for_limits((None, &name), &limits, &processes).unwrap();
        assert_eq!(cgroup.limit(&limits).unwrap(), Vec::<String>::new());
        for part in &cgroup.parts {
            assert_eq!(fs::read_to_string(part.path.join("cgroup.procs")).unwrap().lines().count(), 2, "{part:?}");
        }
        for pid in processes() {
            let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        shell.wait().unwrap();
        cgroup.remove();
    }
}
