//! Rows of manifests, their links and tags.

use kiln_store::Digest;
use kiln_store::digest::Hasher;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::json;

use super::{Batch, blob, make_repository, now, repository_id};
use crate::cache::StoredManifest;
use crate::collection::Collection;
use crate::error::Error;
use crate::failure::{Code, Failure};
use crate::manifest::Manifest;
use crate::name::{Reference, RepositoryName, Tag};

/// Missing blobs that one answer lists at most.
const LISTED_BLOBS: usize = 100;

/// The manifest that a reference means in the repository.
pub(crate) fn manifest(
    connection: &Connection,
    repository: &RepositoryName,
    reference: &Reference,
) -> rusqlite::Result<Option<StoredManifest>> {
    let mut statement = connection.prepare_cached(match reference {
        Reference::Tag(_) => {
            "SELECT digest, media_type, bytes, NULL FROM repositories
             JOIN tags ON tags.repository = repositories.id AND tags.name = ?2
             JOIN manifest_links ON manifest_links.repository = repositories.id
                 AND manifest_links.manifest = tags.manifest
             JOIN manifests ON manifests.id = tags.manifest
             WHERE repositories.name = ?1"
        }
        Reference::Digest(_) => {
            "SELECT digest, media_type, bytes,
                 CASE WHEN EXISTS (SELECT 1 FROM tags WHERE tags.repository = manifest_links.repository
                                   AND tags.manifest = manifest_links.manifest)
                 THEN NULL ELSE COALESCE(released_at, pushed_at) END
             FROM repositories
             JOIN manifests ON digest = ?2
             JOIN manifest_links ON manifest_links.repository = repositories.id
                 AND manifest_links.manifest = manifests.id
             WHERE repositories.name = ?1"
        }
    })?;
    let found = statement
        .query_row(params![repository.as_str(), reference.to_string()], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?, row.get(3)?))
        })
        .optional()?;
    Ok(found.and_then(|(text, media_type, bytes, idle_since)| {
        // A digest in a row was checked on its way in; the bytes may have suffered since.
        let digest: Digest = text.parse().ok()?;
        if !is_digest_of(&digest, &bytes) {
            tracing::error!(%digest, repository = repository.as_str(), "a manifest is damaged and not served");
            return None;
        }
        Some(StoredManifest { digest, media_type: media_type.into(), bytes: bytes.into(), idle_since })
    }))
}

pub(super) fn is_digest_of(digest: &Digest, bytes: &[u8]) -> bool {
    let mut hasher = Hasher::new(digest.algorithm());
    hasher.update(bytes);
    hasher.finish() == *digest
}

/// What a push of a manifest says.
#[derive(Debug)]
pub(crate) struct Push<'a> {
    pub(crate) digest: &'a Digest,
    pub(crate) manifest: &'a Manifest,
    pub(crate) bytes: &'a [u8],
    /// Tags that shall mean it.
    pub(crate) tags: &'a [Tag],
}

/// Stores a manifest, with its tags. Unless `sparse`, every blob it needs must be in the repository.
pub(crate) fn put_manifest(
    batch: &mut Batch<'_>,
    repository: &RepositoryName,
    push: &Push<'_>,
    rules: &Collection,
    sparse: bool,
) -> Result<(), Failure> {
    if !sparse {
        require_blobs(batch.connection, repository, &push.manifest.blobs)?;
    }
    for tag in push.tags.iter().filter(|tag| rules.is_immutable(repository.as_str(), tag.as_str())) {
        require_same(batch.connection, repository, tag, push.digest)?;
    }
    put(batch.connection, repository, push, now()).map_err(Error::database("store a manifest"))?;
    batch.changed(repository);
    Ok(())
}

