//! What the collector asks of the database, and what it deletes there. Every deletion checks once more, in its own
//! transaction, that nobody needs what it deletes.

use kiln_store::Digest;
use rusqlite::{Connection, OptionalExtension, params};

use super::blobs::drop_unlinked;
use super::manifests::{remove_manifest, remove_tag};
use super::{Batch, is_named_in, repository_id};
use crate::collection::PushedTag;
use crate::name::RepositoryName;

/// Before when (seconds since 1970) something must have been of use last, to go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cutoffs {
    /// For what belongs to nothing.
    pub(crate) grace: i64,
    /// For blobs: the grace period before the oldest upload under way into the repository.
    pub(crate) blobs: i64,
    /// For manifests without a tag, when those are removed.
    pub(crate) untagged: Option<i64>,
}

/// A manifest that nothing keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadManifest {
    pub(crate) id: i64,
    pub(crate) digest: Digest,
    /// In bytes.
    pub(crate) size: u64,
}

/// A link to a blob that no manifest keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadLink {
    pub(crate) blob: i64,
    pub(crate) digest: Digest,
    /// In bytes.
    pub(crate) size: u64,
    /// No other repository links it: its file goes, too.
    pub(crate) last: bool,
}

/// Every repository after `last`, at most `count`, also those without manifests.
pub(crate) fn repositories(connection: &Connection, last: &str, count: usize) -> rusqlite::Result<Vec<RepositoryName>> {
    let names = connection
        .prepare_cached("SELECT name FROM repositories WHERE name > ?1 ORDER BY name LIMIT ?2")?
        .query_map(params![last, count], |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    // They were checked on their way in.
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// The repository's tags.
pub(crate) fn pushed_tags(connection: &Connection, repository: &RepositoryName) -> rusqlite::Result<Vec<PushedTag>> {
    let Some(id) = repository_id(connection, repository)? else { return Ok(Vec::new()) };
    connection
        .prepare_cached(
            "SELECT name, tags.pushed_at, max(tags.pushed_at, COALESCE(pulled_at, 0)) FROM tags JOIN manifest_links USING (repository, manifest)
             WHERE repository = ?1",
        )?
        .query_map([id], |row| Ok(PushedTag { name: row.get(0)?, pushed_at: row.get(1)?, used_at: row.get(2)? }))?
        .collect()
}

/// Tags that are about a manifest that was deleted, by the referrers tag scheme (`sha256-<hex>`, perhaps `.sig`).
pub(crate) fn orphaned_tags(
    connection: &Connection,
    repository: &RepositoryName,
    cutoffs: Cutoffs,
) -> rusqlite::Result<Vec<PushedTag>> {
    let Some(id) = repository_id(connection, repository)? else { return Ok(Vec::new()) };
    connection
        .prepare_cached(
            "SELECT name, pushed_at FROM tags WHERE repository = ?1 AND orphaned_at < ?2 AND NOT EXISTS (
                 SELECT 1 FROM manifests JOIN manifest_links ON manifest_links.manifest = manifests.id
                 WHERE manifest_links.repository = ?1
                     AND digest = substr(tags.name, 1, 6) || ':' ||
                         substr(tags.name, 8, instr(tags.name || '.', '.') - 8))",
        )?
        .query_map(params![id, cutoffs.grace], |row| {
            Ok(PushedTag { name: row.get(0)?, pushed_at: row.get(1)?, used_at: row.get(1)? })
        })?
        .collect()
}

/// Deletes a tag unless it was pushed again meanwhile.
pub(crate) fn delete_expired_tag(
    batch: &mut Batch<'_>,
    repository: &RepositoryName,
    tag: &PushedTag,
) -> rusqlite::Result<bool> {
    let Some(id) = repository_id(batch.connection, repository)? else { return Ok(false) };
    let same = batch
        .connection
        .prepare_cached("SELECT 1 FROM tags WHERE repository = ?1 AND name = ?2 AND pushed_at = ?3")?
        .query_row(params![id, tag.name, tag.pushed_at], |_| Ok(()))
        .optional()?;
    let deleted = same.is_some() && remove_tag(batch.connection, id, &tag.name)?;
    batch.changed(repository);
    Ok(deleted)
}

/// Rows to look at, by their ids: those after the first, up to the last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ids {
    pub(crate) after: i64,
    pub(crate) last: i64,
}

