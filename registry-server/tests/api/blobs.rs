//! Blobs: read whole and in part, seen only where they are linked, deleted.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::client::{Client, Registry, noise, sha512};

/// Proves: end-1
#[test]
fn the_version_check_and_what_is_no_endpoint() {
    let registry = Registry::start();
    let client = registry.client();
    assert_eq!(client.get("/v2/").status(200).must("docker-distribution-api-version"), "registry/2.0");
    client.get("/v2").status(200);
    client.get("/v1/").status(404);
    client.get("/v2/a/things/x").fails(404, "UNSUPPORTED");
    assert_eq!(client.request("POST", "/v2/", &[], b"").fails(405, "UNSUPPORTED").must("allow"), "GET, HEAD");
    client.request("PUT", "/v2/a/blobs/uploads/", &[], b"").fails(405, "UNSUPPORTED");
    client.get("/v2/UPPER/tags/list").fails(400, "NAME_INVALID");
    client.get("/v2/a/../../etc/manifests/x").fails(400, "NAME_INVALID");
    client.get("/v2/a/%2e%2e/manifests/x").fails(400, "NAME_INVALID");
    client.get("/v2/a/blobs/sha256:../../registry.db").status(404);
    client.get("/v2/a/blobs/sha256:zz").fails(400, "DIGEST_INVALID");
    client.get("/v2/a/%ff/manifests/x").status(404);
}

