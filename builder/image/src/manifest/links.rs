//! What a manifest of any kind names: images, indexes and artifacts alike.

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
        let blobs = shape.config.into_iter().chain(shape.layers.unwrap_or_default());
        let blobs: Vec<Descriptor> = blobs.chain(shape.blobs.unwrap_or_default()).collect();
        let manifests = shape.manifests.unwrap_or_default();
        if blobs.len() > LIMIT || manifests.len() > LIMIT {
            return Err(Error::invalid(what, format!("it names more than {LIMIT} others")));
        }
        Ok(Self { media_type, manifests, blobs })
    }

    /// Whether it is an index.
    pub(crate) fn is_index(&self) -> bool {
        self.blobs.is_empty()
            && (!self.manifests.is_empty() || self.media_type.contains("index") || self.media_type.contains("list"))
    }
}
