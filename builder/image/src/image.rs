//! An image of the store, and finding one by what a user typed.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_store::metadata::ImageRecord;
use kiln_store::{DiffId, Digest, Store};

use crate::index::StoredIndex;
use crate::manifest::Descriptor;
use crate::{Error, ImageConfig, Platform, Reference, Result};

/// Bytes of a config or manifest, at most: registries refuse larger ones too.
pub(crate) const DOCUMENT_LIMIT: u64 = 8 << 20;

/// An image of the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// The config's digest.
    pub id: Digest,
    /// The config.
    pub config: ImageConfig,
    /// The layers, lowest first.
    pub layers: Vec<DiffId>,
    /// The manifest as it came, when it came from elsewhere.
    pub manifest: Option<Digest>,
    /// Layers that are not in the store, as the registries have them; an image of the store has none of them.
    pub elsewhere: BTreeMap<DiffId, Descriptor>,
}

impl Image {
    /// Stores a config (its layers are in the store) as an image and, for each name, points it there.
    pub fn commit(store: &Store, config: &ImageConfig, names: &[Reference]) -> Result<Self> {
        let id = store.blobs().put(&config.to_bytes()?)?;
        Self::record(store, id, config.clone(), None, names)
    }

    /// Stores a config of which some layers are elsewhere. That is no image of the store: it only goes where they are.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn pass_on(store: &Store, config: &ImageConfig, elsewhere: BTreeMap<DiffId, Descriptor>) -> Result<Self> {
        let id = store.blobs().put(&config.to_bytes()?)?;
        let (config, layers) = (config.clone(), config.rootfs.diff_ids.clone());
        Ok(Self { id, config, layers, manifest: None, elsewhere })
    }

    /// Records the image of a config blob that is in the store, with the manifest it came with.
    pub(crate) fn record(
        store: &Store,
        id: Digest,
        config: ImageConfig,
        manifest: Option<Digest>,
        names: &[Reference],
    ) -> Result<Self> {
        let known = store.image(&id)?;
        let record = ImageRecord {
            id,
            manifest: manifest.or(known.as_ref().and_then(|known| known.manifest)),
            layers: config.rootfs.diff_ids.clone(),
            added: known.as_ref().map_or_else(now, |known| known.added),
        };
        if known.as_ref() != Some(&record) {
            store.put_image(&record)?;
        }
        for name in names {
            store.set_reference(&name.tagged_name(), &id)?;
        }
        Ok(Self { id, config, layers: record.layers, manifest: record.manifest, elsewhere: BTreeMap::new() })
    }

    /// The image with this id.
    pub fn open(store: &Store, id: &Digest) -> Result<Option<Self>> {
        store.image(id)?.map(|record| Self::from_record(store, record)).transpose()
    }

    fn from_record(store: &Store, record: ImageRecord) -> Result<Self> {
        let bytes = store.blobs().read(&record.id, DOCUMENT_LIMIT)?;
        let config = ImageConfig::from_bytes(&bytes, &record.id)?;
        let elsewhere = BTreeMap::new();
        Ok(Self { id: record.id, config, layers: record.layers, manifest: record.manifest, elsewhere })
    }

    /// The image of this exact reference; a digest names the image whatever its tag says. Of an index, the image for
    /// this machine, or else the first.
    pub fn by_reference(store: &Store, reference: &Reference) -> Result<Option<Self>> {
        let image = Self::by_reference_for(store, reference, &Platform::host())?;
        if image.is_some() {
            return Ok(image);
        }
        let Some(index) = StoredIndex::open(store, reference)? else { return Ok(None) };
        Ok(index.images(store)?.into_iter().next())
    }

    /// The image of this exact reference; of an index, the one for this platform.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn by_reference_for(store: &Store, reference: &Reference, platform: &Platform) -> Result<Option<Self>> {
        let name = match reference.digest() {
            Some(digest) => reference.with_digest(*digest).tagged_name(),
            None => reference.tagged_name(),
        };
        if let Some(id) = store.reference(&name)? {
            if let Some(image) = Self::open(store, &id)? {
                return Ok(Some(image));
            }
            let index = StoredIndex::open(store, reference)?;
            return index.map_or(Ok(None), |index| index.image(store, platform));
        }
        let Some(digest) = reference.digest() else { return Ok(None) };
        store.image_by_manifest(digest)?.map(|record| Self::from_record(store, record)).transpose()
    }

    /// What a user typed: a name, an id, the beginning of an id, `sha256:…`.
    ///
    /// # Errors
    /// No such image; several ids begin so.
    pub fn find(store: &Store, text: &str) -> Result<Self> {
        if let Ok(id) = text.parse::<Digest>()
            && let Some(image) = Self::open(store, &id)?
        {
            return Ok(image);
        }
        let reference = Reference::parse(text);
        if let Ok(reference) = &reference
            && let Some(image) = Self::by_reference(store, reference)?
        {
            return Ok(image);
        }
        if let Some(image) = Self::by_prefix(store, text)? {
            return Ok(image);
        }
        match reference {
            Err(wrong) if !is_hex(text) => Err(wrong),
            Ok(reference) => Err(Error::NoSuchImage { text: reference.familiar() }),
            Err(_) => Err(Error::NoSuchImage { text: text.to_owned() }),
        }
    }

    /// [`Image::find`], and of a name that stands for several images, the one for this platform.
    ///
    /// # Errors
    /// No such image, or none for the platform; several ids begin so.
    pub fn find_for(store: &Store, text: &str, platform: Option<&Platform>) -> Result<Self> {
        let Some(platform) = platform else { return Self::find(store, text) };
        let named = match Reference::parse(text) {
            Ok(reference) => Self::by_reference_for(store, &reference, platform)?,
            Err(_) => None,
        };
        let missing = || Error::NoSuchImage { text: format!("{text} for {platform}") };
        let found = match named {
            Some(image) => image,
            None => Self::find(store, text)?,
        };
        if platform.accepts(&found.platform()) { Ok(found) } else { Err(missing()) }
    }

    fn by_prefix(store: &Store, text: &str) -> Result<Option<Self>> {
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        if prefix.is_empty() || prefix.len() > 64 || !is_hex(prefix) {
            return Ok(None);
        }
        let mut found = store.images_by_prefix(prefix)?;
        if found.len() > 1 {
            return Err(Error::Ambiguous { text: text.to_owned(), count: found.len() });
        }
        found.pop().map(|record| Self::from_record(store, record)).transpose()
    }

    /// Its platform.
    pub fn platform(&self) -> Platform {
        self.config.platform()
    }

    /// Its names, sorted; those of pulled and pushed digests (`name@sha256:…`) among them.
    pub fn names(&self, store: &Store) -> Result<Vec<Reference>> {
        let names = store.references()?.into_iter().filter(|(_, id)| *id == self.id);
        names.map(|(name, _)| Reference::parse(&name)).collect()
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Seconds since 1970.
fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX))
}