/// Proves: end-2, registry-conditional-requests-etag-if-none-match
#[test]
fn a_blob_is_read_back_whole_by_head_and_in_part() {
    let registry = Registry::start();
    let client = registry.client();
    let content = noise(1, 2048);
    let digest = client.push_blob("a/b", &content);
    let target = format!("/v2/a/b/blobs/{digest}");

    let reply = client.get(&target).status(200);
    assert_eq!(reply.body, content);
    assert_eq!(reply.must("docker-content-digest"), digest.to_string());
    let etag = reply.must("etag").to_owned();
    assert_eq!(client.get(&target.replace(':', "%3A")).status(200).body, content);
    let reply = client.head_of(&target).status(200);
    assert_eq!(reply.must("content-length"), "2048");

    let range = |text: &str| client.request("GET", &target, &[("Range", text)], b"");
    let reply = range("bytes=500-1499").status(206);
    assert_eq!((reply.must("content-range"), &reply.body[..]), ("bytes 500-1499/2048", &content[500..1500]));
    let reply = range("bytes=-500").status(206);
    assert_eq!((reply.must("content-range"), &reply.body[..]), ("bytes 1548-2047/2048", &content[1548..]));
    assert_eq!(range("bytes=2000-5000").status(206).body, &content[2000..]);
    for unsatisfiable in ["bytes=2048-", "bytes=5000-10000", "bytes=500-0"] {
        let reply = range(unsatisfiable).fails(416, "RANGE_INVALID");
        assert_eq!(reply.must("content-range"), "bytes */2048");
        let detail = reply.json()["errors"][0]["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(unsatisfiable) && detail.contains("2048 bytes"), "{detail}");
    }
    assert_eq!(range("bytes=0-1,4-5").status(200).body, content);

    let conditional =
        |name: &str, value: &str| client.request("GET", &target, &[(name, value), ("Range", "bytes=0-0")], b"").status;
    assert_eq!(conditional("If-None-Match", &etag), 304);
    assert_eq!(conditional("If-None-Match", "\"other\""), 206);
    assert_eq!(conditional("If-Range", &etag), 206);
    assert_eq!(conditional("If-Range", "\"other\""), 200);
}

#[test]
fn large_and_empty_blobs_come_back_the_same() {
    let registry = Registry::start();
    let client = registry.client();
    for length in [0, 1, (512 << 10) - 1, 512 << 10, (512 << 10) + 1, 5_000_000] {
        let content = noise(length as u64, length);
        let digest = client.push_blob("sizes", &content);
        let target = format!("/v2/sizes/blobs/{digest}");
        assert!(client.get(&target).status(200).body == content, "{length}");
        if length > 100 {
            let reply = client.request("GET", &target, &[("Range", "bytes=77-")], b"").status(206);
            assert!(reply.body == content[77..], "{length}");
        }
    }
    let long = noise(9, 1000);
    let digest = sha512(&long);
    let target = format!("/v2/sizes/blobs/uploads/?digest={digest}");
    client.request("POST", &target, &[], &long).status(201);
    assert_eq!(client.get(&format!("/v2/sizes/blobs/{digest}")).status(200).body, long);
    assert!(registry.root().join("blobs/sha512").join(digest.hex()).is_file());
}

/// Proves: end-10
#[test]
fn verified_blobs_are_sent_from_their_files_whether_those_are_in_memory_or_not() {
    let registry = Registry::start();
    let client = registry.client();
    let content = noise(12, 3_000_000);
    let digest = client.push_blob("a", &content);
    let target = format!("/v2/a/blobs/{digest}");
    assert!(client.get(&target).status(200).body == content, "while it is verified");
    let file = File::open(registry.root().join("blobs/sha256").join(digest.hex())).unwrap();
    for beside_others in [false, true] {
        let other = beside_others.then(|| unfinished_pull(&client));
        pull_parts(&client, &target, &content, &file);
        drop(other);
    }
}

/// A pull whose client takes nothing of more than what the connection holds.
fn unfinished_pull(client: &Client) -> TcpStream {
    let digest = client.push_blob("a", &noise(13, 1_000_003).repeat(24));
    let mut stream = TcpStream::connect(client.address).unwrap();
    write!(stream, "GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: registry\r\n\r\n").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream
}

fn pull_parts(client: &Client, target: &str, content: &[u8], file: &File) {
    for (start, end) in [(0, 3_000_000), (1, 40_000), (1_000_000, 2_999_999)] {
        rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        for memory in ["the disk", "memory"] {
            let range = format!("bytes={start}-{}", end - 1);
            let reply = client.request("GET", target, &[("Range", &range)], b"").status(206);
            assert!(reply.body == content[start..end], "{range} from {memory}");
        }
    }
    // Several answers of one connection, which were asked for at once.
    let mut stream = TcpStream::connect(client.address).unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: registry\r\nRange: bytes=100000-2200000\r\n");
    write!(stream, "{request}\r\n{request}\r\n{request}Connection: close\r\n\r\n").unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    let mut rest = &received[..];
    for number in 0..3 {
        let head = rest.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
        let (body, after) = rest[head..].split_at(2_100_001);
        assert!(body == &content[100_000..=2_200_000], "answer {number}");
        rest = after;
    }
    assert!(rest.is_empty());
}

#[test]
fn a_blob_is_seen_only_where_it_is_linked_and_goes_with_its_last_link() {
    let registry = Registry::start();
    let client = registry.client();
    let digest = client.push_blob("one", b"content");
    let (one, two) = (format!("/v2/one/blobs/{digest}"), format!("/v2/two/blobs/{digest}"));
    client.get(&two).fails(404, "BLOB_UNKNOWN");
    client.delete(&two).fails(404, "BLOB_UNKNOWN");

    let mount = |from: &str| client.request("POST", &format!("/v2/two/blobs/uploads/?mount={digest}{from}"), &[], b"");
    let reply = mount("&from=three").status(202);
    assert!(reply.must("location").starts_with("/v2/two/blobs/uploads/"));
    mount("&from=NO").status(202);
    client.get(&two).status(404);
    let reply = mount("&from=one").status(201);
    assert_eq!(
        (reply.must("location"), reply.must("docker-content-digest")),
        (two.as_str(), digest.to_string().as_str())
    );
    assert_eq!(client.get(&two).status(200).body, b"content");

    client.delete(&one).status(202);
    client.head_of(&one).status(404);
    client.delete(&one).fails(404, "BLOB_UNKNOWN");
    client.get(&two).status(200);
    let reply = client.request("POST", &format!("/v2/one/blobs/uploads/?mount={digest}"), &[], b"").status(201);
    assert_eq!(reply.must("location"), one, "a mount without `from` takes it from anywhere");
    let file = registry.root().join("blobs/sha256").join(digest.hex());
    client.delete(&one).status(202);
    assert!(file.exists());
    client.delete(&two).status(202);
    assert!(!file.exists());
    client.request("POST", "/v2/one/blobs/uploads/?mount=sha256:none&from=two", &[], b"").status(202);
    client.push_blob("two", b"content");
    assert!(file.exists());
}
