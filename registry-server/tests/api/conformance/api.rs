//! R2: what a registry can do.

use std::io::Write;

use kiln_store::Digest;
use serde_json::json;

use super::Row;
use super::blob::{chunk, finish};
use super::data::{index_of, put};
use crate::client::{Client, OCI_IMAGE, image, noise, read_reply};

pub(super) const ROWS: &[Row] = &[
    ("R2-1", "ping", ping),
    ("R2-2", "tag listing", tag_listing),
    ("R2-3", "tag delete", tag_delete),
    ("R2-4", "tag delete atomic", tag_delete),
    ("R2-5", "blob upload cancel", upload_cancel),
    ("R2-6", "blob push", blob_push),
    ("R2-7", "blob post only", post_only),
    ("R2-8", "blob post put", post_put),
    ("R2-9", "blob chunked", chunked),
    ("R2-10", "blob streaming", streaming),
    ("R2-11", "blob mount", mount),
    ("R2-12", "blob anonymous mount", anonymous_mount),
    ("R2-13", "blob get", blob_get),
    ("R2-14", "blob get range", blob_get_range),
    ("R2-15", "blob head", blob_head),
    ("R2-16", "blob delete", blob_delete),
    ("R2-17", "blob delete atomic", blob_delete),
    ("R2-18", "manifest put by digest", |client, repository| put_and_read(client, repository, false)),
    ("R2-19", "manifest put by tag", |client, repository| put_and_read(client, repository, true)),
    ("R2-20", "manifest put with tag params", tag_parameters),
    ("R2-21", "manifest put with subject", subject),
    ("R2-22", "manifest get by digest", |client, repository| put_and_read(client, repository, false)),
    ("R2-23", "manifest get by tag", |client, repository| put_and_read(client, repository, true)),
    ("R2-24", "manifest head by digest", |client, repository| put_and_read(client, repository, false)),
    ("R2-25", "manifest head by tag", |client, repository| put_and_read(client, repository, true)),
    ("R2-26", "manifest delete", manifest_delete),
    ("R2-27", "manifest delete atomic", manifest_delete),
    ("R2-28", "referrers", referrers),
];

pub(super) fn ping(client: &Client, _: &str) {
    let reply = client.get("/v2/").status(200);
    assert_eq!(reply.must("docker-distribution-api-version"), "registry/2.0");
}

fn tag_listing(client: &Client, repository: &str) {
    for tag in ["c", "a", "B", "b1"] {
        client.push_image(repository, tag, b"layer");
    }
    let all = client.get(&format!("/v2/{repository}/tags/list")).status(200).json();
    assert_eq!(all, json!({"name": repository, "tags": ["B", "a", "b1", "c"]}));
    let page = client.get(&format!("/v2/{repository}/tags/list?n=2")).status(200);
    assert_eq!(page.json()["tags"], json!(["B", "a"]));
    let next = page.must("link").strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
    let page = client.get(&next).status(200);
    assert_eq!((page.json()["tags"].clone(), page.header("link")), (json!(["b1", "c"]), None));
    assert_eq!(client.get(&format!("/v2/{repository}/tags/list?n=0")).status(200).json()["tags"], json!([]));
    assert_eq!(client.get(&format!("/v2/{repository}/tags/list?last=b1")).json()["tags"], json!(["c"]));
}

/// Atomic: what was deleted is gone for the very next request.
fn tag_delete(client: &Client, repository: &str) {
    let digest = client.push_image(repository, "kept", b"layer");
    client.push_image(repository, "gone", b"layer");
    let target = format!("/v2/{repository}/manifests/gone");
    client.delete(&target).status(202);
    client.head_of(&target).status(404);
    client.get(&target).fails(404, "MANIFEST_UNKNOWN");
    client.delete(&target).fails(404, "MANIFEST_UNKNOWN");
    client.get(&format!("/v2/{repository}/manifests/{digest}")).status(200);
    client.get(&format!("/v2/{repository}/manifests/kept")).status(200);
    assert_eq!(client.get(&format!("/v2/{repository}/tags/list")).json()["tags"], json!(["kept"]));
}

