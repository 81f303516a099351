//! The image configuration: OCI image specification "Image Configuration" with docker's extensions
//! (Healthcheck, OnBuild, Shell). Fields that are not known here are kept as they came.

use std::collections::BTreeMap;

use kiln_store::{DiffId, Digest};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::{Error, Platform, Result};

/// The config blob.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// MAINTAINER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// `amd64`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub architecture: String,
    /// `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// `linux`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub os: String,
    /// How a container of it runs.
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: RunConfig,
    /// The layers.
    pub rootfs: RootFs,
    /// How it was made.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The layers, lowest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The diffIDs.
    #[serde(default, deserialize_with = "null_as_default")]
    pub diff_ids: Vec<DiffId>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// One line of history.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// MAINTAINER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// It made no layer.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// Docker's "Config" object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are the specification's")]
pub struct RunConfig {
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args_escaped: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<BTreeMap<String, Value>>,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    #[serde(default, deserialize_with = "labels_with_nulls", skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// HEALTHCHECK; durations in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are docker's")]
pub struct Healthcheck {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Vec<String>>,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_zero")]
    pub interval: i64,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_zero")]
    pub timeout: i64,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_zero")]
    pub start_period: i64,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_zero")]
    pub retries: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Go writes `null` for an empty list, map or structure.
fn null_as_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn labels_with_nulls<'de, D>(deserializer: D) -> std::result::Result<Option<BTreeMap<String, String>>, D::Error>
where
    D: Deserializer<'de>,
{
    let labels = Option::<BTreeMap<String, Option<String>>>::deserialize(deserializer)?;
    Ok(labels.map(|labels| labels.into_iter().map(|(name, value)| (name, value.unwrap_or_default())).collect()))
}

impl ImageConfig {
    /// Reads a config blob; `id` is its digest, for the message.
    ///
    /// # Errors
    /// Bytes that are no image config.
    pub fn from_bytes(bytes: &[u8], id: &Digest) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(Error::json(format!("image config {id}")))
    }

    /// The config blob: the same bytes for the same config.
    ///
    /// # Errors
    /// None that is known: every config can be written as JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(Error::json("image config"))
    }

    /// The platform it was made for.
    pub fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nulls_of_go_are_empty() {
        let bytes = br#"{"architecture":"amd64","os":"linux","author":null,"history":null,"rootfs":{"type":"layers",
            "diff_ids":null},"config":{"User":null,"Env":null,"Entrypoint":null,"OnBuild":null,"Labels":{"a":null},
            "Volumes":null,"WorkingDir":null,"Healthcheck":null,"Tty":false},"docker_version":"20.10"}"#;
        let config = ImageConfig::from_bytes(bytes, &Digest::of(bytes)).expect("config");
        assert_eq!(config.config.entrypoint, None);
        assert_eq!(config.config.labels, Some(BTreeMap::from([("a".to_owned(), String::new())])));
        assert_eq!(config.other["docker_version"], json!("20.10"));
        let empty = br#"{"config":null,"rootfs":{"type":"layers"}}"#;
        assert!(ImageConfig::from_bytes(empty, &Digest::of(empty)).is_ok());
    }

    #[test]
    fn what_came_goes_out_again() {
        let foreign = json!({
            "created": "2024-01-02T03:04:05.678Z", "architecture": "arm", "variant": "v6", "os": "linux",
            "config": {"Hostname": "x", "User": "u", "ExposedPorts": {"80/tcp": {}}, "Env": ["A=1"], "Cmd": ["c"],
                "OnBuild": [], "Healthcheck": {"Test": ["CMD", "t"], "Interval": 5_000_000_000_i64, "Retries": 3},
                "ArgsEscaped": true, "StopSignal": "SIGINT", "Shell": ["/bin/sh", "-c"], "StopTimeout": 3},
            "rootfs": {"type": "layers", "diff_ids": []},
            "history": [{"created_by": "RUN x", "empty_layer": true}],
            "container": "abc", "os.version": "1"
        });
        let bytes = serde_json::to_vec(&foreign).expect("bytes");
        let config = ImageConfig::from_bytes(&bytes, &Digest::of(&bytes)).expect("config");
        let again: Value = serde_json::from_slice(&config.to_bytes().expect("bytes")).expect("json");
        assert_eq!(again, foreign);
    }
}
