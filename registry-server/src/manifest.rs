//! What the registry must understand of a manifest: its kind, what it refers to, what it says about itself.
//! The bytes are kept as they came.

use kiln_store::Digest;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::failure::{Code, Failure};

/// Bytes of the largest manifest, unless it is configured otherwise (the specification asks for at least 4 MiB).
pub(crate) const LARGEST_MANIFEST: usize = 4 << 20;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest that was found valid.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// Its media type: the request's, which is the manifest's own where it has one.
    pub(crate) media_type: String,
    /// What the specification calls its artifact type: the field, or an image's config media type.
    pub(crate) artifact_type: Option<String>,
    /// The manifest that it is about.
    pub(crate) subject: Option<Digest>,
    /// Every blob it needs here: an image's config and layers, without those to be fetched from elsewhere.
    pub(crate) blobs: Vec<Digest>,
    /// Every digest it names, but its subject's: what must stay as long as it does. Sorted.
    pub(crate) references: Vec<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u64,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: Option<String>,
    digest: Digest,
    size: u64,
    urls: Option<Vec<String>>,
}

impl Manifest {
    /// Checks the bytes. `content_type` is the request's; its parameters do not matter.
    pub(crate) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, Failure> {
        let invalid = |reason: String| Failure::new(Code::ManifestInvalid).detail(reason);
        let document: Document = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        if document.schema_version != 2 {
            return Err(invalid(format!("schemaVersion is {}, not 2", document.schema_version)));
        }
        let media_type = document.kind(content_type).map_err(invalid)?;
        let is_index = media_type == OCI_INDEX || media_type == DOCKER_LIST;
        // A document that could be read both ways means different things to different clients (CVE-2021-41190).
        let fields = [document.config.is_some(), document.layers.is_some(), document.manifests.is_some()];
        match (is_index, fields) {
            (true, [false, false, true]) | (false, [true, _, false]) => {}
            (true, _) => return Err(invalid("an index has `manifests`, and neither `config` nor `layers`".to_owned())),
            (false, _) => return Err(invalid("an image manifest has `config`, and no `manifests`".to_owned())),
        }
        let config_type = document.config.as_ref().and_then(|config| config.media_type.clone());
        let all = || document.config.iter().chain(document.layers.iter().flatten());
        let descriptors = all().chain(document.manifests.iter().flatten()).chain(&document.subject);
        if let Some(descriptor) = { descriptors }.find(|descriptor| i64::try_from(descriptor.size).is_err()) {
            return Err(invalid(format!("the size of {} is out of range", descriptor.digest)));
        }
        Ok(Self {
            blobs: all().filter(|descriptor| !descriptor.is_elsewhere()).map(|descriptor| descriptor.digest).collect(),
            references: document.references(),
            artifact_type: document.artifact_type.filter(|text| !text.is_empty()).or(config_type),
            subject: document.subject.map(|subject| subject.digest),
            media_type,
        })
    }
}

impl Document {
    /// Digests of everything but the subject, each once. An index may name blobs, too (build caches do).
    fn references(&self) -> Vec<Digest> {
        let all = self.config.iter().chain(self.layers.iter().flatten()).chain(self.manifests.iter().flatten());
        let mut digests: Vec<Digest> = all.map(|descriptor| descriptor.digest).collect();
        digests.sort_unstable();
        digests.dedup();
        digests
    }

    /// The media type, where request, document and shape agree on one.
    fn kind(&self, content_type: Option<&str>) -> Result<String, String> {
        let sent = content_type.and_then(|text| text.split(';').next()).map(str::trim).filter(|text| !text.is_empty());
        let kind = match (sent, self.media_type.as_deref()) {
            (Some(sent), Some(own)) if !sent.eq_ignore_ascii_case(own) => {
                return Err(format!("mediaType is {own}, but Content-Type {sent}"));
            }
            (_, Some(own)) => own,
            (Some(sent), None) => sent,
            (None, None) if self.manifests.is_some() => OCI_INDEX,
            (None, None) => OCI_IMAGE,
        };
        if [OCI_IMAGE, OCI_INDEX, DOCKER_IMAGE, DOCKER_LIST].contains(&kind) {
            return Ok(kind.to_owned());
        }
        Err(format!("the media type {kind} is not supported"))
    }
}

