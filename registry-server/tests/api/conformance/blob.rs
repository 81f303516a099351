//! R4: blobs, each category with sha256 and sha512.

use std::io::Write;

use kiln_store::Digest;

use super::Row;
use crate::client::{Client, Reply, noise, read_reply, sha512};

pub(super) const ROWS: &[Row] = &[
    ("R4-1", "get-missing", |client, repository| both(client, repository, missing)),
    ("R4-2", "post only", |client, repository| both(client, repository, post_only)),
    ("R4-3", "post+put", |client, repository| both(client, repository, post_put)),
    ("R4-4", "chunked single", |client, repository| both(client, repository, |case| case.chunked(&[5_000], false))),
    ("R4-5", "stream", |client, repository| both(client, repository, |case| stream(case, &case.digest()))),
    ("R4-6", "mount", |client, repository| both(client, repository, |case| mount(case, true))),
    ("R4-7", "mount anonymous", |client, repository| both(client, repository, |case| mount(case, false))),
    ("R4-8", "mount missing", |client, repository| both(client, repository, mount_missing)),
    ("R4-9", "post cancel", |client, repository| {
        both(client, repository, |case| super::api::upload_cancel(case.client, &case.repository));
    }),
    ("R4-10", "chunked multi", |client, repository| {
        both(client, repository, |case| case.chunked(&[2_000, 2_000, 1_000], false));
    }),
    ("R4-11", "chunked multi and put chunk", |client, repository| {
        both(client, repository, |case| case.chunked(&[2_000, 3_000], true));
    }),
    ("R4-12", "chunked out-of-order", |client, repository| {
        both(client, repository, |case| out_of_order(case, "PATCH"));
    }),
    ("R4-13", "chunked out-of-order and put chunk", |client, repository| {
        both(client, repository, |case| out_of_order(case, "PUT"));
    }),
    ("R4-14", "range requests", |client, repository| both(client, repository, ranges)),
    ("R4-15", "empty blob", |client, repository| both(client, repository, |case| whole(case, b""))),
    ("R4-16", "emptyJSON {}", |client, repository| both(client, repository, |case| whole(case, b"{}"))),
    ("R4-17", "bad digest post only", |client, repository| both(client, repository, |case| bad(case, Way::Post))),
    ("R4-18", "bad digest post+put", |client, repository| both(client, repository, |case| bad(case, Way::Put))),
    ("R4-19", "bad digest chunked", |client, repository| both(client, repository, |case| bad(case, Way::Chunked))),
    ("R4-20", "bad digest chunked and put chunk", |client, repository| {
        both(client, repository, |case| bad(case, Way::PutChunk));
    }),
    ("R4-21", "bad digest stream", |client, repository| both(client, repository, |case| bad(case, Way::Stream))),
];

/// One category with one algorithm.
struct Case<'a> {
    client: &'a Client,
    repository: String,
    digest_of: fn(&[u8]) -> Digest,
    content: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Way {
    Post,
    Put,
    Chunked,
    PutChunk,
    Stream,
}

fn both(client: &Client, repository: &str, check: impl Fn(&Case<'_>)) {
    for (name, digest_of) in [("sha256", Digest::of as fn(&[u8]) -> Digest), ("sha512", sha512)] {
        let seed = repository.bytes().map(u64::from).sum();
        let case = Case { client, repository: format!("{repository}/{name}"), digest_of, content: noise(seed, 5_000) };
        check(&case);
    }
}

pub(super) fn finish(location: &str, digest: &Digest) -> String {
    format!("{location}?digest={digest}")
}

/// Sends the bytes as the chunk that begins at `start`.
pub(super) fn chunk(client: &Client, method: &str, target: &str, start: usize, bytes: &[u8]) -> Reply {
    let range = format!("{start}-{}", start + bytes.len() - 1);
    client.request(method, target, &[("Content-Range", &range), ("Content-Type", "application/octet-stream")], bytes)
}

impl Case<'_> {
    fn digest(&self) -> Digest {
        (self.digest_of)(&self.content)
    }

    fn target(&self, digest: &Digest) -> String {
        format!("/v2/{}/blobs/{digest}", self.repository)
    }

    fn start(&self) -> String {
        let algorithm = self.digest().algorithm();
        let target = format!("/v2/{}/blobs/uploads/?digest-algorithm={algorithm}", self.repository);
        self.client.request("POST", &target, &[], b"").status(202).must("location").to_owned()
    }

    fn is_there(&self, digest: &Digest, content: &[u8]) {
        let reply = self.client.get(&self.target(digest)).status(200);
        assert!(reply.body == content);
        assert_eq!(reply.must("docker-content-digest"), digest.to_string());
        let reply = self.client.head_of(&self.target(digest)).status(200);
        assert_eq!(reply.must("content-length"), content.len().to_string());
    }

    /// Chunks of these lengths; the last one with the PUT, if so wanted.
    fn chunked(&self, lengths: &[usize], put_last: bool) {
        let location = self.start();
        let end = finish(&location, &self.digest());
        let mut start = 0;
        for (number, length) in lengths.iter().enumerate() {
            let bytes = &self.content[start..start + length];
            if put_last && number + 1 == lengths.len() {
                chunk(self.client, "PUT", &end, start, bytes).status(201);
            } else {
                chunk(self.client, "PATCH", &location, start, bytes).status(202);
            }
            start += length;
        }
        if !put_last {
            self.client.request("PUT", &end, &[], b"").status(201);
        }
        self.is_there(&self.digest(), &self.content);
    }
}

