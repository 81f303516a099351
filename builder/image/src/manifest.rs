//! Manifests and indexes: OCI image specification "Image Manifest" and "Image Index", and docker's schema 2, which
//! has the same shape. Making the manifest of a store's image, and taking a foreign one in.

pub(crate) mod links;
mod pack;
pub(crate) mod unpack;

use std::collections::BTreeMap;

use kiln_store::Digest;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Error, Platform, Result};

pub use pack::pack;
pub(crate) use pack::{Form, pack_anew, pack_as, unpacked_layers};

/// Media type of an OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of a docker manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of docker's index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of docker's image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Media type of an uncompressed OCI layer.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Layers of an image, at most: overlay takes 500.
const LAYER_LIMIT: usize = 4096;

/// The manifest of an image, ready to leave: every blob it names is in the store.
#[derive(Debug, Clone)]
pub struct Packed {
    /// The manifest's bytes: those that came, or new ones.
    pub bytes: Vec<u8>,
    /// Their digest.
    pub digest: Digest,
    /// Their media type.
    pub media_type: String,
}

/// What names a blob: OCI image specification "Content Descriptors".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it runs on, in an index.
    #[serde(default, deserialize_with = "lenient_platform", skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free key-value pairs.
    #[serde(default, deserialize_with = "null_as_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Everything else.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl Descriptor {
    /// A descriptor without platform and annotations.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        let (annotations, other) = Default::default();
        Self { media_type: media_type.to_owned(), digest, size, platform: None, annotations, other }
    }

    /// Of bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// Whether it names an index and not an image.
    pub fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_INDEX | DOCKER_INDEX)
    }
}

/// An image manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// Its own media type, which OCI leaves optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The image config.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// Free key-value pairs.
    #[serde(default, deserialize_with = "null_as_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Its media type; an OCI one may leave it out.
    pub fn media_type(&self) -> &str {
        self.media_type.as_deref().unwrap_or(OCI_MANIFEST)
    }
}

/// An image index: one image for several platforms, or several images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// Its own media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What it names.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    /// Free key-value pairs.
    #[serde(default, deserialize_with = "null_as_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Everything else.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl Index {
    /// An index that names nothing.
    pub fn empty() -> Self {
        let (manifests, annotations, other) = Default::default();
        Self { schema_version: 2, media_type: Some(OCI_INDEX.to_owned()), manifests, annotations, other }
    }

    /// The entries that serve a platform, best first. Entries without a platform come last, since only their
    /// config would tell; attestations and other things that are no image are left out.
    pub fn candidates(&self, platform: &Platform) -> Vec<&Descriptor> {
        let rank = |entry: &&Descriptor| match &entry.platform {
            Some(image) => platform.preference(image).map(u16::from).map(|rank| rank + 1),
            None => Some(0),
        };
        let images = self.images();
        let mut ranked: Vec<_> = images.filter_map(|entry| rank(&entry).map(|rank| (rank, entry))).collect();
        ranked.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
        ranked.into_iter().map(|(_, entry)| entry).collect()
    }

    /// Its entries but for attestations.
    pub fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().filter(|entry| !is_attestation(entry))
    }

    /// The error when nothing serves the platform; `what` is the index.
    pub(crate) fn no_platform(&self, platform: &Platform, what: &str) -> Error {
        let mut available: Vec<String> =
            self.images().filter_map(|entry| Some(entry.platform.as_ref()?.to_string())).collect();
        available.dedup();
        let available = if available.is_empty() { "none".to_owned() } else { available.join(", ") };
        Error::NoPlatform { what: what.to_owned(), platform: platform.to_string(), available }
    }
}

/// BuildKit puts its attestations among an index's images, for the platform "unknown".
fn is_attestation(entry: &Descriptor) -> bool {
    entry.annotations.contains_key("vnd.docker.reference.type")
        || entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
}

/// What a reference can lead to.
#[derive(Debug, Clone)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

