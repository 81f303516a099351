//! The tables, and their version in `user_version`.

use rusqlite::{Connection, TransactionBehavior};

use crate::{Error, Result};

/// What leads from each version to the next. Those that stores were made with are never edited.
const CHANGES: [&str; VERSION as usize] = [TABLES, USAGE];
/// The version that this program works with.
const VERSION: i64 = 2;

const TABLES: &str = "
CREATE TABLE images (
    id TEXT PRIMARY KEY,
    manifest TEXT,
    layers TEXT NOT NULL,
    added INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX images_manifest ON images (manifest);
CREATE TABLE image_references (
    name TEXT PRIMARY KEY,
    image TEXT NOT NULL
) WITHOUT ROWID;
-- reproducible: our own tar of the directory has the diffID.
-- boot, settled: see Store::settle.
CREATE TABLE layers (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    diff_id TEXT NOT NULL UNIQUE,
    tar_size INTEGER NOT NULL,
    empty INTEGER NOT NULL,
    reproducible INTEGER NOT NULL,
    boot TEXT NOT NULL,
    settled INTEGER NOT NULL
);
CREATE INDEX layers_unsettled ON layers (number) WHERE settled = 0;
-- original: as it came from elsewhere.
CREATE TABLE layer_blobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    diff_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    compression TEXT NOT NULL,
    size INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    original INTEGER NOT NULL,
    boot TEXT NOT NULL,
    settled INTEGER NOT NULL,
    UNIQUE (diff_id, digest)
);
CREATE INDEX layer_blobs_unsettled ON layer_blobs (number) WHERE settled = 0;
CREATE TABLE cache_records (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB NOT NULL UNIQUE,
    step TEXT NOT NULL,
    parts BLOB NOT NULL,
    value BLOB NOT NULL,
    layers TEXT NOT NULL,
    created INTEGER NOT NULL,
    last_used INTEGER NOT NULL
);
CREATE INDEX cache_records_step ON cache_records (step, number);
CREATE TABLE fingerprints (
    tree TEXT PRIMARY KEY,
    bytes BLOB NOT NULL
);
";

/// Who used what when, and what was pruned: a record stays for a while without its result, to explain a later miss.
const USAGE: &str = "
ALTER TABLE layers ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
UPDATE layers SET used = strftime('%s', 'now');
ALTER TABLE cache_records ADD COLUMN description TEXT NOT NULL DEFAULT '';
ALTER TABLE cache_records ADD COLUMN uses INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cache_records ADD COLUMN pruned INTEGER;
CREATE INDEX cache_records_layers ON cache_records (layers) WHERE layers <> '';
";

/// Makes the tables when there are none; costs one read when they are there.
pub(super) fn prepare(connection: &Connection) -> Result<()> {
    let found = version(connection)?;
    if found == VERSION {
        return Ok(());
    }
    if found > VERSION {
        return Err(Error::NewerSchema { found, known: VERSION });
    }
    let action = "create tables";
    use_wal(connection).map_err(Error::database(action))?;
    let transaction = rusqlite::Transaction::new_unchecked(connection, TransactionBehavior::Immediate)
        .map_err(Error::database(action))?;
    // Another process may have been first.
    let found = usize::try_from(version(&transaction)?).unwrap_or(0);
    for change in CHANGES.iter().skip(found) {
        transaction.execute_batch(change).map_err(Error::database(action))?;
    }
    transaction.pragma_update(None, "user_version", VERSION).map_err(Error::database(action))?;
    transaction.commit().map_err(Error::database(action))
}

/// Two processes that meet a new database may each wait for the other's lock here: `SQLite` answers "busy" at once then,
/// without the busy timeout, and one of them has to come again.
pub(crate) fn use_wal(connection: &Connection) -> rusqlite::Result<()> {
    let mut tries = 0;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if tries < 1000 && error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
                tries += 1;
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

fn version(connection: &Connection) -> Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(Error::database("read the version"))
}
