//! `registry.db`: which repository holds which tags, manifests and blobs, and who is still to be told of what. One connection writes, in batches; a few
//! others read.

mod blobs;
mod damage;
pub(crate) mod garbage;
mod listing;
mod manifests;
mod notifications;
mod overview;
mod reserve;
mod schema;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension};

use crate::blocking::blocking;
use crate::cache::Cache;
use crate::error::Error;
use crate::name::RepositoryName;

pub(crate) use blobs::{blob, delete_blob, link_blob, mount_blob, need_blob, need_blobs_since};
pub(crate) use damage::{blobs_after, damaged_blobs, manifests_after, mark_damaged, quick_check};
pub(crate) use listing::{Page, list_referrers, list_repositories, list_tags};
pub(crate) use manifests::{Push, delete_manifest, delete_tag, manifest, need_manifest, note_pull, put, put_manifest};
pub(crate) use notifications::{keep_receivers, next_notification, queue_notification, remove_notification};
pub(crate) use overview::{RepositoryRow, TagRow, contents, pushed_at, search, tags, untagged};
use reserve::Reserve;
pub(crate) use writer::Batch;
use writer::Writer;

/// Reading connections that are kept open.
const IDLE_READERS: usize = 8;

/// The open database.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
    writer: Writer,
}

impl Database {
    /// Opens it, or creates it; `blobs` is where the writer unlinks what no repository links any more.
    pub(crate) fn open(path: &Path, blobs: kiln_store::Blobs, cache: Arc<Cache>) -> Result<Self, Error> {
        let mut reserve = Reserve::open(&path.with_extension("reserve"));
        let connection = match schema::open(path) {
            // A full disk has no room for what SQLite makes beside the database either.
            Err(Error::Database { .. }) if reserve.give_up() => schema::open(path)?,
            opened => opened?,
        };
        reserve.take();
        Ok(Self {
            path: path.to_path_buf(),
            readers: Mutex::new(Vec::new()),
            writer: Writer::start(connection, blobs, cache, reserve),
        })
    }

    /// Runs queries on a blocking thread.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let database = Arc::clone(self);
        let work = move || {
            let idle = database.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = idle.map_or_else(|| schema::open_reader(&database.path), Ok)?;
            let answer = query(&connection).map_err(Error::database("look something up"))?;
            let mut readers = database.readers.lock().unwrap_or_else(PoisonError::into_inner);
            if readers.len() < IDLE_READERS {
                readers.push(connection);
            }
            Ok(answer)
        };
        blocking(work).await
    }

    /// Runs a change on the writing thread; when this returns `Ok`, it is on disk. The change of a job that fails is
    /// taken back.
    pub(crate) async fn write<T, E>(
        &self,
        change: impl FnOnce(&mut Batch<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.writer.run(change).await
    }

    /// The same for what removes something, or may not fail for want of room: on a full disk it is made a second time,
    /// in room that is kept for it.
    pub(crate) async fn write_even_when_full<T, E>(
        &self,
        change: impl Fn(&mut Batch<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.writer.run_with_reserve(change).await
    }

    /// A change on the writing thread that nothing but the database can prevent, not even a full disk.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        action: &'static str,
        change: impl Fn(&mut Batch<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.write_even_when_full(move |batch| change(batch).map_err(Error::database(action))).await
    }
}

/// A repository's row.
fn repository_id(connection: &Connection, name: &RepositoryName) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT id FROM repositories WHERE name = ?1")?
        .query_row([name.as_str()], |row| row.get(0))
        .optional()
}

/// A repository's row, made when it is missing.
fn make_repository(connection: &Connection, name: &RepositoryName) -> rusqlite::Result<i64> {
    if let Some(id) = repository_id(connection, name)? {
        return Ok(id);
    }
    connection
        .prepare_cached("INSERT INTO repositories (name) VALUES (?1) RETURNING id")?
        .query_row([name.as_str()], |row| row.get(0))
}