fn require_blobs(connection: &Connection, repository: &RepositoryName, blobs: &[Digest]) -> Result<(), Failure> {
    let mut missing = Vec::new();
    for digest in blobs {
        if blob(connection, repository, digest).map_err(Error::database("look up a blob"))?.is_none() {
            missing.push(digest);
        }
        if missing.len() == LISTED_BLOBS {
            break;
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let failure = Failure::new(Code::ManifestBlobUnknown);
    Err(missing.iter().fold(failure, |failure, digest| failure.detail(json!({"digest": digest}))))
}

/// An immutable tag may be pushed again with the manifest it has.
fn require_same(
    connection: &Connection,
    repository: &RepositoryName,
    tag: &Tag,
    digest: &Digest,
) -> Result<(), Failure> {
    let present = || {
        connection
            .prepare_cached(
                "SELECT digest FROM tags JOIN manifests ON manifests.id = tags.manifest
                 WHERE tags.name = ?2 AND tags.repository = (SELECT id FROM repositories WHERE name = ?1)",
            )?
            .query_row([repository.as_str(), tag.as_str()], |row| row.get::<_, String>(0))
            .optional()
    };
    match present().map_err(Error::database("look up a tag"))? {
        Some(present) if present != digest.to_string() => {
            let detail = format!("the tag {} is immutable and means {present}", tag.as_str());
            Err(Failure::new(Code::Denied).detail(detail))
        }
        _ => Ok(()),
    }
}

/// Stores the rows of a manifest that was pushed at that time.
pub(crate) fn put(
    connection: &Connection,
    repository: &RepositoryName,
    push: &Push<'_>,
    pushed_at: i64,
) -> rusqlite::Result<()> {
    let repository = make_repository(connection, repository)?;
    let id = put_bytes(connection, push)?;
    let manifest = push.manifest;
    connection
        .prepare_cached(
            "INSERT INTO manifest_links (repository, manifest, media_type, artifact_type, subject, pushed_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO UPDATE SET media_type = excluded.media_type, pushed_at = excluded.pushed_at,
                 released_at = NULL, orphaned = 0",
        )?
        .execute(params![
            repository,
            id,
            manifest.media_type,
            manifest.artifact_type,
            manifest.subject.map(|subject| subject.to_string()),
            pushed_at
        ])?;
    for tag in push.tags {
        put_tag(connection, repository, tag.as_str(), id, pushed_at)?;
    }
    Ok(())
}

/// The manifest's row.
fn put_bytes(connection: &Connection, push: &Push<'_>) -> rusqlite::Result<i64> {
    let text = push.digest.to_string();
    let known = connection
        .prepare_cached("SELECT id, bytes = ?2 FROM manifests WHERE digest = ?1")?
        .query_row(params![text, push.bytes], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?)))
        .optional()?;
    if let Some((id, same)) = known {
        if !same {
            // They were damaged, and these were verified.
            let mut update = connection.prepare_cached("UPDATE manifests SET bytes = ?2 WHERE id = ?1")?;
            update.execute(params![id, push.bytes])?;
        }
        return Ok(id);
    }
    let id = connection
        .prepare_cached("INSERT INTO manifests (digest, bytes) VALUES (?1, ?2) RETURNING id")?
        .query_row(params![text, push.bytes], |row| row.get(0))?;
    let mut refer = connection.prepare_cached("INSERT INTO manifest_references (manifest, digest) VALUES (?1, ?2)")?;
    for digest in &push.manifest.references {
        refer.execute(params![id, digest.to_string()])?;
    }
    Ok(id)
}

fn put_tag(connection: &Connection, repository: i64, tag: &str, manifest: i64, pushed_at: i64) -> rusqlite::Result<()> {
    let before: Option<i64> = connection
        .prepare_cached("SELECT manifest FROM tags WHERE repository = ?1 AND name = ?2")?
        .query_row(params![repository, tag], |row| row.get(0))
        .optional()?;
    connection
        .prepare_cached(
            "INSERT INTO tags (repository, name, manifest, pushed_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET manifest = excluded.manifest, pushed_at = excluded.pushed_at,
                 orphaned_at = NULL",
        )?
        .execute(params![repository, tag, manifest, pushed_at])?;
    match before {
        Some(before) if before != manifest => release(connection, repository, before, false),
        _ => Ok(()),
    }
}

/// A manifest lost a tag. If that was its last one, its time without begins now; `orphaned` when the tag was deleted.
fn release(connection: &Connection, repository: i64, manifest: i64, orphaned: bool) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE manifest_links SET released_at = ?3, orphaned = orphaned OR ?4
             WHERE repository = ?1 AND manifest = ?2
                 AND NOT EXISTS (SELECT 1 FROM tags WHERE repository = ?1 AND manifest = ?2)",
        )?
        .execute(params![repository, manifest, now(), orphaned])?;
    Ok(())
}

/// A push counts on a manifest that is here: it stays for another grace period. `false` when it has just gone.
pub(crate) fn need_manifest(
    batch: &mut Batch<'_>,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<bool, Failure> {
    let found = note(batch, repository, digest, "released_at", now()).map_err(Error::database("keep a manifest"))?;
    batch.changed(repository);
    Ok(found)
}

/// The manifest was pulled from the repository, at this time (seconds since 1970). What clients are answered stays.
pub(crate) fn note_pull(
    batch: &Batch<'_>,
    repository: &RepositoryName,
    digest: &Digest,
    at: i64,
) -> rusqlite::Result<()> {
    note(batch, repository, digest, "pulled_at", at).map(drop)
}

/// Writes a time into a column of the manifest's link; `false` when there is no such link.
fn note(
    batch: &Batch<'_>,
    repository: &RepositoryName,
    digest: &Digest,
    column: &'static str,
    at: i64,
) -> rusqlite::Result<bool> {
    let statement = format!(
        "UPDATE manifest_links SET {column} = ?3
         WHERE repository = (SELECT id FROM repositories WHERE name = ?1)
             AND manifest = (SELECT id FROM manifests WHERE digest = ?2)"
    );
    let mut statement = batch.connection.prepare_cached(&statement)?;
    Ok(statement.execute(params![repository.as_str(), digest.to_string(), at])? > 0)
}

