//! Attestations as BuildKit keeps them: in-toto statements are the layers of a manifest of their own, and an index
//! names the image and, for the platform "unknown", that manifest.

use std::collections::BTreeMap;

use kiln_store::Store;
use serde_json::{Value, json};

use crate::manifest::{Descriptor, Manifest, OCI_CONFIG, OCI_MANIFEST};
use crate::{Error, Platform, Reference, Result};

/// Media type of an in-toto statement.
const IN_TOTO: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v0.1";

/// Something that is said of an image.
#[derive(Debug, Clone)]
pub struct Attestation {
    /// The type of the predicate, a URI.
    pub predicate_type: String,
    /// What is said.
    pub predicate: Value,
}

impl Attestation {
    /// The in-toto statement about these subjects: name and hexadecimal SHA-256 digest each.
    pub fn statement(&self, subjects: &[(String, String)]) -> Value {
        let subject: Vec<Value> =
            subjects.iter().map(|(name, digest)| json!({"name": name, "digest": {"sha256": digest}})).collect();
        json!({
            "_type": STATEMENT,
            "predicateType": self.predicate_type,
            "subject": subject,
            "predicate": self.predicate,
        })
    }
}

/// `pkg:docker/name@tag?platform=linux%2Famd64`
pub fn package_url(name: &Reference, platform: &Platform) -> String {
    let version = name.tag().map(|tag| format!("@{tag}")).unwrap_or_default();
    let familiar = name.familiar();
    let path = familiar.rsplit_once('@').map_or(familiar.as_str(), |(path, _)| path);
    let path = match path.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        _ => path,
    };
    format!("pkg:docker/{path}{version}?platform={}", platform.to_string().replace('/', "%2F"))
}

/// The manifest of the statements: its descriptor for an index.
pub(crate) fn manifest(
    store: &Store,
    attestations: &[Attestation],
    subjects: &[(String, String)],
) -> Result<Descriptor> {
    let what = "attestation manifest";
    let bytes_of = |value: &Value| serde_json::to_vec(value).map_err(Error::json(what));
    let mut layers = Vec::with_capacity(attestations.len());
    for attestation in attestations {
        let bytes = bytes_of(&attestation.statement(subjects))?;
        let digest = store.blobs().put(&bytes)?;
        let mut layer = Descriptor::new(IN_TOTO, digest, bytes.len() as u64);
        layer.annotations.insert("in-toto.io/predicate-type".to_owned(), attestation.predicate_type.clone());
        layers.push(layer);
    }
    let diff_ids: Vec<String> = layers.iter().map(|layer| layer.digest.to_string()).collect();
    let config = bytes_of(&json!({
        "architecture": "unknown",
        "os": "unknown",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }))?;
    let config = Descriptor::new(OCI_CONFIG, store.blobs().put(&config)?, config.len() as u64);
    let (schema_version, media_type) = (2, Some(OCI_MANIFEST.to_owned()));
    let manifest = Manifest { schema_version, media_type, config, layers, annotations: BTreeMap::new() };
    let bytes = serde_json::to_vec(&manifest).map_err(Error::json(what))?;
    let descriptor = Descriptor::new(OCI_MANIFEST, store.blobs().put(&bytes)?, bytes.len() as u64);
    Ok(Descriptor { platform: Some(Platform::unknown()), ..descriptor })
}
