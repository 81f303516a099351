//! The images of the store: what `images` shows.

use std::collections::HashMap;

use kiln_store::{Digest, Store};

use crate::image::DOCUMENT_LIMIT;
use crate::index::images_in_indexes;
use crate::manifest::links::Links;
use crate::{Image, Reference, Result};

/// One name of one image, as a row of docker's `images`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRow {
    /// The image.
    pub id: Digest,
    /// The short name of the repository; none for an image without a name.
    pub repository: Option<String>,
    /// The tag; none for a name by digest only, too.
    pub tag: Option<String>,
    /// The digest it was pulled or pushed by.
    pub digest: Option<Digest>,
    /// RFC 3339, as it stands in the config.
    pub created: Option<String>,
    /// Bytes of the layers, as tars.
    pub size: u64,
}

/// The rows of every image, newest first.
///
/// # Errors
/// The store cannot be read.
pub fn rows(store: &Store) -> Result<Vec<ListRow>> {
    let mut names: HashMap<Digest, Vec<Reference>> = HashMap::new();
    // What an index has a name for is no image without one.
    let members = images_in_indexes(store)?;
    let records = store.images()?;
    for (name, id) in store.references()? {
        let Ok(name) = Reference::parse(&name) else { continue };
        if records.iter().any(|record| record.id == id) {
            names.entry(id).or_default().push(name);
        } else if let Some(image) = Image::by_reference(store, &name)? {
            names.entry(image.id).or_default().push(name);
        }
    }
    let mut rows = Vec::new();
    for record in records {
        if members.contains(&record.id) && !names.contains_key(&record.id) {
            continue;
        }
        let Some(image) = Image::open(store, &record.id)? else { continue };
        let size = size(store, &image)?;
        let named = names.remove(&image.id).unwrap_or_default();
        rows.extend(rows_of(&image, &named, size));
    }
    // The names of one image stay together: the sort is stable.
    let instant = |row: &ListRow| row.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    rows.sort_by_cached_key(|row| std::cmp::Reverse(instant(row)));
    Ok(rows)
}

/// Bytes of an image's layers, as tars.
///
/// # Errors
/// The store cannot be read.
pub fn size(store: &Store, image: &Image) -> Result<u64> {
    let mut size = 0_u64;
    for layer in &image.layers {
        size = size.saturating_add(store.layer(layer)?.map_or(0, |layer| layer.tar_size));
    }
    Ok(size)
}

/// Bytes of an image's blobs, compressed, as far as they are in the store: its manifest's, or none.
///
/// # Errors
/// The store cannot be read.
pub fn content_size(store: &Store, image: &Image) -> Result<u64> {
    let Some(manifest) = image.manifest else { return Ok(0) };
    let Ok(bytes) = store.blobs().read(&manifest, DOCUMENT_LIMIT) else { return Ok(0) };
    let links = Links::parse(&bytes, "", &format!("manifest {manifest}"))?;
    Ok(links.blobs.iter().fold(bytes.len() as u64, |sum, blob| sum.saturating_add(blob.size)))
}

fn rows_of(image: &Image, names: &[Reference], size: u64) -> Vec<ListRow> {
    let row = |name: Option<&Reference>, digest: Option<Digest>| ListRow {
        id: image.id,
        repository: name.map(Reference::familiar_name),
        tag: name.and_then(|name| name.tag().map(str::to_owned)),
        digest,
        created: image.config.created.clone(),
        size,
    };
    let by_digest = |name: &Reference| {
        let same = names.iter().find(|other| other.tag().is_none() && other.name() == name.name());
        same.and_then(|other| other.digest().copied())
    };
    let tagged = names.iter().filter(|name| name.tag().is_some());
    let mut rows: Vec<ListRow> = tagged.clone().map(|name| row(Some(name), by_digest(name))).collect();
    let untagged = names.iter().filter(|name| name.tag().is_none());
    let untagged = untagged.filter(|name| !tagged.clone().any(|other| other.name() == name.name()));
    rows.extend(untagged.map(|name| row(Some(name), name.digest().copied())));
    if rows.is_empty() {
        rows.push(row(None, None));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageConfig;

    #[test]
    fn a_digest_is_shown_beside_the_tags_of_its_repository() {
        let id = Digest::of(b"x");
        let image = Image {
            id,
            config: ImageConfig::default(),
            layers: Vec::new(),
            manifest: None,
            elsewhere: std::collections::BTreeMap::new(),
        };
        let name = |text: &str| Reference::parse(text).expect(text);
        let names = [name("a:1"), name("a:2"), name("a").with_digest(id), name("q.io/b").with_digest(id)];
        let rows = rows_of(&image, &names, 0);
        let shown: Vec<_> =
            rows.iter().map(|row| (row.repository.as_deref(), row.tag.as_deref(), row.digest.is_some())).collect();
        assert_eq!(shown, [(Some("a"), Some("1"), true), (Some("a"), Some("2"), true), (Some("q.io/b"), None, true)]);
        assert_eq!(rows_of(&image, &[], 0)[0].repository, None);
    }
}
