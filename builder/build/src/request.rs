//! What a build was asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_image::{Platform, Reference};

/// One build.
#[derive(Debug, Clone)]
pub struct Request {
    /// The Dockerfile's bytes.
    pub dockerfile: Vec<u8>,
    /// Its name as messages show it.
    pub dockerfile_name: String,
    /// The context's directory; `None` is an empty context.
    pub context: Option<PathBuf>,
    /// The text of the ignore file that applies, with its name.
    pub ignore: Option<(String, String)>,
    /// `--target`.
    pub target: Option<String>,
    /// `--build-arg`, values resolved.
    pub build_args: BTreeMap<String, String>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// `--tag`.
    pub names: Vec<Reference>,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--platform`.
    pub platform: Platform,
    /// `--network` of RUN steps that do not say.
    pub network: Network,
    /// `--secret`, by id.
    pub secrets: BTreeMap<String, Secret>,
    /// `--add-host`: name and address.
    pub hosts: Vec<(String, String)>,
    /// `--shm-size`, bytes.
    pub shm_size: Option<u64>,
    /// SOURCE_DATE_EPOCH, seconds since 1970: times later than this are set back to it.
    pub epoch: Option<i64>,
}

/// The network of a RUN step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The host's.
    Host,
    /// Nothing but loopback.
    None,
}

/// A secret of the build. Its value is read when a step mounts it, and kept nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// A file of the host.
    File(PathBuf),
    /// A variable of kiln's own environment.
    Environment(String),
}
