//! Records as bytes, and the manifests that carry them with their layers. What comes from elsewhere is checked here,
//! once: keys, digests, times and counts are what they should be everywhere else.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use kiln_image::manifest::{Descriptor, OCI_MANIFEST};
use kiln_store::DiffId;
use serde::{Deserialize, Serialize};

use crate::cache::record::Value;
use crate::key::Key;
use crate::step::internal;
use crate::{Error, Result};

/// Media type of a [`Document`].
pub(crate) const DOCUMENT: &str = "application/vnd.kiln.cache.v1+json";
/// Media type of the empty JSON object (OCI image specification, "Guidance for an Empty Descriptor").
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The empty JSON object.
pub(super) const EMPTY_OBJECT: &[u8] = b"{}";
/// Annotation of a manifest that carries one record, or one cache mount.
const ENTRY: &str = "dev.kiln.cache.entry";
/// Where an image's config keeps its cache.
pub(crate) const INLINE: &str = "dev.kiln.cache.v1";

/// Bytes of a document, at most.
pub(super) const LARGEST: u64 = 16 << 20;
const MOST_RECORDS: usize = 50_000;
const MOST_LAYERS: usize = 16_384;
const MOST_MOUNTS: usize = 1024;
/// Characters of a description that are kept.
const DESCRIPTION: usize = 200;

/// What a cache knows, as it travels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Document {
    /// What steps gave.
    #[serde(default)]
    pub(crate) records: Vec<Record>,
    /// The content of the manifest's layers, in their order.
    #[serde(default)]
    pub(crate) layers: Vec<Content>,
    /// Cache mounts whose files are among the layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) mounts: Vec<Mount>,
}

/// What a key leads to: a step's layer, or the time at which an image was first built. What the key was made of stays at
/// home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Hex.
    pub(crate) key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) layer: Option<DiffId>,
    /// When the layer was made, nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) made: Option<i64>,
    /// Hex; of a record whose key needs no look at files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content_key: Option<String>,
    /// When the image was built, as its config says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) description: String,
    /// The step was done by this very build.
    #[serde(skip)]
    pub(crate) fresh: bool,
}

/// What is in a layer's blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Content {
    /// The digest of its tar.
    pub(crate) diff_id: DiffId,
    /// The bytes of its tar.
    pub(crate) size: u64,
}

/// What is in a cache mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// The mount's name in the store.
    pub(crate) name: String,
    pub(crate) layer: DiffId,
}

/// A layer that is elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) blob: Descriptor,
    pub(crate) diff_id: DiffId,
    pub(crate) tar_size: u64,
}

/// A document that was checked, ready to be asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contents {
    pub(crate) records: HashMap<Key, Record>,
    pub(crate) pieces: HashMap<DiffId, Piece>,
    pub(crate) mounts: HashMap<String, DiffId>,
}

impl Piece {
    /// What is in its blob.
    pub(crate) fn content(&self) -> Content {
        Content { diff_id: self.diff_id, size: self.tar_size }
    }
}

impl Record {
    /// Of a step.
    pub(crate) fn step(key: &Key, value: &Value, description: &str, fresh: bool) -> Self {
        Self {
            key: hex(key),
            layer: Some(value.layer),
            made: Some(i64::try_from(value.made).unwrap_or(0)),
            content_key: value.content_key.clone(),
            created: None,
            description: description.chars().take(DESCRIPTION).collect(),
            fresh,
        }
    }

    /// Whether it is of a step of this name.
    pub(super) fn is_of(&self, name: &str) -> bool {
        !self.description.is_empty() && self.description.chars().eq(name.chars().take(DESCRIPTION))
    }

    /// Of an image.
    pub(crate) fn image(key: &Key, created: &str) -> Self {
        Self {
            key: hex(key),
            layer: None,
            made: None,
            content_key: None,
            created: Some(created.to_owned()),
            description: String::new(),
            fresh: false,
        }
    }

    /// What a step's record says.
    pub(crate) fn value(&self) -> Option<Value> {
        let (layer, made) = (self.layer?, i128::from(self.made?));
        Some(Value { layer, made, content_key: self.content_key.clone() })
    }

    /// Its key, when everything in it is what it should be.
    fn check(&self) -> Option<Key> {
        let key = parse_key(&self.key)?;
        let is_step = self.layer.is_some() && self.made.is_some_and(|made| made >= 0) && self.created.is_none();
        let is_time = |text: &String| text.len() < 40 && text.parse::<Timestamp>().is_ok();
        let is_image = self.layer.is_none() && self.created.as_ref().is_some_and(is_time);
        let content_key = self.content_key.as_ref().is_none_or(|key| parse_key(key).is_some());
        ((is_step || is_image) && content_key && self.description.len() <= 4 * DESCRIPTION).then_some(key)
    }
}

