//! Rows of manifests, their links and tags.

use kiln_store::Digest;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::json;

use super::{Batch, blob_size, make_repository, now, repository_id};
use crate::cache::StoredManifest;
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
            "SELECT digest, media_type, bytes FROM repositories
             JOIN tags ON tags.repository = repositories.id AND tags.name = ?2
             JOIN manifest_links ON manifest_links.repository = repositories.id
                 AND manifest_links.manifest = tags.manifest
             JOIN manifests ON manifests.id = tags.manifest
             WHERE repositories.name = ?1"
        }
        Reference::Digest(_) => {
            "SELECT digest, media_type, bytes FROM repositories
             JOIN manifests ON digest = ?2
             JOIN manifest_links ON manifest_links.repository = repositories.id
                 AND manifest_links.manifest = manifests.id
             WHERE repositories.name = ?1"
        }
    })?;
    let found = statement
        .query_row(params![repository.as_str(), reference.to_string()], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?))
        })
        .optional()?;
    // A digest in a row was checked on its way in.
    Ok(found.and_then(|(digest, media_type, bytes)| {
        Some(StoredManifest { digest: digest.parse().ok()?, media_type: media_type.into(), bytes: bytes.into() })
    }))
}

/// Stores a manifest, with the tags that shall mean it. Unless `sparse`, every blob it needs must be in the repository.
pub(crate) fn put_manifest(
    batch: &mut Batch<'_>,
    repository: &RepositoryName,
    digest: &Digest,
    (manifest, bytes): (&Manifest, &[u8]),
    tags: &[Tag],
    sparse: bool,
) -> Result<(), Failure> {
    if !sparse {
        require_blobs(batch.connection, repository, &manifest.blobs)?;
    }
    put(batch, repository, digest, (manifest, bytes), tags).map_err(Error::database("store a manifest"))?;
    batch.changed(repository);
    Ok(())
}

fn require_blobs(connection: &Connection, repository: &RepositoryName, blobs: &[Digest]) -> Result<(), Failure> {
    let mut missing = Vec::new();
    for digest in blobs {
        if blob_size(connection, repository, digest).map_err(Error::database("look up a blob"))?.is_none() {
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

fn put(
    batch: &mut Batch<'_>,
    repository: &RepositoryName,
    digest: &Digest,
    (manifest, bytes): (&Manifest, &[u8]),
    tags: &[Tag],
) -> rusqlite::Result<()> {
    let connection = batch.connection;
    let repository = make_repository(connection, repository)?;
    let text = digest.to_string();
    let known: Option<i64> = connection
        .prepare_cached("SELECT id FROM manifests WHERE digest = ?1")?
        .query_row([&text], |row| row.get(0))
        .optional()?;
    let id = match known {
        Some(id) => id,
        None => connection
            .prepare_cached("INSERT INTO manifests (digest, bytes) VALUES (?1, ?2) RETURNING id")?
            .query_row(params![text, bytes], |row| row.get(0))?,
    };
    connection
        .prepare_cached(
            "INSERT INTO manifest_links (repository, manifest, media_type, artifact_type, subject, pushed_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO UPDATE SET media_type = excluded.media_type, pushed_at = excluded.pushed_at",
        )?
        .execute(params![
            repository,
            id,
            manifest.media_type,
            manifest.artifact_type,
            manifest.subject.map(|subject| subject.to_string()),
            now()
        ])?;
    for tag in tags {
        connection
            .prepare_cached(
                "INSERT INTO tags (repository, name, manifest, pushed_at) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET manifest = excluded.manifest, pushed_at = excluded.pushed_at",
            )?
            .execute(params![repository, tag.as_str(), id, now()])?;
    }
    Ok(())
}

/// Takes a tag from the repository; the manifest stays.
pub(crate) fn delete_tag(batch: &mut Batch<'_>, repository: &RepositoryName, tag: &Tag) -> Result<(), Failure> {
    let delete = || {
        batch
            .connection
            .prepare_cached(
                "DELETE FROM tags WHERE name = ?2 AND repository = (SELECT id FROM repositories WHERE name = ?1)",
            )?
            .execute([repository.as_str(), tag.as_str()])
    };
    if delete().map_err(Error::database("delete a tag"))? == 0 {
        return Err(Failure::new(Code::ManifestUnknown));
    }
    batch.changed(repository);
    Ok(())
}

/// Takes a manifest from the repository, with the tags that mean it.
pub(crate) fn delete_manifest(
    batch: &mut Batch<'_>,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<(), Failure> {
    if !delete(batch.connection, repository, digest).map_err(Error::database("delete a manifest"))? {
        return Err(Failure::new(Code::ManifestUnknown));
    }
    batch.changed(repository);
    Ok(())
}

fn delete(connection: &Connection, repository: &RepositoryName, digest: &Digest) -> rusqlite::Result<bool> {
    let Some(repository) = repository_id(connection, repository)? else { return Ok(false) };
    let text = digest.to_string();
    // Its tags go by ON DELETE CASCADE.
    let links = connection
        .prepare_cached(
            "DELETE FROM manifest_links
             WHERE repository = ?1 AND manifest = (SELECT id FROM manifests WHERE digest = ?2)",
        )?
        .execute(params![repository, text])?;
    if links == 0 {
        return Ok(false);
    }
    connection
        .prepare_cached(
            "DELETE FROM manifests
             WHERE digest = ?1 AND NOT EXISTS (SELECT 1 FROM manifest_links WHERE manifest = manifests.id)",
        )?
        .execute([text])?;
    Ok(true)
}
