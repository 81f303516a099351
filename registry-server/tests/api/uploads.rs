//! Uploads: whole, in chunks, streamed, resumed, refused, cancelled.

use std::io::Write;
use std::net::Shutdown;

use kiln_store::Digest;

use crate::client::{Client, Registry, noise, read_reply, sha512};

fn chunk(client: &Client, method: &str, target: &str, range: &str, body: &[u8]) -> crate::client::Reply {
    client.request(method, target, &[("Content-Range", range), ("Content-Type", "application/octet-stream")], body)
}

/// Proves: end-4a, end-6
#[test]
fn one_put_finishes_an_upload() {
    let registry = Registry::start();
    let client = registry.client();
    let digest = Digest::of(b"whole");
    let location = client.start_upload("a");
    client.request("PUT", &location, &[], b"whole").fails(400, "DIGEST_INVALID");
    client.request("PUT", &format!("{location}?digest=md5:00"), &[], b"whole").fails(400, "DIGEST_INVALID");
    let finish = format!("{location}?digest={}", digest.to_string().replace(':', "%3A"));
    let reply = client.request("PUT", &finish, &[], b"whole").status(201);
    assert_eq!(reply.must("location"), format!("/v2/a/blobs/{digest}"));
    assert_eq!(client.get(reply.must("location")).status(200).body, b"whole");
    client.request("PUT", &finish, &[], b"whole").fails(404, "BLOB_UPLOAD_UNKNOWN");
    client.get(&location).fails(404, "BLOB_UPLOAD_UNKNOWN");
}

/// Proves: end-5, end-13
#[test]
fn chunks_must_follow_each_other() {
    let registry = Registry::start();
    let client = registry.client();
    let content = noise(2, 3000);
    let location = client.start_upload("a");
    let reply = chunk(&client, "PATCH", &location, "0-999", &content[..1000]).status(202);
    assert_eq!((reply.must("range"), reply.must("location")), ("0-999", location.as_str()));

    for (method, range) in [("PATCH", "2000-2999"), ("PATCH", "0-999"), ("PATCH", "nonsense"), ("PUT", "2000-2999")] {
        let target = format!("{location}?digest={}", Digest::of(&content));
        let reply = chunk(&client, method, &target, range, &content[..1000]).fails(416, "BLOB_UPLOAD_INVALID");
        assert_eq!((reply.must("range"), reply.must("location")), ("0-999", location.as_str()));
    }
    let reply = client.get(&location).status(204);
    assert_eq!((reply.must("range"), reply.must("location")), ("0-999", location.as_str()));

    chunk(&client, "PATCH", &location, "1000-1999", &content[1000..1500]).fails(400, "SIZE_INVALID");
    chunk(&client, "PATCH", &location, "bytes 1000-1999/3000", &content[1000..2000]).status(202);
    let finish = format!("{location}?digest={}", Digest::of(&content));
    let reply = chunk(&client, "PUT", &finish, "2000-2999", &content[2000..]).status(201);
    assert_eq!(client.get(reply.must("location")).status(200).body, content);
}

