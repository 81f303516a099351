//! Images and the references that name them.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{ImageRecord, digest_column, join_digests, split_digests};
use crate::{Digest, Error, Result, Store};

const COLUMNS: &str = "id, manifest, layers, added";

fn image_row(row: &Row<'_>) -> rusqlite::Result<ImageRecord> {
    Ok(ImageRecord {
        id: digest_column(row.get_ref(0)?.as_str()?)?,
        manifest: row.get_ref(1)?.as_str_or_null()?.map(digest_column).transpose()?,
        layers: split_digests(row.get_ref(2)?.as_str()?)?,
        added: row.get(3)?,
    })
}

impl Store {
    /// Adds or replaces an image.
    pub fn put_image(&self, image: &ImageRecord) -> Result<()> {
        let connection = self.database.lock();
        let insert = || {
            connection
                .prepare_cached("INSERT OR REPLACE INTO images (id, manifest, layers, added) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![
                    image.id.to_string(),
                    image.manifest.map(|digest| digest.to_string()),
                    join_digests(&image.layers),
                    image.added
                ])
        };
        insert().map(drop).map_err(Error::database("record image"))
    }

    /// The image with this id.
    pub fn image(&self, id: &Digest) -> Result<Option<ImageRecord>> {
        Ok(self.select_images("WHERE id = ?1", [id.to_string()])?.pop())
    }

    /// Images whose id's hex starts with `prefix`.
    pub fn images_by_prefix(&self, prefix: &str) -> Result<Vec<ImageRecord>> {
        if prefix.len() > 128 || !prefix.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Vec::new());
        }
        let pattern = format!("%:{prefix}%");
        self.select_images("WHERE id LIKE ?1 ORDER BY id", [pattern])
    }

    /// The image whose manifest digest is this.
    pub fn image_by_manifest(&self, manifest: &Digest) -> Result<Option<ImageRecord>> {
        Ok(self.select_images("WHERE manifest = ?1 LIMIT 1", [manifest.to_string()])?.pop())
    }

    /// All images, newest first.
    pub fn images(&self) -> Result<Vec<ImageRecord>> {
        self.select_images("ORDER BY added DESC, id", [])
    }

    fn select_images<P: rusqlite::Params>(&self, condition: &str, values: P) -> Result<Vec<ImageRecord>> {
        let connection = self.database.lock();
        let select = || {
            let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM images {condition}"))?;
            statement.query_map(values, image_row)?.collect::<rusqlite::Result<_>>()
        };
        select().map_err(Error::database("look up images"))
    }

    /// Removes an image and nothing else; the references must be gone.
    pub fn remove_image(&self, id: &Digest) -> Result<bool> {
        let connection = self.database.lock();
        let removed = connection.execute("DELETE FROM images WHERE id = ?1", [id.to_string()]);
        removed.map(|count| count > 0).map_err(Error::database("remove image"))
    }

    /// Points a reference (a full name such as `docker.io/library/busybox:latest`) at an image; returns the image it
    /// pointed at.
    pub fn set_reference(&self, name: &str, id: &Digest) -> Result<Option<Digest>> {
        let action = "set reference";
        self.database.change(action, |connection| {
            let before = select_reference(connection, name)?;
            // Nothing new is not written: what writes waits for the disk when the store is closed.
            if before == Some(*id) {
                return Ok(before);
            }
            connection
                .execute(
                    "INSERT OR REPLACE INTO image_references (name, image) VALUES (?1, ?2)",
                    [name, &id.to_string()],
                )
                .map_err(Error::database(action))?;
            Ok(before)
        })
    }

    /// What a reference points at.
    pub fn reference(&self, name: &str) -> Result<Option<Digest>> {
        select_reference(&self.database.lock(), name)
    }

    /// Removes a reference; returns what it pointed at.
    pub fn remove_reference(&self, name: &str) -> Result<Option<Digest>> {
        let action = "remove reference";
        self.database.change(action, |connection| {
            let before = select_reference(connection, name)?;
            connection
                .execute("DELETE FROM image_references WHERE name = ?1", [name])
                .map_err(Error::database(action))?;
            Ok(before)
        })
    }

    /// All references, sorted by name.
    pub fn references(&self) -> Result<Vec<(String, Digest)>> {
        let connection = self.database.lock();
        let select = || {
            let mut statement = connection.prepare_cached("SELECT name, image FROM image_references ORDER BY name")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, digest_column(row.get_ref(1)?.as_str()?)?)))?;
            rows.collect::<rusqlite::Result<_>>()
        };
        select().map_err(Error::database("list references"))
    }
}

fn select_reference(connection: &Connection, name: &str) -> Result<Option<Digest>> {
    let select = || {
        connection
            .prepare_cached("SELECT image FROM image_references WHERE name = ?1")?
            .query_row([name], |row| digest_column(row.get_ref(0)?.as_str()?))
            .optional()
    };
    select().map_err(Error::database("look up reference"))
}
