//! `places.db`: which repository of which registry has a blob, so that it can be mounted elsewhere instead of sent. A
//! hint and nothing more: what it says may be outdated, and the file may be lost.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::metadata::{now, use_wal};
use crate::{Digest, Error, Result, store};

const FILE: &str = "places.db";
/// Places that are remembered, at most.
const LIMIT: u32 = 50_000;
/// Seconds after which a place is remembered anew when it is seen again.
const RESOLUTION: i64 = 24 * 3600;
const TABLE: &str = "
CREATE TABLE IF NOT EXISTS places (
    registry TEXT NOT NULL,
    digest TEXT NOT NULL,
    repository TEXT NOT NULL,
    seen INTEGER NOT NULL,
    PRIMARY KEY (registry, digest, repository)
) WITHOUT ROWID;
";

/// Where blobs were seen.
#[derive(Debug)]
pub struct BlobPlaces(Mutex<Connection>);

impl BlobPlaces {
    /// Opens the memory of a store's root, which is made when it is missing. One that is damaged begins anew.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn open(root: &Path) -> Result<Self> {
        store::make_private(root)?;
        let path = root.join(FILE);
        match connect(&path) {
            Err(error) if is_damage(&error) => {
                // Whoever has it open goes on with the file that no name leads to.
                for end in ["", "-wal", "-shm"] {
                    // What is not there need not go; what cannot go shows when it is opened again.
                    let _ = std::fs::remove_file(root.join(format!("{FILE}{end}")));
                }
                connect(&path)
            }
            connected => connected,
        }
        .map(|connection| Self(Mutex::new(connection)))
        .map_err(Error::database("open the places of blobs"))
    }

    /// The repositories of a registry (host and port) that were seen to have a blob, the last one first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn repositories(&self, registry: &str, digest: &Digest, limit: u32) -> Result<Vec<String>> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let select = || {
            connection
                .prepare_cached(
                    "SELECT repository FROM places WHERE registry = ?1 AND digest = ?2
                     ORDER BY seen DESC, repository LIMIT ?3",
                )?
                .query_map(params![registry, digest.to_string(), limit], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()
        };
        select().map_err(Error::database("look up where a blob is"))
    }

    /// Remembers that a repository has these blobs. Writes nothing that is known already.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn note(&self, registry: &str, repository: &str, digests: &[Digest]) -> Result<()> {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now();
        let mut write = || {
            let mut new = Vec::new();
            for digest in digests {
                let seen: Option<i64> = connection
                    .prepare_cached("SELECT seen FROM places WHERE registry = ?1 AND digest = ?2 AND repository = ?3")?
                    .query_row(params![registry, digest.to_string(), repository], |row| row.get(0))
                    .optional()?;
                if seen.is_none_or(|seen| now.saturating_sub(seen) >= RESOLUTION || seen > now) {
                    new.push(digest);
                }
            }
            if new.is_empty() {
                return Ok(());
            }
            let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            for digest in new {
                transaction
                    .prepare_cached("INSERT OR REPLACE INTO places VALUES (?1, ?2, ?3, ?4)")?
                    .execute(params![registry, digest.to_string(), repository, now])?;
            }
            let count: u32 = transaction.query_row("SELECT count(*) FROM places", [], |row| row.get(0))?;
            if count > LIMIT {
                // A tenth more than need be, so that this is rare.
                transaction.execute(
                    "DELETE FROM places WHERE (registry, digest, repository) IN
                     (SELECT registry, digest, repository FROM places ORDER BY seen LIMIT ?1)",
                    [count - LIMIT + LIMIT / 10],
                )?;
            }
            transaction.commit()
        };
        write().map_err(Error::database("remember where blobs are"))
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(2))?;
    // Nothing waits for the disk: what a power loss tears begins anew.
    connection.pragma_update(None, "synchronous", "OFF")?;
    let made: Option<i64> =
        connection.query_row("SELECT 1 FROM sqlite_schema WHERE name = 'places'", [], |row| row.get(0)).optional()?;
    if made.is_none() {
        use_wal(&connection)?;
        connection.execute_batch(TABLE)?;
    }
    Ok(connection)
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_comes_first_and_damage_begins_anew() {
        let root = tempfile::tempdir().expect("a directory");
        let blob = Digest::of(b"x");
        let places = BlobPlaces::open(root.path()).expect("a file");
        places.note("r:1", "a/b", &[blob]).expect("noted");
        places.0.lock().unwrap().execute("UPDATE places SET seen = seen - 100000", []).expect("aged");
        places.note("r:1", "c", &[blob, Digest::of(b"y")]).expect("noted");
        places.note("other", "d", &[blob]).expect("noted");
        let other = BlobPlaces::open(root.path()).expect("the same file");
        assert_eq!(other.repositories("r:1", &blob, 9).expect("found"), ["c", "a/b"]);
        assert_eq!(other.repositories("r:1", &blob, 1).expect("found"), ["c"]);
        // Seen again, an old place is the last one.
        places.0.lock().unwrap().execute("UPDATE places SET seen = seen - 1 WHERE repository = 'c'", []).expect("aged");
        places.note("r:1", "a/b", &[blob]).expect("noted");
        assert_eq!(other.repositories("r:1", &blob, 9).expect("found"), ["a/b", "c"]);
        assert!(other.repositories("r:2", &blob, 9).expect("found").is_empty());
        drop((places, other));
        std::fs::write(root.path().join(FILE), "this is no database, but long enough to be read as one".repeat(99))
            .expect("damaged");
        let anew = BlobPlaces::open(root.path()).expect("a file");
        assert!(anew.repositories("r:1", &blob, 9).expect("found").is_empty());
        anew.note("r:1", "a", &[blob]).expect("noted");
    }

    #[test]
    fn it_stays_bounded() {
        let root = tempfile::tempdir().expect("a directory");
        let places = BlobPlaces::open(root.path()).expect("a file");
        let blobs = |from: u32| (from..from + 30_000).map(|n| Digest::of(&n.to_le_bytes())).collect::<Vec<_>>();
        for round in 0..3 {
            places.note("r", "a", &blobs(round * 30_000)).expect("noted");
        }
        let count: u32 =
            places.0.lock().unwrap().query_row("SELECT count(*) FROM places", [], |row| row.get(0)).expect("counted");
        assert!(count <= LIMIT, "{count}");
    }
}