#[test]
fn a_stream_of_unknown_length_is_taken_but_never_more_than_its_range() {
    let registry = Registry::start();
    let client = registry.client();
    let content = noise(3, 1_500_000);
    let location = client.start_upload("a");
    let send = |headers: &[(&str, &str)], content: &[u8]| {
        let mut stream = client.head("PATCH", &location, headers, None);
        for piece in content.chunks(100_000) {
            write!(stream, "{:x}\r\n", piece.len()).unwrap();
            stream.write_all(piece).unwrap();
            stream.write_all(b"\r\n").unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
        read_reply(stream, "PATCH")
    };
    send(&[("Content-Range", "0-1199999")], &content).fails(400, "SIZE_INVALID");
    send(&[("Content-Range", "0-1999999")], &content).fails(400, "SIZE_INVALID");
    assert_eq!(client.get(&location).status(204).must("range"), "0-0");
    assert_eq!(send(&[], &content).status(202).must("range"), "0-1499999");
    let digest = Digest::of(&content);
    client.request("PUT", &format!("{location}?digest={digest}"), &[], b"").status(201);
    assert!(client.get(&format!("/v2/a/blobs/{digest}")).status(200).body == content);
}

#[test]
fn wrong_content_is_refused_and_leaves_nothing() {
    let registry = Registry::start();
    let client = registry.client();
    let promised = Digest::of(b"promised");
    let target = format!("/v2/a/blobs/uploads/?digest={promised}");
    client.request("POST", &target, &[], b"other").fails(400, "DIGEST_INVALID");
    client.request("POST", &target, &[], b"").fails(400, "DIGEST_INVALID");
    client.request("POST", "/v2/a/blobs/uploads/?digest=sha256:00", &[], b"other").fails(400, "DIGEST_INVALID");
    let location = client.start_upload("a");
    client.request("PATCH", &location, &[], b"other").status(202);
    client.request("PUT", &format!("{location}?digest={promised}"), &[], b"").fails(400, "DIGEST_INVALID");
    client.get(&location).fails(404, "BLOB_UPLOAD_UNKNOWN");
    client.get(&format!("/v2/a/blobs/{promised}")).fails(404, "BLOB_UNKNOWN");
    assert_eq!(std::fs::read_dir(registry.root().join("uploads")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(registry.root().join("blobs/sha256")).unwrap().count(), 0);
}

/// Proves: end-14
#[test]
fn an_upload_is_known_by_its_own_repository_only_and_can_be_cancelled() {
    let registry = Registry::start();
    let client = registry.client();
    let location = client.start_upload("a");
    let elsewhere = location.replace("/v2/a/", "/v2/b/");
    client.get(&elsewhere).fails(404, "BLOB_UPLOAD_UNKNOWN");
    client.request("PATCH", &elsewhere, &[], b"x").fails(404, "BLOB_UPLOAD_UNKNOWN");
    client.delete(&elsewhere).fails(404, "BLOB_UPLOAD_UNKNOWN");
    client.delete(&location).status(204);
    client.delete(&location).fails(404, "BLOB_UPLOAD_UNKNOWN");
    for id in ["..", "x", "00000000000000000000000000000000", "%2e%2e%2fregistry.db"] {
        client.get(&format!("/v2/a/blobs/uploads/{id}")).status(404);
    }
    assert_eq!(std::fs::read_dir(registry.root().join("uploads")).unwrap().count(), 0);
}

/// Proves: end-4c
#[test]
fn the_digest_may_be_of_another_algorithm_than_was_expected() {
    let registry = Registry::start();
    let client = registry.client();
    let content = noise(4, 700_000);
    for query in ["", "?digest-algorithm=sha512", "?digest-algorithm=sha256"] {
        for digest in [Digest::of(&content), sha512(&content)] {
            let reply = client.request("POST", &format!("/v2/a/blobs/uploads/{query}"), &[], b"").status(202);
            let location = reply.must("location");
            client.request("PATCH", location, &[], &content[..300_000]).status(202);
            client.request("PUT", &format!("{location}?digest={digest}"), &[], &content[300_000..]).status(201);
            client.head_of(&format!("/v2/a/blobs/{digest}")).status(200);
            client.delete(&format!("/v2/a/blobs/{digest}")).status(202);
        }
    }
    client.request("POST", "/v2/a/blobs/uploads/?digest-algorithm=md5", &[], b"").fails(400, "UNSUPPORTED");
}

/// Proves: registry-resumable-chunked-monolithic-upload
#[test]
fn an_upload_goes_on_after_a_broken_connection_and_a_restart() {
    let registry = Registry::start();
    let client = registry.client();
    let content = noise(5, 2_000_000);
    let location = client.start_upload("a");
    client.request("PATCH", &location, &[], &content[..700_000]).status(202);
    let mut stream = client.head("PATCH", &location, &[], Some(1_300_000));
    stream.write_all(&content[700_000..1_000_000]).unwrap();
    stream.shutdown(Shutdown::Both).unwrap();
    drop(stream);

    let registry = registry.restart();
    let client = registry.client();
    let reply = client.get(&location).status(204);
    let last: usize = reply.must("range").strip_prefix("0-").unwrap().parse().unwrap();
    assert!((699_999..1_000_000).contains(&last), "{last}");
    let rest = &content[last + 1..];
    let range = format!("{}-{}", last + 1, content.len() - 1);
    chunk(&client, "PATCH", &location, &range, rest).status(202);
    let digest = Digest::of(&content);
    client.request("PUT", &format!("{location}?digest={digest}"), &[], b"").status(201);
    assert!(client.get(&format!("/v2/a/blobs/{digest}")).status(200).body == content);
}

#[test]
fn a_large_blob_comes_back_as_it_was_sent() {
    let registry = Registry::start();
    let client = registry.client();
    let content = noise(17, 1_000_003).repeat(72);
    let digest = Digest::of(&content);
    let (first, rest) = content.split_at(70_000_001);
    let location = client.start_upload("a");
    client.request("PATCH", &location, &[], first).status(202);
    client.request("PUT", &format!("{location}?digest={digest}"), &[], rest).status(201);
    assert!(client.get(&format!("/v2/a/blobs/{digest}")).status(200).body == content);
}
