//! `manifest.json` of docker's archives.

use serde::{Deserialize, Deserializer, Serialize};

/// One image of `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerImage {
    /// Path of the config in the archive.
    pub(super) config: String,
    /// Names, short or full.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub(super) repo_tags: Vec<String>,
    /// Paths of the layers in the archive, lowest first.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub(super) layers: Vec<String>,
}

fn null_as_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
