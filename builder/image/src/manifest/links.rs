//! What a manifest of any kind names: images, indexes and artifacts alike.

use std::collections::BTreeMap;

use kiln_store::Digest;
use serde::Deserialize;

use super::{Descriptor, OCI_INDEX, OCI_MANIFEST};
use crate::{Error, Result};

/// Manifests and blobs that one manifest names, at most.
const LIMIT: usize = 8192;

/// What a manifest names.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    /// Its own media type.
    pub(crate) media_type: String,
    /// Other manifests, when it is an index.
    pub(crate) manifests: Vec<Descriptor>,
    /// Config and layers.
    pub(crate) blobs: Vec<Descriptor>,
    /// What it refers to, when it is a signature or the like.
    pub(crate) subject: Option<Descriptor>,
    /// What it is, if it is no image.
    pub(crate) artifact_type: Option<String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Links {
    /// Reads a manifest; `media_type` is what came with it, for those that do not say.
    pub(crate) fn parse(bytes: &[u8], media_type: &str, what: &str) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape {
            schema_version: Option<u32>,
            media_type: Option<String>,
            config: Option<Descriptor>,
            #[serde(default)]
            layers: Option<Vec<Descriptor>>,
            #[serde(default)]
            blobs: Option<Vec<Descriptor>>,
            manifests: Option<Vec<Descriptor>>,
            #[serde(default)]
            subject: Option<Descriptor>,
            #[serde(default)]
            artifact_type: Option<String>,
            #[serde(default)]
            annotations: Option<BTreeMap<String, String>>,
        }
        let shape: Shape = serde_json::from_slice(bytes).map_err(Error::json(what))?;
        if shape.schema_version == Some(1) {
            return Err(Error::invalid(what, "a manifest of docker's schema 1, which nothing writes any more"));
        }
        let is_index = shape.manifests.is_some();
        if is_index && (shape.config.is_some() || shape.layers.is_some()) {
            return Err(Error::invalid(what, "both an image manifest and an index"));
        }
        let named = shape.media_type.or_else(|| (!media_type.is_empty()).then(|| media_type.to_owned()));
        let media_type = named.unwrap_or_else(|| if is_index { OCI_INDEX } else { OCI_MANIFEST }.to_owned());
        // An artifact without a type is what its config is.
        let artifact_type = shape.artifact_type.filter(|name| !name.is_empty());
        let artifact_type = artifact_type.or_else(|| shape.config.as_ref().map(|config| config.media_type.clone()));
        let annotations = shape.annotations.unwrap_or_default();
        let blobs = shape.config.into_iter().chain(shape.layers.unwrap_or_default());
        let blobs: Vec<Descriptor> = blobs.chain(shape.blobs.unwrap_or_default()).collect();
        let manifests = shape.manifests.unwrap_or_default();
        if blobs.len() > LIMIT || manifests.len() > LIMIT {
            return Err(Error::invalid(what, format!("it names more than {LIMIT} others")));
        }
        Ok(Self { media_type, manifests, blobs, subject: shape.subject, artifact_type, annotations })
    }

    /// The manifest as a list of referrers has it.
    pub(crate) fn as_referrer(&self, digest: Digest, size: u64) -> Descriptor {
        let mut entry = Descriptor::new(&self.media_type, digest, size);
        entry.annotations.clone_from(&self.annotations);
        if let Some(kind) = &self.artifact_type {
            entry.other.insert("artifactType".to_owned(), kind.clone().into());
        }
        entry
    }

    /// Whether it is an index.
    pub(crate) fn is_index(&self) -> bool {
        self.blobs.is_empty()
            && (!self.manifests.is_empty() || self.media_type.contains("index") || self.media_type.contains("list"))
    }
}
