//! What `run` and `create` were asked for, over what the image says.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_image::config::Healthcheck;
use kiln_sandbox::cgroup::Limits;
use kiln_sandbox::spec::Security;

use crate::network::NetworkOptions;
use crate::{LogLimits, Namespaces, RestartPolicy, Volume};

/// The command line of `run` and `create`.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What the user called the image.
    pub image_name: String,
    /// Replaces the image's CMD when not empty.
    pub args: Vec<String>,
    /// Replaces the image's ENTRYPOINT; an empty one removes it.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value`, over the image's; a bare name takes the image's away.
    pub env: Vec<String>,
    /// `-v`, `--mount` and `--tmpfs`.
    pub volumes: Vec<Volume>,
    /// Replaces the image's working directory.
    pub workdir: Option<String>,
    /// Replaces the image's user.
    pub user: Option<String>,
    /// Groups besides.
    pub group_add: Vec<String>,
    /// The container's name; one is found when it is not given.
    pub name: Option<String>,
    /// The container's host name.
    pub hostname: Option<String>,
    /// The container's domain name.
    pub domainname: Option<String>,
    /// Remove the container when it ends.
    pub remove: bool,
    /// Keep standard input open.
    pub interactive: bool,
    /// Nobody will be attached from the beginning on.
    pub detach: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// kiln's init is its first process.
    pub init: bool,
    /// Networks and ports; what the image exposes is added.
    pub network: NetworkOptions,
    /// What it may use.
    pub limits: Limits,
    /// `--cgroup-parent`
    pub cgroup_parent: Option<String>,
    /// The root file system is read-only.
    pub readonly: bool,
    /// Capabilities and the like.
    pub security: Security,
    /// Devices: path on the host, path in the container, permissions.
    pub devices: Vec<(PathBuf, PathBuf, String)>,
    /// Resource limits by name, soft and hard.
    pub rlimits: BTreeMap<String, (u64, u64)>,
    /// Bytes of /dev/shm.
    pub shm_size: Option<u64>,
    /// Labels over the image's.
    pub labels: BTreeMap<String, String>,
    /// Replaces the image's STOPSIGNAL.
    pub stop_signal: Option<String>,
    /// Seconds until `stop` kills.
    pub stop_timeout: Option<i64>,
    /// What happens when it ends.
    pub restart: RestartPolicy,
    /// Over the image's HEALTHCHECK; a test of `NONE` takes it away.
    pub health: Option<Healthcheck>,
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
    /// `--runtime`.
    pub runtime: Option<String>,
}