impl Descriptor {
    /// A layer that may not be distributed is not pushed, so it cannot be required.
    fn is_elsewhere(&self) -> bool {
        self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
            || self.media_type.as_deref().is_some_and(|media_type| {
                media_type.starts_with("application/vnd.oci.image.layer.nondistributable.v1.")
                    || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
            })
    }
}

/// What a manifest refers to that was accepted before.
pub(crate) fn references(bytes: &[u8]) -> Vec<Digest> {
    serde_json::from_slice::<Document>(bytes).map(|document| document.references()).unwrap_or_default()
}

/// The annotations of a manifest that was accepted before.
pub(crate) fn annotations(bytes: &[u8]) -> Option<Map<String, Value>> {
    #[derive(Deserialize)]
    struct Annotated {
        annotations: Option<Map<String, Value>>,
    }
    serde_json::from_slice::<Annotated>(bytes).ok()?.annotations
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn descriptor(media_type: &str, content: &[u8]) -> Value {
        json!({"mediaType": media_type, "digest": Digest::of(content).to_string(), "size": content.len()})
    }

    fn parse(document: &Value, content_type: Option<&str>) -> Result<Manifest, Failure> {
        Manifest::parse(document.to_string().as_bytes(), content_type)
    }

    #[test]
    fn an_image_needs_its_config_and_layers_but_not_foreign_ones() {
        let mut foreign = descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", b"foreign");
        foreign["urls"] = json!(["https://example.com/layer"]);
        let document = json!({
            "schemaVersion": 2,
            "config": descriptor("application/vnd.example.config", b"config"),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", b"layer"), foreign],
            "subject": descriptor(OCI_IMAGE, b"subject"),
            "unheard": {"of": 1},
        });
        let manifest = parse(&document, Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8")).unwrap();
        assert_eq!(manifest.blobs, [Digest::of(b"config"), Digest::of(b"layer")]);
        assert_eq!(manifest.subject, Some(Digest::of(b"subject")));
        let mut references = [b"config".as_slice(), b"layer", b"foreign"].map(Digest::of);
        references.sort_unstable();
        assert_eq!(manifest.references, references);
        assert_eq!(manifest.artifact_type.as_deref(), Some("application/vnd.example.config"));
        assert_eq!(parse(&document, None).unwrap().media_type, OCI_IMAGE);
    }

    #[test]
    fn an_index_needs_nothing_and_no_layers_may_be_null() {
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(OCI_IMAGE, b"x")]});
        let manifest = parse(&index, None).unwrap();
        assert!(manifest.blobs.is_empty() && manifest.artifact_type.is_none());
        let image = json!({"schemaVersion": 2, "config": descriptor("a/b", b""), "layers": null});
        assert_eq!(parse(&image, Some(DOCKER_IMAGE)).unwrap().media_type, DOCKER_IMAGE);
    }

    #[test]
    fn what_is_invalid_is_refused() {
        let config = descriptor("a/b", b"");
        let mut huge = config.clone();
        huge["size"] = json!(u64::MAX);
        for (document, content_type) in [
            (json!(null), None),
            (json!([]), None),
            (json!({"schemaVersion": 1}), None),
            (json!({"schemaVersion": 2}), None),
            (json!({"schemaVersion": 2, "config": config, "manifests": []}), None),
            (json!({"schemaVersion": 2, "config": config, "layers": [], "manifests": []}), Some(OCI_IMAGE)),
            (json!({"schemaVersion": 2, "config": huge}), None),
            (json!({"schemaVersion": 2, "config": {"digest": "sha256:../..", "size": 1}}), None),
            (json!({"schemaVersion": 2, "config": {"digest": config["digest"], "size": -1}}), None),
            (json!({"schemaVersion": 2, "mediaType": OCI_IMAGE, "config": config}), Some(DOCKER_IMAGE)),
            (json!({"schemaVersion": 2, "config": config}), Some("text/html")),
        ] {
            let failure = parse(&document, content_type).unwrap_err();
            assert_eq!(failure.code(), Code::ManifestInvalid, "{document}");
        }
        assert!(Manifest::parse(&b"[".repeat(1 << 20), None).is_err());
        assert!(Manifest::parse(br#"{"schemaVersion":2,"schemaVersion":2}"#, None).is_err());
    }
}
