//! What a manifest and its config say, as far as a page shows it. They are documents of others: whatever is missing or
//! of another kind is simply not shown.

use std::collections::BTreeMap;

use kiln_store::{Blobs, Digest};
use serde::Deserialize;
use serde_json::Value;
use std::io::Read;

/// Bytes of the largest config that is read.
const LARGEST_CONFIG: u64 = 1 << 20;

/// A manifest of any kind.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Summary {
    pub(super) config: Option<Descriptor>,
    pub(super) layers: Vec<Descriptor>,
    pub(super) manifests: Option<Vec<Descriptor>>,
    pub(super) subject: Option<Descriptor>,
    pub(super) artifact_type: Option<String>,
    pub(super) annotations: BTreeMap<String, Value>,
}

/// What another document is referred to by.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    pub(super) platform: Option<Platform>,
    pub(super) annotations: BTreeMap<String, Value>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct Platform {
    pub(super) os: String,
    pub(super) architecture: String,
    pub(super) variant: Option<String>,
}

impl Platform {
    pub(super) fn text(&self) -> String {
        let variant = self.variant.as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
        format!("{}/{}{variant}", self.os, self.architecture)
    }
}

/// An image's config.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    #[serde(flatten)]
    pub(super) platform: Platform,
    pub(super) created: Option<String>,
    pub(super) author: Option<String>,
    pub(super) config: Execution,
    pub(super) history: Vec<Step>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Execution {
    pub(super) user: Option<String>,
    pub(super) entrypoint: Option<Vec<String>>,
    pub(super) cmd: Option<Vec<String>>,
    pub(super) env: Option<Vec<String>>,
    pub(super) working_dir: Option<String>,
    pub(super) exposed_ports: Option<BTreeMap<String, Value>>,
    pub(super) labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Step {
    pub(super) created_by: String,
    pub(super) comment: String,
    pub(super) empty_layer: bool,
}

impl Summary {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    /// Whether it is an image that could be run.
    pub(super) fn is_image(&self) -> bool {
        self.artifact_type.is_none()
            && self.config.as_ref().is_some_and(|config| {
                ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"]
                    .contains(&config.media_type.as_str())
            })
    }

    /// Bytes of its config and layers, as they are stored.
    pub(super) fn size(&self) -> u64 {
        self.config.iter().chain(&self.layers).map(|descriptor| descriptor.size).fold(0, u64::saturating_add)
    }

    /// What kind of artifact it is, where it is no image.
    pub(super) fn kind(&self) -> Option<&str> {
        if self.is_image() {
            return None;
        }
        let own = self.artifact_type.as_deref();
        own.or(self.config.as_ref().map(|config| config.media_type.as_str())).filter(|text| !text.is_empty())
    }

    /// Its config, where it is an image and the config is here. Blocks.
    pub(super) fn read_config(&self, blobs: &Blobs) -> Option<Config> {
        let descriptor = self.config.as_ref().filter(|_| self.is_image())?;
        let digest: Digest = descriptor.digest.parse().ok()?;
        let file = blobs.get(&digest).ok()??;
        let mut bytes = Vec::new();
        file.take(LARGEST_CONFIG).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// The images of an index, without what only goes with them (attestations).
    pub(super) fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().flatten().filter(|descriptor| !descriptor.is_attestation())
    }
}

impl Descriptor {
    /// BuildKit's and kiln's provenance and SBOM are images of no platform in the index.
    pub(super) fn is_attestation(&self) -> bool {
        self.annotations.get("vnd.docker.reference.type").and_then(Value::as_str) == Some("attestation-manifest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_missing_is_not_shown() {
        for text in ["", "null", "[]", "{\"layers\": 1}", "{\"annotations\": null}"] {
            let summary = Summary::parse(text.as_bytes());
            assert!(summary.layers.is_empty() && !summary.is_image() && summary.size() == 0, "{text}");
        }
        let huge = format!("{{\"layers\": [{{\"size\": {0}}}, {{\"size\": {0}}}]}}", u64::MAX);
        assert_eq!(Summary::parse(huge.as_bytes()).size(), u64::MAX);
        let config: Config =
            serde_json::from_str("{\"os\":\"linux\",\"architecture\":\"arm\",\"variant\":\"v7\"}").unwrap();
        assert_eq!(config.platform.text(), "linux/arm/v7");
    }
}
