//! What kiln saves, others read; what others write, kiln loads. skopeo and umoci are Debian's.

#![allow(clippy::expect_used, reason = "a test that fails says so")]

mod support;

use std::fs::File;
use std::path::Path;
use std::process::Command;

use kiln_image::{Image, archive, layout};
use kiln_store::layer::Compression;
use serde_json::Value;

use support::{image, reference, store};

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect(program);
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn inspect(source: &str) -> Value {
    serde_json::from_str(&run("skopeo", &["inspect", source])).expect("json")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn one_archive_serves_as_both() {
    let ours = store();
    let original = image(&ours.store, "peer/app:1");
    let path = ours.directory.path().join("tmp/a.tar");
    let names = vec![reference("peer/app:1")];
    let mut file = File::create(&path).expect("file");
    archive::save(&ours.store, &[(original.clone(), names)], Compression::Gzip, &mut file).expect("save");
    let docker = inspect(&format!("docker-archive:{}", text(&path)));
    assert_eq!(docker["Layers"].as_array().expect("layers").len(), 2);
    assert_eq!(inspect(&format!("oci-archive:{}", text(&path)))["Architecture"], "amd64");
    for kind in ["docker-archive", "oci-archive"] {
        let copy = ours.directory.path().join(format!("tmp/{kind}.tar"));
        let target = format!("{kind}:{}:peer/app:1", text(&copy));
        run("skopeo", &["copy", &format!("docker-archive:{}", text(&path)), &target]);
        let theirs = store();
        let loaded = archive::load(&theirs.store, &mut File::open(&copy).expect("copy"), None).expect("load");
        assert_eq!(loaded[0].0.layers, original.layers, "{kind}");
        assert_eq!(loaded[0].1, [reference("peer/app:1")], "{kind}");
    }
}

#[test]
fn layouts_are_shared_with_skopeo_and_umoci() {
    let ours = store();
    let original = image(&ours.store, "peer/app:1");
    let scratch = tempfile::tempdir().expect("directory");
    let directory = scratch.path().join("layout");
    for compression in [Compression::Gzip, Compression::Zstd] {
        layout::save(&ours.store, &original, Some(&reference("peer/app:1")), compression, &directory).expect("save");
    }
    layout::save(&ours.store, &original, Some(&reference("peer/app:2")), Compression::Gzip, &directory).expect("two");
    layout::save(&ours.store, &original, Some(&reference("peer/app:1")), Compression::Gzip, &directory).expect("again");
    let source = format!("oci:{}:1", text(&directory));
    assert_eq!(inspect(&source)["Layers"].as_array().expect("layers").len(), 2);
    let bundle = scratch.path().join("bundle");
    run("umoci", &["unpack", "--image", &format!("{}:1", text(&directory)), text(&bundle)]);
    assert_eq!(std::fs::read_to_string(bundle.join("rootfs/etc/motd")).expect("file"), "hello");

    let copy = scratch.path().join("copy");
    run("skopeo", &["copy", &source, &format!("oci:{}:peer/copy:3", text(&copy))]);
    let theirs = store();
    let loaded = layout::load(&theirs.store, &copy, None).expect("load");
    assert_eq!((loaded[0].0.id, loaded[0].1.as_slice()), (original.id, [reference("peer/copy:3")].as_slice()));
    let both = layout::load(&theirs.store, &directory, None).expect("load two names");
    assert_eq!(both.len(), 1);
    assert_eq!(both[0].1.len(), 2);
    assert_eq!(Image::find(&theirs.store, "peer/app:2").expect("by name").id, original.id);
}

#[test]
fn layouts_that_lie_or_lead_outside_are_refused() {
    let ours = store();
    let original = image(&ours.store, "peer/app:1");
    let blob = |directory: &Path| directory.join("blobs/sha256").join(original.id.hex());
    type Damage<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, Damage<'_>); 3] = [
        ("has digest", &|directory| {
            let mut bytes = std::fs::read(blob(directory)).expect("config");
            bytes[0] = b' ';
            std::fs::write(blob(directory), bytes).expect("write");
        }),
        ("bytes", &|directory| std::fs::write(blob(directory), b"{}").expect("write")),
        ("open", &|directory| {
            std::fs::rename(blob(directory), directory.with_file_name("outside")).expect("rename");
            std::os::unix::fs::symlink("../../../outside", blob(directory)).expect("link");
        }),
    ];
    for (reason, damage) in cases {
        let scratch = tempfile::tempdir().expect("directory");
        let directory = scratch.path().join("layout");
        layout::save(&ours.store, &original, None, Compression::Gzip, &directory).expect("save");
        damage(&directory);
        let theirs = store();
        let message = support::chain(&layout::load(&theirs.store, &directory, None).expect_err(reason));
        assert!(message.contains(reason), "{message}");
        assert_eq!(theirs.store.images().expect("images"), []);
    }
}
