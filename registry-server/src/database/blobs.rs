//! Rows of blobs and their links.

use kiln_store::Digest;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Batch, is_named_in, make_repository, now, repository_id};
use crate::cache::KnownBlob;
use crate::error::Error;
use crate::failure::{Code, Failure};
use crate::name::RepositoryName;

/// A blob that the repository links, if its file is not known to be damaged.
pub(crate) fn blob(
    connection: &Connection,
    repository: &RepositoryName,
    digest: &Digest,
) -> rusqlite::Result<Option<KnownBlob>> {
    connection
        .prepare_cached(concat!(
            "SELECT size, needed_at, ",
            is_named_in!("repositories.id"),
            " FROM blobs JOIN blob_links ON blob = blobs.id JOIN repositories ON repository = repositories.id
                 WHERE digest = ?1 AND name = ?2 AND damaged_at IS NULL",
        ))?
        .query_row(params![digest.to_string(), repository.as_str()], |row| {
            let referenced: bool = row.get(2)?;
            Ok(KnownBlob { size: row.get(0)?, idle_since: if referenced { None } else { Some(row.get(1)?) } })
        })
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
             ON CONFLICT (digest) DO UPDATE SET size = excluded.size, damaged_at = NULL RETURNING id",
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
             WHERE digest = ?1 AND (?2 IS NULL OR name = ?2) AND damaged_at IS NULL LIMIT 1",
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
            "INSERT INTO blob_links (repository, blob, needed_at) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET needed_at = excluded.needed_at",
        )?
        .execute(params![id, blob, now()])?;
    batch.changed(repository);
    Ok(())
}

/// A push counts on a blob that is here: it stays for another grace period. `false` when it has just gone.
pub(crate) fn need_blob(batch: &mut Batch<'_>, repository: &RepositoryName, digest: &Digest) -> Result<bool, Failure> {
    let need = || {
        batch
            .connection
            .prepare_cached(
                "UPDATE blob_links SET needed_at = ?3
                 WHERE repository = (SELECT id FROM repositories WHERE name = ?1)
                     AND blob = (SELECT id FROM blobs WHERE digest = ?2 AND damaged_at IS NULL)",
            )?
            .execute(params![repository.as_str(), digest.to_string(), now()])
    };
    let found = need().map_err(Error::database("keep a blob"))?;
    batch.changed(repository);
    Ok(found > 0)
}

/// An upload that began at `since` (seconds since 1970) is over: what was pushed into the repository beside it may
/// still wait for the manifest, and stays for another grace period.
pub(crate) fn need_blobs_since(batch: &mut Batch<'_>, repository: &RepositoryName, since: i64) -> rusqlite::Result<()> {
    let Some(id) = repository_id(batch.connection, repository)? else { return Ok(()) };
    batch
        .connection
        .prepare_cached("UPDATE blob_links SET needed_at = ?3 WHERE repository = ?1 AND needed_at >= ?2")?
        .execute(params![id, since, now()])?;
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
    let links = batch
        .connection
        .prepare_cached(
            "DELETE FROM blob_links WHERE repository = ?1 AND blob = (SELECT id FROM blobs WHERE digest = ?2)",
        )?
        .execute(params![id, digest.to_string()])?;
    if links == 0 {
        return Ok(false);
    }
    drop_unlinked(batch, digest)?;
    batch.changed(repository);
    Ok(true)
}

/// A blob that no repository links any more goes, its file too. Returns whether it did.
pub(super) fn drop_unlinked(batch: &mut Batch<'_>, digest: &Digest) -> rusqlite::Result<bool> {
    let blobs = batch
        .connection
        .prepare_cached(
            "DELETE FROM blobs WHERE digest = ?1 AND NOT EXISTS (SELECT 1 FROM blob_links WHERE blob = blobs.id)",
        )?
        .execute([digest.to_string()])?;
    if blobs > 0 {
        batch.unlink(*digest);
    }
    Ok(blobs > 0)
}
