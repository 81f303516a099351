//! The root file system of the RUN that failed last, as its command left it, until the next build: for looking around
//! in it.
//!
//! ```text
//! failed/<time>/record.json    what it was
//! failed/<time>/upper/         what it had written
//! failed/<time>/lock           held by whoever looks around in it
//! ```

mod record;
mod shell;

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use kiln_sandbox::Spec;
use kiln_store::layer::Staging;
use kiln_store::{DiffId, Store};
use rustix::fs::{FlockOperation, flock};

use crate::plan::RunStep;
use crate::step::Job;
use crate::{Error, Result};

use record::Record;
pub use shell::Shell;

const DIRECTORY: &str = "failed";
const RECORD: &str = "record.json";
const UPPER: &str = "upper";
const LOCK: &str = "lock";

/// A step that failed.
#[derive(Debug)]
pub struct FailedStep {
    directory: PathBuf,
    record: Record,
}

impl FailedStep {
    /// `[2/4] RUN make`.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Its argument vector.
    pub fn command(&self) -> &[String] {
        &self.record.spec.args
    }

    /// `exit code: 2`.
    pub fn reason(&self) -> &str {
        &self.record.reason
    }

    /// Seconds since 1970 when it failed.
    pub fn time(&self) -> i64 {
        self.record.time
    }

    /// The directory's name.
    pub(crate) fn id(&self) -> String {
        self.directory.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// What it had written.
    pub(crate) fn upper(&self) -> PathBuf {
        self.directory.join(UPPER)
    }

    /// Holds it, unless somebody does.
    fn lock(&self) -> Result<Option<File>> {
        lock(&self.directory)
    }

    /// Whether somebody looks around in it.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.lock(), Ok(None))
    }
}

/// The step that failed last, if it is still there.
///
/// # Errors
/// The store cannot be read.
pub fn last(store: &Store) -> Result<Option<FailedStep>> {
    Ok(all(store)?.pop())
}

/// The layers that must stay for it.
///
/// # Errors
/// The store cannot be read.
pub fn layers(store: &Store) -> Result<Vec<DiffId>> {
    Ok(all(store)?.into_iter().flat_map(|step| step.record.layers).collect())
}

/// Oldest first. More than one are there only while somebody looks around in an older one.
pub(crate) fn all(store: &Store) -> Result<Vec<FailedStep>> {
    let mut steps = Vec::new();
    for directory in directories(store)? {
        // One that is being removed, or of another version of kiln.
        let Some(record) = Record::read(&directory.join(RECORD)) else { continue };
        steps.push(FailedStep { directory, record });
    }
    Ok(steps)
}

fn directories(store: &Store) -> Result<Vec<PathBuf>> {
    let all = store.root().join(DIRECTORY);
    let io = |error| Error::io("list failed steps in", &all, error);
    let entries = match fs::read_dir(&all) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io)?,
    };
    let mut directories = entries.map(|entry| Ok(entry.map_err(io)?.path())).collect::<Result<Vec<_>>>()?;
    directories.sort();
    Ok(directories)
}

fn lock(directory: &Path) -> Result<Option<File>> {
    let path = directory.join(LOCK);
    let io = |error| Error::io("lock the failed step", &path, error);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(io(error.into())),
    }
}

/// Removes what nobody looks around in; tells whether all of it is gone.
pub(crate) fn discard(store: &Store) -> Result<()> {
    directories(store)?.iter().try_for_each(|directory| remove(store, directory).map(drop))
}

/// Removes one of them, unless somebody looks around in it.
pub(crate) fn remove(store: &Store, directory: &Path) -> Result<bool> {
    match lock(directory) {
        Ok(None) => Ok(false),
        Ok(Some(_held)) => store.discard(directory).map(|()| true).map_err(Error::from),
        // Somebody else removes it.
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// The directory of an entry of the build cache.
pub(crate) fn directory(store: &Store, id: &str) -> PathBuf {
    store.root().join(DIRECTORY).join(id)
}

/// Keeps what a step left; those that failed before go. A step that cannot be kept has failed all the same: `false`.
pub(crate) fn keep(job: &Job<'_>, step: &RunStep, staging: &Staging, spec: Spec, reason: &str) -> bool {
    let kept = try_keep(job, step, staging, spec, reason);
    if let Err(error) = &kept {
        tracing::debug!(%error, "the failed step is not kept");
    }
    kept.is_ok()
}

fn try_keep(job: &Job<'_>, step: &RunStep, staging: &Staging, spec: Spec, reason: &str) -> Result<()> {
    let store = job.site.store;
    discard(store)?;
    // Whole before anybody sees it, also after a kill.
    let fresh = staging.scratch("failed")?;
    let io = |error| Error::io("keep the failed step in", &fresh, error);
    Record::of(job, step, spec, reason)?.write(&fresh.join(RECORD))?;
    fs::rename(staging.upper(), fresh.join(UPPER)).map_err(io)?;
    let all = store.root().join(DIRECTORY);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&all).map_err(io)?;
    // Names sort by age.
    let name = format!("{:020}-{}", crate::solve::now(), job.id);
    fs::rename(&fresh, all.join(name)).map_err(io)
}
