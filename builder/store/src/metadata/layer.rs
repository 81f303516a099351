//! Layers and their compressed forms.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::cache::bury_records;
use super::{digest_column, now};
use crate::layer::{Compression, Layer, LayerBlob};
use crate::{DiffId, Digest, Error, Result, Store};

/// What is recorded of a layer.
#[derive(Debug, Clone)]
pub(crate) struct LayerRow {
    pub(crate) layer: Layer,
    /// Our own tar of its directory has its diffID; otherwise only its original blob does.
    pub(crate) reproducible: bool,
    /// The boot in which it was written.
    pub(crate) boot: String,
    /// It was flushed to disk.
    pub(crate) settled: bool,
    /// Seconds since 1970 when somebody last asked for it.
    pub(crate) used: i64,
}

/// How a list of parts is marked among the compressions.
const PARTS: &str = "parts";

/// What is recorded of a layer's compressed form.
#[derive(Debug, Clone)]
pub(crate) struct BlobRow {
    pub(crate) blob: LayerBlob,
    /// `None`: a list of parts.
    pub(crate) compression: Option<Compression>,
    pub(crate) original: bool,
    pub(crate) boot: String,
    pub(crate) settled: bool,
}

pub(crate) fn select_layer(connection: &Connection, diff_id: &DiffId) -> Result<Option<LayerRow>> {
    let row = |row: &Row<'_>| {
        let layer = Layer { diff_id: *diff_id, tar_size: row.get(0)?, empty: row.get(1)? };
        Ok(LayerRow { layer, reproducible: row.get(2)?, boot: row.get(3)?, settled: row.get(4)?, used: row.get(5)? })
    };
    let select = || {
        connection
            .prepare_cached("SELECT tar_size, empty, reproducible, boot, settled, used FROM layers WHERE diff_id = ?1")?
            .query_row([diff_id.to_string()], row)
            .optional()
    };
    select().map_err(Error::database("look up layer"))
}

pub(crate) fn insert_layer(connection: &Connection, row: &LayerRow) -> Result<()> {
    let insert = || {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO layers (diff_id, tar_size, empty, reproducible, boot, settled, used)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                row.layer.diff_id.to_string(),
                row.layer.tar_size,
                row.layer.empty,
                row.reproducible,
                row.boot,
                row.settled,
                now()
            ])
    };
    insert().map(drop).map_err(Error::database("record layer"))
}

/// Marks a layer as used; `false` when it is gone meanwhile.
pub(crate) fn mark_used(connection: &Connection, diff_id: &DiffId) -> Result<bool> {
    let update = || {
        connection
            .prepare_cached("UPDATE layers SET used = ?2 WHERE diff_id = ?1")?
            .execute(params![diff_id.to_string(), now()])
    };
    update().map(|changed| changed > 0).map_err(Error::database("mark a layer as used"))
}

/// Forgets a layer and what the cache records that lead to it say; its blobs can make it again.
pub(crate) fn delete_layer(connection: &Connection, diff_id: &DiffId) -> Result<()> {
    let delete = || {
        connection.execute("DELETE FROM layers WHERE diff_id = ?1", [diff_id.to_string()])?;
        bury_records(connection, diff_id)
    };
    delete().map_err(Error::database("forget layer"))
}

impl Store {
    pub(crate) fn layer_row(&self, diff_id: &DiffId) -> Result<Option<LayerRow>> {
        select_layer(&self.database.lock(), diff_id)
    }

