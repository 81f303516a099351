//! What RUN steps are given, or kept from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_sandbox::cgroup::Limits;

/// Names of proxy settings.
pub use crate::plan::PROXIES;

/// Options that hold for every RUN step of a build. Those that a step could see are in its key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// `--ulimit`: soft and hard, by name.
    pub rlimits: BTreeMap<String, (u64, u64)>,
    /// `--cap-add`.
    pub cap_add: Vec<String>,
    /// `--cap-drop`.
    pub cap_drop: Vec<String>,
    /// `--security-opt seccomp=unconfined`.
    pub seccomp_unconfined: bool,
    /// `--security-opt no-new-privileges`.
    pub no_new_privileges: bool,
    /// `--dns`.
    pub dns: Vec<String>,
    /// `--dns-search`.
    pub dns_search: Vec<String>,
    /// `--dns-option`.
    pub dns_options: Vec<String>,
    /// `--no-hosts`: the image's own /etc/hosts is left alone.
    pub no_hosts: bool,
    /// `BUILDKIT_SANDBOX_HOSTNAME`.
    pub hostname: Option<String>,
    /// `--volume`.
    pub volumes: Vec<Volume>,
    /// `--memory`, `--cpu-quota` and the like. No part of a key: they change how long a step takes, not what it makes.
    pub limits: Limits,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// `--http-proxy`: kiln's own proxy settings, which steps see and no key has.
    pub proxies: BTreeMap<String, String>,
}

/// A directory or file of the host that every RUN step sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// On the host.
    pub source: PathBuf,
    /// In the step.
    pub target: String,
    /// No writes.
    pub readonly: bool,
    /// What stands in the key instead of the content.
    pub salt: Option<String>,
}

/// What steps may ask for only when the build allows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entitlements {
    /// `RUN --security=insecure`.
    pub insecure: bool,
    /// `RUN --network=host`.
    pub host_network: bool,
}
