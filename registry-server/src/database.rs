//! `registry.db`: which repository holds which tags, manifests and blobs, and who is still to be told of what. One connection writes, in batches; a few
//! others read.

mod blobs;
mod damage;
pub(crate) mod garbage;
mod listing;
mod manifests;
mod notifications;
mod overview;
mod reserve;
mod schema;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension};

use crate::blocking::blocking;
use crate::cache::Cache;
use crate::error::Error;
use crate::name::RepositoryName;

pub(crate) use blobs::{blob, delete_blob, link_blob, mount_blob, need_blob, need_blobs_since};
pub(crate) use damage::{blobs_after, damaged_blobs, manifests_after, mark_damaged, quick_check};
pub(crate) use listing::{Page, list_referrers, list_repositories, list_tags};
pub(crate) use manifests::{Push, delete_manifest, delete_tag, manifest, need_manifest, note_pull, put, put_manifest};
pub(crate) use notifications::{keep_receivers, next_notification, queue_notification, remove_notification};
pub(crate) use overview::{RepositoryRow, TagRow, contents, pushed_at, search, tags, untagged};
use reserve::Reserve;
pub(crate) use writer::Batch;
use writer::Writer;

/// Reading connections that are kept open.
const IDLE_READERS: usize = 8;

/// The open database.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
    writer: Writer,
}

impl Database {
    /// Opens it, or creates it; `blobs` is where the writer unlinks what no repository links any more.
    pub(crate) fn open(path: &Path, blobs: kiln_store::Blobs, cache: Arc<Cache>) -> Result<Self, Error> {
        let mut reserve = Reserve::open(&path.with_extension("reserve"));
        let connection = match schema::open(path) {
            // A full disk has no room for what SQLite makes beside the database either.
            Err(Error::Database { .. }) if reserve.give_up() => schema::open(path)?,
            opened => opened?,
        };
        reserve.take();
        Ok(Self {
            path: path.to_path_buf(),
            readers: Mutex::new(Vec::new()),
            writer: Writer::start(connection, blobs, cache, reserve),
        })
    }

    /// Runs queries on a blocking thread.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let database = Arc::clone(self);
        let work = move || {
            let idle = database.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = idle.map_or_else(|| schema::open_reader(&database.path), Ok)?;
            let answer = query(&connection).map_err(Error::database("look something up"))?;
            let mut readers = database.readers.lock().unwrap_or_else(PoisonError::into_inner);
            if readers.len() < IDLE_READERS {
                readers.push(connection);
            }
            Ok(answer)
        };
        blocking(work).await
    }

    /// Runs a change on the writing thread; when this returns `Ok`, it is on disk. The change of a job that fails is
    /// taken back.
    pub(crate) async fn write<T, E>(
        &self,
        change: impl FnOnce(&mut Batch<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.writer.run(change).await
    }

    /// The same for what removes something, or may not fail for want of room: on a full disk it is made a second time,
    /// in room that is kept for it.
    pub(crate) async fn write_even_when_full<T, E>(
        &self,
        change: impl Fn(&mut Batch<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.writer.run_with_reserve(change).await
    }

    /// A change on the writing thread that nothing but the database can prevent, not even a full disk.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        action: &'static str,
        change: impl Fn(&mut Batch<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.write_even_when_full(move |batch| change(batch).map_err(Error::database(action))).await
    }
}

/// A repository's row.
fn repository_id(connection: &Connection, name: &RepositoryName) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT id FROM repositories WHERE name = ?1")?
        .query_row([name.as_str()], |row| row.get(0))
        .optional()
}

/// A repository's row, made when it is missing.
fn make_repository(connection: &Connection, name: &RepositoryName) -> rusqlite::Result<i64> {
    if let Some(id) = repository_id(connection, name)? {
        return Ok(id);
    }
    connection
        .prepare_cached("INSERT INTO repositories (name) VALUES (?1) RETURNING id")?
        .query_row([name.as_str()], |row| row.get(0))
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
