//! What a build was asked for.

mod config_edits;
mod context_source;
mod layering;
mod run_options;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kiln_image::{Platform, Reference};

use crate::cache::exchange::Exchange;
use crate::cache::limit::Limit;
use crate::policy::Policy;

pub use config_edits::{ConfigEdits, EnvEdit};
pub use context_source::{ContextDirectory, ContextSource, NamedContext, context_name};
pub use layering::{Layering, Squash};
pub use run_options::{Entitlements, PROXIES, RunOptions, Volume};

/// One build.
#[derive(Debug, Clone)]
pub struct Request {
    /// The Dockerfile's bytes.
    pub dockerfile: Vec<u8>,
    /// Its name as messages show it.
    pub dockerfile_name: String,
    /// The build context.
    pub context: ContextSource,
    /// `--build-context`, by name (see [`context_name`]): they stand for stages and images of their names.
    pub contexts: BTreeMap<String, NamedContext>,
    /// `--target`.
    pub target: Option<String>,
    /// `--build-arg`, values resolved.
    pub build_args: BTreeMap<String, String>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// What else is changed of the result's config.
    pub edits: ConfigEdits,
    /// What becomes of layers and history.
    pub layering: Layering,
    /// `--tag`.
    pub names: Vec<Reference>,
    /// Where the image goes, when it goes there and is not to be kept: the layers that those registries have need not come
    /// here.
    pub passed_on_to: Vec<Reference>,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--no-cache-filter`: stages whose steps are done again, in lower case.
    pub uncached_stages: Vec<String>,
    /// `--platform`.
    pub platform: Platform,
    /// Further ones: the result is an image for each then.
    pub other_platforms: Vec<Platform>,
    /// `--network` of RUN steps that do not say.
    pub network: Network,
    /// `--secret`, by id.
    pub secrets: BTreeMap<String, Secret>,
    /// `--ssh`: the sockets of agents, by id.
    pub agents: BTreeMap<String, PathBuf>,
    /// `--add-host`: name and address.
    pub hosts: Vec<(String, String)>,
    /// `--shm-size`, bytes.
    pub shm_size: Option<u64>,
    /// What else RUN steps are given, or kept from.
    pub run: RunOptions,
    /// `--allow`.
    pub allow: Entitlements,
    /// Steps that run at once; four for each processor when not given.
    pub jobs: Option<usize>,
    /// How much the build cache may take.
    pub cache_limit: Arc<Limit>,
    /// `--cache-from` and `--cache-to`.
    pub exchange: Arc<Exchange>,
    /// `--cache-ttl`: what was made longer ago is not used.
    pub cache_ttl: Option<Duration>,
    /// SOURCE_DATE_EPOCH, seconds since 1970: times later than this are set back to it.
    pub epoch: Option<i64>,
    /// What may be used.
    pub policy: Policy,
}

impl Request {
    /// A build of a Dockerfile for this machine, with nothing else asked for.
    pub fn new(dockerfile: Vec<u8>) -> Self {
        Self {
            dockerfile,
            dockerfile_name: "Dockerfile".to_owned(),
            context: ContextSource::Empty,
            contexts: BTreeMap::new(),
            target: None,
            build_args: BTreeMap::new(),
            labels: Vec::new(),
            edits: ConfigEdits::default(),
            layering: Layering::default(),
            names: Vec::new(),
            passed_on_to: Vec::new(),
            no_cache: false,
            uncached_stages: Vec::new(),
            platform: Platform::host(),
            other_platforms: Vec::new(),
            network: Network::Host,
            secrets: BTreeMap::new(),
            agents: BTreeMap::new(),
            hosts: Vec::new(),
            shm_size: None,
            run: RunOptions::default(),
            allow: Entitlements::default(),
            jobs: None,
            cache_limit: Arc::default(),
            exchange: Arc::default(),
            cache_ttl: None,
            epoch: None,
            policy: Policy::default(),
        }
    }

    /// Whether what was made then (nanoseconds since 1970) may still be used.
    pub(crate) fn is_fresh(&self, made: i128) -> bool {
        let old = |ttl: Duration| crate::solve::now() - made > i128::try_from(ttl.as_nanos()).unwrap_or(i128::MAX);
        !self.cache_ttl.is_some_and(old)
    }
}

impl Request {
    /// Every platform that is built for.
    pub fn platforms(&self) -> impl Iterator<Item = &Platform> {
        std::iter::once(&self.platform).chain(&self.other_platforms)
    }
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
