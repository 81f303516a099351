//! Looking many cache records up at once.

use std::sync::MutexGuard;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{USE_RESOLUTION, digest_column, now};
use crate::{DiffId, Error, Result, Store};

const ACTION: &str = "look up cache records";

/// A look at the cache in one transaction. The store's other threads wait until it is over.
pub struct CacheReading<'a> {
    store: &'a Store,
    connection: MutexGuard<'a, Connection>,
    now: i64,
    /// What was found and is to be marked as used: keys and their layers.
    stale: Vec<([u8; 32], DiffId)>,
}

/// A record with its layer.
struct Found {
    value: Vec<u8>,
    layer: DiffId,
    boot: String,
    settled: bool,
    /// Seconds since 1970, of the one that was not used for longer.
    last_used: i64,
}

impl Store {
    /// Begins a look at the cache.
    pub fn read_cache(&self) -> Result<CacheReading<'_>> {
        let connection = self.database.lock();
        connection.execute_batch("BEGIN").map_err(Error::database(ACTION))?;
        Ok(CacheReading { store: self, connection, now: now(), stale: Vec::new() })
    }
}

impl CacheReading<'_> {
    /// The value of a key's record, when its layer is here as a directory. `None` says nothing of layers that are
    /// here in another form, or that may be damaged: [`Store::cache_record`] and [`Store::layer`] do.
    pub fn value(&mut self, key: &[u8; 32]) -> Result<Option<Vec<u8>>> {
        let Some(found) = self.select(key).map_err(Error::database(ACTION))? else { return Ok(None) };
        if !self.store.is_trusted(&found.boot, found.settled) || !self.store.layer_path(&found.layer).is_dir() {
            return Ok(None);
        }
        self.store.pin(&found.layer);
        if self.now - found.last_used >= USE_RESOLUTION {
            self.stale.push((*key, found.layer));
        }
        Ok(Some(found.value))
    }

    fn select(&self, key: &[u8; 32]) -> rusqlite::Result<Option<Found>> {
        self.connection
            .prepare_cached(
                "SELECT r.value, r.layers, l.boot, l.settled, min(r.last_used, l.used) FROM cache_records r
                 JOIN layers l ON l.diff_id = r.layers WHERE r.key = ?1 AND r.pruned IS NULL",
            )?
            .query_row([key], |row| {
                Ok(Found {
                    value: row.get(0)?,
                    layer: digest_column(row.get_ref(1)?.as_str()?)?,
                    boot: row.get(2)?,
                    settled: row.get(3)?,
                    last_used: row.get(4)?,
                })
            })
            .optional()
    }

    /// Marks what was found as used. `false`: another process pruned some of it meanwhile, and nothing of it counts.
    pub fn finish(mut self) -> Result<bool> {
        let stale = std::mem::take(&mut self.stale);
        self.connection.execute_batch("COMMIT").map_err(Error::database(ACTION))?;
        if stale.is_empty() {
            return Ok(true);
        }
        let now = self.now;
        let mut mark = || -> rusqlite::Result<bool> {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut all_here = true;
            let mut marked = 0;
            for (key, layer) in &stale {
                marked += transaction
                    .prepare_cached("UPDATE cache_records SET last_used = ?2, uses = uses + 1 WHERE key = ?1")?
                    .execute(params![key, now])?;
                let layers = transaction
                    .prepare_cached("UPDATE layers SET used = ?2 WHERE diff_id = ?1")?
                    .execute(params![layer.to_string(), now])?;
                all_here &= layers > 0;
                marked += layers;
            }
            transaction.commit()?;
            self.store.database.marked(marked);
            Ok(all_here)
        };
        mark().map_err(Error::database("mark cache records as used"))
    }
}

impl Drop for CacheReading<'_> {
    fn drop(&mut self) {
        // Given up: nothing was written.
        if !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }
}
