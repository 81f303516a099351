//! RUN: a process in a sandbox over the parent's layers; what it changed becomes a layer.

mod limits;
mod options;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kiln_image::user::User;
use kiln_sandbox::process::Stdio;
use kiln_sandbox::spec::{Mount, Root};
use kiln_sandbox::{Exit, Sandbox, Spec, spec};
use kiln_store::layer::Staging;

use super::log::StepLog;
use super::{Job, Outcome, advice, mounts};
use crate::cache::content::Content;
use crate::error::Hints;
use crate::key::{Key, KeyBuilder, Parts};
use crate::plan::{RunStep, StepMount};
use crate::progress::{Event, Stream};
use crate::request::Network;
use crate::{Error, Result, failed_step};

/// The host name that steps see, as BuildKit's: some of them write it into their results.
const HOSTNAME: &str = "buildkitsandbox";
/// How much of the output an error shows.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: usize = 16 * 1024;

/// A key that needs no look at the files of bind mounts: stages and images never change under their layers' names.
/// `None` when there are none, and [`key`] needs no look either.
pub(crate) fn quick_key(job: &Job<'_>, step: &RunStep) -> Result<Option<Key>> {
    if !step.mounts.iter().any(|mount| matches!(mount, StepMount::Bind { .. })) {
        return Ok(None);
    }
    let mut key = KeyBuilder::new("run by layers");
    add_step(&mut key, job, step)?;
    for mount in &step.mounts {
        match mount {
            StepMount::Bind { from, source, target, writable } => {
                key.layers(&format!("mount {target}"), &job.result_of(*from)?);
                key.part(format!("mount of {target}"), format!("{source} writable={writable}"));
            }
            other => add_mount(&mut key, job, other)?,
        }
    }
    Ok(Some(key.finish().0))
}

/// Of a bind mount counts the content of what it shows.
pub(crate) fn key(job: &Job<'_>, step: &RunStep) -> Result<(Key, Parts)> {
    let mut key = KeyBuilder::new("run");
    add_step(&mut key, job, step)?;
    let mut files = Vec::new();
    for mount in &step.mounts {
        match mount {
            StepMount::Bind { from, source, target, writable } => {
                let snapshot = job.snapshot(&job.result_of(*from)?)?;
                let content = Content::read(&snapshot, Path::new(source))?;
                key.part(format!("mount {target}"), content.digest());
                key.part(format!("mount of {target}"), format!("writable={writable}"));
                files.extend(content.list(Path::new(target)));
            }
            other => add_mount(&mut key, job, other)?,
        }
    }
    let (key, parts) = key.finish();
    Ok((key, Parts { files, ..parts }))
}

fn add_step(key: &mut KeyBuilder, job: &Job<'_>, step: &RunStep) -> Result<()> {
    key.part("command", step.args.join(" "));
    key.boundaries(&step.args);
    // The process sees them in no order, and of two with one name the last.
    for (name, value) in step.env.iter().map(|(name, value)| (name, value)).collect::<BTreeMap<_, _>>() {
        key.part(format!("variable {name}"), value);
    }
    key.part("directory", &step.cwd);
    key.part("user", &step.user);
    key.part("network", format!("{:?}", step.network));
    key.part("platform", step.platform.to_string());
    if let Some((name, body)) = &step.script {
        key.part(format!("<<{name}"), body);
    }
    for name in job.site.request.hosts.iter().map(|(name, _)| name).collect::<BTreeSet<_>>() {
        key.part("host", name);
    }
    if let Some(size) = job.site.request.shm_size {
        key.part("shm size", size.to_string());
    }
    options::add(key, &job.site.request.run)?;
    if step.insecure {
        key.part("security", "insecure");
    }
    key.layers("parent", &job.parent);
    add_epoch(key, job);
    Ok(())
}

fn is_part(source: &str) -> bool {
    source.split('/').any(|name| !matches!(name, "" | "."))
}

