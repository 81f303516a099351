//! Blobs and manifests as the scrub goes through them, and what it notes about them.

use kiln_store::Digest;
use rusqlite::{Connection, OptionalExtension, params};

use super::Batch;
use super::manifests::is_digest_of;
use crate::error::Error;
use crate::name::RepositoryName;

/// Bytes of manifests that one page reads at most.
const PAGE_BYTES: u64 = 8 << 20;

/// A manifest that was looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checked {
    pub(crate) id: i64,
    pub(crate) digest: Digest,
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) whole: bool,
}

/// Blobs after the row `last` that are not known to be damaged, at most `count`: row, digest, size in bytes.
pub(crate) fn blobs_after(
    connection: &Connection,
    last: i64,
    count: usize,
) -> rusqlite::Result<Vec<(i64, Digest, u64)>> {
    connection
        .prepare_cached("SELECT id, digest, size FROM blobs WHERE id > ?1 AND damaged_at IS NULL ORDER BY id LIMIT ?2")?
        .query_map(params![last, count], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?)))?
        .filter_map(|row| row.map(|(id, digest, size)| Some((id, digest.parse().ok()?, size))).transpose())
        .collect()
}

/// Blobs that were found damaged and not pushed again since, with the repositories that link them.
pub(crate) fn damaged_blobs(connection: &Connection) -> rusqlite::Result<Vec<(String, Vec<String>)>> {
    let found = connection
        .prepare("SELECT id, digest FROM blobs WHERE damaged_at IS NOT NULL ORDER BY id")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(i64, String)>>>()?;
    found.into_iter().map(|(blob, digest)| Ok((digest, repositories_with(connection, blob)?))).collect()
}

/// The repositories that link a blob.
fn repositories_with(connection: &Connection, blob: i64) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached(
            "SELECT name FROM blob_links JOIN repositories ON repositories.id = repository WHERE blob = ?1
             ORDER BY name",
        )?
        .query_map([blob], |row| row.get(0))?
        .collect()
}

/// Hashes manifests after the row `last`, at most `count` or some megabytes of them.
pub(crate) fn manifests_after(connection: &Connection, last: i64, count: usize) -> rusqlite::Result<Vec<Checked>> {
    let mut statement =
        connection.prepare_cached("SELECT id, digest, bytes FROM manifests WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    let mut rows = statement.query(params![last, count])?;
    let mut checked = Vec::new();
    let mut read = 0;
    while let Some(row) = rows.next()? {
        let Ok(digest) = row.get_ref(1)?.as_str()?.parse::<Digest>() else { continue };
        let bytes = row.get_ref(2)?.as_blob()?;
        read += bytes.len() as u64;
        let whole = is_digest_of(&digest, bytes);
        checked.push(Checked { id: row.get(0)?, digest, size: bytes.len() as u64, whole });
        if read > PAGE_BYTES {
            break;
        }
    }
    Ok(checked)
}

/// Repositories that link the blob, which from now on none of them serves. `None` when nobody links it any more.
pub(crate) fn mark_damaged(batch: &mut Batch<'_>, digest: &Digest) -> Result<Option<Vec<String>>, Error> {
    let mark = || -> rusqlite::Result<_> {
        let blob: Option<i64> = batch
            .connection
            .prepare_cached("UPDATE blobs SET damaged_at = ?2 WHERE digest = ?1 RETURNING id")?
            .query_row(params![digest.to_string(), super::now()], |row| row.get(0))
            .optional()?;
        let Some(blob) = blob else { return Ok(None) };
        repositories_with(batch.connection, blob).map(Some)
    };
    let names = mark().map_err(Error::database("note a damaged blob"))?;
    for name in names.iter().flatten().filter_map(|name| name.parse::<RepositoryName>().ok()) {
        batch.changed(&name);
    }
    Ok(names)
}

/// What SQLite finds wrong with the database's own structure; nothing when it is sound.
pub(crate) fn quick_check(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("PRAGMA quick_check(20)")?;
    let lines = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}
