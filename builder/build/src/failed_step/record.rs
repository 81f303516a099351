//! What is written down of a failed step. Nothing secret: where secrets come from, not what they are.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use kiln_sandbox::Spec;
use kiln_sandbox::spec::Mount;
use kiln_store::DiffId;
use serde::{Deserialize, Serialize};

use crate::plan::{RunStep, SCRIPT_DIRECTORY, StepMount};
use crate::request::Secret;
use crate::step::{Job, internal};
use crate::{Error, Result};

/// A failed step.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) reason: String,
    /// Seconds since 1970.
    pub(super) time: i64,
    /// Those below it, and those of its mounts.
    pub(super) layers: Vec<DiffId>,
    /// Without variables and mounts that are secret, or that ended with the step.
    pub(super) spec: Spec,
    /// Names of variables that are kiln's own, too: proxy settings.
    pub(super) proxies: Vec<String>,
    pub(super) secrets: Vec<KeptSecret>,
    pub(super) agents: Vec<KeptAgent>,
}

/// A secret's mount.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeptSecret {
    pub(super) id: String,
    pub(super) source: Source,
    pub(super) target: Option<String>,
    pub(super) env: Option<String>,
    /// Mode, owner and group.
    pub(super) owner: (u32, u32, u32),
}

/// Where a secret is read.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Source {
    File(PathBuf),
    Environment(String),
}

/// An ssh agent's mount.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeptAgent {
    pub(super) socket: PathBuf,
    pub(super) target: String,
    /// Mode, owner and group.
    pub(super) owner: (u32, u32, u32),
}

impl Record {
    pub(super) fn of(job: &Job<'_>, step: &RunStep, mut spec: Spec, reason: &str) -> Result<Self> {
        let request = job.site.request;
        let (mut secrets, mut agents, mut hidden) = (Vec::new(), Vec::new(), HashSet::new());
        let mut layers = job.parent.to_vec();
        let mut ended = HashSet::new();
        for mount in &step.mounts {
            match mount {
                StepMount::Bind { from, .. } => layers.extend(job.result_of(*from)?.iter()),
                StepMount::Secret { id, target, env, mode, uid, gid, .. } => {
                    let Some(secret) = request.secrets.get(id) else { continue };
                    let source = match secret {
                        Secret::File(path) => {
                            Source::File(std::path::absolute(path).map_err(|error| Error::io("find", path, error))?)
                        }
                        Secret::Environment(name) => Source::Environment(name.clone()),
                    };
                    hidden.extend(env.clone());
                    let (target, env, owner) = (target.clone(), env.clone(), (*mode, *uid, *gid));
                    secrets.push(KeptSecret { id: id.clone(), source, target, env, owner });
                }
                StepMount::Ssh { id, target, mode, uid, gid } => {
                    let Some(socket) = request.agents.get(id) else { continue };
                    hidden.insert(super::shell::AGENT_VARIABLE.to_owned());
                    ended.insert(PathBuf::from(target));
                    agents.push(KeptAgent {
                        socket: socket.clone(),
                        target: target.clone(),
                        owner: (*mode, *uid, *gid),
                    });
                }
                StepMount::Cache { .. } | StepMount::Tmpfs { .. } => {}
            }
        }
        let proxies: Vec<String> = step.proxies.iter().map(|(name, _)| name.clone()).collect();
        hidden.extend(proxies.iter().cloned());
        spec.env.retain(|variable| variable.split_once('=').is_none_or(|(name, _)| !hidden.contains(name)));
        let script = step.script.as_ref().map(|(name, _)| Path::new(SCRIPT_DIRECTORY).join(name));
        let is_secret =
            |path: &Path| secrets.iter().any(|secret| secret.target.as_deref().map(Path::new) == Some(path));
        spec.mounts.retain(|mount| match mount {
            Mount::Secret { target, .. } => script.as_ref() == Some(target) && !is_secret(target),
            Mount::Bind { target, .. } | Mount::Slave { target, .. } => !ended.contains(target),
            Mount::Overlay { .. } | Mount::Tmpfs { .. } => true,
        });
        spec.cgroups.clear();
        let time = i64::try_from(crate::solve::now() / 1_000_000_000).unwrap_or(i64::MAX);
        let (name, reason) = (job.vertex.name.clone(), reason.to_owned());
        Ok(Self { name, reason, time, layers, spec, proxies, secrets, agents })
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let io = |error| Error::io("write", path, error);
        let json = serde_json::to_vec(self).map_err(|_| internal("encode a failed step"))?;
        let mut file = File::options().create_new(true).write(true).mode(0o600).open(path).map_err(io)?;
        file.write_all(&json).map_err(io)
    }

    pub(super) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }
}