/// Of a mount counts what the step can see of it; never a cache's content nor a secret's, nor which cache it is.
fn add_mount(key: &mut KeyBuilder, job: &Job<'_>, mount: &StepMount) -> Result<()> {
    match mount {
        StepMount::Bind { .. } => {}
        StepMount::Cache { target, readonly, mode, uid, gid, from, source, .. } => {
            key.part(format!("cache {target}"), format!("readonly={readonly} {mode:o} {uid}:{gid}"));
            if from.is_some() || is_part(source) {
                key.layers(&format!("mount {target}"), &job.result_of(*from)?);
                key.part(format!("mount of {target}"), source);
            }
        }
        StepMount::Tmpfs { target, size, copy_up } => {
            key.part(format!("tmpfs {target}"), format!("{size:?}{}", if *copy_up { " copied up" } else { "" }));
        }
        StepMount::Secret { id, target, env, mode, uid, gid, .. } => {
            key.part(format!("secret {id}"), format!("{target:?} {env:?} {mode:o} {uid}:{gid}"));
        }
        StepMount::Ssh { id, target, mode, uid, gid } => {
            key.part(format!("ssh {id}"), format!("{target} {mode:o} {uid}:{gid}"));
        }
    }
    Ok(())
}

/// Times are part of the result only when they are set back.
pub(crate) fn add_epoch(key: &mut KeyBuilder, job: &Job<'_>) {
    if let Some(epoch) = job.site.request.epoch {
        key.part("SOURCE_DATE_EPOCH", epoch.to_string());
    }
}

pub(crate) fn perform(job: &Job<'_>, step: &RunStep) -> Result<Outcome> {
    crate::foreign::check_vertex(job.vertex)?;
    let store = job.site.store;
    let snapshot = job.snapshot(&job.parent)?;
    let user = kiln_image::user::resolve(&snapshot, &step.user)
        .map_err(|error| advice::of_user(&snapshot, error, job.vertex.span, false))?;
    let staging = store.stage()?;
    let prepared = mounts::prepare(job, &step.mounts, &staging)?;
    let mut spec = spec(job, step, &staging, snapshot.lower_directories(), &user, &prepared)?;
    let group = limits::Group::make(job, &job.site.request.run)?;
    spec.cgroups = group.as_ref().map(limits::Group::directories).unwrap_or_default();
    let mut sandbox = match Sandbox::spawn(&spec, Stdio::Null, Stdio::Pipe, Stdio::Pipe) {
        Ok(sandbox) => sandbox,
        Err(error) => {
            spec.cgroups.clear();
            return Err(not_started(job, step, &staging, spec, error));
        }
    };
    // The group goes with this step; a shell in it later is in none.
    spec.cgroups.clear();
    let log = StepLog::begin(job.site.store);
    let tail = relay(job, &log, sandbox.stdout.take(), sandbox.stderr.take());
    let exit = sandbox.wait().map_err(|error| Error::io("wait for", &job.vertex.name, error))?;
    drop(sandbox);
    drop(prepared);
    let (reason, status) = match exit {
        Exit::Code(0) => return Ok(Outcome { layer: store.commit(staging, job.site.request.epoch)?, cacheable: true }),
        Exit::Code(code) if group.as_ref().is_some_and(limits::Group::was_out_of_memory) => {
            (format!("exit code: {code}, after a process took more than --memory allows"), code)
        }
        Exit::Code(code) => (format!("exit code: {code}"), code),
        Exit::Signal(9) if group.as_ref().is_some_and(limits::Group::was_out_of_memory) => {
            ("killed: it took more than --memory allows".to_owned(), 137)
        }
        Exit::Signal(9) => ("killed by signal 9 (out of memory?)".to_owned(), 137),
        Exit::Signal(signal) => {
            (format!("killed by signal {signal}"), 128_u8.saturating_add(u8::try_from(signal).unwrap_or(127)))
        }
    };
    let (name, span) = (job.vertex.name.clone(), job.vertex.span);
    let help = advice::of_status(status, &step.args, &tail);
    let kept = failed_step::keep(job, step, &staging, spec, &reason);
    let hints = Box::new(Hints { help, log: log.keep(&job.vertex.name), kept });
    Err(Error::Step { name, span, reason, status: Some(status), tail, hints })
}

