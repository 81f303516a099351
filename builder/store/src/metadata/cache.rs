//! Cache records and file fingerprints, whose content is the builder's.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{CacheRecord, StepRecord, digest_column, now};
use crate::{DiffId, Error, Result, Store};

/// A record used again within so many seconds is not written again.
pub(crate) const USE_RESOLUTION: i64 = 60;
/// Pruned records that are remembered to explain a later miss, at most.
const REMEMBERED: i64 = 2000;

const COLUMNS: &str = "key, step, parts, value, layers, description, created";

fn record_row(row: &Row<'_>) -> rusqlite::Result<CacheRecord> {
    Ok(CacheRecord {
        key: row.get(0)?,
        step: row.get(1)?,
        parts: row.get(2)?,
        value: row.get(3)?,
        layer: layer_column(row.get_ref(4)?.as_str()?)?,
        description: row.get(5)?,
        created: row.get(6)?,
    })
}

fn layer_column(text: &str) -> rusqlite::Result<Option<DiffId>> {
    if text.is_empty() { Ok(None) } else { digest_column(text).map(Some) }
}

/// Takes their results from the records of a layer: what is left of them explains a later miss.
pub(crate) fn bury_records(connection: &Connection, diff_id: &DiffId) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE cache_records SET pruned = ?2, value = x'', layers = '' WHERE layers = ?1")?
        .execute(params![diff_id.to_string(), now()])?;
    connection
        .prepare_cached(
            "DELETE FROM cache_records WHERE pruned IS NOT NULL AND (step = '' OR number NOT IN
             (SELECT number FROM cache_records WHERE pruned IS NOT NULL ORDER BY number DESC LIMIT ?1))",
        )?
        .execute([REMEMBERED])?;
    Ok(())
}

impl Store {
    /// The record of a key; marks it as used.
    pub fn cache_record(&self, key: &[u8; 32]) -> Result<Option<CacheRecord>> {
        let connection = self.database.lock();
        let now = now();
        let select = || {
            let found = connection
                .prepare_cached(&format!(
                    "SELECT {COLUMNS}, last_used FROM cache_records WHERE key = ?1 AND pruned IS NULL"
                ))?
                .query_row([key], |row| Ok((record_row(row)?, row.get::<_, i64>(7)?)))
                .optional()?;
            let Some((record, last_used)) = found else { return Ok(None) };
            if now - last_used >= USE_RESOLUTION {
                let marked = connection
                    .prepare_cached("UPDATE cache_records SET last_used = ?2, uses = uses + 1 WHERE key = ?1")?
                    .execute(params![key, now])?;
                self.database.marked(marked);
            }
            Ok(Some(record))
        };
        select().map_err(Error::database("look up cache record"))
    }

    /// Adds or replaces a record.
    pub fn put_cache_record(&self, record: &CacheRecord) -> Result<()> {
        let connection = self.database.lock();
        let insert = || {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO cache_records
                     (key, step, parts, value, layers, description, created, last_used, uses)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1)",
                )?
                .execute(params![
                    record.key,
                    record.step,
                    record.parts,
                    record.value,
                    record.layer.map_or_else(String::new, |layer| layer.to_string()),
                    record.description,
                    record.created,
                    now()
                ])
        };
        insert().map(drop).map_err(Error::database("write cache record"))
    }

    /// Forgets a record.
    pub fn remove_cache_record(&self, key: &[u8; 32]) -> Result<()> {
        let connection = self.database.lock();
        let removed = connection.execute("DELETE FROM cache_records WHERE key = ?1", [key]);
        removed.map(drop).map_err(Error::database("forget cache record"))
    }

    /// The newest records of all steps whose name begins with `prefix`, newest first, pruned ones too.
    pub fn step_records(&self, prefix: &str, limit: usize) -> Result<Vec<StepRecord>> {
        let connection = self.database.lock();
        let select = || {
            connection
                .prepare_cached(
                    "SELECT step, parts, pruned, layers FROM cache_records
                     WHERE step >= ?1 AND step < ?1 || char(1114111) ORDER BY number DESC LIMIT ?2",
                )?
                .query_map(params![prefix, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
                    let layer = layer_column(row.get_ref(3)?.as_str()?)?;
                    Ok(StepRecord { step: row.get(0)?, parts: row.get(1)?, pruned: row.get(2)?, layer })
                })?
                .collect::<rusqlite::Result<_>>()
        };
        select().map_err(Error::database("look up the step's earlier cache records"))
    }

    /// The layers of all records.
    pub(crate) fn cached_layers(&self) -> Result<Vec<DiffId>> {
        let connection = self.database.lock();
        let select = || -> rusqlite::Result<Vec<DiffId>> {
            let mut statement = connection.prepare("SELECT DISTINCT layers FROM cache_records WHERE layers <> ''")?;
            statement.query_map([], |row| digest_column(row.get_ref(0)?.as_str()?))?.collect()
        };
        select().map_err(Error::database("list the cache's layers"))
    }

    /// The fingerprints kept for a directory tree; opaque to the store.
    pub fn fingerprints(&self, tree: &str) -> Result<Option<Vec<u8>>> {
        let connection = self.database.lock();
        let select = || {
            connection
                .prepare_cached("SELECT bytes FROM fingerprints WHERE tree = ?1")?
                .query_row([tree], |row| row.get(0))
                .optional()
        };
        select().map_err(Error::database("look up fingerprints"))
    }

    /// Replaces them.
    pub fn put_fingerprints(&self, tree: &str, bytes: &[u8]) -> Result<()> {
        let connection = self.database.lock();
        let insert = || {
            connection
                .prepare_cached("INSERT OR REPLACE INTO fingerprints (tree, bytes) VALUES (?1, ?2)")?
                .execute(params![tree, bytes])
        };
        insert().map(drop).map_err(Error::database("write fingerprints"))
    }
}
