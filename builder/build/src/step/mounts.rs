//! What a RUN mounts.

mod cache;
mod ssh;

pub(crate) use cache::{FRESH, MAKING, cache_name};

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kiln_sandbox::spec::Mount;
use kiln_store::Snapshot;
use kiln_store::layer::Staging;
use kiln_store::snapshot::Kind;

pub(crate) use ssh::Relay;

use super::Job;
use crate::plan::StepMount;
use crate::request::Secret;
use crate::{Error, Result};

/// As BuildKit's limit.
const LARGEST_SECRET: u64 = 500 * 1024;
/// Where programs look for an agent.
const AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";

/// Mounts that are ready, with what must live as long as they do.
#[derive(Default)]
pub(crate) struct Mounts {
    pub(crate) list: Vec<Mount>,
    /// `NAME=value` of secrets.
    pub(crate) env: Vec<(String, String)>,
    /// Locks of cache directories, and private ones.
    _locks: Vec<File>,
    /// What passes a step's words on to an agent.
    _relays: Vec<ssh::Relay>,
}

pub(crate) fn prepare(job: &Job<'_>, mounts: &[StepMount], staging: &Staging) -> Result<Mounts> {
    let mut ready = Mounts::default();
    for (number, mount) in mounts.iter().enumerate() {
        match mount {
            StepMount::Bind { from, source, target, writable } => {
                let snapshot = job.snapshot(&job.result_of(*from)?)?;
                let upper = if *writable {
                    Some((
                        staging.scratch(&format!("bind-{number}"))?,
                        staging.scratch(&format!("bind-work-{number}"))?,
                    ))
                } else {
                    None
                };
                ready.list.push(Mount::Overlay {
                    lower: snapshot.lower_directories(),
                    upper,
                    source: PathBuf::from(source),
                    target: PathBuf::from(target),
                });
            }
            StepMount::Cache { id, target, readonly, sharing, mode, uid, gid, from, source } => {
                let wanted = cache::Wanted { id, sharing: *sharing, owner: (*mode, *uid, *gid), from: *from, source };
                let (directory, lock) = cache::open(job, &wanted)?;
                ready._locks.push(lock);
                ready.list.push(Mount::Bind { source: directory, target: PathBuf::from(target), readonly: *readonly });
            }
            StepMount::Ssh { id, target, mode, uid, gid } => {
                let Some(agent) = job.site.request.agents.get(id) else { continue };
                let relay = ssh::Relay::start(agent, &staging.scratch(&format!("ssh-{number}"))?, (*mode, *uid, *gid))?;
                let source = relay.socket().to_path_buf();
                ready.list.push(Mount::Bind { source, target: PathBuf::from(target), readonly: false });
                // The first agent is the one that programs find by themselves.
                if !ready.env.iter().any(|(name, _)| name == AGENT_VARIABLE) {
                    ready.env.push((AGENT_VARIABLE.to_owned(), target.clone()));
                }
                ready._relays.push(relay);
            }
            // What the image has there is not copied: it is shown, and what is written over it is thrown away. Nothing
            // bounds that but the disk.
            StepMount::Tmpfs { target, copy_up: true, .. } if is_directory(&job.snapshot(&job.parent)?, target)? => {
                let upper = Some((
                    staging.scratch(&format!("tmpfs-{number}"))?,
                    staging.scratch(&format!("tmpfs-work-{number}"))?,
                ));
                let target = PathBuf::from(target);
                let lower = job.snapshot(&job.parent)?.lower_directories();
                ready.list.push(Mount::Overlay { lower, upper, source: target.clone(), target });
            }
            StepMount::Tmpfs { target, size, .. } => {
                ready.list.push(Mount::Tmpfs { target: PathBuf::from(target), size: *size, mode: 0o1777 });
            }
            StepMount::Secret { id, target, env, mode, uid, gid, .. } => {
                let Some(secret) = job.site.request.secrets.get(id) else { continue };
                let content = read_secret(id, secret)?;
                if let Some(name) = env {
                    ready.env.push((name.clone(), String::from_utf8_lossy(&content).into_owned()));
                }
                if let Some(target) = target {
                    let target = PathBuf::from(target);
                    ready.list.push(Mount::Secret { target, content, mode: *mode, uid: *uid, gid: *gid });
                }
            }
        }
    }
    Ok(ready)
}

/// Whether the image has a directory there.
fn is_directory(snapshot: &Snapshot, path: &str) -> Result<bool> {
    let (_, node) = snapshot.resolve(Path::new(path), true)?;
    Ok(node.is_some_and(|node| node.kind == Kind::Directory))
}

pub(crate) fn read_secret(id: &str, secret: &Secret) -> Result<Vec<u8>> {
    match secret {
        Secret::Environment(name) => match std::env::var_os(name) {
            Some(value) => Ok(value.as_bytes().to_vec()),
            None => {
                Err(Error::io("read secret from variable", name, std::io::Error::from(std::io::ErrorKind::NotFound)))
            }
        },
        Secret::File(path) => {
            let io = |error| Error::io("read secret", path, error);
            let mut content = Vec::new();
            File::open(path).map_err(io)?.take(LARGEST_SECRET + 1).read_to_end(&mut content).map_err(io)?;
            if content.len() as u64 > LARGEST_SECRET {
                return Err(io(std::io::Error::other(format!("secret {id:?} is larger than {LARGEST_SECRET} bytes"))));
            }
            Ok(content)
        }
    }
}