/// Takes a tag from the repository. The manifest is served by its digest until the collector comes.
pub(crate) fn delete_tag(
    batch: &mut Batch<'_>,
    repository: &RepositoryName,
    tag: &Tag,
    rules: &Collection,
) -> Result<(), Failure> {
    if rules.is_protected(repository.as_str(), tag.as_str()) {
        return Err(protected(tag.as_str()));
    }
    let delete = || match repository_id(batch.connection, repository)? {
        Some(id) => remove_tag(batch.connection, id, tag.as_str()),
        None => Ok(false),
    };
    if !delete().map_err(Error::database("delete a tag"))? {
        return Err(Failure::new(Code::ManifestUnknown));
    }
    batch.changed(repository);
    Ok(())
}

/// Deletes a tag's row; `false` when there is none.
pub(super) fn remove_tag(connection: &Connection, repository: i64, tag: &str) -> rusqlite::Result<bool> {
    let manifest: Option<i64> = connection
        .prepare_cached("DELETE FROM tags WHERE repository = ?1 AND name = ?2 RETURNING manifest")?
        .query_row(params![repository, tag], |row| row.get(0))
        .optional()?;
    let Some(manifest) = manifest else { return Ok(false) };
    release(connection, repository, manifest, true)?;
    Ok(true)
}

fn protected(tag: &str) -> Failure {
    Failure::new(Code::Denied).detail(format!("the tag {tag} is protected"))
}

/// Takes a manifest from the repository, with the tags that mean it.
pub(crate) fn delete_manifest(
    batch: &mut Batch<'_>,
    repository: &RepositoryName,
    digest: &Digest,
    rules: &Collection,
) -> Result<(), Failure> {
    let find = || -> rusqlite::Result<_> {
        let Some(id) = repository_id(batch.connection, repository)? else { return Ok(None) };
        let manifest: Option<i64> = batch
            .connection
            .prepare_cached(
                "SELECT manifest FROM manifest_links
                 WHERE repository = ?1 AND manifest = (SELECT id FROM manifests WHERE digest = ?2)",
            )?
            .query_row(params![id, digest.to_string()], |row| row.get(0))
            .optional()?;
        Ok(manifest.map(|manifest| (id, manifest)))
    };
    let found = find().map_err(Error::database("look up a manifest"))?;
    let (id, manifest) = found.ok_or_else(|| Failure::new(Code::ManifestUnknown))?;
    let tags = tags_of(batch.connection, id, manifest).map_err(Error::database("look up a manifest's tags"))?;
    if let Some(tag) = tags.iter().find(|tag| rules.is_protected(repository.as_str(), tag)) {
        return Err(protected(tag));
    }
    remove_manifest(batch.connection, id, manifest, digest).map_err(Error::database("delete a manifest"))?;
    batch.changed(repository);
    Ok(())
}

fn tags_of(connection: &Connection, repository: i64, manifest: i64) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached("SELECT name FROM tags WHERE repository = ?1 AND manifest = ?2")?
        .query_map([repository, manifest], |row| row.get(0))?
        .collect()
}

/// Deletes a manifest's link, its tags, and its row when that was the last link. The grace period of what was there
/// for it begins: its blobs, what an index lists, what has it as its subject, tags that are about it by their names.
pub(super) fn remove_manifest(
    connection: &Connection,
    repository: i64,
    manifest: i64,
    digest: &Digest,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE blob_links SET needed_at = ?3 WHERE repository = ?1 AND blob IN (
                 SELECT id FROM blobs WHERE digest IN (SELECT digest FROM manifest_references WHERE manifest = ?2))",
        )?
        .execute([repository, manifest, now()])?;
    // Two statements, each by an index: one with OR would go through the whole repository.
    connection
        .prepare_cached(
            "UPDATE manifest_links SET released_at = ?3, orphaned = 1
             WHERE repository = ?1 AND subject = ?2
                 AND NOT EXISTS (
                     SELECT 1 FROM tags WHERE tags.repository = ?1 AND tags.manifest = manifest_links.manifest)",
        )?
        .execute(params![repository, digest.to_string(), now()])?;
    connection
        .prepare_cached(
            "UPDATE manifest_links SET released_at = ?3, orphaned = 1
             WHERE repository = ?1
                 AND manifest IN (
                     SELECT id FROM manifests WHERE digest IN (
                         SELECT digest FROM manifest_references WHERE manifest = ?2))
                 AND NOT EXISTS (
                     SELECT 1 FROM tags WHERE tags.repository = ?1 AND tags.manifest = manifest_links.manifest)",
        )?
        .execute([repository, manifest, now()])?;
    let about = digest.to_string().replace(':', "-");
    connection
        .prepare_cached(
            "UPDATE tags SET orphaned_at = ?3
             WHERE repository = ?1 AND name IN (?2, ?2 || '.sig', ?2 || '.att', ?2 || '.sbom')",
        )?
        .execute(params![repository, about, now()])?;
    // Its tags go by ON DELETE CASCADE.
    connection
        .prepare_cached("DELETE FROM manifest_links WHERE repository = ?1 AND manifest = ?2")?
        .execute([repository, manifest])?;
    connection
        .prepare_cached(
            "DELETE FROM manifests
             WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM manifest_links WHERE manifest = manifests.id)",
        )?
        .execute([manifest])?;
    Ok(())
}
