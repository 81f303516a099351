//! What the build cache takes, and who needs it.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension};

use super::cache::bury_records;
use super::digest_column;
use crate::{DiffId, Digest, Error, Result, Store};

/// A layer that cache records lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedLayer {
    /// The layer.
    pub diff_id: DiffId,
    /// Bytes of its tar and of its compressed forms.
    pub size: u64,
    /// What people call the step that made it.
    pub description: String,
    /// Seconds since 1970 when it was made.
    pub created: i64,
    /// Seconds since 1970, to the minute.
    pub last_used: i64,
    /// How often it was used, counted at most once a minute.
    pub uses: u64,
    /// An image of the store has it too.
    pub shared: bool,
}

/// What became of a layer that was to be pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pruned {
    /// It is gone, and its directory of so many bytes with it.
    Layer(u64),
    /// Only its records are: an image or a container needs the layer.
    Records,
    /// A process that is at work may need it.
    Nothing,
}

impl Store {
    /// Every layer that a cache record leads to, least recently used first.
    pub fn cached_layer_usage(&self) -> Result<Vec<CachedLayer>> {
        let in_images: HashSet<DiffId> = self.images()?.into_iter().flat_map(|image| image.layers).collect();
        let connection = self.database.lock();
        let select = || -> rusqlite::Result<Vec<CachedLayer>> {
            let mut statement = connection.prepare_cached(
                "SELECT r.layers, max(r.description), min(r.created), max(r.last_used, l.used), sum(r.uses),
                        l.tar_size, coalesce((SELECT sum(size) FROM layer_blobs b WHERE b.diff_id = r.layers), 0)
                 FROM (SELECT layers, max(description) AS description, min(created) AS created,
                              max(last_used) AS last_used, sum(uses) AS uses
                       FROM cache_records WHERE layers <> '' GROUP BY layers) r
                 JOIN layers l ON l.diff_id = r.layers
                 GROUP BY r.layers ORDER BY 4, 3, 1",
            )?;
            let rows = statement.query_map([], |row| {
                let diff_id = digest_column(row.get_ref(0)?.as_str()?)?;
                // One that nobody has looked into yet is only its blob.
                let unpacked: u64 = if self.layer_path(&diff_id).is_dir() { row.get(5)? } else { 0 };
                Ok(CachedLayer {
                    diff_id,
                    description: row.get(1)?,
                    created: row.get(2)?,
                    last_used: row.get(3)?,
                    uses: row.get(4)?,
                    size: unpacked + row.get::<_, u64>(6)?,
                    shared: in_images.contains(&diff_id),
                })
            })?;
            rows.collect()
        };
        select().map_err(Error::database("list the build cache"))
    }

    /// Takes a layer out of the build cache, while other processes go on: what they may need stays. `keep` are layers
    /// that something outside of the metadata needs. Blobs that only it may have needed are added to `orphans`, for
    /// [`Store::remove_orphans`].
    pub fn prune_cached_layer(
        &self,
        diff_id: &DiffId,
        keep: &HashSet<DiffId>,
        orphans: &mut Vec<Digest>,
    ) -> Result<Pruned> {
        if self.is_pinned(diff_id) {
            return Ok(Pruned::Nothing);
        }
        let (others, gate) = self.temporary.oldest_other()?;
        let mut away = None;
        let forms = self.blob_rows(diff_id)?;
        let blobs = forms.iter().flat_map(|row| self.blobs_of_form(row).into_iter().chain([row.blob.digest]));
        let blobs: Vec<Digest> = blobs.collect();
        let pruned = self.database.change("prune the build cache", |transaction| {
            let failed = Error::database("prune the build cache");
            let prune = || -> rusqlite::Result<Pruned> {
                let row: Option<(u64, i64)> = transaction
                    .prepare_cached("SELECT tar_size, used FROM layers WHERE diff_id = ?1")?
                    .query_row([diff_id.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()?;
                let Some((tar_size, used)) = row else {
                    bury_records(transaction, diff_id)?;
                    return Ok(Pruned::Records);
                };
                if others.is_some_and(|start| used >= start - super::cache::USE_RESOLUTION) {
                    return Ok(Pruned::Nothing);
                }
                bury_records(transaction, diff_id)?;
                if keep.contains(diff_id) || is_in_an_image(transaction, diff_id)? {
                    return Ok(Pruned::Records);
                }
                transaction.execute("DELETE FROM layers WHERE diff_id = ?1", [diff_id.to_string()])?;
                transaction.execute("DELETE FROM layer_blobs WHERE diff_id = ?1", [diff_id.to_string()])?;
                Ok(Pruned::Layer(if self.layer_path(diff_id).is_dir() { tar_size } else { 0 }))
            };
            let pruned = prune().map_err(failed)?;
            if matches!(pruned, Pruned::Layer(_)) {
                away = self.take_away(&self.layer_path(diff_id))?;
            }
            Ok(pruned)
        })?;
        drop(gate);
        if let Some(away) = away {
            self.temporary.remove(&away);
        }
        if matches!(pruned, Pruned::Layer(_)) {
            orphans.extend(blobs);
        }
        Ok(pruned)
    }

    /// Removes those of the blobs that nothing leads to; returns their bytes.
    pub fn remove_orphans(&self, orphans: &[Digest], keep: &HashSet<DiffId>) -> Result<u64> {
        if orphans.is_empty() {
            return Ok(0);
        }
        let keep: Vec<DiffId> = keep.iter().copied().collect();
        let (_, needed) = self.mark(&keep)?;
        let mut freed = 0;
        for digest in orphans.iter().filter(|digest| !needed.contains(digest)) {
            let size = self.blobs().size(digest)?.unwrap_or(0);
            if self.blobs().remove(digest)? {
                freed += size;
            }
        }
        Ok(freed)
    }

    /// Forgets everything about the cache that takes no room worth counting: fingerprints, times of images.
    pub fn forget_fingerprints(&self) -> Result<()> {
        let connection = self.database.lock();
        let delete = || {
            connection.execute("DELETE FROM fingerprints", [])?;
            connection.execute("DELETE FROM cache_records WHERE layers = '' AND pruned IS NULL", [])
        };
        delete().map(drop).map_err(Error::database("forget fingerprints"))
    }
}

fn is_in_an_image(connection: &Connection, diff_id: &DiffId) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM images WHERE instr(layers, ?1))")?
        .query_row([diff_id.to_string()], |row| row.get(0))
}
