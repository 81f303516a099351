use std::io::Write;

use super::*;
use crate::manifest::OCI_MANIFEST;

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
}

fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(content).expect("it can be written");
    file
}

#[test]
fn a_layout_gives_what_it_was_given_and_nothing_else() {
    let root = tempfile::tempdir().expect("a directory");
    let blobs = Blobs::open(&root.path().join("blobs"), &root.path().join("tmp")).expect("blobs");
    let layout = root.path().join("layout");
    let artifacts = Artifacts::in_layout(&layout);
    assert!(wait(artifacts.manifest("latest")).expect("no failure").is_none());
    let blob = Descriptor::of("application/x", b"content");
    assert!(!wait(artifacts.has(&blob)).expect("no failure"));
    wait(artifacts.send(&blob, file(b"content"))).expect("it is written");
    assert!(wait(artifacts.has(&blob)).expect("no failure"));
    let config = serde_json::to_string(&blob).expect("text");
    let manifest = format!("{{\"schemaVersion\":2,\"config\":{config},\"layers\":[]}}");
    wait(artifacts.put_manifest("latest", OCI_MANIFEST, manifest.as_bytes())).expect("it is written");
    assert_eq!(wait(artifacts.manifest("latest")).expect("no failure").as_deref(), Some(manifest.as_bytes()));
    assert_eq!(wait(artifacts.read(&blob, 7, &blobs)).expect("it is read"), b"content");
    assert!(wait(artifacts.read(&blob, 6, &blobs)).is_err(), "longer than it may be");

    // What nothing leads to goes when it is asked for.
    let unused = Descriptor::of("application/x", b"unused");
    wait(artifacts.send(&unused, file(b"unused"))).expect("it is written");
    artifacts.remove_unreferenced().expect("it is cleaned");
    assert!(!wait(artifacts.has(&unused)).expect("no failure") && wait(artifacts.has(&blob)).expect("no failure"));

    // Damaged, of another size, a symlink out of it: none of it comes in.
    let other = Blobs::open(&root.path().join("other"), &root.path().join("tmp")).expect("blobs");
    let path = layout.join(layout::blob_name(&blob.digest));
    for content in ["c0ntent", "content and more", ""] {
        std::fs::write(&path, content).expect("it can be written");
        assert!(wait(artifacts.fetch(&blob, &other)).is_err(), "{content}");
    }
    std::fs::remove_file(&path).expect("it can be removed");
    std::fs::write(root.path().join("outside"), "content").expect("it can be written");
    std::os::unix::fs::symlink("../../../outside", &path).expect("a link");
    assert!(wait(artifacts.fetch(&blob, &other)).is_err());
    assert!(other.list().expect("a list").is_empty());
    let entry = layout.join(layout::blob_name(&Digest::of(manifest.as_bytes())));
    std::fs::write(entry, "{}").expect("it can be written");
    assert!(matches!(wait(artifacts.manifest("latest")), Err(Error::DigestMismatch { .. })));
}