/// In SQL, whether a manifest of a repository, given by its id, names the digest of the row of `blobs` at hand. Few name
/// most blobs, and each of them is looked for in the repository; what very many name (the layers of a base image, which
/// all repositories have) is looked for among the repository's manifests, of which one soon names it.
macro_rules! is_named_in {
    ($repository:literal) => {
        concat!(
            "CASE WHEN (SELECT count(*) FROM (
                 SELECT 1 FROM manifest_references WHERE digest = blobs.digest LIMIT 256)) < 256
             THEN EXISTS (
                 SELECT 1 FROM manifest_references AS named
                 CROSS JOIN manifest_links AS link ON link.manifest = named.manifest AND link.repository = ",
            $repository,
            " WHERE named.digest = blobs.digest)
             ELSE EXISTS (
                 SELECT 1 FROM manifest_links AS link
                 CROSS JOIN manifest_references AS named
                     ON named.manifest = link.manifest AND named.digest = blobs.digest
                 WHERE link.repository = ",
            $repository,
            ") END"
        )
    };
}
use is_named_in;

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// What is asked for one thing must not go through all there is.
#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use kiln_store::Digest;
    use serde_json::json;

    use super::garbage::{Cutoffs, Ids, dead_links, dead_manifests};
    use super::manifests::{remove_manifest, remove_tag};
    use super::*;
    use crate::manifest::{Manifest, OCI_INDEX};
    use crate::name::{Reference, Tag};

    const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

    fn name() -> RepositoryName {
        "many".parse().unwrap()
    }

    fn descriptor(digest: Digest) -> serde_json::Value {
        json!({"mediaType": "a/b", "digest": digest.to_string(), "size": 1})
    }

    fn push(connection: &Connection, manifest: &serde_json::Value, tag: &str) -> Digest {
        let bytes = manifest.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        let manifest = Manifest::parse(&bytes, manifest["mediaType"].as_str()).unwrap();
        let tags = &[Tag::parse(tag).unwrap()];
        put(connection, &name(), &Push { digest: &digest, manifest: &manifest, bytes: &bytes, tags }, now() - 1_000)
            .unwrap();
        digest
    }

    /// Images, each in an index and with a signature. The first index.
    fn fill(connection: &Connection, count: usize) -> Digest {
        connection.execute_batch("BEGIN").unwrap();
        let mut indexes = Vec::new();
        for number in 0..count {
            let image = json!({"schemaVersion": 2, "mediaType": IMAGE, "layers": [],
                "config": descriptor(Digest::of(b"config")), "annotations": {"number": number.to_string()}});
            let image = push(connection, &image, &format!("image-{number}"));
            let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(image)]});
            indexes.push(push(connection, &index, &format!("index-{number}")));
            let signature = json!({"schemaVersion": 2, "mediaType": IMAGE, "layers": [],
                "config": descriptor(Digest::of(b"config")), "subject": descriptor(image)});
            push(connection, &signature, &format!("signature-{number}"));
        }
        connection.execute_batch("COMMIT").unwrap();
        indexes[0]
    }

    /// A database that counts SQLite's steps.
    struct Counted {
        connection: Connection,
        steps: Arc<AtomicU64>,
        _directory: tempfile::TempDir,
    }

    impl Counted {
        fn open() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let mut connection = schema::open(&directory.path().join("registry.db")).unwrap();
            let steps = Arc::new(AtomicU64::new(0));
            let counted = Arc::clone(&steps);
            let count = move || {
                counted.fetch_add(1, Ordering::Relaxed);
                false
            };
            connection.progress_handler(1, Some(count)).unwrap();
            Self { connection, steps, _directory: directory }
        }

        fn steps_of(&self, work: &dyn Fn()) -> u64 {
            self.steps.store(0, Ordering::Relaxed);
            work();
            self.steps.load(Ordering::Relaxed)
        }
    }

    /// What each question and change takes, in SQLite's steps, among so many images.
    fn steps_among(count: usize) -> Vec<(&'static str, u64)> {
        let counted = Counted::open();
        let connection = &counted.connection;
        let first = fill(connection, count);
        let mut taken = Vec::new();
        let mut measure = |what: &'static str, work: &dyn Fn()| taken.push((what, counted.steps_of(work)));
        let find = |reference: Reference| assert!(manifest(connection, &name(), &reference).unwrap().is_some());
        measure("a manifest by its tag", &|| find(Reference::Tag(Tag::parse("index-0").unwrap())));
        measure("a manifest by its digest", &|| find(Reference::Digest(first)));
        measure("tags", &|| drop(list_tags(connection, &name(), "image-1", 1).unwrap()));
        measure("referrers", &|| {
            let referrers = list_referrers(connection, &name(), &first, None, "").unwrap();
            assert!(referrers.items.is_empty());
        });
        let id = repository_id(connection, &name()).unwrap().unwrap();
        measure("deleting a tag", &|| assert!(remove_tag(connection, id, "index-0").unwrap()));
        connection.execute("UPDATE manifest_links SET released_at = ?1 WHERE orphaned", [now() - 100]).unwrap();
        let cutoffs = Cutoffs { grace: now() - 10, blobs: now() - 10, untagged: None };
        let dead = dead_manifests(connection, &name(), cutoffs, Ids::ALL, 200).unwrap();
        let [dead] = &dead[..] else { panic!("{dead:?}") };
        let ids = Ids { after: dead.id - 1, last: dead.id };
        measure("finding it dead", &|| {
            let again = dead_manifests(connection, &name(), cutoffs, ids, 200).unwrap();
            assert_eq!(again.len(), 1);
        });
        measure("deleting a manifest", &|| remove_manifest(connection, id, dead.id, &dead.digest).unwrap());
        taken
    }

    #[test]
    fn one_question_takes_no_more_steps_the_more_there_is() {
        let many = steps_among(1_000);
        for ((what, few), (_, many)) in steps_among(10).into_iter().zip(many) {
            assert!(few > 0 && many < 2 * few, "{what} takes {few} steps among a few, {many} among many");
        }
    }

    /// The steps for a blob of which so many manifests elsewhere have, and those to find that nothing else needs it.
    fn steps_for_a_base(count: usize) -> [u64; 2] {
        let counted = Counted::open();
        let connection = &counted.connection;
        fill(connection, count);
        let own: RepositoryName = "own".parse().unwrap();
        connection
            .execute_batch(&format!(
                "INSERT INTO repositories (name) VALUES ('own');
                 INSERT INTO blobs (digest, size) VALUES ('{}', 6);
                 INSERT INTO blob_links (repository, blob, needed_at)
                     SELECT repositories.id, blobs.id, 0 FROM repositories, blobs WHERE name = 'own'",
                Digest::of(b"config"),
            ))
            .unwrap();
        let cutoffs = Cutoffs { grace: 10, blobs: 10, untagged: None };
        let looking = counted.steps_of(&|| {
            assert!(blob(connection, &own, &Digest::of(b"config")).unwrap().unwrap().idle_since.is_some());
        });
        let collecting = counted.steps_of(&|| {
            assert_eq!(dead_links(connection, &own, cutoffs, Ids::ALL, 10).unwrap().len(), 1);
        });
        [looking, collecting]
    }

    #[test]
    fn a_base_that_all_have_is_as_soon_found_unneeded_here_the_more_have_it() {
        let (few, many) = (steps_for_a_base(300), steps_for_a_base(1_500));
        for (few, many) in few.into_iter().zip(many) {
            assert!(few > 0 && many < few * 3 / 2, "{few} steps among a few, {many} among many");
        }
    }
}
