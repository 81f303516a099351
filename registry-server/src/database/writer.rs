//! The writing thread. Jobs that wait at the same time share one transaction, so one flush of the disk: that is what
//! makes many small durable pushes fast.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use kiln_store::{Blobs, Digest};
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::oneshot;

use crate::cache::Cache;
use crate::error::{Error, chain};
use crate::name::RepositoryName;

/// Jobs that share a transaction at most.
const LARGEST_BATCH: usize = 256;

/// A job reports only when it is known whether its transaction was stored.
type Report = Box<dyn FnOnce(Stored) + Send>;
type Job = Box<dyn FnOnce(&mut Batch<'_>) -> Report + Send>;

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    Yes,
    No,
    DiskFull,
}

/// The handle on the thread; dropping it waits for the jobs under way.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// The transaction that a job is part of, and what must happen around its commit.
pub(crate) struct Batch<'a> {
    pub(crate) connection: &'a Connection,
    /// Directories to flush before the commit, since rows will promise files in them.
    directories: BTreeSet<PathBuf>,
    /// Blobs whose last link went: after the commit their files go too.
    unlinked: Vec<Digest>,
    /// Blobs whose files were put in place: they go when there is no commit.
    placed: Vec<Digest>,
    /// Repositories that are no longer as the cache knows them.
    changed: Vec<RepositoryName>,
}

impl Batch<'_> {
    /// The file is in its place and its bytes are on disk; its name must be when the transaction is.
    pub(super) fn flush_directory_of(&mut self, file: &Path) {
        self.directories.extend(file.parent().map(Path::to_path_buf));
    }

    /// The blob's file was put in place for rows of this transaction.
    pub(crate) fn placed(&mut self, digest: Digest, file: &Path) {
        self.flush_directory_of(file);
        self.placed.push(digest);
    }

    pub(crate) fn unlink(&mut self, digest: Digest) {
        self.unlinked.push(digest);
    }

    pub(crate) fn changed(&mut self, repository: &RepositoryName) {
        self.changed.push(repository.clone());
    }
}

impl Writer {
    pub(super) fn start(connection: Connection, blobs: Blobs, cache: Arc<Cache>) -> Self {
        let (jobs, queue) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("registry-writer".to_owned())
            .spawn(move || {
                while let Ok(first) = queue.recv() {
                    write_batch(&connection, &blobs, &cache, first, &queue);
                }
            })
            .inspect_err(|error| tracing::error!(error = chain(error), "start the writing thread"))
            .ok();
        Self { jobs: Some(jobs), thread }
    }

    pub(super) async fn run<T, E>(
        &self,
        change: impl FnOnce(&mut Batch<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (reporter, report) = oneshot::channel();
        let job: Job = Box::new(move |batch| {
            let result = in_savepoint(batch, change);
            Box::new(move |stored| {
                let result = match stored {
                    Stored::No if result.is_ok() => Err(Error::NotStored.into()),
                    Stored::DiskFull if result.is_ok() => Err(Error::NotStoredFull.into()),
                    _ => result,
                };
                drop(reporter.send(result)); // the client may have gone
            })
        });
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            return Err(Error::NotStored.into());
        }
        report.await.unwrap_or_else(|_| Err(Error::NotStored.into()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It only ends by a panic or for want of jobs; there is nobody left to tell about the former.
            drop(thread.join());
        }
    }
}

/// One job's change, taken back alone when the job fails.
fn in_savepoint<T, E: From<Error>>(
    batch: &mut Batch<'_>,
    change: impl FnOnce(&mut Batch<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let execute = |sql| batch.connection.execute_batch(sql).map_err(Error::database("mark a change"));
    execute("SAVEPOINT job")?;
    let (unlinked, placed) = (batch.unlinked.len(), batch.placed.len());
    let result = change(batch);
    let execute = |sql| batch.connection.execute_batch(sql).map_err(Error::database("mark a change"));
    match &result {
        Ok(_) => execute("RELEASE job")?,
        Err(_) => {
            execute("ROLLBACK TO job; RELEASE job")?;
            batch.unlinked.truncate(unlinked);
            let misplaced = batch.placed.split_off(placed);
            batch.unlinked.extend(misplaced);
        }
    }
    result
}

/// Runs the jobs that wait, as one transaction, and reports to each how it went.
fn write_batch(connection: &Connection, blobs: &Blobs, cache: &Cache, first: Job, queue: &mpsc::Receiver<Job>) {
    let mut batch = Batch {
        connection,
        directories: BTreeSet::new(),
        unlinked: Vec::new(),
        placed: Vec::new(),
        changed: Vec::new(),
    };
    let begun = connection.execute_batch("BEGIN IMMEDIATE").map_err(Error::database("begin a transaction"));
    let mut reports: Vec<Report> = Vec::new();
    if begun.is_ok() {
        reports.push(first(&mut batch));
        reports.extend(queue.try_iter().take(LARGEST_BATCH - 1).map(|job| job(&mut batch)));
    }
    let Batch { directories, mut unlinked, placed, changed, .. } = batch;
    let stored = match begun.and_then(|()| commit(connection, &directories)) {
        Ok(()) => {
            cache.forget(&changed);
            Stored::Yes
        }
        Err(error) => {
            tracing::error!(error = chain(&error), "a batch of writes was not stored");
            // What was unlinked is linked again.
            unlinked = placed;
            if error.is_storage_full() { Stored::DiskFull } else { Stored::No }
        }
    };
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::error!(error = chain(&error), "roll back");
    }
    if connection.is_autocommit() {
        remove_files(connection, blobs, &unlinked);
    }
    for report in reports {
        report(stored);
    }
}

fn commit(connection: &Connection, directories: &BTreeSet<PathBuf>) -> Result<(), Error> {
    for directory in directories {
        File::open(directory).and_then(|file| file.sync_all()).map_err(Error::io("flush directory", directory))?;
    }
    connection.execute_batch("COMMIT").map_err(Error::database("commit"))
}

/// Removes the files of blobs that lost their last link, unless a later job of the batch linked them again.
/// A failure leaves a file that no row names, which costs space but no truth.
fn remove_files(connection: &Connection, blobs: &Blobs, unlinked: &[Digest]) {
    for digest in unlinked {
        let row = connection
            .prepare_cached("SELECT 1 FROM blobs WHERE digest = ?1")
            .and_then(|mut statement| statement.query_row([digest.to_string()], |_| Ok(())).optional());
        match row {
            Ok(Some(())) => {}
            Ok(None) => {
                if let Err(error) = blobs.remove(digest) {
                    tracing::warn!(error = chain(&error), %digest, "an unlinked blob stays on disk");
                }
            }
            Err(error) => tracing::warn!(error = chain(&error), %digest, "an unlinked blob stays on disk"),
        }
    }
}
