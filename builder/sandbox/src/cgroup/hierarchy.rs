//! Which control group hierarchies there are, and where this process may make groups.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};

use super::limits::Limits;

/// The kernel's two interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Version {
    /// A hierarchy for each controller, or a few.
    One,
    /// One hierarchy for all.
    Two,
}

/// A hierarchy that is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) version: Version,
    /// Its controllers that are in use here.
    pub(crate) controllers: Vec<String>,
    pub(crate) mount: PathBuf,
    /// Where this process is in it, from the mount on.
    own: PathBuf,
}

/// Those that limits, usage or freezing need.
const CONTROLLERS: [&str; 8] = ["memory", "pids", "cpu", "cpuacct", "cpuset", "io", "blkio", "freezer"];
/// A container with limits is in these in any case: for `stats` and `pause`.
const COUNTED: [&str; 5] = ["memory", "pids", "cpu", "cpuacct", "freezer"];

/// The hierarchies of this machine. A hybrid host has a version 2 tree without controllers, which is left out; where it
/// is the only one, it can at least freeze.
pub(crate) fn find() -> Vec<Hierarchy> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"), &|mount| {
        fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default()
    })
}

fn parse(mounts: &str, own: &str, unified: &dyn Fn(&Path) -> String) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    let mut bare = None;
    for line in mounts.lines() {
        // id parent device root mount options [tags] - type source super-options
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (left, right): (Vec<_>, Vec<_>) = (left.split(' ').collect(), right.split(' ').collect());
        let (Some(root), Some(mount), Some(kind)) = (left.get(3), left.get(4), right.first()) else { continue };
        let mount = PathBuf::from(mount);
        let (version, all) = match *kind {
            "cgroup2" => (Version::Two, unified(&mount)),
            "cgroup" => (Version::One, right.get(2).copied().unwrap_or_default().replace(',', " ")),
            _ => continue,
        };
        let known = all.split_whitespace().filter(|word| CONTROLLERS.contains(word));
        let controllers: Vec<String> = known.map(str::to_owned).collect();
        if found.iter().any(|other| other.controllers == controllers) {
            continue;
        }
        let place = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (names, path) = (fields.next()?, fields.next()?);
            let is_it = match version {
                Version::Two => names.is_empty(),
                Version::One => names.split(',').any(|name| controllers.iter().any(|own| own == name)),
            };
            is_it.then_some(path)
        });
        let own = Path::new(place.unwrap_or("/"));
        let own = own.strip_prefix(root).unwrap_or(Path::new("")).to_owned();
        let hierarchy = Hierarchy { version, controllers, mount, own };
        match (hierarchy.controllers.is_empty(), version) {
            (false, _) => found.push(hierarchy),
            (true, Version::Two) => bare = Some(hierarchy),
            (true, Version::One) => {}
        }
    }
    if found.is_empty() {
        found.extend(bare);
    }
    found
}

impl Hierarchy {
    pub(crate) fn is_counted(&self) -> bool {
        self.controllers.iter().any(|controller| COUNTED.contains(&controller.as_str()))
    }

    /// Whether one of these limits is for a controller of its.
    pub(crate) fn is_for(&self, limits: &Limits) -> bool {
        self.controllers.iter().any(|controller| limits.concern(controller))
    }

    pub(crate) fn can_freeze(&self) -> bool {
        self.version == Version::Two || self.controllers.iter().any(|controller| controller == "freezer")
    }

    /// Where a process with this /proc/<pid>/cgroup is, when that is not the top.
    pub(crate) fn place_in(&self, own: &str) -> Option<PathBuf> {
        let path = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (names, path) = (fields.next()?, fields.next()?);
            let is_it = match self.version {
                Version::Two => names.is_empty(),
                Version::One => names.split(',').any(|name| self.controllers.iter().any(|own| own == name)),
            };
            is_it.then_some(path)
        })?;
        Some(self.mount.join(path.trim_start_matches('/'))).filter(|path| *path != self.mount && path.is_dir())
    }

    /// The directory to make groups in: root's is the top, a user's the nearest one above this process that is the
    /// user's and has no processes of its own (which version 2 forbids beside groups with controllers).
    pub(crate) fn base(&self) -> io::Result<PathBuf> {
        let is_open = |path: &Path| {
            access(path, Access::WRITE_OK).is_ok() && access(path.join("cgroup.procs"), Access::WRITE_OK).is_ok()
        };
        if is_open(&self.mount) {
            return Ok(self.mount.clone());
        }
        let own = self.mount.join(&self.own);
        let mut candidates = own.ancestors().take_while(|path| path.starts_with(&self.mount) && is_open(path));
        let is_fit = |path: &&Path| {
            self.version == Version::One
                || fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|processes| processes.trim().is_empty())
        };
        candidates.find(is_fit).map(Path::to_owned).ok_or_else(|| io::Error::from(io::ErrorKind::PermissionDenied))
    }

    /// Hands controllers down to the groups in `parent`; returns those that arrive.
    pub(crate) fn delegate(&self, parent: &Path) -> Vec<String> {
        let below = parent.strip_prefix(&self.mount).unwrap_or(Path::new(""));
        let mut directory = self.mount.clone();
        let mut chain = vec![directory.clone()];
        for part in below.components() {
            directory.push(part);
            chain.push(directory.clone());
        }
        for directory in chain {
            for controller in &self.controllers {
                // Above what is this user's it is done already, or not at all.
                let _ = fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        let arrived = fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
        arrived.split_whitespace().map(str::to_owned).collect()
    }

    /// A new version 1 cpuset is empty, and takes no process until it is filled.
    pub(crate) fn fill_cpusets(&self, directory: &Path) -> io::Result<()> {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let path = directory.join(file);
            if !fs::read_to_string(&path)?.trim().is_empty() {
                continue;
            }
            let above = directory.parent().filter(|above| above.starts_with(&self.mount));
            if let Some(above) = above {
                fs::write(&path, fs::read_to_string(above.join(file))?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 29 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
31 29 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:1 - cgroup cgroup rw,cpu,cpuacct
32 29 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 29 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
";

    #[test]
    fn a_hybrid_host_has_its_controllers_in_version_1() {
        let own = "4:memory:/user/1\n2:cpu,cpuacct:/\n1:name=systemd:/\n0::/x\n";
        let found = parse(HYBRID, own, &|_| String::new());
        let names: Vec<_> = found.iter().map(|one| (one.version, one.controllers.join(","))).collect();
        assert_eq!(names, [(Version::One, "cpu,cpuacct".to_owned()), (Version::One, "memory".to_owned())]);
        assert_eq!(found[1].own, Path::new("user/1"));
    }

    #[test]
    fn a_unified_host_has_them_in_version_2() {
        let mounts = "30 29 0:27 /outer /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = parse(mounts, "0::/outer/app\n", &|_| "cpuset cpu io memory hugetlb pids\n".to_owned());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].controllers, ["cpuset", "cpu", "io", "memory", "pids"]);
        assert_eq!(found[0].own, Path::new("app"));
        let bare = parse(mounts, "0::/outer/app\n", &|_| "hugetlb\n".to_owned());
        assert_eq!((bare.len(), bare[0].can_freeze(), bare[0].is_counted()), (1, true, false));
        assert!(parse("garbage\n - cgroup\n", "", &|_| String::new()).is_empty());
    }
}