impl Document {
    /// Reads either; `what` names it in messages.
    ///
    /// # Errors
    /// Bytes that are neither, or that can be read as both; a manifest of schema 1; one that is no image.
    pub fn parse(bytes: &[u8], what: &str) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape {
            #[serde(default)]
            schema_version: u32,
            media_type: Option<String>,
            config: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
            manifests: Option<serde::de::IgnoredAny>,
        }
        let json = || Error::json(what.to_owned());
        let shape: Shape = serde_json::from_slice(bytes).map_err(json())?;
        if shape.schema_version == 1 {
            return Err(Error::invalid(what, "a manifest of docker's schema 1, which nothing writes any more"));
        }
        if shape.schema_version != 2 {
            return Err(Error::invalid(what, format!("unknown manifest schema version {}", shape.schema_version)));
        }
        let image = shape.config.is_some() || shape.layers.is_some();
        let named = shape.media_type.as_deref();
        match (image, shape.manifests.is_some()) {
            (true, true) => Err(Error::invalid(what, "both an image manifest and an index")),
            (_, true) if !matches!(named, None | Some(OCI_INDEX | DOCKER_INDEX)) => {
                Err(Error::invalid(what, format!("an index that calls itself {}", named.unwrap_or_default())))
            }
            (_, true) => Ok(Self::Index(serde_json::from_slice(bytes).map_err(json())?)),
            _ if !matches!(named, None | Some(OCI_MANIFEST | DOCKER_MANIFEST)) => {
                Err(Error::invalid(what, format!("a manifest of unknown type {}", named.unwrap_or_default())))
            }
            _ => {
                let manifest: Manifest = serde_json::from_slice(bytes).map_err(json())?;
                check_image(&manifest, what)?;
                Ok(Self::Manifest(manifest))
            }
        }
    }
}

fn check_image(manifest: &Manifest, what: &str) -> Result<()> {
    let config = manifest.config.media_type.as_str();
    if !matches!(config, OCI_CONFIG | DOCKER_CONFIG | "" | "application/octet-stream") {
        return Err(Error::invalid(what, format!("not an image but an artifact ({config})")));
    }
    if manifest.layers.len() > LAYER_LIMIT {
        return Err(Error::invalid(what, format!("{} layers, more than {LAYER_LIMIT}", manifest.layers.len())));
    }
    Ok(())
}

/// A platform that is not one (attestations, artifacts) is none, and no reason to refuse the index.
fn lenient_platform<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Platform>, D::Error> {
    let value = Option::<serde_json::Value>::deserialize(deserializer)?;
    Ok(value.and_then(|value| serde_json::from_value(value).ok()))
}

fn null_as_empty<'de, D>(deserializer: D) -> std::result::Result<BTreeMap<String, String>, D::Error>
where
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The OCI media type of a layer that may have docker's.
pub(crate) fn oci_layer_type(media_type: &str) -> &str {
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar" => OCI_LAYER,
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => {
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        }
        "" => OCI_LAYER,
        other => other,
    }
}

/// The docker media type of a layer that may have OCI's.
pub(crate) fn docker_layer_type(media_type: &str) -> &str {
    match media_type {
        "application/vnd.oci.image.layer.v1.tar+gzip" => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd" => "application/vnd.docker.image.rootfs.diff.tar.zstd",
        OCI_LAYER => "application/vnd.docker.image.rootfs.diff.tar",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: &serde_json::Value) -> Result<Document> {
        Document::parse(&serde_json::to_vec(value).expect("bytes"), "m")
    }

    fn entry(digest: &Digest, os: &str, architecture: &str, variant: Option<&str>) -> serde_json::Value {
        json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": 1,
            "platform": {"os": os, "architecture": architecture, "variant": variant}})
    }

    #[test]
    fn an_index_gives_the_best_variant_and_no_attestation() {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|text| Digest::of(text.as_bytes()));
        let index = json!({"schemaVersion": 2, "manifests": [
            entry(&a, "linux", "arm", Some("v5")), entry(&b, "linux", "arm", Some("v7")),
            entry(&c, "linux", "amd64", None), entry(&d, "unknown", "unknown", None)]});
        let Document::Index(index) = parse(&index).expect("index") else { panic!("no index") };
        let best = |text: &str| index.candidates(&Platform::parse(text).expect(text)).first().map(|entry| entry.digest);
        assert_eq!(best("linux/arm"), Some(b));
        assert_eq!(best("linux/arm/v6"), Some(a));
        assert_eq!(best("linux/amd64"), Some(c));
        assert_eq!(best("linux/s390x"), None);
        let message = index.no_platform(&Platform::parse("linux/s390x").expect("platform"), "x").to_string();
        assert!(message.contains("linux/arm/v5, linux/arm/v7, linux/amd64"), "{message}");
    }

    #[test]
    fn documents_that_mean_two_things_or_none_are_refused() {
        let config = json!({"mediaType": OCI_CONFIG, "digest": Digest::of(b""), "size": 0});
        assert!(parse(&json!({"schemaVersion": 2, "config": config, "layers": []})).is_ok());
        for (wrong, part) in [
            (json!({"schemaVersion": 2, "config": config, "layers": [], "manifests": []}), "both"),
            (json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "config": config, "layers": []}), "unknown type"),
            (json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "manifests": []}), "calls itself"),
            (json!({"schemaVersion": 1}), "schema 1"),
            (json!({"schemaVersion": 2, "layers": []}), "read m"),
            (json!({}), "version 0"),
        ] {
            let message = parse(&wrong).expect_err(part).to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
