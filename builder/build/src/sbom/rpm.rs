//! rpm's database of today: SQLite, a header blob for each package.

use rusqlite::{Connection, OpenFlags};

use super::{Distribution, Package};

/// Tags of a header.
const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const LICENSE: u32 = 1014;
const ARCHITECTURE: u32 = 1022;

/// The packages; what cannot be read is none.
pub(super) fn packages(database: &[u8], distribution: &Distribution) -> Vec<Package> {
    read(database, distribution).unwrap_or_default()
}

fn read(database: &[u8], distribution: &Distribution) -> Option<Vec<Package>> {
    // SQLite wants a file; this one is nobody else's, and gone with the name
    let file = tempfile::NamedTempFile::new().ok()?;
    std::fs::write(file.path(), database).ok()?;
    let connection = Connection::open_with_flags(file.path(), OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    let mut statement = connection.prepare("SELECT blob FROM Packages").ok()?;
    let rows = statement.query_map([], |row| row.get::<_, Vec<u8>>(0)).ok()?;
    Some(rows.filter_map(|blob| package(&blob.ok()?, distribution)).collect())
}

/// A header: two counts, the entries (tag, type, offset, count), the data.
pub(super) fn package(blob: &[u8], distribution: &Distribution) -> Option<Package> {
    let number = |at: usize| Some(u32::from_be_bytes(blob.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let entries = usize::try_from(number(0)?).ok()?;
    let data = entries.checked_mul(16)?.checked_add(8)?;
    let text = |wanted: u32| -> Option<String> {
        let entry = (0..entries.min(blob.len() / 16)).find(|entry| number(8 + entry * 16) == Some(wanted))?;
        let offset = usize::try_from(number(8 + entry * 16 + 8)?).ok()?;
        let bytes = blob.get(data.checked_add(offset)?..)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    };
    let name = text(NAME)?;
    // a key of the database's own, not a package
    if name == "gpg-pubkey" {
        return None;
    }
    Some(Package {
        kind: "rpm",
        namespace: distribution.id.clone(),
        name,
        version: format!("{}-{}", text(VERSION)?, text(RELEASE)?),
        architecture: text(ARCHITECTURE).unwrap_or_default(),
        license: text(LICENSE).unwrap_or_default(),
    })
}
