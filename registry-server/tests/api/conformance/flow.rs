//! R6: what BuildKit's registry tests ask for.

use kiln_store::Digest;
use serde_json::json;

use super::Row;
use super::data::put;
use crate::client::{Client, OCI_IMAGE, OCI_INDEX, image};

pub(super) const ROWS: &[Row] = &[
    ("R6-1", "ping", super::api::ping),
    ("R6-2", "empty repository", empty_repository),
    ("R6-3", "missing manifest", missing_manifest),
    ("R6-4", "invalid digest format", invalid_digest),
    ("R6-5", "tag list", tag_list),
    ("R6-6", "referrers", referrers),
    ("R6-7", "delete order", delete_order),
];

fn empty_repository(client: &Client, repository: &str) {
    client.get(&format!("/v2/{repository}/tags/list")).fails(404, "NAME_UNKNOWN");
    let reply = client.get(&format!("/v2/{repository}/referrers/{}", Digest::of(b""))).status(200);
    assert_eq!(reply.json(), json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}));
}

fn missing_manifest(client: &Client, repository: &str) {
    for reference in ["unheard", &Digest::of(b"unheard").to_string()] {
        client.get(&format!("/v2/{repository}/manifests/{reference}")).fails(404, "MANIFEST_UNKNOWN");
        client.head_of(&format!("/v2/{repository}/manifests/{reference}")).status(404);
    }
}

fn invalid_digest(client: &Client, repository: &str) {
    for digest in ["sha256:baddigeststring", "sha256:", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
        put(client, repository, digest, OCI_IMAGE, b"{}").status(400);
        client.get(&format!("/v2/{repository}/manifests/{digest}")).status(400);
    }
}

fn tag_list(client: &Client, repository: &str) {
    let tags = ["test0", "test1", "test2", "test3"];
    for tag in tags {
        client.push_image(repository, tag, b"layer");
    }
    assert_eq!(client.get(&format!("/v2/{repository}/tags/list")).json()["tags"], json!(tags));
    assert_eq!(client.get(&format!("/v2/{repository}/tags/list?last=test1")).json()["tags"], json!(tags[2..]));
}

/// By the API, and by the tag scheme of clients that do not know it.
fn referrers(client: &Client, repository: &str) {
    let subject = Digest::of(b"a subject that was never pushed");
    let mut artifact = image(b"layer");
    artifact["subject"] = json!({"mediaType": OCI_IMAGE, "digest": subject.to_string(), "size": 1});
    artifact["artifactType"] = "application/vnd.example.sbom".into();
    artifact["annotations"] = json!({"org.example.kind": "sbom"});
    client.push_blob(repository, b"{}");
    client.push_blob(repository, b"layer");
    let bytes = artifact.to_string();
    let digest = Digest::of(bytes.as_bytes()).to_string();
    let reply = put(client, repository, &digest, OCI_IMAGE, bytes.as_bytes()).status(201);
    assert_eq!(reply.must("oci-subject"), subject.to_string());
    let target = format!("/v2/{repository}/referrers/{subject}?artifactType=application%2Fvnd.example.sbom");
    let reply = client.get(&target).status(200);
    assert_eq!((reply.must("content-type"), reply.must("oci-filters-applied")), (OCI_INDEX, "artifactType"));
    let expected = json!({
        "mediaType": OCI_IMAGE, "digest": digest, "size": bytes.len(), "artifactType": "application/vnd.example.sbom",
        "annotations": {"org.example.kind": "sbom"},
    });
    assert_eq!(reply.json()["manifests"], json!([expected]));

    let fallback = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [expected]});
    let tag = subject.to_string().replace(':', "-");
    client.put_manifest(repository, &tag, &fallback).status(201);
    assert_eq!(client.get(&format!("/v2/{repository}/manifests/{tag}")).status(200).json(), fallback);
    assert_eq!(client.get(&target).json()["manifests"], json!([expected]));
}

fn delete_order(client: &Client, repository: &str) {
    let digest = client.push_image(repository, "tag", b"layer of this one");
    let mut referrer = image(b"layer of this one");
    referrer["subject"] = json!({"mediaType": OCI_IMAGE, "digest": digest.to_string(), "size": 1});
    client.put_manifest(repository, "referrer", &referrer).status(201);
    let second = Digest::of(referrer.to_string().as_bytes());
    let layer = Digest::of(b"layer of this one");
    for target in [
        "manifests/referrer".to_owned(),
        "manifests/tag".to_owned(),
        format!("manifests/{second}"),
        format!("manifests/{digest}"),
        format!("blobs/{layer}"),
    ] {
        client.delete(&format!("/v2/{repository}/{target}")).status(202);
        client.head_of(&format!("/v2/{repository}/{target}")).status(404);
    }
    assert_eq!(client.get(&format!("/v2/{repository}/tags/list")).status(200).json()["tags"], json!([]));
}
