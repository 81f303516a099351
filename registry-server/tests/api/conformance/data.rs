//! R3: what a registry must keep, byte for byte.

use kiln_store::Digest;
use serde_json::{Value, json};

use super::Row;
use crate::client::{Client, OCI_IMAGE, OCI_INDEX, Reply, descriptor, image, sha512};

pub(super) const ROWS: &[Row] = &[
    ("R3-1", "image", |client, repository| kept(client, repository, &[("tag", image(LAYER))])),
    ("R3-2", "image-uncompressed", |client, repository| kept(client, repository, &[("tag", image(LAYER))])),
    ("R3-3", "large-manifest", large),
    ("R3-4", "index", |client, repository| {
        kept(client, repository, &[("", image(LAYER)), ("tag", index_of(&[image(LAYER)]))]);
    }),
    ("R3-5", "nested-index", nested),
    ("R3-6", "empty-index", |client, repository| kept(client, repository, &[("tag", index_of(&[]))])),
    ("R3-7", "artifact", |client, repository| kept(client, repository, &[("tag", artifact())])),
    ("R3-8", "artifact-index", artifact_index),
    ("R3-9", "artifact-without-layers", without_layers),
    ("R3-10", "artifacts-with-subject", |client, repository| with_subject(client, repository, artifact(), true)),
    ("R3-11", "index-with-subject", |client, repository| with_subject(client, repository, index_of(&[]), true)),
    ("R3-12", "missing-subject", |client, repository| with_subject(client, repository, artifact(), false)),
    ("R3-13", "data-field", data_field),
    ("R3-14", "non-distributable-layers", elsewhere),
    ("R3-15", "custom-fields", custom_fields),
    ("R3-16", "no-layers", no_layers),
    ("R3-17", "sparse", |client, repository| kept(client, repository, &[("tag", index_of(&[image(b"not pushed")]))])),
    ("R3-18", "sha512", with_sha512),
    ("R3-19", "tag-param-sha256", |client, repository| tag_parameter(client, repository, Digest::of)),
    ("R3-20", "tag-param-sha512", |client, repository| tag_parameter(client, repository, sha512)),
    ("R3-21", "bad-digest-image", bad_digest),
];

const LAYER: &[u8] = b"a layer that is no archive";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// An index of image manifests.
pub(super) fn index_of(manifests: &[Value]) -> Value {
    let descriptors: Vec<Value> = manifests
        .iter()
        .map(|manifest| {
            let media_type = manifest["mediaType"].as_str().unwrap();
            let mut descriptor = descriptor(media_type, manifest.to_string().as_bytes());
            descriptor["platform"] = json!({"os": "linux", "architecture": "amd64"});
            descriptor
        })
        .collect();
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors})
}

fn artifact() -> Value {
    json!({
        "schemaVersion": 2, "mediaType": OCI_IMAGE, "artifactType": "application/vnd.example.artifact",
        "config": descriptor(EMPTY, b"{}"), "layers": [descriptor("text/plain", LAYER)],
        "annotations": {"of": "the artifact"},
    })
}

pub(super) fn put(client: &Client, repository: &str, reference: &str, media_type: &str, bytes: &[u8]) -> Reply {
    client.request("PUT", &format!("/v2/{repository}/manifests/{reference}"), &[("Content-Type", media_type)], bytes)
}

/// Pushes manifests, by tag or (without one) by digest, with the blobs that most of them need, and reads each back.
fn kept(client: &Client, repository: &str, manifests: &[(&str, Value)]) {
    client.push_blob(repository, b"{}");
    client.push_blob(repository, LAYER);
    for (tag, manifest) in manifests {
        // Neither the order nor the blanks of the bytes are those that anybody would write by himself.
        let bytes = serde_json::to_vec_pretty(manifest).unwrap();
        let bytes = if tag.is_empty() { manifest.to_string().into_bytes() } else { bytes };
        kept_bytes(client, repository, tag, manifest["mediaType"].as_str().unwrap(), &bytes);
    }
}

fn kept_bytes(client: &Client, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) {
    let digest = Digest::of(bytes).to_string();
    let reference = if tag.is_empty() { &digest } else { tag };
    let reply = put(client, repository, reference, media_type, bytes).status(201);
    assert_eq!(reply.must("docker-content-digest"), digest);
    for reference in [reference, digest.as_str()] {
        let reply = client.get(&format!("/v2/{repository}/manifests/{reference}")).status(200);
        assert!(reply.body == bytes);
        assert_eq!((reply.must("content-type"), reply.must("docker-content-digest")), (media_type, digest.as_str()));
        let reply = client.head_of(&format!("/v2/{repository}/manifests/{reference}")).status(200);
        assert_eq!(reply.must("content-length"), bytes.len().to_string());
    }
}

fn large(client: &Client, repository: &str) {
    let mut manifest = image(LAYER);
    manifest["annotations"] = json!({"large": "x".repeat(3 << 20)});
    kept(client, repository, &[("tag", manifest)]);
    let bytes = vec![b' '; (4 << 20) + 1];
    put(client, repository, "too-large", OCI_IMAGE, &bytes).status(413);
}

