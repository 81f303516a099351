//! Rows of blobs and their links.

use kiln_store::Digest;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Batch, make_repository, now, repository_id};
use crate::error::Error;
use crate::failure::{Code, Failure};
use crate::name::RepositoryName;

/// The size in bytes of a blob that the repository links.
pub(crate) fn blob_size(
    connection: &Connection,
    repository: &RepositoryName,
    digest: &Digest,
) -> rusqlite::Result<Option<u64>> {
    connection
        .prepare_cached(
            "SELECT size FROM blobs JOIN blob_links ON blob = blobs.id JOIN repositories ON repository = repositories.id
             WHERE digest = ?1 AND name = ?2",
        )?
        .query_row(params![digest.to_string(), repository.as_str()], |row| row.get(0))
        .optional()
}

/// Records a blob whose file is in place, and links it into the repository.
pub(crate) fn link_blob(
    batch: &mut Batch<'_>,
    repository: &RepositoryName,
    digest: &Digest,
    size: u64,
) -> rusqlite::Result<()> {
    let blob: i64 = batch
        .connection
        .prepare_cached(
            "INSERT INTO blobs (digest, size) VALUES (?1, ?2)
             ON CONFLICT (digest) DO UPDATE SET size = excluded.size RETURNING id",
        )?
        .query_row(params![digest.to_string(), size], |row| row.get(0))?;
    link(batch, repository, blob)
}

/// Links a blob that `from` (or, without it, any repository) links already. `false` when there is none.
pub(crate) fn mount_blob(
    batch: &mut Batch<'_>,
    repository: &RepositoryName,
    digest: &Digest,
    from: Option<&RepositoryName>,
) -> Result<bool, Failure> {
    let blob: Option<i64> = batch
        .connection
        .prepare_cached(
            "SELECT blobs.id FROM blobs JOIN blob_links ON blob = blobs.id
             JOIN repositories ON repository = repositories.id
             WHERE digest = ?1 AND (?2 IS NULL OR name = ?2) LIMIT 1",
        )
        .and_then(|mut statement| {
            let from = from.map(RepositoryName::as_str);
            statement.query_row(params![digest.to_string(), from], |row| row.get(0)).optional()
        })
        .map_err(Error::database("find a blob to mount"))?;
    let Some(blob) = blob else { return Ok(false) };
    link(batch, repository, blob).map_err(Error::database("mount a blob"))?;
    Ok(true)
}

fn link(batch: &mut Batch<'_>, repository: &RepositoryName, blob: i64) -> rusqlite::Result<()> {
    let id = make_repository(batch.connection, repository)?;
    batch
        .connection
        .prepare_cached(
            "INSERT INTO blob_links (repository, blob, linked_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        )?
        .execute(params![id, blob, now()])?;
    batch.changed(repository);
    Ok(())
}

/// Takes a blob from the repository, and from the disk when it was the last to link it.
pub(crate) fn delete_blob(batch: &mut Batch<'_>, repository: &RepositoryName, digest: &Digest) -> Result<(), Failure> {
    let deleted = delete(batch, repository, digest).map_err(Error::database("delete a blob"))?;
    if deleted { Ok(()) } else { Err(Failure::new(Code::BlobUnknown)) }
}

fn delete(batch: &mut Batch<'_>, repository: &RepositoryName, digest: &Digest) -> rusqlite::Result<bool> {
    let Some(id) = repository_id(batch.connection, repository)? else { return Ok(false) };
    let text = digest.to_string();
    let links = batch
        .connection
        .prepare_cached(
            "DELETE FROM blob_links WHERE repository = ?1 AND blob = (SELECT id FROM blobs WHERE digest = ?2)",
        )?
        .execute(params![id, text])?;
    if links == 0 {
        return Ok(false);
    }
    let blobs = batch
        .connection
        .prepare_cached(
            "DELETE FROM blobs WHERE digest = ?1 AND NOT EXISTS (SELECT 1 FROM blob_links WHERE blob = blobs.id)",
        )?
        .execute([text])?;
    if blobs > 0 {
        batch.unlink(*digest);
    }
    batch.changed(repository);
    Ok(true)
}