impl Ids {
    pub(crate) const ALL: Self = Self { after: 0, last: i64::MAX };
}

/// Manifests that no tag, no kept index and no kept subject leads to, at most `count`, by their ids.
///
/// Each is followed upwards, to what leads to it: that is a handful of rows, however large the repository is.
pub(crate) fn dead_manifests(
    connection: &Connection,
    repository: &RepositoryName,
    cutoffs: Cutoffs,
    ids: Ids,
    count: usize,
) -> rusqlite::Result<Vec<DeadManifest>> {
    let Some(id) = repository_id(connection, repository)? else { return Ok(Vec::new()) };
    connection
        .prepare_cached(
            "SELECT manifests.id, manifests.digest, length(manifests.bytes) FROM manifest_links AS candidate
             JOIN manifests ON manifests.id = candidate.manifest
             WHERE candidate.repository = ?1 AND candidate.manifest > ?4 AND candidate.manifest <= ?5 AND NOT EXISTS (
                 WITH RECURSIVE above (manifest) AS (
                     SELECT candidate.manifest
                     UNION
                     SELECT lister.manifest FROM above
                     JOIN manifests ON manifests.id = above.manifest
                     JOIN manifest_references AS named ON named.digest = manifests.digest
                     JOIN manifest_links AS lister ON lister.repository = ?1 AND lister.manifest = named.manifest
                     UNION
                     SELECT subject.manifest FROM above
                     JOIN manifest_links AS referrer ON referrer.repository = ?1 AND referrer.manifest = above.manifest
                     JOIN manifests ON manifests.digest = referrer.subject
                     JOIN manifest_links AS subject ON subject.repository = ?1 AND subject.manifest = manifests.id
                 )
                 SELECT 1 FROM above
                 JOIN manifest_links AS link ON link.repository = ?1 AND link.manifest = above.manifest
                 WHERE EXISTS (SELECT 1 FROM tags WHERE tags.repository = ?1 AND tags.manifest = link.manifest)
                     OR COALESCE(link.released_at, link.pushed_at) >= ?2
                     OR (NOT link.orphaned AND (?3 IS NULL OR COALESCE(link.released_at, link.pushed_at) >= ?3)))
             ORDER BY candidate.manifest LIMIT ?6",
        )?
        .query_map(params![id, cutoffs.grace, cutoffs.untagged, ids.after, ids.last, count], |row| {
            Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?))
        })?
        .filter_map(|row| {
            row.map(|(id, digest, size)| Some(DeadManifest { id, digest: digest.parse().ok()?, size })).transpose()
        })
        .collect()
}

/// Deletes up to `count` manifests that nothing keeps, and says which.
pub(crate) fn delete_dead_manifests(
    batch: &mut Batch<'_>,
    repository: &RepositoryName,
    cutoffs: Cutoffs,
    ids: Ids,
    count: usize,
) -> rusqlite::Result<Vec<DeadManifest>> {
    let Some(id) = repository_id(batch.connection, repository)? else { return Ok(Vec::new()) };
    let dead = dead_manifests(batch.connection, repository, cutoffs, ids, count)?;
    for manifest in &dead {
        remove_manifest(batch.connection, id, manifest.id, &manifest.digest)?;
    }
    batch.changed(repository);
    Ok(dead)
}