fn nested(client: &Client, repository: &str) {
    let inner = index_of(&[image(LAYER)]);
    let outer = index_of(&[inner.clone(), image(LAYER)]);
    kept(client, repository, &[("", image(LAYER)), ("", inner), ("tag", outer)]);
}

fn artifact_index(client: &Client, repository: &str) {
    let mut index = index_of(&[artifact()]);
    index["artifactType"] = "application/vnd.example.index".into();
    kept(client, repository, &[("", artifact()), ("tag", index)]);
}

fn without_layers(client: &Client, repository: &str) {
    let mut manifest = artifact();
    manifest["layers"] = json!([descriptor(EMPTY, b"{}")]);
    kept(client, repository, &[("tag", manifest)]);
}

fn no_layers(client: &Client, repository: &str) {
    let mut manifest = image(LAYER);
    manifest["layers"] = json!([]);
    kept(client, repository, &[("empty", manifest.clone())]);
    manifest.as_object_mut().unwrap().shift_remove("layers");
    kept(client, repository, &[("none", manifest)]);
}

fn with_subject(client: &Client, repository: &str, mut manifest: Value, present: bool) {
    let subject = image(LAYER);
    let digest = Digest::of(subject.to_string().as_bytes()).to_string();
    manifest["subject"] = descriptor(OCI_IMAGE, subject.to_string().as_bytes());
    if present {
        kept(client, repository, &[("", subject)]);
    }
    kept(client, repository, &[("", manifest.clone())]);
    let media_type = manifest["mediaType"].as_str().unwrap();
    let reply = put(client, repository, "again", media_type, manifest.to_string().as_bytes()).status(201);
    assert_eq!(reply.must("oci-subject"), digest);
    let found = client.get(&format!("/v2/{repository}/referrers/{digest}")).status(200).json();
    assert_eq!(found["manifests"][0]["digest"], Digest::of(manifest.to_string().as_bytes()).to_string());
    assert_eq!(found["manifests"][0]["artifactType"], manifest["artifactType"]);
    assert_eq!(found["manifests"][0]["annotations"], manifest["annotations"]);
}

fn data_field(client: &Client, repository: &str) {
    let mut manifest = artifact();
    manifest["config"]["data"] = "e30=".into();
    kept(client, repository, &[("tag", manifest)]);
}

fn elsewhere(client: &Client, repository: &str) {
    let mut manifest = image(LAYER);
    let mut layer = descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", b"never pushed");
    layer["urls"] = json!(["https://example.com/layer"]);
    manifest["layers"].as_array_mut().unwrap().push(layer);
    kept(client, repository, &[("tag", manifest)]);
}

fn custom_fields(client: &Client, repository: &str) {
    let mut manifest = image(LAYER);
    manifest["org.example.custom"] = json!({"of": [1, null, "text"]});
    manifest["config"]["org.example.custom"] = true.into();
    let mut index = index_of(&[manifest.clone()]);
    index["org.example.custom"] = 1.into();
    kept(client, repository, &[("", manifest), ("tag", index)]);
}

fn with_sha512(client: &Client, repository: &str) {
    client.push_blob(repository, b"{}");
    let layer = sha512(LAYER);
    let target = format!("/v2/{repository}/blobs/uploads/?digest={layer}");
    client.request("POST", &target, &[], LAYER).status(201);
    let mut manifest = image(LAYER);
    manifest["layers"][0]["digest"] = layer.to_string().into();
    let bytes = manifest.to_string().into_bytes();
    let digest = sha512(&bytes);
    let reply = put(client, repository, &digest.to_string(), OCI_IMAGE, &bytes).status(201);
    assert_eq!(reply.must("docker-content-digest"), digest.to_string());
    let reply = client.get(&format!("/v2/{repository}/manifests/{digest}")).status(200);
    assert!(reply.body == bytes && reply.must("docker-content-digest") == digest.to_string());
    client.delete(&format!("/v2/{repository}/manifests/{digest}")).status(202);
    client.head_of(&format!("/v2/{repository}/manifests/{digest}")).status(404);
}

fn tag_parameter(client: &Client, repository: &str, digest_of: fn(&[u8]) -> Digest) {
    client.push_blob(repository, b"{}");
    client.push_blob(repository, LAYER);
    let bytes = image(LAYER).to_string().into_bytes();
    let digest = digest_of(&bytes);
    let reply = put(client, repository, &format!("{digest}?tag=a&tag=b"), OCI_IMAGE, &bytes).status(201);
    assert_eq!(reply.must("oci-tag"), "a, b");
    for tag in ["a", "b"] {
        let reply = client.head_of(&format!("/v2/{repository}/manifests/{tag}")).status(200);
        assert_eq!(reply.must("docker-content-digest"), digest.to_string());
    }
}

fn bad_digest(client: &Client, repository: &str) {
    client.push_blob(repository, b"{}");
    client.push_blob(repository, LAYER);
    let bytes = image(LAYER).to_string().into_bytes();
    for digest in [Digest::of(b"other"), sha512(b"other")] {
        put(client, repository, &digest.to_string(), OCI_IMAGE, &bytes).fails(400, "DIGEST_INVALID");
        client.head_of(&format!("/v2/{repository}/manifests/{digest}")).status(404);
    }
}
