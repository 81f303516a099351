//! What there is in all, and what the web page lists.

use rusqlite::{Connection, params};

use super::repository_id;
use crate::metrics::Contents;
use crate::name::RepositoryName;

/// Bytes of the largest manifest that a list looks into.
const LARGEST_LISTED: i64 = 1 << 20;

/// How many there are of everything.
pub(crate) fn contents(connection: &Connection) -> rusqlite::Result<Contents> {
    connection
        .prepare_cached(
            "SELECT (SELECT count(DISTINCT repository) FROM manifest_links), (SELECT count(*) FROM tags),
                    (SELECT count(*) FROM manifests), count(*), coalesce(sum(size), 0) FROM blobs",
        )?
        .query_row([], |row| {
            Ok(Contents {
                repositories: row.get(0)?,
                tags: row.get(1)?,
                manifests: row.get(2)?,
                blobs: row.get(3)?,
                bytes: row.get(4)?,
            })
        })
}

/// A repository, in a list.
#[derive(Debug)]
pub(crate) struct RepositoryRow {
    pub(crate) name: String,
    pub(crate) tags: u64,
    /// Bytes of its blobs, each counted once.
    pub(crate) size: u64,
    /// Seconds since 1970.
    pub(crate) pushed_at: i64,
}

/// Repositories whose name, or a tag of theirs, has `wanted` in it, after `last`, at most `count` and one more.
pub(crate) fn search(
    connection: &Connection,
    wanted: &str,
    last: &str,
    count: usize,
    visible: impl Fn(&str) -> bool,
) -> rusqlite::Result<Vec<RepositoryRow>> {
    let mut statement = connection.prepare_cached(
        "SELECT name, (SELECT count(*) FROM tags WHERE repository = repositories.id),
                (SELECT coalesce(sum(size), 0) FROM blob_links JOIN blobs ON blob = blobs.id
                 WHERE repository = repositories.id),
                (SELECT max(pushed_at) FROM manifest_links WHERE repository = repositories.id)
         FROM repositories
         WHERE name > ?1 AND EXISTS (SELECT 1 FROM manifest_links WHERE repository = repositories.id)
             AND (instr(name, ?2) > 0
                  OR EXISTS (SELECT 1 FROM tags WHERE repository = repositories.id AND instr(tags.name, ?2) > 0))
         ORDER BY name",
    )?;
    let mut rows = statement.query(params![last, wanted])?;
    let mut found = Vec::new();
    while found.len() <= count
        && let Some(row) = rows.next()?
    {
        if visible(row.get_ref(0)?.as_str()?) {
            found.push(RepositoryRow {
                name: row.get(0)?,
                tags: row.get(1)?,
                size: row.get(2)?,
                pushed_at: row.get(3)?,
            });
        }
    }
    Ok(found)
}

/// A tag, or a manifest without one, in a list.
#[derive(Debug)]
pub(crate) struct TagRow {
    pub(crate) tag: Option<String>,
    pub(crate) digest: String,
    /// The manifest, unless it is a large one.
    pub(crate) manifest: Option<Vec<u8>>,
    /// Seconds since 1970.
    pub(crate) pushed_at: i64,
}

/// Tags whose name comes after `last`, at most `count` and one more.
pub(crate) fn tags(
    connection: &Connection,
    repository: &RepositoryName,
    last: &str,
    count: usize,
) -> rusqlite::Result<Vec<TagRow>> {
    let Some(id) = repository_id(connection, repository)? else { return Ok(Vec::new()) };
    connection
        .prepare_cached(
            "SELECT name, digest, CASE WHEN length(bytes) <= ?4 THEN bytes END, pushed_at
             FROM tags JOIN manifests ON manifest = manifests.id
             WHERE repository = ?1 AND name > ?2 ORDER BY name LIMIT ?3",
        )?
        .query_map(params![id, last, count + 1, LARGEST_LISTED], tag_row)?
        .collect()
}

/// Manifests that no tag means and that are about no other: parts of indexes, and what lost its tag. The newest first.
pub(crate) fn untagged(
    connection: &Connection,
    repository: &RepositoryName,
    count: usize,
) -> rusqlite::Result<Vec<TagRow>> {
    let Some(id) = repository_id(connection, repository)? else { return Ok(Vec::new()) };
    connection
        .prepare_cached(
            "SELECT NULL, digest, CASE WHEN length(bytes) <= ?3 THEN bytes END, pushed_at
             FROM manifest_links JOIN manifests ON manifest = manifests.id
             WHERE repository = ?1 AND subject IS NULL
                 AND NOT EXISTS (SELECT 1 FROM tags WHERE tags.repository = ?1 AND tags.manifest = manifests.id)
             ORDER BY pushed_at DESC, digest LIMIT ?2",
        )?
        .query_map(params![id, count, LARGEST_LISTED], tag_row)?
        .collect()
}

fn tag_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<TagRow> {
    Ok(TagRow { tag: row.get(0)?, digest: row.get(1)?, manifest: row.get(2)?, pushed_at: row.get(3)? })
}

/// When the manifest came into the repository, in seconds since 1970.
pub(crate) fn pushed_at(connection: &Connection, repository: &str, digest: &str) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "SELECT pushed_at FROM manifest_links JOIN manifests ON manifest = manifests.id
             JOIN repositories ON repository = repositories.id WHERE name = ?1 AND digest = ?2",
        )?
        .query_row([repository, digest], |row| row.get(0))
}
