//! Tables, and how connections are opened.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Transaction, params};

use crate::error::Error;
use crate::manifest;

/// `PRAGMA user_version` of these tables.
const VERSION: i64 = 5;

const TABLES: &str = "
CREATE TABLE repositories (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- Files under blobs/. A row is made with its first link and goes with its last.
CREATE TABLE blobs (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    -- When its file was found not to be what it should: it is put aside, and served again when it is pushed again.
    damaged_at INTEGER
) STRICT;

-- A repository serves a blob when it links it.
CREATE TABLE blob_links (
    repository INTEGER NOT NULL REFERENCES repositories,
    blob INTEGER NOT NULL REFERENCES blobs,
    -- When it was last of use besides being referred to: pushed, mounted, asked for by a push, let go by a manifest.
    needed_at INTEGER NOT NULL,
    PRIMARY KEY (repository, blob)
) STRICT, WITHOUT ROWID;
CREATE INDEX blob_links_by_blob ON blob_links (blob);

CREATE TABLE manifests (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    bytes BLOB NOT NULL
) STRICT;

-- Digests that a manifest names, of blobs and manifests alike; but not its subject, which it does not keep.
CREATE TABLE manifest_references (
    manifest INTEGER NOT NULL REFERENCES manifests ON DELETE CASCADE,
    digest TEXT NOT NULL,
    PRIMARY KEY (manifest, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX manifest_references_by_digest ON manifest_references (digest);

CREATE TABLE manifest_links (
    repository INTEGER NOT NULL REFERENCES repositories,
    manifest INTEGER NOT NULL REFERENCES manifests,
    media_type TEXT NOT NULL,
    artifact_type TEXT,
    subject TEXT,
    pushed_at INTEGER NOT NULL,
    -- When it lost its last tag, or what it belonged to, or was last asked for since; else it counts from pushed_at.
    released_at INTEGER,
    -- Its last tag, or what it belonged to, was deleted.
    orphaned INTEGER NOT NULL DEFAULT 0,
    -- When somebody last asked for it, to the minute.
    pulled_at INTEGER,
    PRIMARY KEY (repository, manifest)
) STRICT, WITHOUT ROWID;
CREATE INDEX manifest_links_by_manifest ON manifest_links (manifest);
CREATE INDEX manifest_links_by_subject ON manifest_links (repository, subject) WHERE subject IS NOT NULL;

CREATE TABLE tags (
    repository INTEGER NOT NULL,
    name TEXT NOT NULL,
    manifest INTEGER NOT NULL,
    pushed_at INTEGER NOT NULL,
    -- When the manifest was deleted that this tag, by the referrers tag scheme, is about.
    orphaned_at INTEGER,
    PRIMARY KEY (repository, name),
    FOREIGN KEY (repository, manifest) REFERENCES manifest_links ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX tags_by_manifest ON tags (repository, manifest);
";

/// The rest of the tables, which version 3 brought.
const NOTIFICATIONS: &str = "
-- What somebody who asked to be told was not told yet, oldest first.
CREATE TABLE notifications (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    receiver TEXT NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX notifications_by_receiver ON notifications (receiver);
";

/// From version 1, which did not know what manifests refer to.
const TO_VERSION_2: &str = "
ALTER TABLE blobs ADD COLUMN damaged_at INTEGER;
ALTER TABLE blob_links RENAME COLUMN linked_at TO needed_at;
ALTER TABLE manifest_links ADD COLUMN released_at INTEGER;
ALTER TABLE manifest_links ADD COLUMN orphaned INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tags ADD COLUMN orphaned_at INTEGER;
CREATE TABLE manifest_references (
    manifest INTEGER NOT NULL REFERENCES manifests ON DELETE CASCADE,
    digest TEXT NOT NULL,
    PRIMARY KEY (manifest, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX manifest_references_by_digest ON manifest_references (digest);
";

/// Before version 4 nobody knew what is pulled.
const TO_VERSION_4: &str = "
ALTER TABLE manifest_links ADD COLUMN pulled_at INTEGER;
-- Who knows; nothing is to go for want of a note.
UPDATE manifest_links SET pulled_at = unixepoch();
";

/// How many rows there may be, and of these with the same first columns of an index: what SQLite takes for granted
/// when it chooses how to answer. Without it, it would take a repository for a handful of rows and go through it.
const STATISTICS: &str = "
ANALYZE sqlite_schema;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('repositories', 'sqlite_autoindex_repositories_1', '1000 1'),
    ('blobs', 'sqlite_autoindex_blobs_1', '1000000 1'),
    ('blob_links', 'blob_links', '1000000 1000 1'),
    ('blob_links', 'blob_links_by_blob', '1000000 1'),
    ('manifests', 'sqlite_autoindex_manifests_1', '1000000 1'),
    ('manifest_references', 'manifest_references', '10000000 10 1'),
    ('manifest_references', 'manifest_references_by_digest', '10000000 10'),
    ('manifest_links', 'manifest_links', '1000000 1000 1'),
    ('manifest_links', 'manifest_links_by_manifest', '1000000 1'),
    ('manifest_links', 'manifest_links_by_subject', '1000000 1000 1'),
    ('tags', 'tags', '1000000 1000 1'),
    ('tags', 'tags_by_manifest', '1000000 1000 1');
ANALYZE sqlite_schema;
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
    // Only a new database takes this: pages that were emptied go back to the disk, some at a time.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // An acknowledged write survives a power loss.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // The log is cut back after a checkpoint, so that one burst does not keep its disk space.
    connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
    connection.set_prepared_statement_cache_capacity(64);
    let transaction = connection.transaction()?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match found {
        0 => transaction.execute_batch(TABLES)?,
        1 => {
            transaction.execute_batch(TO_VERSION_2)?;
            fill_references(&transaction)?;
        }
        2..VERSION => {}
        _ => return transaction.commit(),
    }
    if found < 3 {
        transaction.execute_batch(NOTIFICATIONS)?;
    }
    if (1..4).contains(&found) {
        transaction.execute_batch(TO_VERSION_4)?;
    }
    transaction.execute_batch(STATISTICS)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// Reads every manifest for what it refers to.
fn fill_references(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut manifests = transaction.prepare("SELECT id, bytes FROM manifests")?;
    let mut insert = transaction.prepare("INSERT INTO manifest_references (manifest, digest) VALUES (?1, ?2)")?;
    let mut rows = manifests.query([])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        for digest in manifest::references(row.get_ref(1)?.as_blob()?) {
            insert.execute(params![id, digest.to_string()])?;
        }
    }
    Ok(())
}

/// Opens a connection that only reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, Error> {
    let connection = Connection::open(path).map_err(Error::database("open"))?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(Error::database("open"))?;
    connection.pragma_update(None, "query_only", true).map_err(Error::database("open"))?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_store::Digest;
    use serde_json::json;

    /// The tables as version 1 made them.
    const VERSION_1: &str = "
        CREATE TABLE repositories (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
        CREATE TABLE blobs (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, size INTEGER NOT NULL) STRICT;
        CREATE TABLE blob_links (repository INTEGER NOT NULL REFERENCES repositories,
            blob INTEGER NOT NULL REFERENCES blobs, linked_at INTEGER NOT NULL,
            PRIMARY KEY (repository, blob)) STRICT, WITHOUT ROWID;
        CREATE INDEX blob_links_by_blob ON blob_links (blob);
        CREATE TABLE manifests (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, bytes BLOB NOT NULL) STRICT;
        CREATE TABLE manifest_links (repository INTEGER NOT NULL REFERENCES repositories,
            manifest INTEGER NOT NULL REFERENCES manifests, media_type TEXT NOT NULL, artifact_type TEXT, subject TEXT,
            pushed_at INTEGER NOT NULL, PRIMARY KEY (repository, manifest)) STRICT, WITHOUT ROWID;
        CREATE INDEX manifest_links_by_manifest ON manifest_links (manifest);
        CREATE INDEX manifest_links_by_subject ON manifest_links (repository, subject) WHERE subject IS NOT NULL;
        CREATE TABLE tags (repository INTEGER NOT NULL, name TEXT NOT NULL, manifest INTEGER NOT NULL,
            pushed_at INTEGER NOT NULL, PRIMARY KEY (repository, name),
            FOREIGN KEY (repository, manifest) REFERENCES manifest_links ON DELETE CASCADE) STRICT, WITHOUT ROWID;
        CREATE INDEX tags_by_manifest ON tags (repository, manifest);
        PRAGMA user_version = 1;";

    fn columns(connection: &Connection) -> Vec<String> {
        let sql = "SELECT m.name || '.' || c.name || ' ' || c.type FROM sqlite_master m, pragma_table_info(m.name) c
                   WHERE m.type = 'table' ORDER BY 1";
        let mut statement = connection.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_database_of_version_1_gets_the_same_tables_and_learns_what_manifests_refer_to() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (directory.path().join("old.db"), directory.path().join("new.db"));
        let (config, layer) = (Digest::of(b"config"), Digest::of(b"layer"));
        let descriptor = |digest: Digest| json!({"mediaType": "a/b", "digest": digest.to_string(), "size": 1});
        let image = json!({"schemaVersion": 2, "config": descriptor(config), "layers": [descriptor(layer)],
            "subject": descriptor(Digest::of(b"subject"))});
        let before = Connection::open(&old).unwrap();
        before.execute_batch(VERSION_1).unwrap();
        let bytes = image.to_string().into_bytes();
        before.execute("INSERT INTO manifests (digest, bytes) VALUES ('x', ?1)", [bytes]).unwrap();
        drop(before);

        let upgraded = open(&old).unwrap();
        assert_eq!(columns(&upgraded), columns(&open(&new).unwrap()));
        let mut statement = upgraded.prepare("SELECT digest FROM manifest_references ORDER BY digest").unwrap();
        let found: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
        let mut expected = [config.to_string(), layer.to_string()];
        expected.sort();
        assert_eq!(found, expected);
        open(&old).unwrap();
    }
}