/// Links to blobs that no manifest of the repository refers to, at most `count`, by the blobs' ids.
pub(crate) fn dead_links(
    connection: &Connection,
    repository: &RepositoryName,
    cutoffs: Cutoffs,
    ids: Ids,
    count: usize,
) -> rusqlite::Result<Vec<DeadLink>> {
    let Some(id) = repository_id(connection, repository)? else { return Ok(Vec::new()) };
    connection
        .prepare_cached(concat!(
            "SELECT blob, digest, size, NOT EXISTS (
                     SELECT 1 FROM blob_links AS others WHERE others.blob = blobs.id AND others.repository <> ?1)
                 FROM blob_links JOIN blobs ON blobs.id = blob
                 WHERE repository = ?1 AND blob > ?3 AND blob <= ?4 AND needed_at < ?2 AND NOT ",
            is_named_in!("?1"),
            " ORDER BY blob LIMIT ?5",
        ))?
        .query_map(params![id, cutoffs.blobs, ids.after, ids.last, count], |row| {
            Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get(3)?))
        })?
        .filter_map(|row| {
            row.map(|(blob, digest, size, last)| Some(DeadLink { blob, digest: digest.parse().ok()?, size, last }))
                .transpose()
        })
        .collect()
}

/// Deletes up to `count` links that no manifest keeps; blobs that no other repository links go with them.
pub(crate) fn delete_dead_links(
    batch: &mut Batch<'_>,
    repository: &RepositoryName,
    cutoffs: Cutoffs,
    ids: Ids,
    count: usize,
) -> rusqlite::Result<Vec<DeadLink>> {
    let Some(id) = repository_id(batch.connection, repository)? else { return Ok(Vec::new()) };
    let dead = dead_links(batch.connection, repository, cutoffs, ids, count)?;
    for link in &dead {
        batch
            .connection
            .prepare_cached("DELETE FROM blob_links WHERE repository = ?1 AND blob = ?2")?
            .execute([id, link.blob])?;
        drop_unlinked(batch, &link.digest)?;
    }
    batch.changed(repository);
    Ok(dead)
}

/// Forgets a repository that holds nothing any more.
pub(crate) fn delete_empty_repository(batch: &mut Batch<'_>, repository: &RepositoryName) -> rusqlite::Result<bool> {
    let deleted = batch
        .connection
        .prepare_cached(
            "DELETE FROM repositories WHERE name = ?1
                 AND NOT EXISTS (SELECT 1 FROM blob_links WHERE repository = repositories.id)
                 AND NOT EXISTS (SELECT 1 FROM manifest_links WHERE repository = repositories.id)",
        )?
        .execute([repository.as_str()])?;
    batch.changed(repository);
    Ok(deleted > 0)
}

/// Whether a repository holds nothing.
pub(crate) fn is_empty(connection: &Connection, repository: &RepositoryName) -> rusqlite::Result<bool> {
    let Some(id) = repository_id(connection, repository)? else { return Ok(false) };
    connection
        .prepare_cached(
            "SELECT NOT EXISTS (SELECT 1 FROM blob_links WHERE repository = ?1)
                 AND NOT EXISTS (SELECT 1 FROM manifest_links WHERE repository = ?1)",
        )?
        .query_row([id], |row| row.get(0))
}

/// Those of the blobs that no row names.
pub(crate) fn unknown_blobs(connection: &Connection, digests: &[Digest]) -> rusqlite::Result<Vec<Digest>> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM blobs WHERE digest = ?1")?;
    let mut unknown = Vec::new();
    for digest in digests {
        if statement.query_row([digest.to_string()], |_| Ok(())).optional()?.is_none() {
            unknown.push(*digest);
        }
    }
    Ok(unknown)
}

/// Gives emptied pages back to the disk, some at a time.
pub(crate) fn shrink(batch: &mut Batch<'_>) -> rusqlite::Result<()> {
    let mut statement = batch.connection.prepare_cached("PRAGMA incremental_vacuum(1000)")?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}
