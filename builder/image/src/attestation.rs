//! Attestations as BuildKit keeps them: in-toto statements are the layers of a manifest of their own, and an index
//! names the image and, for the platform "unknown", that manifest.

use std::collections::BTreeMap;

use kiln_store::Store;
use kiln_store::layer::Compression;
use serde_json::{Value, json};

use crate::index::StoredIndex;
use crate::manifest::{Descriptor, Index, Manifest, OCI_CONFIG, OCI_MANIFEST, pack};
use crate::{Error, Image, Platform, Reference, Result};

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

/// Makes an index of an image and what is said of it, and points the names at it.
///
/// # Errors
/// The store cannot be read or written.
pub fn attach(
    store: &Store,
    image: &Image,
    attestations: &[Attestation],
    names: &[Reference],
) -> Result<Vec<StoredIndex>> {
    let packed = pack(store, image, Compression::Gzip)?;
    store.blobs().put(&packed.bytes)?;
    Image::record(store, image.id, image.config.clone(), Some(packed.digest), &[])?;
    let platform = image.platform();
    let subjects: Vec<(String, String)> =
        names.iter().map(|name| (package_url(name, &platform), packed.digest.hex())).collect();
    let statements = manifest(store, attestations, &subjects)?;
    let entry = Descriptor::new(&packed.media_type, packed.digest, packed.bytes.len() as u64);
    let said_of = BTreeMap::from([
        ("vnd.docker.reference.digest".to_owned(), packed.digest.to_string()),
        ("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned()),
    ]);
    let mut index = Index::empty();
    index.manifests.push(Descriptor { platform: Some(platform), ..entry });
    index.manifests.push(Descriptor { annotations: said_of, ..statements });
    names.iter().map(|name| StoredIndex::put(store, name, index.clone())).collect()
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
fn manifest(store: &Store, attestations: &[Attestation], subjects: &[(String, String)]) -> Result<Descriptor> {
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
    let manifest = Manifest { schema_version: 2, media_type: Some(OCI_MANIFEST.to_owned()), config, layers };
    let bytes = serde_json::to_vec(&manifest).map_err(Error::json(what))?;
    let descriptor = Descriptor::new(OCI_MANIFEST, store.blobs().put(&bytes)?, bytes.len() as u64);
    Ok(Descriptor { platform: Some(Platform::unknown()), ..descriptor })
}