fn missing(case: &Case<'_>) {
    case.client.get(&case.target(&case.digest())).fails(404, "BLOB_UNKNOWN");
    case.client.head_of(&case.target(&case.digest())).status(404);
}

fn post_only(case: &Case<'_>) {
    whole(case, &case.content);
}

fn whole(case: &Case<'_>, content: &[u8]) {
    let digest = (case.digest_of)(content);
    let target = format!("/v2/{}/blobs/uploads/?digest={digest}", case.repository);
    let reply = case.client.request("POST", &target, &[], content).status(201);
    assert_eq!(reply.must("location"), case.target(&digest));
    case.is_there(&digest, content);
    case.client.request("PUT", &finish(&case.start(), &digest), &[], content).status(201);
    case.is_there(&digest, content);
}

fn post_put(case: &Case<'_>) {
    case.client.request("PUT", &finish(&case.start(), &case.digest()), &[], &case.content).status(201);
    case.is_there(&case.digest(), &case.content);
}

fn send_stream(case: &Case<'_>, location: &str) {
    let mut stream = case.client.head("PATCH", location, &[], None);
    for piece in case.content.chunks(1_500) {
        write!(stream, "{:x}\r\n", piece.len()).unwrap();
        stream.write_all(piece).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    read_reply(stream, "PATCH").status(202);
}

fn stream(case: &Case<'_>, digest: &Digest) {
    let location = case.start();
    send_stream(case, &location);
    case.client.request("PUT", &finish(&location, digest), &[], b"").status(201);
    case.is_there(digest, &case.content);
}

fn mount(case: &Case<'_>, named: bool) {
    post_only(case);
    let digest = case.digest();
    let from = if named { format!("&from={}", case.repository) } else { String::new() };
    let target = format!("/v2/{}/to/blobs/uploads/?mount={digest}{from}", case.repository);
    let reply = case.client.request("POST", &target, &[], b"").status(201);
    assert!(case.client.get(reply.must("location")).status(200).body == case.content);
}

fn mount_missing(case: &Case<'_>) {
    let digest = case.digest();
    let target = format!("/v2/{}/blobs/uploads/?mount={digest}&from={}/none", case.repository, case.repository);
    let reply = case.client.request("POST", &target, &[], b"").status(202);
    case.client.head_of(&case.target(&digest)).status(404);
    case.client.request("PUT", &finish(reply.must("location"), &digest), &[], &case.content).status(201);
}

fn out_of_order(case: &Case<'_>, method: &str) {
    let location = case.start();
    chunk(case.client, "PATCH", &location, 0, &case.content[..1_000]).status(202);
    let reply = chunk(case.client, method, &finish(&location, &case.digest()), 2_000, &case.content[2_000..]);
    let reply = reply.fails(416, "BLOB_UPLOAD_INVALID");
    assert_eq!((reply.must("range"), reply.must("location")), ("0-999", location.as_str()));
    // And it goes on from there.
    let rest = &case.content[1_000..];
    chunk(case.client, "PUT", &finish(&location, &case.digest()), 1_000, rest).status(201);
    case.is_there(&case.digest(), &case.content);
}

fn ranges(case: &Case<'_>) {
    let content = &case.content[..2_048];
    let digest = (case.digest_of)(content);
    whole(case, content);
    for (range, start, end) in
        [("500-1499", 500, 1_500), ("500-", 500, 2_048), ("-500", 1_548, 2_048), ("2000-5000", 2_000, 2_048)]
    {
        let reply = case.client.request("GET", &case.target(&digest), &[("Range", &format!("bytes={range}"))], b"");
        let reply = reply.status(206);
        assert!(reply.body == content[start..end], "{range}");
        assert_eq!(reply.must("content-range"), format!("bytes {start}-{}/2048", end - 1));
    }
    for range in ["500-0", "5000-10000"] {
        case.client.request("GET", &case.target(&digest), &[("Range", &format!("bytes={range}"))], b"").status(416);
    }
}

fn bad(case: &Case<'_>, way: Way) {
    let wrong = (case.digest_of)(b"something else");
    let client = case.client;
    let location = case.start();
    let end = finish(&location, &wrong);
    let (first, last) = case.content.split_at(2_000);
    match way {
        Way::Post => {
            let target = format!("/v2/{}/blobs/uploads/?digest={wrong}", case.repository);
            client.request("POST", &target, &[], &case.content)
        }
        Way::Put => client.request("PUT", &end, &[], &case.content),
        Way::Chunked => {
            chunk(client, "PATCH", &location, 0, &case.content).status(202);
            client.request("PUT", &end, &[], b"")
        }
        Way::PutChunk => {
            chunk(client, "PATCH", &location, 0, first).status(202);
            chunk(client, "PUT", &end, 2_000, last)
        }
        Way::Stream => {
            send_stream(case, &location);
            client.request("PUT", &end, &[], b"")
        }
    }
    .fails(400, "DIGEST_INVALID");
    client.head_of(&case.target(&wrong)).status(404);
    client.head_of(&case.target(&case.digest())).status(404);
}