    /// The forms of a layer, those from elsewhere first, then the newest.
    pub(crate) fn blob_rows(&self, diff_id: &DiffId) -> Result<Vec<BlobRow>> {
        let connection = self.database.lock();
        let row = |row: &Row<'_>| {
            let digest = digest_column(row.get_ref(0)?.as_str()?)?;
            let blob = LayerBlob { digest, size: row.get(2)?, media_type: row.get(3)? };
            Ok(BlobRow {
                blob,
                compression: Some(row.get_ref(1)?.as_str()?).filter(|name| *name != PARTS).map(Compression::from_name),
                original: row.get(4)?,
                boot: row.get(5)?,
                settled: row.get(6)?,
            })
        };
        let select = || {
            connection
                .prepare_cached(
                    "SELECT digest, compression, size, media_type, original, boot, settled FROM layer_blobs
                     WHERE diff_id = ?1 ORDER BY original DESC, number DESC",
                )?
                .query_map([diff_id.to_string()], row)?
                .collect::<rusqlite::Result<_>>()
        };
        select().map_err(Error::database("look up the layer's blobs"))
    }

    pub(crate) fn insert_blob(&self, diff_id: &DiffId, row: &BlobRow) -> Result<()> {
        let connection = self.database.lock();
        let insert = || {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO layer_blobs
                     (diff_id, digest, compression, size, media_type, original, boot, settled)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )?
                .execute(params![
                    diff_id.to_string(),
                    row.blob.digest.to_string(),
                    row.compression.map_or(PARTS, Compression::name),
                    row.blob.size,
                    row.blob.media_type,
                    row.original,
                    row.boot,
                    row.settled
                ])
        };
        insert().map(drop).map_err(Error::database("record the layer's blob"))
    }

    pub(crate) fn delete_blob(&self, diff_id: &DiffId, digest: &Digest) -> Result<()> {
        self.database
            .lock()
            .execute(
                "DELETE FROM layer_blobs WHERE diff_id = ?1 AND digest = ?2",
                [diff_id.to_string(), digest.to_string()],
            )
            .map(drop)
            .map_err(Error::database("forget the layer's blob"))
    }

    /// Forgets every layer but these.
    pub(crate) fn forget_layers_but(&self, keep: &HashSet<DiffId>) -> Result<()> {
        let action = "forget layers";
        self.database.change(action, |connection| {
            let known = || -> rusqlite::Result<Vec<DiffId>> {
                let mut statement = connection.prepare("SELECT diff_id FROM layers")?;
                statement.query_map([], |row| digest_column(row.get_ref(0)?.as_str()?))?.collect()
            };
            let known = known().map_err(Error::database(action))?;
            known
                .iter()
                .filter(|diff_id| !keep.contains(diff_id))
                .try_for_each(|diff_id| delete_layer(connection, diff_id))
        })
    }

    /// Forgets forms whose blob is gone, unless the layer can be compressed to it again.
    pub(crate) fn forget_missing_blobs(&self) -> Result<()> {
        let here: HashSet<String> = self.blobs().list()?.iter().map(Digest::to_string).collect();
        let action = "forget missing blobs";
        self.database.change(action, |connection| {
            let known = || -> rusqlite::Result<Vec<(i64, String)>> {
                let mut statement = connection.prepare(
                    "SELECT number, digest FROM layer_blobs WHERE original OR compression NOT IN ('gzip', 'zstd')
                     OR diff_id NOT IN (SELECT diff_id FROM layers)",
                )?;
                statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            };
            for (number, digest) in known().map_err(Error::database(action))? {
                if !here.contains(&digest) {
                    connection
                        .execute("DELETE FROM layer_blobs WHERE number = ?1", [number])
                        .map_err(Error::database(action))?;
                }
            }
            Ok(())
        })
    }

    /// The last numbers that this boot has written and not yet flushed, of layers and of blobs.
    pub(crate) fn unsettled_mark(&self) -> Result<Option<(i64, i64)>> {
        let connection = self.database.lock();
        let select = || {
            let last = |table: &str| {
                connection
                    .prepare_cached(&format!("SELECT max(number) FROM {table} WHERE settled = 0 AND boot = ?1"))?
                    .query_row([&self.boot], |row| row.get::<_, Option<i64>>(0))
            };
            let (layers, blobs) = (last("layers")?, last("layer_blobs")?);
            Ok((layers.is_some() || blobs.is_some()).then(|| (layers.unwrap_or(0), blobs.unwrap_or(0))))
        };
        select().map_err(Error::database("look up unsettled layers"))
    }

    /// Marks what this boot wrote, up to these numbers, as flushed.
    pub(crate) fn mark_settled(&self, (layers, blobs): (i64, i64)) -> Result<()> {
        let action = "settle layers";
        self.database.change(action, |connection| {
            for (table, last) in [("layers", layers), ("layer_blobs", blobs)] {
                connection
                    .execute(
                        &format!("UPDATE {table} SET settled = 1 WHERE settled = 0 AND boot = ?1 AND number <= ?2"),
                        params![self.boot, last],
                    )
                    .map_err(Error::database(action))?;
            }
            Ok(())
        })
    }
}