impl Document {
    /// Reads a document and checks everything that can be wrong with it; `blobs` are those of its layers, in their order.
    ///
    /// # Errors
    /// It is not what it should be.
    pub(crate) fn read(self, blobs: &[Descriptor]) -> Result<Contents> {
        let wrong = |reason: &str| Err(Error::CacheDocument(reason.to_owned()));
        if self.records.len() > MOST_RECORDS || self.layers.len() > MOST_LAYERS || self.mounts.len() > MOST_MOUNTS {
            return wrong("it has more entries than a cache can have");
        }
        if self.layers.len() != blobs.len() {
            return wrong("it does not have as many layers as its manifest");
        }
        let mut contents = Contents::default();
        for (content, blob) in self.layers.iter().zip(blobs) {
            let piece = Piece { blob: blob.clone(), diff_id: content.diff_id, tar_size: content.size };
            contents.pieces.insert(content.diff_id, piece);
        }
        for record in self.records {
            let Some(key) = record.check() else { return wrong("a record in it is malformed") };
            contents.records.insert(key, record);
        }
        for mount in self.mounts {
            if parse_key(&mount.name).is_none() || !contents.pieces.contains_key(&mount.layer) {
                return wrong("a cache mount in it is malformed");
            }
            contents.mounts.insert(mount.name, mount.layer);
        }
        Ok(contents)
    }

    /// From its bytes.
    ///
    /// # Errors
    /// They are no document.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| Error::CacheDocument(error.to_string()))
    }

    /// As bytes.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|_| internal("encode a cache document"))
    }
}

impl Contents {
    /// Adds what another one knows.
    pub(crate) fn merge(&mut self, other: Self) {
        self.records.extend(other.records);
        self.pieces.extend(other.pieces);
        self.mounts.extend(other.mounts);
    }
}

/// The config of manifests that have none.
pub(super) fn empty() -> Descriptor {
    Descriptor::of(EMPTY, EMPTY_OBJECT)
}

/// A key as text.
pub(crate) fn hex(key: &Key) -> String {
    blake3::Hash::from_bytes(*key).to_hex().to_string()
}

/// A key out of text.
pub(crate) fn parse_key(text: &str) -> Option<Key> {
    let lower = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    lower.then(|| blake3::Hash::from_hex(text).ok().map(|hash| *hash.as_bytes())).flatten()
}

/// The tag of a record in a repository that has one for each.
pub(crate) fn record_tag(key: &Key) -> String {
    format!("kiln-{}", hex(key))
}

/// The tag of a cache mount, likewise.
pub(crate) fn mount_tag(name: &str) -> String {
    format!("kiln-mount-{name}")
}

/// An OCI image manifest that is no image.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    pub(crate) config: Descriptor,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Manifest {
    fn new(config: Descriptor, layers: Vec<Descriptor>, annotations: BTreeMap<String, String>) -> Self {
        let artifact_type = Some(DOCUMENT.to_owned());
        Self { schema_version: 2, media_type: OCI_MANIFEST.to_owned(), artifact_type, config, layers, annotations }
    }

    /// Of a whole document, which is its config.
    pub(crate) fn of_document(document: &[u8], layers: Vec<Descriptor>) -> Self {
        Self::new(Descriptor::of(DOCUMENT, document), layers, BTreeMap::new())
    }

    /// Of one record or mount, which is in the manifest itself: one request finds it.
    pub(crate) fn of_entry(entry: &Document, layers: Vec<Descriptor>) -> Result<Self> {
        let text = String::from_utf8(entry.encode()?).map_err(|_| internal("encode a cache record"))?;
        Ok(Self::new(empty(), layers, BTreeMap::from([(ENTRY.to_owned(), text)])))
    }

    /// From its bytes.
    ///
    /// # Errors
    /// They are no manifest.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| Error::CacheDocument(error.to_string()))
    }

    /// As bytes.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|_| internal("encode a cache manifest"))
    }

    /// What a manifest of [`Manifest::of_entry`] carries.
    ///
    /// # Errors
    /// It carries nothing, or something malformed.
    pub(crate) fn entry(&self) -> Result<Contents> {
        let text = self.annotations.get(ENTRY).ok_or_else(|| Error::CacheDocument("it has no record".to_owned()))?;
        Document::parse(text.as_bytes())?.read(&self.layers)
    }
}

#[cfg(test)]
mod tests;