fn not_started(
    job: &Job<'_>,
    step: &RunStep,
    staging: &Staging,
    spec: Spec,
    error: kiln_sandbox::process::Error,
) -> Error {
    let status = match &error {
        kiln_sandbox::process::Error::NotFound(_) => Some(127),
        kiln_sandbox::process::Error::NotExecutable(..) => Some(126),
        _ => return Error::Sandbox(error),
    };
    let (name, span) = (job.vertex.name.clone(), job.vertex.span);
    let kept = failed_step::keep(job, step, staging, spec, &error.to_string());
    let hints = Box::new(Hints { help: advice::of_start(status, &step.args), log: None, kept });
    Error::Step { name, span, reason: error.to_string(), status, tail: Vec::new(), hints }
}

fn spec(
    job: &Job<'_>,
    step: &RunStep,
    staging: &Staging,
    lower: Vec<PathBuf>,
    user: &User,
    prepared: &mounts::Mounts,
) -> Result<Spec> {
    let request = job.site.request;
    let mut mounts = options::volumes(&request.run);
    mounts.extend(prepared.list.iter().cloned());
    if let Some((name, body)) = &step.script {
        let target = PathBuf::from(format!("{}/{name}", crate::plan::SCRIPT_DIRECTORY));
        let content = body.clone().into_bytes();
        mounts.push(Mount::Secret { target, content, mode: 0o755, uid: 0, gid: 0 });
    }
    let mut env: BTreeMap<&str, &str> = BTreeMap::new();
    env.extend(
        step.proxies.iter().chain(&step.env).chain(&prepared.env).map(|(name, value)| (name.as_str(), value.as_str())),
    );
    env.entry("HOME").or_insert(&user.home);
    let hostname = request.run.hostname.clone().unwrap_or_else(|| HOSTNAME.to_owned());
    let network = match step.network {
        Network::Host => spec::Network::Host,
        Network::None => spec::Network::None,
    };
    Ok(Spec {
        root: Root {
            lower,
            upper: staging.upper().to_path_buf(),
            work: staging.work().to_path_buf(),
            stubs: staging.scratch("stubs")?,
            readonly: false,
            volatile: true,
        },
        mounts,
        args: step.args.clone(),
        env: env.into_iter().map(|(name, value)| format!("{name}={value}")).collect(),
        cwd: PathBuf::from(&step.cwd),
        uid: user.uid,
        gid: user.gid,
        groups: user.groups.clone(),
        hostname: hostname.clone(),
        resolv_conf: (network == spec::Network::Host).then(|| options::resolv_conf(&request.run)),
        network,
        hosts: (!request.run.no_hosts).then(|| options::hosts(&hostname, &request.hosts)),
        shm_size: request.shm_size,
        security: options::security(&request.run, step.insecure),
        rlimits: request.run.rlimits.clone(),
        terminal: false,
        terminal_size: None,
        init: false,
        program: None,
        devices: Vec::new(),
        cgroups: Vec::new(),
        kernel: kiln_sandbox::spec::Kernel::default(),
    })
}

/// Passes the output on while it comes; returns its end.
fn relay(job: &Job<'_>, log: &StepLog, stdout: Option<OwnedFd>, stderr: Option<OwnedFd>) -> Vec<u8> {
    let tail = std::sync::Mutex::new(Vec::new());
    let read = |stream: Stream, from: Option<OwnedFd>| {
        let Some(from) = from else { return };
        let mut from = std::fs::File::from(from);
        let mut buffer = vec![0; 32 * 1024];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    job.site.reporter.event(Event::Output(job.id, stream, &buffer[..length]));
                    log.write(&buffer[..length]);
                    keep_tail(&mut tail.lock().unwrap_or_else(std::sync::PoisonError::into_inner), &buffer[..length]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| read(Stream::Stdout, stdout));
        read(Stream::Stderr, stderr);
    });
    last_lines(tail.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn keep_tail(tail: &mut Vec<u8>, bytes: &[u8]) {
    tail.extend_from_slice(bytes);
    if tail.len() > 2 * TAIL_BYTES {
        tail.drain(..tail.len() - TAIL_BYTES);
    }
}

fn last_lines(tail: Vec<u8>) -> Vec<u8> {
    let end = tail.len().saturating_sub(usize::from(tail.ends_with(b"\n")));
    let mut lines = 0;
    for at in (0..end).rev() {
        if tail[at] == b'\n' {
            lines += 1;
            if lines == TAIL_LINES {
                return tail[at + 1..].to_vec();
            }
        }
    }
    tail
}
