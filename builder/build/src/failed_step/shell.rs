//! A process in a failed step's root file system.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use kiln_sandbox::process::Stdio;
use kiln_sandbox::spec::Mount;
use kiln_sandbox::{Sandbox, Spec};
use kiln_store::Store;
use kiln_store::layer::Staging;
use rustix::fs::FlockOperation;

use super::FailedStep;
use super::record::{KeptSecret, Source};
use crate::request::Secret;
use crate::step::mounts::{Relay, read_secret};
use crate::{Error, Result};

/// Where programs look for an agent.
pub(super) const AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";
/// When the step was not executed by a shell of its own.
const USUAL_SHELL: &str = "/bin/sh";

/// A process that runs there, with what must live as long.
pub struct Shell {
    /// The process.
    pub sandbox: Sandbox,
    /// What of the step is not there any more, for whoever looks around.
    pub missing: Vec<String>,
    _relays: Vec<Relay>,
    _locks: Vec<File>,
    _staging: Staging,
}

impl FailedStep {
    /// Executes a command there, or the step's shell when it is empty, with the environment, mounts, directory and
    /// user that the step had. The process has this one's standard streams, or a terminal of its own.
    ///
    /// # Errors
    /// Somebody else looks around in it; its layers were pruned; there is no such command.
    pub fn open(&self, store: &Store, command: &[String], terminal: bool) -> Result<Shell> {
        let Some(lock) = self.lock()? else {
            let busy = std::io::Error::other("another shell is open in it");
            return Err(Error::io("open the failed step", &self.record.name, busy));
        };
        // Their directories are named in the record.
        for layer in &self.record.layers {
            store.unpacked(layer)?;
        }
        let staging = store.stage()?;
        let mut room = Room { locks: vec![lock], relays: Vec::new(), missing: Vec::new() };
        let mut spec = self.record.spec.clone();
        spec.root.upper = self.upper();
        spec.root.work = staging.work().to_path_buf();
        spec.root.stubs = staging.scratch("stubs")?;
        spec.mounts = room.mounts(store, &staging, &spec)?;
        self.add_environment(&mut spec, &mut room, &staging, terminal)?;
        spec.args = if command.is_empty() { vec![self.shell()] } else { command.to_vec() };
        spec.terminal = terminal;
        let sandbox = Sandbox::spawn(&spec, Stdio::Inherit, Stdio::Inherit, Stdio::Inherit)?;
        let Room { locks, relays, missing } = room;
        Ok(Shell { sandbox, missing, _relays: relays, _locks: locks, _staging: staging })
    }

    /// The program that the step's SHELL names.
    fn shell(&self) -> String {
        match self.command() {
            [shell, option, _] if option.starts_with('-') => shell.clone(),
            _ => USUAL_SHELL.to_owned(),
        }
    }

    /// What is written down nowhere: secrets, agents, proxies, and the kind of our terminal.
    fn add_environment(&self, spec: &mut Spec, room: &mut Room, staging: &Staging, terminal: bool) -> Result<()> {
        let mut added: BTreeMap<String, String> = BTreeMap::new();
        let proxies = self.record.proxies.iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)));
        added.extend(proxies);
        for secret in &self.record.secrets {
            if let Err(error) = Room::secret(spec, secret, &mut added) {
                room.missing.push(format!("secret {}: {}", secret.id, crate::error::chain(&error)));
            }
        }
        for (number, agent) in self.record.agents.iter().enumerate() {
            match Relay::start(&agent.socket, &staging.scratch(&format!("ssh-{number}"))?, agent.owner) {
                Ok(relay) => {
                    let (source, target) = (relay.socket().to_path_buf(), PathBuf::from(&agent.target));
                    spec.mounts.push(Mount::Bind { source, target, readonly: false });
                    added.entry(AGENT_VARIABLE.to_owned()).or_insert_with(|| agent.target.clone());
                    room.relays.push(relay);
                }
                Err(error) => room.missing.push(crate::error::chain(&error)),
            }
        }
        if terminal && let Ok(kind) = std::env::var("TERM") {
            added.entry("TERM".to_owned()).or_insert(kind);
        }
        let is_set = |name: &str| spec.env.iter().any(|variable| variable.split('=').next() == Some(name));
        let new: Vec<_> = added.into_iter().filter(|(name, _)| !is_set(name)).collect();
        spec.env.extend(new.into_iter().map(|(name, value)| format!("{name}={value}")));
        Ok(())
    }
}

/// What a shell needs besides its root file system.
struct Room {
    locks: Vec<File>,
    relays: Vec<Relay>,
    missing: Vec<String>,
}

impl Room {
    /// The step's mounts, as far as they are there.
    fn mounts(&mut self, store: &Store, staging: &Staging, spec: &Spec) -> Result<Vec<Mount>> {
        let mut mounts = Vec::new();
        for (number, mount) in spec.mounts.iter().cloned().enumerate() {
            match mount {
                Mount::Overlay { lower, upper: Some(_), source, target } => {
                    let scratch = |name: &str| staging.scratch(&format!("{name}-{number}"));
                    let upper = Some((scratch("bind")?, scratch("bind-work")?));
                    mounts.push(Mount::Overlay { lower, upper, source, target });
                }
                Mount::Bind { source, target, .. } if !source.exists() => {
                    self.missing.push(format!("{}: what was mounted there is gone", target.display()));
                }
                Mount::Bind { ref source, ref target, .. } => {
                    if !self.hold_cache(store, source)? {
                        self.missing.push(format!("{}: a step that runs has this cache", target.display()));
                        continue;
                    }
                    mounts.push(mount);
                }
                mount => mounts.push(mount),
            }
        }
        Ok(mounts)
    }

    /// A cache mount is not pruned while it is looked at, and a step that wants it alone waits.
    fn hold_cache(&mut self, store: &Store, source: &Path) -> Result<bool> {
        let caches = store.directory("cache")?;
        let Some(home) = source.strip_prefix(&caches).ok().and_then(|path| path.components().next()) else {
            return Ok(true);
        };
        let path = caches.join(home).join("lock");
        let lock = crate::cache::lock_file::lock(&path, FlockOperation::NonBlockingLockShared)
            .map_err(|error| Error::io("lock", &path, error))?;
        let held = lock.is_some();
        self.locks.extend(lock);
        Ok(held)
    }

    fn secret(spec: &mut Spec, kept: &KeptSecret, env: &mut BTreeMap<String, String>) -> Result<()> {
        let secret = match &kept.source {
            Source::File(path) => Secret::File(path.clone()),
            Source::Environment(name) => Secret::Environment(name.clone()),
        };
        let content = read_secret(&kept.id, &secret)?;
        if let Some(name) = &kept.env {
            env.insert(name.clone(), String::from_utf8_lossy(&content).into_owned());
        }
        if let Some(target) = &kept.target {
            let (mode, uid, gid) = kept.owner;
            spec.mounts.push(Mount::Secret { target: PathBuf::from(target), content, mode, uid, gid });
        }
        Ok(())
    }
}
