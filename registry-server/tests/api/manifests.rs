//! Manifests: pushed, read, tagged, refused, deleted.

use kiln_store::Digest;
use serde_json::json;

use crate::client::{OCI_IMAGE, OCI_INDEX, Registry, descriptor, image, sha512};

/// Proves: end-3, end-7a, registry-conditional-requests-etag-if-none-match
#[test]
fn a_manifest_comes_back_byte_for_byte_by_tag_and_digest() {
    let registry = Registry::start();
    let client = registry.client();
    client.push_blob("a/b", b"{}");
    client.push_blob("a/b", b"layer");
    let spaced = format!("  {}\n", serde_json::to_string_pretty(&image(b"layer")).unwrap());
    let digest = Digest::of(spaced.as_bytes());
    let put = client.request("PUT", "/v2/a/b/manifests/v1", &[("Content-Type", OCI_IMAGE)], spaced.as_bytes());
    let reply = put.status(201);
    assert_eq!(reply.must("location"), format!("/v2/a/b/manifests/{digest}"));
    assert_eq!(reply.must("docker-content-digest"), digest.to_string());
    for reference in ["v1", &digest.to_string()] {
        let target = format!("/v2/a/b/manifests/{reference}");
        let reply = client.get(&target).status(200);
        assert_eq!(reply.body, spaced.as_bytes());
        assert_eq!(reply.must("content-type"), OCI_IMAGE);
        assert_eq!(reply.must("docker-content-digest"), digest.to_string());
        let etag = reply.must("etag").to_owned();
        let reply = client.head_of(&target).status(200);
        assert_eq!(reply.must("content-length"), spaced.len().to_string());
        client.request("GET", &target, &[("If-None-Match", &etag)], b"").status(304);
    }
    client.get("/v2/a/b/manifests/v2").fails(404, "MANIFEST_UNKNOWN");
    client.get("/v2/other/manifests/v1").fails(404, "MANIFEST_UNKNOWN");
    client.get(&format!("/v2/other/manifests/{digest}")).fails(404, "MANIFEST_UNKNOWN");
    client.get("/v2/a/b/manifests/sha256:baddigeststring").fails(400, "DIGEST_INVALID");
    client.get("/v2/a/b/manifests/.hidden").fails(404, "MANIFEST_UNKNOWN");
}

#[test]
fn a_tag_moves_at_once() {
    let registry = Registry::start();
    let client = registry.client();
    for layer in [b"first", b"later"] {
        let digest = client.push_image("a", "latest", layer);
        for _ in 0..2 {
            let reply = client.get("/v2/a/manifests/latest").status(200);
            assert_eq!(reply.must("docker-content-digest"), digest.to_string());
        }
    }
}

#[test]
fn an_image_needs_its_blobs_in_its_own_repository() {
    let registry = Registry::start();
    let client = registry.client();
    client.push_blob("other", b"{}");
    client.push_blob("a", b"layer");
    let reply = client.put_manifest("a", "v1", &image(b"layer")).fails(404, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(reply.json()["errors"][0]["detail"]["digest"], Digest::of(b"{}").to_string());
    client.get("/v2/a/manifests/v1").status(404);
    client.push_blob("a", b"{}");
    client.put_manifest("a", "v1", &image(b"layer")).status(201);

    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(OCI_IMAGE, b"absent")]});
    let reply = client.put_manifest("a", "index", &index);
    reply.status(201);
    assert_eq!(client.get("/v2/a/manifests/index").must("content-type"), OCI_INDEX);

    let sparse = Registry::start_with(true);
    sparse.client().put_manifest("a", "v1", &image(b"layer")).status(201);
}

#[test]
fn what_is_no_manifest_is_refused() {
    let registry = Registry::start();
    let client = registry.client();
    client.push_blob("a", b"{}");
    let put = |reference: &str, media_type: &str, body: &[u8]| {
        client.request("PUT", &format!("/v2/a/manifests/{reference}"), &[("Content-Type", media_type)], body)
    };
    put("v1", OCI_IMAGE, b"").fails(400, "MANIFEST_INVALID");
    put("v1", OCI_IMAGE, b"not json").fails(400, "MANIFEST_INVALID");
    put("v1", OCI_INDEX, image(b"").to_string().as_bytes()).fails(400, "MANIFEST_INVALID");
    put("-v1", OCI_IMAGE, image(b"").to_string().as_bytes()).fails(400, "MANIFEST_INVALID");
    put("sha256:baddigeststring", OCI_IMAGE, b"{}").fails(400, "DIGEST_INVALID");
    put(&Digest::of(b"else").to_string(), OCI_IMAGE, image(b"").to_string().as_bytes()).fails(400, "DIGEST_INVALID");

    let large = |length: usize| {
        let mut manifest = image(b"");
        manifest["layers"] = json!([]);
        manifest["annotations"] = json!({"a": ""});
        let filler = length - manifest.to_string().len();
        manifest["annotations"]["a"] = "x".repeat(filler).into();
        manifest.to_string()
    };
    put("large", OCI_IMAGE, large(4 << 20).as_bytes()).status(201);
    assert_eq!(client.get("/v2/a/manifests/large").status(200).body.len(), 4 << 20);
    put("larger", OCI_IMAGE, large((4 << 20) + 1).as_bytes()).fails(413, "SIZE_INVALID");
}

/// Proves: end-7b
#[test]
fn several_tags_and_sha512_at_once() {
    let registry = Registry::start();
    let client = registry.client();
    client.push_blob("a", b"{}");
    client.push_blob("a", b"layer");
    let bytes = image(b"layer").to_string();
    for digest in [Digest::of(bytes.as_bytes()), sha512(bytes.as_bytes())] {
        let target = format!("/v2/a/manifests/{digest}?tag=one&tag=two");
        let reply = client.request("PUT", &target, &[("Content-Type", OCI_IMAGE)], bytes.as_bytes()).status(201);
        assert_eq!(reply.must("oci-tag"), "one, two");
        for tag in ["one", "two"] {
            let reply = client.get(&format!("/v2/a/manifests/{tag}")).status(200);
            assert_eq!(reply.must("docker-content-digest"), digest.to_string());
        }
    }
    let target = format!("/v2/a/manifests/{}?tag=-bad", Digest::of(bytes.as_bytes()));
    client.request("PUT", &target, &[("Content-Type", OCI_IMAGE)], bytes.as_bytes()).fails(400, "MANIFEST_INVALID");
}

/// Proves: end-9, registry-delete-by-tag
#[test]
fn deleting_a_tag_keeps_the_manifest_and_deleting_a_manifest_takes_its_tags() {
    let registry = Registry::start();
    let client = registry.client();
    let digest = client.push_image("a", "one", b"layer");
    client.put_manifest("a", "two", &image(b"layer")).status(201);
    let by_digest = format!("/v2/a/manifests/{digest}");
    client.get("/v2/a/manifests/one").status(200);
    client.delete("/v2/a/manifests/one").status(202);
    client.head_of("/v2/a/manifests/one").status(404);
    client.delete("/v2/a/manifests/one").fails(404, "MANIFEST_UNKNOWN");
    client.get(&by_digest).status(200);
    client.push_image("b", "one", b"layer");
    client.delete(&by_digest).status(202);
    client.head_of(&by_digest).status(404);
    client.head_of("/v2/a/manifests/two").status(404);
    client.delete(&by_digest).fails(404, "MANIFEST_UNKNOWN");
    client.get("/v2/b/manifests/one").status(200);
    client.delete("/v2/a/manifests/sha256:bad").fails(400, "DIGEST_INVALID");
}
