//! Tables, and how connections are opened.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use crate::error::Error;

/// `PRAGMA user_version` of these tables.
const VERSION: i64 = 1;

const TABLES: &str = "
CREATE TABLE repositories (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- Files under blobs/. A row is made with its first link and goes with its last.
CREATE TABLE blobs (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL
) STRICT;

-- A repository serves a blob when it links it.
CREATE TABLE blob_links (
    repository INTEGER NOT NULL REFERENCES repositories,
    blob INTEGER NOT NULL REFERENCES blobs,
    linked_at INTEGER NOT NULL,
    PRIMARY KEY (repository, blob)
) STRICT, WITHOUT ROWID;
CREATE INDEX blob_links_by_blob ON blob_links (blob);

CREATE TABLE manifests (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    bytes BLOB NOT NULL
) STRICT;

CREATE TABLE manifest_links (
    repository INTEGER NOT NULL REFERENCES repositories,
    manifest INTEGER NOT NULL REFERENCES manifests,
    media_type TEXT NOT NULL,
    artifact_type TEXT,
    subject TEXT,
    pushed_at INTEGER NOT NULL,
    PRIMARY KEY (repository, manifest)
) STRICT, WITHOUT ROWID;
CREATE INDEX manifest_links_by_manifest ON manifest_links (manifest);
CREATE INDEX manifest_links_by_subject ON manifest_links (repository, subject) WHERE subject IS NOT NULL;

CREATE TABLE tags (
    repository INTEGER NOT NULL,
    name TEXT NOT NULL,
    manifest INTEGER NOT NULL,
    pushed_at INTEGER NOT NULL,
    PRIMARY KEY (repository, name),
    FOREIGN KEY (repository, manifest) REFERENCES manifest_links ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX tags_by_manifest ON tags (repository, manifest);
";

/// Opens the writing connection, with the tables made.
pub(super) fn open(path: &Path) -> Result<Connection, Error> {
    let mut connection = Connection::open(path).map_err(Error::database("open"))?;
    prepare(&mut connection).map_err(Error::database("prepare the tables"))?;
    let found = connection
        .pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
        .map_err(Error::database("read the version"))?;
    if found > VERSION {
        return Err(Error::NewerDatabase { found, known: VERSION });
    }
    Ok(connection)
}

fn prepare(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // An acknowledged write survives a power loss.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // The log is cut back after a checkpoint, so that one burst does not keep its disk space.
    connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
    connection.set_prepared_statement_cache_capacity(64);
    let transaction = connection.transaction()?;
    if transaction.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))? == 0 {
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()
}

/// Opens a connection that only reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, Error> {
    let connection = Connection::open(path).map_err(Error::database("open"))?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(Error::database("open"))?;
    connection.pragma_update(None, "query_only", true).map_err(Error::database("open"))?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}
