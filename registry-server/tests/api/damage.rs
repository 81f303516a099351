//! Blobs that are not what they were: never served, put aside, reported, healed by another push.

use std::fs;
use std::io::Read;

use kiln_registry_server::{ScrubReport, scrub};
use kiln_store::Digest;

use crate::client::{Registry, config, noise};

fn run(registry: &Registry) -> ScrubReport {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(scrub(&config(registry.root()))).unwrap()
}

/// Changes one byte of a blob's file, in the middle.
fn damage(registry: &Registry, digest: &Digest) {
    let path = registry.root().join("blobs/sha256").join(digest.hex());
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
}

fn is_aside(registry: &Registry, digest: &Digest) -> bool {
    registry.root().join("quarantine").join(format!("sha256-{}", digest.hex())).exists()
}

#[test]
fn a_small_damaged_blob_is_put_aside_instead_of_served_and_a_push_heals_it_everywhere() {
    let registry = Registry::start();
    let client = registry.client();
    client.push_image("a", "1", b"layer");
    let digest = client.push_blob("b", b"layer");
    let target = format!("/v2/a/blobs/{digest}");
    assert_eq!(client.get(&target).status(200).body, b"layer");
    damage(&registry, &digest);
    client.get(&target).fails(404, "BLOB_UNKNOWN");
    assert!(is_aside(&registry, &digest));
    client.head_of(&target).status(404);
    client.head_of(&format!("/v2/b/blobs/{digest}")).status(404);
    let mount = client.request("POST", &format!("/v2/c/blobs/uploads/?mount={digest}&from=a"), &[], b"");
    mount.status(202);
    client.push_blob("b", b"layer");
    for repository in ["a", "b"] {
        assert_eq!(client.get(&format!("/v2/{repository}/blobs/{digest}")).status(200).body, b"layer");
    }
    assert!(run(&registry).is_clean());
}

#[test]
fn a_large_damaged_blob_never_arrives_whole_not_even_in_parts() {
    let registry = Registry::start();
    let client = registry.client();
    let content = noise(31, 3_000_000);
    let digest = client.push_blob("a", &content);
    let target = format!("/v2/a/blobs/{digest}");
    damage(&registry, &digest);
    let mut stream = client.head("GET", &target, &[], Some(0));
    let mut received = Vec::new();
    drop(stream.read_to_end(&mut received));
    assert!(received.starts_with(b"HTTP/1.1 200") && received.len() < content.len(), "{}", received.len());
    client.get(&target).fails(404, "BLOB_UNKNOWN");
    assert!(is_aside(&registry, &digest));

    client.push_blob("a", &content);
    damage(&registry, &digest);
    let part = client.request("GET", &target, &[("Range", "bytes=0-99")], b"");
    part.fails(404, "BLOB_UNKNOWN");
    client.push_blob("a", &content);
    assert!(client.request("GET", &target, &[("Range", "bytes=100-199")], b"").status(206).body == content[100..200]);
}

/// Proves: registry-scrub
#[test]
fn the_scrub_finds_what_nobody_asked_for() {
    let registry = Registry::start();
    let client = registry.client();
    let image = client.push_image("a", "1", b"whole");
    let (bad, short, missing) =
        (client.push_blob("a", b"damaged"), client.push_blob("b", b"cut short"), client.push_blob("b", b"missing"));
    client.push_blob("c", b"damaged");
    let clean = run(&registry);
    assert_eq!((clean.is_clean(), clean.blobs, clean.manifests), (true, 5, 1));
    let path = |digest: &Digest| registry.root().join("blobs/sha256").join(digest.hex());
    damage(&registry, &bad);
    fs::write(path(&short), b"cut").unwrap();
    fs::remove_file(path(&missing)).unwrap();
    let database = rusqlite::Connection::open(registry.root().join("registry.db")).unwrap();
    database.execute("UPDATE manifests SET bytes = CAST('{}' AS BLOB)", []).unwrap();

    let report = run(&registry);
    let mut found: Vec<_> = report
        .damaged
        .iter()
        .map(|damage| (damage.digest.clone(), damage.reason.as_str(), damage.repositories.join(" ")))
        .collect();
    found.sort();
    let mut expected = [
        (bad.to_string(), "its file has another digest", "a c".to_owned()),
        (short.to_string(), "its file has the wrong size", "b".to_owned()),
        (missing.to_string(), "its file is missing", "b".to_owned()),
        (image.to_string(), "its bytes have another digest", String::new()),
    ];
    expected.sort();
    assert_eq!(found, expected);
    assert!(is_aside(&registry, &bad) && is_aside(&registry, &short) && !path(&bad).exists());
    client.head_of(&format!("/v2/c/blobs/{bad}")).status(404);

    let registry = registry.restart();
    let client = registry.client();
    client.get("/v2/a/manifests/1").fails(404, "MANIFEST_UNKNOWN");
    client.push_image("a", "1", b"whole");
    assert_eq!(client.get("/v2/a/manifests/1").status(200).must("docker-content-digest"), image.to_string());
    client.push_blob("a", b"damaged");
    client.push_blob("b", b"cut short");
    let report = run(&registry);
    assert_eq!((report.damaged.len(), report.damaged[0].digest.as_str()), (1, &*missing.to_string()));
    client.push_blob("b", b"missing");
    assert!(run(&registry).is_clean());
}