pub(super) fn upload_cancel(client: &Client, repository: &str) {
    let location = client.start_upload(repository);
    client.request("PATCH", &location, &[], b"some").status(202);
    client.delete(&location).status(204);
    client.get(&location).fails(404, "BLOB_UPLOAD_UNKNOWN");
    client.request("PATCH", &location, &[], b"more").fails(404, "BLOB_UPLOAD_UNKNOWN");
    client.delete(&location).fails(404, "BLOB_UPLOAD_UNKNOWN");
}

fn blob_push(client: &Client, repository: &str) {
    post_only(client, repository);
    post_put(client, repository);
}

fn post_only(client: &Client, repository: &str) {
    let digest = client.push_blob(repository, b"post only");
    assert_eq!(client.get(&format!("/v2/{repository}/blobs/{digest}")).status(200).body, b"post only");
}

fn post_put(client: &Client, repository: &str) {
    let location = client.start_upload(repository);
    let digest = Digest::of(b"post put");
    let reply = client.request("PUT", &finish(&location, &digest), &[], b"post put").status(201);
    assert_eq!(client.get(reply.must("location")).status(200).body, b"post put");
}

fn chunked(client: &Client, repository: &str) {
    let content = noise(21, 5_000);
    let location = client.start_upload(repository);
    for (start, end) in [(0, 2_000), (2_000, 4_000), (4_000, 5_000)] {
        let reply = chunk(client, "PATCH", &location, start, &content[start..end]).status(202);
        assert_eq!(reply.must("range"), format!("0-{}", end - 1));
        assert_eq!(client.get(reply.must("location")).status(204).must("range"), format!("0-{}", end - 1));
    }
    let reply = client.request("PUT", &finish(&location, &Digest::of(&content)), &[], b"").status(201);
    assert!(client.get(reply.must("location")).status(200).body == content);
}

