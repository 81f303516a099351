//! Cache records and file fingerprints, whose content is the builder's.

use rusqlite::{OptionalExtension, Row, params};

use super::{CacheRecord, join_digests, now, split_digests};
use crate::{DiffId, Error, Result, Store};

/// A record used again within so many seconds is not written again.
const USE_RESOLUTION: i64 = 60;

fn record_row(row: &Row<'_>) -> rusqlite::Result<CacheRecord> {
    Ok(CacheRecord {
        key: row.get(0)?,
        step: row.get(1)?,
        parts: row.get(2)?,
        value: row.get(3)?,
        layers: split_digests(row.get_ref(4)?.as_str()?)?,
        created: row.get(5)?,
    })
}

impl Store {
    /// The record of a key; marks it as used.
    pub fn cache_record(&self, key: &[u8; 32]) -> Result<Option<CacheRecord>> {
        let connection = self.database.lock();
        let now = now();
        let select = || {
            let found = connection
                .prepare_cached(
                    "SELECT key, step, parts, value, layers, created, last_used FROM cache_records WHERE key = ?1",
                )?
                .query_row([key], |row| Ok((record_row(row)?, row.get::<_, i64>(6)?)))
                .optional()?;
            let Some((record, last_used)) = found else { return Ok(None) };
            if now - last_used >= USE_RESOLUTION {
                connection
                    .prepare_cached("UPDATE cache_records SET last_used = ?2 WHERE key = ?1")?
                    .execute(params![key, now])?;
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
                    "INSERT OR REPLACE INTO cache_records (key, step, parts, value, layers, created, last_used)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute(params![
                    record.key,
                    record.step,
                    record.parts,
                    record.value,
                    join_digests(&record.layers),
                    record.created,
                    now()
                ])
        };
        insert().map(drop).map_err(Error::database("write cache record"))
    }

    /// The newest record of a step, whatever its key.
    pub fn latest_cache_record(&self, step: &str) -> Result<Option<CacheRecord>> {
        let connection = self.database.lock();
        let select = || {
            connection
                .prepare_cached(
                    "SELECT key, step, parts, value, layers, created FROM cache_records
                     WHERE step = ?1 ORDER BY number DESC LIMIT 1",
                )?
                .query_row([step], record_row)
                .optional()
        };
        select().map_err(Error::database("look up the step's last cache record"))
    }

    /// The layers of all records.
    pub(crate) fn cached_layers(&self) -> Result<Vec<DiffId>> {
        let connection = self.database.lock();
        let select = || {
            let mut layers = Vec::new();
            let mut statement = connection.prepare("SELECT DISTINCT layers FROM cache_records WHERE layers <> ''")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                layers.extend(split_digests(row.get_ref(0)?.as_str()?)?);
            }
            Ok(layers)
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
