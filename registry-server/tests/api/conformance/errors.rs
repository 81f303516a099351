//! R5: every error code, where it belongs.

use std::io::Write;

use kiln_registry_server::Collection;
use kiln_store::Digest;
use serde_json::json;

use super::Row;
use super::blob::{chunk, finish};
use super::data::put;
use crate::client::{Client, OCI_IMAGE, image};

pub(super) const ROWS: &[Row] = &[
    ("R5-1", "BLOB_UNKNOWN", blob_unknown),
    ("R5-2", "BLOB_UPLOAD_INVALID", upload_invalid),
    ("R5-3", "BLOB_UPLOAD_UNKNOWN", upload_unknown),
    ("R5-4", "DIGEST_INVALID", digest_invalid),
    ("R5-5", "MANIFEST_BLOB_UNKNOWN", manifest_blob_unknown),
    ("R5-6", "MANIFEST_INVALID", manifest_invalid),
    ("R5-7", "MANIFEST_UNKNOWN", manifest_unknown),
    ("R5-8", "NAME_INVALID", name_invalid),
    ("R5-9", "NAME_UNKNOWN", name_unknown),
    ("R5-10", "SIZE_INVALID", size_invalid),
    ("R5-11", "UNAUTHORIZED", unauthorized),
    ("R5-12", "DENIED", denied),
    ("R5-13", "UNSUPPORTED", unsupported),
    ("R5-14", "TOOMANYREQUESTS", too_many_requests),
];

/// Tags that begin with `fixed` are immutable.
pub(super) fn rules() -> Collection {
    serde_json::from_value(json!({"immutable": [{"tags": "fixed*"}]})).unwrap()
}

fn blob_unknown(client: &Client, repository: &str) {
    let target = format!("/v2/{repository}/blobs/{}", Digest::of(b"unheard"));
    client.get(&target).fails(404, "BLOB_UNKNOWN");
    client.delete(&target).fails(404, "BLOB_UNKNOWN");
}

fn upload_invalid(client: &Client, repository: &str) {
    let location = client.start_upload(repository);
    chunk(client, "PATCH", &location, 7, b"bytes").fails(416, "BLOB_UPLOAD_INVALID");
}

fn upload_unknown(client: &Client, repository: &str) {
    let target = format!("/v2/{repository}/blobs/uploads/{}", "0".repeat(32));
    client.get(&target).fails(404, "BLOB_UPLOAD_UNKNOWN");
    client.request("PUT", &finish(&target, &Digest::of(b"")), &[], b"").fails(404, "BLOB_UPLOAD_UNKNOWN");
}

fn digest_invalid(client: &Client, repository: &str) {
    client.get(&format!("/v2/{repository}/blobs/sha256:short")).fails(400, "DIGEST_INVALID");
    let location = client.start_upload(repository);
    client.request("PUT", &finish(&location, &Digest::of(b"other")), &[], b"bytes").fails(400, "DIGEST_INVALID");
}

fn manifest_blob_unknown(client: &Client, repository: &str) {
    let reply = client.put_manifest(repository, "tag", &image(b"not pushed")).fails(404, "MANIFEST_BLOB_UNKNOWN");
    let digests: Vec<String> = reply.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["detail"]["digest"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(digests, [Digest::of(b"{}").to_string(), Digest::of(b"not pushed").to_string()]);
}

fn manifest_invalid(client: &Client, repository: &str) {
    put(client, repository, "tag", OCI_IMAGE, b"{").fails(400, "MANIFEST_INVALID");
    put(client, repository, "tag", "text/plain", b"{}").fails(400, "MANIFEST_INVALID");
    put(client, repository, "-no-tag", OCI_IMAGE, b"{}").fails(400, "MANIFEST_INVALID");
}

fn manifest_unknown(client: &Client, repository: &str) {
    client.get(&format!("/v2/{repository}/manifests/unheard")).fails(404, "MANIFEST_UNKNOWN");
    client.delete(&format!("/v2/{repository}/manifests/unheard")).fails(404, "MANIFEST_UNKNOWN");
}

fn name_invalid(client: &Client, repository: &str) {
    client.get(&format!("/v2/{repository}/UPPER/tags/list")).fails(400, "NAME_INVALID");
    client.request("POST", &format!("/v2/{repository}/../x/blobs/uploads/"), &[], b"").fails(400, "NAME_INVALID");
}

fn name_unknown(client: &Client, repository: &str) {
    client.get(&format!("/v2/{repository}/unheard/tags/list")).fails(404, "NAME_UNKNOWN");
}

fn size_invalid(client: &Client, repository: &str) {
    let location = client.start_upload(repository);
    let headers = [("Content-Range", "0-99")];
    client.request("PATCH", &location, &headers, b"fewer").fails(400, "SIZE_INVALID");
    put(client, repository, "tag", OCI_IMAGE, &vec![b' '; (4 << 20) + 1]).fails(413, "SIZE_INVALID");
}

fn denied(client: &Client, repository: &str) {
    let digest = client.push_image(repository, "fixed-1", b"layer");
    client.push_image(repository, "fixed-1", b"layer");
    client.push_blob(repository, b"another");
    client.put_manifest(repository, "fixed-1", &image(b"another")).fails(403, "DENIED");
    client.delete(&format!("/v2/{repository}/manifests/fixed-1")).fails(403, "DENIED");
    client.delete(&format!("/v2/{repository}/manifests/{digest}")).fails(403, "DENIED");
    let reply = client.get(&format!("/v2/{repository}/manifests/fixed-1")).status(200);
    assert_eq!(reply.must("docker-content-digest"), digest.to_string());
}

fn unsupported(client: &Client, repository: &str) {
    let reply = client.request("POST", &format!("/v2/{repository}/tags/list"), &[], b"").fails(405, "UNSUPPORTED");
    assert_eq!(reply.must("allow"), "GET, HEAD");
    client.request("PUT", &format!("/v2/{repository}/blobs/uploads/"), &[], b"").fails(405, "UNSUPPORTED");
}

/// The registry of the others has no users and asks nobody; one with users does.
fn unauthorized(client: &Client, repository: &str) {
    client.get("/v2/").status(200);
    crate::access::strangers_are_asked_who_they_are(repository);
}

/// A second writer of one upload is asked to come again while the first one has not ended.
fn too_many_requests(client: &Client, repository: &str) {
    let location = client.start_upload(repository);
    let mut first = client.head("PATCH", &location, &[], Some(100));
    first.write_all(b"some of it").unwrap();
    while client.get(&location).status(204).must("range") != "0-0" {}
    std::thread::sleep(std::time::Duration::from_millis(300));
    client.request("PATCH", &location, &[], b"more").fails(429, "TOOMANYREQUESTS");
    drop(first);
}
