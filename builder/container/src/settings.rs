//! How a container runs: the image's config and the command line together, as they are kept in its record.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_image::config::Healthcheck;
use kiln_sandbox::cgroup::Limits;
use kiln_sandbox::spec::Security;
use kiln_store::DiffId;
use serde::{Deserialize, Serialize};

use crate::log::LogLimits;
use crate::namespaces::Namespaces;
use crate::network::NetworkOptions;

/// Everything that a start needs to know, but the image's layers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The first words of the command.
    pub entrypoint: Vec<String>,
    /// The rest of it.
    pub cmd: Vec<String>,
    /// `NAME=value`: the image's and what was given.
    pub env: Vec<String>,
    /// User and group, by name or number, as the image or the command line has them.
    pub user: String,
    /// Groups besides, by name or number.
    pub group_add: Vec<String>,
    /// Working directory; empty is `/`.
    pub workdir: String,
    /// Host name; found by itself when not given.
    pub hostname: Option<String>,
    /// Domain name.
    pub domainname: Option<String>,
    /// It has a terminal.
    pub tty: bool,
    /// Its standard input is open.
    pub interactive: bool,
    /// ... and closes when the first one who is attached to it closes theirs.
    pub stdin_once: bool,
    /// It goes when it ends.
    pub remove: bool,
    /// kiln's init is its first process.
    pub init: bool,
    /// No writes to its root file system.
    pub readonly: bool,
    /// Labels: the image's and what was given.
    pub labels: BTreeMap<String, String>,
    /// What `stop` sends; SIGTERM when not given.
    pub stop_signal: Option<String>,
    /// Seconds until `stop` kills; 10 when not given, never when negative.
    pub stop_timeout: Option<i64>,
    /// What happens when it ends.
    pub restart: RestartPolicy,
    /// How to find out whether it works.
    pub health: Option<Healthcheck>,
    /// Volumes, binds and memory.
    pub mounts: Vec<MountPoint>,
    /// Its networks and ports.
    pub network: NetworkOptions,
    /// What it may use.
    pub limits: Limits,
    /// The control group above its own.
    pub cgroup_parent: Option<String>,
    /// Capabilities and the like.
    pub security: Security,
    /// Devices of the host: path there, path in the container, `rwm`.
    pub devices: Vec<(PathBuf, PathBuf, String)>,
    /// Resource limits by name, soft and hard.
    pub rlimits: BTreeMap<String, (u64, u64)>,
    /// Bytes of /dev/shm.
    pub shm_size: Option<u64>,
    /// `none` keeps no log.
    pub log_driver: Option<String>,
    /// Whose namespaces it is in.
    pub namespaces: Namespaces,
    /// Settings of the kernel, of its own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// How readily it is killed when the machine is out of memory.
    pub oom_score_adj: Option<i32>,
    /// What is said of it to an OCI runtime.
    pub annotations: BTreeMap<String, String>,
    /// How much of its log is kept.
    pub log_limits: LogLimits,
    /// `--runtime`: somebody else's.
    pub runtime: Option<String>,
}

impl Settings {
    /// The argument vector.
    pub fn command(&self) -> Vec<String> {
        self.entrypoint.iter().chain(&self.cmd).cloned().collect()
    }
}

/// `--restart`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// It stays ended.
    #[default]
    No,
    /// Again when its status is not 0; so many times at most, when that is not 0.
    OnFailure(u32),
    /// Again, unless somebody stopped it.
    Always,
    /// The same; the difference is docker's daemon's.
    UnlessStopped,
}

impl RestartPolicy {
    /// Parses docker's `--restart`.
    ///
    /// # Errors
    /// Text that is no policy.
    pub fn parse(text: &str) -> crate::Result<Self> {
        let wrong = || {
            crate::Error::Invalid(format!(
                "invalid restart policy {text:?}; expected no, always, unless-stopped or on-failure[:N]"
            ))
        };
        match text.split_once(':').map_or((text, None), |(name, count)| (name, Some(count))) {
            ("" | "no", None) => Ok(Self::No),
            ("always", None) => Ok(Self::Always),
            ("unless-stopped", None) => Ok(Self::UnlessStopped),
            ("on-failure", None) => Ok(Self::OnFailure(0)),
            ("on-failure", Some(count)) => count.parse().map(Self::OnFailure).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }

    /// docker's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::OnFailure(_) => "on-failure",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
        }
    }

    /// Whether a container that ended with `status` after so many restarts starts again.
    pub(crate) fn applies(self, status: u8, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure(limit) => status != 0 && (limit == 0 || restarts < limit),
            Self::Always | Self::UnlessStopped => true,
        }
    }
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    /// What is mounted.
    pub source: MountSource,
    /// Absolute, in the container.
    pub target: PathBuf,
    /// No writes.
    pub readonly: bool,
    /// What the host mounts below it later shows in it.
    #[serde(default)]
    pub slave: bool,
}

/// What a [`MountPoint`] shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A file or directory of the host.
    Bind(PathBuf),
    /// A volume, which goes with the container when `anonymous`.
    Volume {
        /// Its name.
        name: String,
        /// Nobody named it.
        anonymous: bool,
    },
    /// The files of an image.
    Image {
        /// What the user called it.
        name: String,
        /// Its layers, lowest first.
        layers: Vec<DiffId>,
        /// What of it is shown.
        part: PathBuf,
    },
    /// Memory.
    Tmpfs {
        /// Bytes.
        size: Option<u64>,
        /// Permission bits.
        mode: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies() {
        let table = [
            ("no", 1, 0, false),
            ("always", 0, 9, true),
            ("unless-stopped", 0, 9, true),
            ("on-failure", 0, 0, false),
            ("on-failure", 1, 99, true),
            ("on-failure:3", 1, 2, true),
            ("on-failure:3", 1, 3, false),
        ];
        for (text, status, restarts, again) in table {
            assert_eq!(RestartPolicy::parse(text).unwrap().applies(status, restarts), again, "{text}");
        }
        for wrong in ["sometimes", "always:3", "on-failure:x", "on-failure:-1"] {
            assert!(RestartPolicy::parse(wrong).is_err(), "{wrong}");
        }
    }
}