fn streaming(client: &Client, repository: &str) {
    let content = noise(22, 300_000);
    let location = client.start_upload(repository);
    let mut stream = client.head("PATCH", &location, &[("Content-Type", "application/octet-stream")], None);
    for piece in content.chunks(70_000) {
        write!(stream, "{:x}\r\n", piece.len()).unwrap();
        stream.write_all(piece).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(read_reply(stream, "PATCH").status(202).must("range"), "0-299999");
    let reply = client.request("PUT", &finish(&location, &Digest::of(&content)), &[], b"").status(201);
    assert!(client.get(reply.must("location")).status(200).body == content);
}

fn mount(client: &Client, repository: &str) {
    let digest = client.push_blob(&format!("{repository}/from"), repository.as_bytes());
    let target = format!("/v2/{repository}/to/blobs/uploads/?mount={digest}&from={repository}/from");
    let reply = client.request("POST", &target, &[], b"").status(201);
    assert_eq!(reply.must("location"), format!("/v2/{repository}/to/blobs/{digest}"));
    assert_eq!(client.get(reply.must("location")).status(200).body, repository.as_bytes());
}

fn anonymous_mount(client: &Client, repository: &str) {
    let digest = client.push_blob(&format!("{repository}/from"), repository.as_bytes());
    let target = format!("/v2/{repository}/to/blobs/uploads/?mount={digest}");
    client.request("POST", &target, &[], b"").status(201);
    client.get(&format!("/v2/{repository}/to/blobs/{digest}")).status(200);
}

fn blob_get(client: &Client, repository: &str) {
    let digest = client.push_blob(repository, b"content");
    let reply = client.get(&format!("/v2/{repository}/blobs/{digest}")).status(200);
    assert_eq!((reply.body.as_slice(), reply.must("docker-content-digest")), (&b"content"[..], &*digest.to_string()));
    client.get(&format!("/v2/{repository}/blobs/{}", Digest::of(b"unheard"))).fails(404, "BLOB_UNKNOWN");
}

fn blob_get_range(client: &Client, repository: &str) {
    let digest = client.push_blob(repository, b"0123456789");
    let target = format!("/v2/{repository}/blobs/{digest}");
    let reply = client.request("GET", &target, &[("Range", "bytes=2-4")], b"").status(206);
    assert_eq!((reply.body.as_slice(), reply.must("content-range")), (&b"234"[..], "bytes 2-4/10"));
}

fn blob_head(client: &Client, repository: &str) {
    let digest = client.push_blob(repository, b"content");
    let reply = client.head_of(&format!("/v2/{repository}/blobs/{digest}")).status(200);
    assert_eq!((reply.must("content-length"), reply.must("docker-content-digest")), ("7", &*digest.to_string()));
    client.head_of(&format!("/v2/{repository}/blobs/{}", Digest::of(b"unheard"))).status(404);
}

fn blob_delete(client: &Client, repository: &str) {
    let digest = client.push_blob(repository, repository.as_bytes());
    let target = format!("/v2/{repository}/blobs/{digest}");
    client.delete(&target).status(202);
    client.head_of(&target).status(404);
    client.delete(&target).fails(404, "BLOB_UNKNOWN");
    client.push_blob(repository, repository.as_bytes());
    client.head_of(&target).status(200);
}

/// Put, get and head, by tag or by digest.
fn put_and_read(client: &Client, repository: &str, by_tag: bool) {
    client.push_blob(repository, b"{}");
    client.push_blob(repository, b"layer");
    let bytes = image(b"layer").to_string().into_bytes();
    let digest = Digest::of(&bytes).to_string();
    let reference = if by_tag { "a-tag" } else { &digest };
    let reply = put(client, repository, reference, OCI_IMAGE, &bytes).status(201);
    assert_eq!(reply.must("docker-content-digest"), digest);
    for target in [format!("/v2/{repository}/manifests/{reference}"), reply.must("location").to_owned()] {
        let got = client.get(&target).status(200);
        let headed = client.head_of(&target).status(200);
        assert!(got.body == bytes);
        for reply in [got, headed] {
            assert_eq!(reply.must("docker-content-digest"), digest);
            assert_eq!(reply.must("content-type"), OCI_IMAGE);
            assert_eq!(reply.must("content-length"), bytes.len().to_string());
        }
    }
}

fn tag_parameters(client: &Client, repository: &str) {
    client.push_blob(repository, b"{}");
    client.push_blob(repository, b"layer");
    let bytes = image(b"layer").to_string().into_bytes();
    let digest = Digest::of(&bytes);
    let reply = put(client, repository, &format!("{digest}?tag=one&tag=two&tag=three"), OCI_IMAGE, &bytes).status(201);
    assert_eq!(reply.must("oci-tag"), "one, two, three");
    for tag in ["one", "two", "three"] {
        let reply = client.get(&format!("/v2/{repository}/manifests/{tag}")).status(200);
        assert_eq!(reply.must("docker-content-digest"), digest.to_string());
    }
}

fn subject(client: &Client, repository: &str) {
    let digest = client.push_image(repository, "subject", b"layer");
    let mut referrer = image(b"layer");
    referrer["subject"] = json!({"mediaType": OCI_IMAGE, "digest": digest.to_string(), "size": 1});
    assert_eq!(
        client.put_manifest(repository, "referrer", &referrer).status(201).must("oci-subject"),
        digest.to_string()
    );
}

fn manifest_delete(client: &Client, repository: &str) {
    let digest = client.push_image(repository, "tagged", b"layer");
    let target = format!("/v2/{repository}/manifests/{digest}");
    client.delete(&target).status(202);
    client.head_of(&target).status(404);
    client.head_of(&format!("/v2/{repository}/manifests/tagged")).status(404);
    client.delete(&target).fails(404, "MANIFEST_UNKNOWN");
}

fn referrers(client: &Client, repository: &str) {
    let subject = client.push_image(repository, "subject", b"layer");
    let mut referrer = index_of(&[]);
    referrer["subject"] = json!({"mediaType": OCI_IMAGE, "digest": subject.to_string(), "size": 1});
    referrer["artifactType"] = "application/vnd.example".into();
    client.put_manifest(repository, "referrer", &referrer).status(201);
    let target = format!("/v2/{repository}/referrers/{subject}");
    let found = client.get(&target).status(200).json();
    assert_eq!(found["manifests"].as_array().unwrap().len(), 1);
    let other = client.get(&format!("{target}?artifactType=application/vnd.other")).status(200);
    assert_eq!(other.must("oci-filters-applied"), "artifactType");
    assert_eq!(other.json()["manifests"], json!([]));
    client.delete(&format!("/v2/{repository}/manifests/referrer")).status(202);
    let digest = Digest::of(referrer.to_string().as_bytes());
    client.delete(&format!("/v2/{repository}/manifests/{digest}")).status(202);
    assert_eq!(client.get(&target).json()["manifests"], json!([]));
}
