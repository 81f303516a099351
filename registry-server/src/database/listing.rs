//! Lists: repositories, tags, referrers. All in the order of their bytes, a page at a time.

use kiln_store::Digest;
use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::repository_id;
use crate::manifest::annotations;
use crate::name::RepositoryName;

/// Bytes of manifests that one page of referrers reads at most: their annotations are in its answer.
const LARGEST_REFERRERS: usize = 4 << 20;
/// Referrers in one page at most.
const MOST_REFERRERS: usize = 1_000;

/// A part of a list.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Whether the list goes on after them.
    pub(crate) more: bool,
}

impl<T> Page<T> {
    /// `items` has one more than were asked for when the list goes on.
    fn of(mut items: Vec<T>, asked: usize) -> Self {
        let more = items.len() > asked;
        items.truncate(asked);
        Self { items, more: more && asked > 0 }
    }
}

/// Tags after `last`, at most `count`; `None` when there is no such repository.
pub(crate) fn list_tags(
    connection: &Connection,
    repository: &RepositoryName,
    last: &str,
    count: usize,
) -> rusqlite::Result<Option<Page<String>>> {
    let Some(repository) = repository_id(connection, repository)? else { return Ok(None) };
    let tags = connection
        .prepare_cached("SELECT name FROM tags WHERE repository = ?1 AND name > ?2 ORDER BY name LIMIT ?3")?
        .query_map(params![repository, last, count + 1], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some(Page::of(tags, count)))
}

/// Repositories that hold a manifest and are `visible`, after `last`, at most `count`.
pub(crate) fn list_repositories(
    connection: &Connection,
    last: &str,
    count: usize,
    visible: impl Fn(&str) -> bool,
) -> rusqlite::Result<Page<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT name FROM repositories
         WHERE name > ?1 AND EXISTS (SELECT 1 FROM manifest_links WHERE repository = repositories.id)
         ORDER BY name",
    )?;
    let mut rows = statement.query(params![last])?;
    let mut names = Vec::new();
    while names.len() <= count
        && let Some(row) = rows.next()?
    {
        let name = row.get_ref(0)?.as_str()?;
        if visible(name) {
            names.push(name.to_owned());
        }
    }
    Ok(Page::of(names, count))
}

/// Descriptors of the manifests whose subject this is, after the digest `last`.
pub(crate) fn list_referrers(
    connection: &Connection,
    repository: &RepositoryName,
    subject: &Digest,
    artifact_type: Option<&str>,
    last: &str,
) -> rusqlite::Result<Page<Value>> {
    let mut page = Page { items: Vec::new(), more: false };
    let Some(repository) = repository_id(connection, repository)? else { return Ok(page) };
    let mut statement = connection.prepare_cached(
        "SELECT digest, media_type, artifact_type, bytes FROM manifest_links JOIN manifests ON manifest = manifests.id
         WHERE repository = ?1 AND subject = ?2 AND (?3 IS NULL OR artifact_type = ?3) AND digest > ?4
         ORDER BY digest",
    )?;
    let mut rows = statement.query(params![repository, subject.to_string(), artifact_type, last])?;
    let mut read = 0;
    while let Some(row) = rows.next()? {
        let bytes = row.get_ref(3)?.as_blob()?;
        read += bytes.len();
        if !page.items.is_empty() && (read > LARGEST_REFERRERS || page.items.len() == MOST_REFERRERS) {
            page.more = true;
            break;
        }
        let mut descriptor = json!({
            "mediaType": row.get::<_, String>(1)?,
            "digest": row.get::<_, String>(0)?,
            "size": bytes.len(),
        });
        if let Some(artifact_type) = row.get::<_, Option<String>>(2)? {
            descriptor["artifactType"] = artifact_type.into();
        }
        if let Some(annotations) = annotations(bytes) {
            descriptor["annotations"] = annotations.into();
        }
        page.items.push(descriptor);
    }
    Ok(page)
}
