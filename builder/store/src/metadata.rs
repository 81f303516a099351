//! `metadata.db`: images, references, layers, cache records, file fingerprints. SQLite in WAL mode.
//!
//! An index: what it says about layers is checked against `layers/` and `blobs/`, and rebuilt from them when it is lost.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::config::DbConfig;
use rusqlite::types::Type;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::{DiffId, Digest, Error, Result};

mod cache;
mod image;
mod layer;
mod reading;
mod schema;
mod usage;

pub(crate) use cache::USE_RESOLUTION;
pub use reading::CacheReading;
pub(crate) use schema::use_wal;
pub use usage::{CachedLayer, Pruned};

pub(crate) use layer::{BlobRow, LayerRow, delete_layer, insert_layer, mark_used, select_layer};

/// An image of the store. Its name is its config's digest, as docker's image id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// Digest of the config blob.
    pub id: Digest,
    /// Digest of the manifest blob as it came, for an image that came from elsewhere or was pushed.
    pub manifest: Option<Digest>,
    /// The layers, lowest first.
    pub layers: Vec<DiffId>,
    /// Seconds since 1970 when it entered the store.
    pub added: i64,
}

/// What a cache key leads to. `value` is the builder's own; the store only keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRecord {
    /// The key.
    pub key: [u8; 32],
    /// Which step, for finding the nearest earlier record of the same step.
    pub step: String,
    /// What the key was made of, for explaining a miss.
    pub parts: Vec<u8>,
    /// The result.
    pub value: Vec<u8>,
    /// The layer that must live as long as this record.
    pub layer: Option<DiffId>,
    /// What people call the step.
    pub description: String,
    /// Seconds since 1970.
    pub created: i64,
}

/// What is remembered of an earlier run of a step: also after its result was pruned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRecord {
    /// Which step.
    pub step: String,
    /// What its key was made of.
    pub parts: Vec<u8>,
    /// The layer it made, unless it was pruned.
    pub layer: Option<DiffId>,
    /// Seconds since 1970 when the result was pruned.
    pub pruned: Option<i64>,
}

/// Bytes of the write-ahead log that may stay when nothing but marks was written.
const LONGEST_LOG: u64 = 256 << 10;

/// The connection, shared by the store's threads.
pub(crate) struct Database {
    connection: Mutex<Connection>,
    /// The write-ahead log.
    log: PathBuf,
    /// Rows that were only marked as used.
    marks: AtomicU64,
}

impl Database {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let action = "open tables";
        let connection = Connection::open(path).map_err(Error::database("open"))?;
        connection.busy_timeout(Duration::from_secs(30)).map_err(Error::database(action))?;
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(Error::database(action))?;
        schema::prepare(&connection)?;
        connection.set_prepared_statement_cache_capacity(64);
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        Ok(Self { connection: Mutex::new(connection), log: log.into(), marks: AtomicU64::new(0) })
    }

    /// Counts rows that were marked as used.
    pub(crate) fn marked(&self, rows: usize) {
        self.marks.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// The connection. A thread that panicked with it left a transaction that was rolled back, so it may be used.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `change` as one transaction that excludes every other writer, of other processes too.
    pub(crate) fn change<T>(
        &self,
        action: &'static str,
        change: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut connection = self.lock();
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(Error::database(action))?;
        let result = change(&transaction)?;
        transaction.commit().map_err(Error::database(action))?;
        Ok(result)
    }
}

impl Drop for Database {
    /// Whoever closes a database last carries the log over into it, and waits for the disk twice. Marks are not worth that:
    /// they stay in the log, which is read on, until somebody writes more than marks, or it has become long.
    fn drop(&mut self) {
        let connection = self.connection.get_mut().unwrap_or_else(PoisonError::into_inner);
        let is_short = || std::fs::metadata(&self.log).is_ok_and(|log| log.len() <= LONGEST_LOG);
        if connection.total_changes() == *self.marks.get_mut() && is_short() {
            // Without it closing only takes longer.
            let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}

/// A digest out of a text column.
fn digest_column(text: &str) -> rusqlite::Result<Digest> {
    text.parse().map_err(|error: Error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))
}

/// Several digests in one text column.
fn join_digests(digests: &[Digest]) -> String {
    digests.iter().map(Digest::to_string).collect::<Vec<_>>().join(" ")
}

fn split_digests(text: &str) -> rusqlite::Result<Vec<Digest>> {
    text.split(' ').filter(|digest| !digest.is_empty()).map(digest_column).collect()
}

#[cfg(test)]
mod tests;
