//! `manifest.json` of docker's archives.

use serde::{Deserialize, Deserializer, Serialize};

use crate::manifest::Descriptor;
use crate::{Reference, layout};

/// One image of `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerImage {
    /// Path of the config in the archive.
    pub(crate) config: String,
    /// Names, short or full.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub(crate) repo_tags: Vec<String>,
    /// Paths of the layers in the archive, lowest first.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub(crate) layers: Vec<String>,
}

impl DockerImage {
    /// An image whose blobs lie where those of a layout do.
    pub(crate) fn of(config: &Descriptor, layers: &[Descriptor], names: &[Reference]) -> Self {
        let path = |blob: &Descriptor| layout::blob_name(&blob.digest).to_string_lossy().into_owned();
        // In full: podman takes short names for its own.
        let tags = names.iter().filter(|name| name.tag().is_some()).map(Reference::tagged_name);
        Self { config: path(config), repo_tags: tags.collect(), layers: layers.iter().map(path).collect() }
    }
}

fn null_as_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
