//! Finding what a step would make.

use std::path::PathBuf;

use kiln_store::Store;
use rustix::fs::FlockOperation;

use super::lock_file;
use super::record::{Hit, Value};
use crate::key::{Key, Parts};
use crate::plan::Operation;
use crate::step::copy::Copy;
use crate::step::{Job, Outcome, copy, internal, run, workdir};
use crate::{Error, Result};

/// What the cache says of a step.
pub(crate) enum Found<'a> {
    /// It was made before.
    Hit(Hit),
    /// It was not.
    Miss(Miss<'a>),
}

/// A step that must be done.
pub(crate) struct Miss<'a> {
    /// Needs no look at files.
    pub(crate) quick: Option<Key>,
    pub(crate) key: Key,
    pub(crate) parts: Parts,
    pub(crate) perform: Box<dyn FnOnce() -> Result<Outcome> + 'a>,
}

/// Looks a step up: by the layers of what it takes, then by their content.
pub(crate) fn find<'a>(job: &'a Job<'a>) -> Result<Found<'a>> {
    let located = |error: Error| error.located(job.vertex.span);
    match &job.vertex.operation {
        Operation::Run(step) => {
            let quick = run::quick_key(job, step)?;
            if let Some(hit) = look_up_quick(job, quick)? {
                return Ok(Found::Hit(hit));
            }
            let (key, parts) = run::key(job, step).map_err(located)?;
            if let Some(value) = look_up_content(job, quick, &key)? {
                return Ok(Found::Hit(Hit { value, quick, key }));
            }
            let perform = Box::new(move || run::perform(job, step).map_err(located));
            Ok(Found::Miss(Miss { quick, key, parts, perform }))
        }
        Operation::Workdir(step) => {
            let (key, parts) = workdir::key(job, step);
            if let Some(value) = look_up(job, &key)? {
                return Ok(Found::Hit(Hit { value, quick: None, key }));
            }
            let perform = Box::new(move || workdir::perform(job, step).map_err(located));
            Ok(Found::Miss(Miss { quick: None, key, parts, perform }))
        }
        Operation::Copy(step) => {
            let quick = copy::quick_key(job, step)?;
            if let Some(hit) = look_up_quick(job, quick)? {
                return Ok(Found::Hit(hit));
            }
            let copy = Copy::find(job, step).map_err(located)?;
            let (key, parts) = copy.key();
            if let Some(value) = look_up_content(job, quick, &key)? {
                return Ok(Found::Hit(Hit { value, quick, key }));
            }
            let parts = Parts { files: copy.files(), ..parts };
            Ok(Found::Miss(Miss { quick, key, parts, perform: Box::new(move || copy.perform()) }))
        }
        Operation::Image { .. } | Operation::Fetch(_) => Err(internal("solve: an image is not a step")),
    }
}

/// What a step is found by, when that can be told without a look at any file, and when it may be found at all.
pub(crate) fn key_without_files(job: &Job<'_>) -> Result<Option<Key>> {
    if job.is_uncached() {
        return Ok(None);
    }
    Ok(match &job.vertex.operation {
        Operation::Run(_) if !job.site.request.run.volumes.is_empty() => None,
        Operation::Run(step) => match run::quick_key(job, step)? {
            Some(quick) => Some(quick),
            None => Some(run::key(job, step)?.0),
        },
        Operation::Workdir(step) => Some(workdir::key(job, step).0),
        Operation::Copy(step) => copy::quick_key(job, step)?,
        Operation::Image { .. } | Operation::Fetch(_) => None,
    })
}

/// The second look: what it finds is found at the first one the next time.
fn look_up_content(job: &Job<'_>, quick: Option<Key>, key: &Key) -> Result<Option<Value>> {
    let found = look_up(job, key)?;
    if let (Some(value), Some(quick)) = (&found, quick)
        && job.site.store.layer(&value.layer)?.is_some()
    {
        remember_quick(job, quick, *key, value)?;
    }
    Ok(found)
}

/// The first look; the record says which key the second one would have.
fn look_up_quick(job: &Job<'_>, quick: Option<Key>) -> Result<Option<Hit>> {
    let Some(quick) = quick else { return Ok(None) };
    Ok(look_up(job, &quick)?.map(|value| Hit::of(quick, value)))
}

/// The record of a key whose layer is here, or can be had from the cache of another machine.
pub(crate) fn look_up(job: &Job<'_>, key: &Key) -> Result<Option<Value>> {
    let (store, request) = (job.site.store, job.site.request);
    if job.is_uncached() {
        return Ok(None);
    }
    if let Some(record) = store.cache_record(key)?
        && let Some(value) = Value::decode(&record.value)
        && request.is_fresh(value.made)
        && store.layer(&value.layer)?.is_some()
    {
        return Ok(Some(value));
    }
    let found = request.exchange.step(store, job.site.reporter, key)?;
    Ok(found.filter(|value| request.is_fresh(value.made)))
}

/// Keeps what a step made.
pub(crate) fn remember(job: &Job<'_>, miss: (Option<Key>, Key, &Parts), value: &Value) -> Result<()> {
    let (quick, key, parts) = miss;
    let vertex = job.vertex;
    value.put(job.site.store, key, parts, &vertex.step, &vertex.name)?;
    match quick {
        Some(quick) => remember_quick(job, quick, key, value),
        None => Ok(()),
    }
}

fn remember_quick(job: &Job<'_>, quick: Key, key: Key, value: &Value) -> Result<()> {
    let value = Value { content_key: Some(blake3::Hash::from_bytes(key).to_hex().to_string()), ..value.clone() };
    value.put(job.site.store, quick, &Parts::default(), "", &job.vertex.name)
}

/// Where the lock of a step is.
pub(crate) fn lock_path(store: &Store, key: &Key) -> Result<PathBuf> {
    let hex = blake3::Hash::from_bytes(*key).to_hex();
    Ok(store.directory("steps")?.join(&hex.as_str()[..32]))
}

/// Waits until no other build does this step; says whether it had to.
pub(crate) fn wait_for_others(path: &std::path::Path) -> Result<(std::fs::File, bool)> {
    let io = |error| Error::io("lock the step", path, error);
    let mut waited = false;
    loop {
        let operation = if waited { FlockOperation::LockExclusive } else { FlockOperation::NonBlockingLockExclusive };
        match lock_file::lock(path, operation).map_err(io)? {
            Some(file) => return Ok((file, waited)),
            None => waited = true,
        }
    }
}
