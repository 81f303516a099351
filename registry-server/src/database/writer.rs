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

use super::reserve::Reserve;
use crate::cache::Cache;
use crate::error::{Error, chain};
use crate::name::RepositoryName;

/// Jobs that share a transaction at most.
const LARGEST_BATCH: usize = 256;

/// A change, which reports only when it is known whether its transaction was stored.
trait Job: Send {
    /// Whether it may be made with the room that is kept for deletions.
    fn uses_reserve(&self) -> bool;
    /// Makes the change, again when it was taken back.
    fn run(&mut self, batch: &mut Batch<'_>);
    fn report(self: Box<Self>, stored: Stored);
}

struct Change<F, T, E> {
    change: F,
    uses_reserve: bool,
    result: Option<Result<T, E>>,
    reporter: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Job for Change<F, T, E>
where
    F: FnMut(&mut Batch<'_>) -> Result<T, E> + Send,
    T: Send,
    E: From<Error> + Send,
{
    fn uses_reserve(&self) -> bool {
        self.uses_reserve
    }

    fn run(&mut self, batch: &mut Batch<'_>) {
        self.result = Some(in_savepoint(batch, &mut self.change));
    }

    fn report(self: Box<Self>, stored: Stored) {
        let result = match (stored, self.result) {
            (Stored::No, Some(Ok(_)) | None) => Err(Error::NotStored.into()),
            (Stored::DiskFull, Some(Ok(_)) | None) => Err(Error::NotStoredFull.into()),
            (Stored::Yes, None) => Err(Error::NotStored.into()),
            (_, Some(result)) => result,
        };
        drop(self.reporter.send(result)); // the client may have gone
    }
}

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
    jobs: Option<mpsc::Sender<Box<dyn Job>>>,
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
    pub(super) fn start(connection: Connection, blobs: Blobs, cache: Arc<Cache>, reserve: Reserve) -> Self {
        let (jobs, queue) = mpsc::channel();
        let mut thread = WritingThread { connection, blobs, cache, reserve, queue };
        let thread = std::thread::Builder::new()
            .name("registry-writer".to_owned())
            .spawn(move || {
                while let Ok(first) = thread.queue.recv() {
                    thread.write_batch(first);
                }
            })
            .inspect_err(|error| tracing::error!(error = chain(error), "start the writing thread"))
            .ok();
        Self { jobs: Some(jobs), thread }
    }

    /// Makes a change once.
    pub(super) async fn run<T, E>(
        &self,
        change: impl FnOnce(&mut Batch<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let mut change = Some(change);
        let once = move |batch: &mut Batch<'_>| match change.take() {
            Some(change) => change(batch),
            None => Err(Error::NotStored.into()),
        };
        self.queue(once, false).await
    }

    /// Makes a change, and once more when there was no room for it.
    pub(super) async fn run_with_reserve<T, E>(
        &self,
        change: impl FnMut(&mut Batch<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.queue(change, true).await
    }

    async fn queue<T, E>(
        &self,
        change: impl FnMut(&mut Batch<'_>) -> Result<T, E> + Send + 'static,
        uses_reserve: bool,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (reporter, report) = oneshot::channel();
        let job: Box<dyn Job> = Box::new(Change { change, uses_reserve, result: None, reporter });
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

/// What the writing thread has.
struct WritingThread {
    connection: Connection,
    blobs: Blobs,
    cache: Arc<Cache>,
    reserve: Reserve,
    queue: mpsc::Receiver<Box<dyn Job>>,
}

impl WritingThread {
    /// Runs the jobs that wait, as one transaction, and reports to each how it went.
    fn write_batch(&mut self, first: Box<dyn Job>) {
        let mut jobs = vec![first];
        let mut stored = self.write(&mut jobs, true);
        // Whatever the reason: that there is no room is told in more than one way.
        if stored != Stored::Yes && jobs.iter().any(|job| job.uses_reserve()) && self.reserve.give_up() {
            let (mut again, others): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.uses_reserve());
            others.into_iter().for_each(|job| job.report(stored));
            tracing::info!(changes = again.len(), "trying again in the room that is kept for deletions");
            stored = self.write(&mut again, false);
            // The log gives back what it took, so that it can be kept again.
            if let Err(error) = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
                tracing::warn!(error = chain(&error), "write the database's log back");
            }
            jobs = again;
        }
        self.reserve.take();
        for job in jobs {
            job.report(stored);
        }
    }

    /// Runs these jobs as one transaction, and with `more` those that come meanwhile, which it adds.
    fn write(&self, jobs: &mut Vec<Box<dyn Job>>, more: bool) -> Stored {
        let connection = &self.connection;
        let mut batch = Batch {
            connection,
            directories: BTreeSet::new(),
            unlinked: Vec::new(),
            placed: Vec::new(),
            changed: Vec::new(),
        };
        let begun = connection.execute_batch("BEGIN IMMEDIATE").map_err(Error::database("begin a transaction"));
        let run = |()| {
            let mut next = 0;
            loop {
                while let Some(job) = jobs.get_mut(next) {
                    job.run(&mut batch);
                    next += 1;
                    if connection.is_autocommit() {
                        // The disk failed SQLite, which took back the whole transaction.
                        return Err(Error::NotStored);
                    }
                }
                if !more || next == LARGEST_BATCH {
                    return Ok(());
                }
                match self.queue.try_recv() {
                    Ok(job) => jobs.push(job),
                    Err(_) => return Ok(()),
                }
            }
        };
        let ran = begun.and_then(run);
        let Batch { directories, mut unlinked, placed, changed, .. } = batch;
        let stored = match ran.and_then(|()| commit(connection, &directories)) {
            Ok(()) => {
                self.cache.forget(&changed);
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
            remove_files(connection, &self.blobs, &unlinked);
        }
        stored
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
