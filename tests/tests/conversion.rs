//! Images that become others on their way: layers compressed otherwise, manifests in OCI's words or docker's; beside
//! skopeo and podman.

use kiln_tests::{Kiln, Outcome, Podman, Registry, command, run, sha256};
use serde_json::{Value, json};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";

fn skopeo(arguments: &[&str]) -> Outcome {
    let (verb, rest) = arguments.split_first().expect("a verb");
    let mut skopeo = command("skopeo", [*verb]);
    if *verb == "copy" {
        skopeo.args(["--src-tls-verify=false", "--dest-tls-verify=false"]);
    }
    skopeo.args(rest);
    run(skopeo).success()
}

/// The manifest that a registry has, whose digest is what the registry says.
fn manifest(kiln: &Kiln, name: &str) -> Value {
    let text = kiln.run(["inspect", "--raw", &format!("docker://{name}")]).stdout;
    serde_json::from_str(text.trim_end()).expect("a manifest")
}

fn types(manifest: &Value) -> Vec<&str> {
    let layers = manifest["layers"].as_array().expect("layers");
    layers.iter().map(|layer| layer["mediaType"].as_str().expect("a type")).collect()
}

fn digests<'a>(manifest: &'a Value, of: &str) -> Vec<&'a str> {
    let all = manifest[of].as_array().expect("a list");
    all.iter().map(|one| one["digest"].as_str().expect("a digest")).collect()
}

fn build(kiln: &Kiln, name: &str, base: &str, more: &[&str]) {
    let text = format!("FROM {base}\nARG TARGETARCH\nCOPY f /f\nLABEL arch=$TARGETARCH\n");
    let files = [("Dockerfile", text.as_str()), ("f", "x\n")];
    kiln.build(&kiln.context(&files), name, more);
}

/// What a layer is when it is unpacked, by its diffID.
fn diff_ids(kiln: &Kiln, name: &str, manifest: &Value) -> Vec<String> {
    let unpacked = |digest: &str, media_type: &str| {
        let blob = kiln.run(["remote", "blob", &format!("{}@{digest}", name.rsplit_once(':').expect("a tag").0)]).bytes;
        assert_eq!(format!("sha256:{}", sha256(&blob)), digest);
        let mut tar = Vec::new();
        let mut from: Box<dyn std::io::Read> = match media_type.rsplit_once(['+', '.']).expect("a suffix").1 {
            "zstd" => Box::new(zstd::Decoder::new(blob.as_slice()).expect("zstd")),
            "gzip" => Box::new(flate2::read::MultiGzDecoder::new(blob.as_slice())),
            _ => Box::new(blob.as_slice()),
        };
        from.read_to_end(&mut tar).expect("a layer");
        format!("sha256:{}", sha256(&tar))
    };
    digests(manifest, "layers").into_iter().zip(types(manifest)).map(|(digest, kind)| unpacked(digest, kind)).collect()
}

/// Proves: skopeo-copy
#[test]
fn layers_are_compressed_anew_between_registries() {
    let kiln = Kiln::with_busybox();
    let (from, to) = (Registry::distribution(), Registry::kiln(&kiln));
    let (app, own, theirs) = (from.name("app:1"), to.name("own:1"), to.name("theirs:1"));
    build(&kiln, &app, "busybox", &[]);
    kiln.run(["push", &app]);
    let remote = |name: &str| format!("docker://{name}");
    let digest = kiln.run(["copy", "--dest-compress-format", "zstd", &remote(&app), &remote(&own)]).stdout;
    skopeo(&["copy", "--dest-compress-format", "zstd", &remote(&app), &remote(&theirs)]);
    let (before, ours, skopeos) = (manifest(&kiln, &app), manifest(&kiln, &own), manifest(&kiln, &theirs));
    assert_eq!(types(&ours), ["application/vnd.oci.image.layer.v1.tar+zstd"; 2]);
    assert_eq!(types(&ours), types(&skopeos));
    assert_eq!(ours["config"], before["config"]);
    assert_eq!(diff_ids(&kiln, &own, &ours), diff_ids(&kiln, &app, &before));
    assert_eq!(diff_ids(&kiln, &own, &ours), diff_ids(&kiln, &theirs, &skopeos));
    let tag = kiln.run(["remote", "digest", &own]).text().to_owned();
    assert!(digest.contains(&tag), "{digest} is not {tag}");
    kiln.run(["remote", "validate", &remote(&own)]);
    // What is in the form already stays as it is, and so does all when nothing is asked.
    kiln.run(["copy", "--dest-compress-format", "zstd", &remote(&own), &remote(&to.name("again:1"))]).says(&tag);
    kiln.run(["copy", "--dest-compress-format", "gzip", &remote(&app), &remote(&to.name("same:1"))]);
    assert_eq!(manifest(&kiln, &to.name("same:1")), before);
    // There and back again they are the bytes that kiln made.
    let back = to.name("back:1");
    kiln.run(["copy", "--dest-compress-format", "gzip", "--dest-force-compress-format", &remote(&own), &remote(&back)]);
    assert_eq!(digests(&manifest(&kiln, &back), "layers"), digests(&before, "layers"));
    let plain = format!("oci:{}:x", kiln.directory().path().join("plain").display());
    kiln.run(["copy", "--dest-decompress", &remote(&own), &plain]);
    let plain: Value = serde_json::from_str(&kiln.run(["inspect", "--raw", &plain]).stdout).expect("a manifest");
    assert_eq!(digests(&plain, "layers"), diff_ids(&kiln, &app, &before));
    let other = Kiln::new();
    other.run(["pull", &own]);
    other.run(["run", "--rm", &own, "cat", "/f"]).says("x");
    for wrong in ["--preserve-digests", "--referrers"] {
        kiln.try_run(["copy", "--dest-compress-format", "zstd", wrong, &remote(&app), &remote(&own)]).failure();
    }
    kiln.try_run(["copy", "--dest-compress-level", "9", &remote(&app), &remote(&own)])
        .failure()
        .says("--dest-compress-format");
    kiln.try_run(["copy", "--dest-compress-format", "zstd", &remote(&app), "taken"]).failure().says("as they come");
}

#[test]
fn damaged_layers_are_not_compressed_anew() {
    let kiln = Kiln::with_busybox();
    build(&kiln, "app", "busybox", &[]);
    let directory = kiln.directory();
    let layout = format!("oci:{}:x", directory.path().join("layout").display());
    kiln.run(["copy", "app", &layout]);
    let raw: Value = serde_json::from_str(&kiln.run(["inspect", "--raw", &layout]).stdout).expect("a manifest");
    let layer = digests(&raw, "layers")[0].trim_start_matches("sha256:");
    let path = directory.path().join("layout/blobs/sha256").join(layer);
    let mut bytes = std::fs::read(&path).expect("a layer");
    // The time in gzip's header, of which its checksum knows nothing.
    bytes[5] ^= 1;
    std::fs::write(&path, bytes).expect("a layer");
    let to = directory.path().join("to.tar");
    let archive = format!("oci-archive:{}", to.display());
    kiln.try_run(["copy", "--dest-compress-format", "zstd", &layout, &archive]).failure().says("expected sha256:");
    assert!(!to.exists());
}

/// Proves: skopeo-copy
#[test]
fn manifests_are_of_the_type_that_was_asked_for() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    let (app, own, theirs) = (registry.name("app:1"), registry.name("own:1"), registry.name("theirs:1"));
    build(&kiln, &app, "busybox", &[]);
    kiln.run(["push", &app]);
    let remote = |name: &str| format!("docker://{name}");
    kiln.run(["copy", "--format", "v2s2", &remote(&app), &remote(&own)]);
    skopeo(&["copy", "--format", "v2s2", &remote(&app), &remote(&theirs)]);
    let (before, ours) = (manifest(&kiln, &app), manifest(&kiln, &own));
    assert_eq!(ours, manifest(&kiln, &theirs));
    assert_eq!((&ours["mediaType"], &before["mediaType"]), (&json!(DOCKER), &json!(OCI)));
    kiln.run(["remote", "validate", &remote(&own)]);
    kiln.run(["copy", "-f", "oci", &remote(&own), &remote(&registry.name("back:1"))]);
    assert_eq!(manifest(&kiln, &registry.name("back:1")), before);
    // From the store, too, and with podman beside it.
    let (pushed, podmans) = (registry.name("pushed:1"), registry.name("podman:1"));
    kiln.run(["push", "--format", "v2s2", &app, &pushed]);
    assert_eq!(manifest(&kiln, &pushed), ours);
    kiln.run(["copy", "--format", "v2s2", &app, &remote(&registry.name("copied:1"))]);
    assert_eq!(manifest(&kiln, &registry.name("copied:1")), ours);
    let podman = Podman::new();
    let podman = |arguments: &[&str]| run(podman.command(arguments.iter().copied())).success();
    podman(&["pull", "--tls-verify=false", &app]);
    podman(&["push", "--tls-verify=false", "--format", "v2s2", &app, &podmans]);
    let podmans = manifest(&kiln, &podmans);
    assert_eq!((&podmans["mediaType"], types(&podmans)), (&ours["mediaType"], types(&ours)));
    podman(&["pull", "--tls-verify=false", &own]);
    // docker has no word for zstd.
    for refused in [
        &["copy", "--format", "v2s2", "--dest-compress-format", "zstd", &remote(&app), &remote(&own)][..],
        &["push", "--format", "v2s2", "--compression-format", "zstd", &app][..],
    ] {
        kiln.try_run(refused).failure().says("zstd");
    }
    kiln.try_run(["copy", "--format", "v2s1", &remote(&app), &remote(&own)]).failure().says("v2s2");
    // Without being told, zstd makes OCI's of it, as with skopeo.
    let zstd = registry.name("zstd:1");
    kiln.run(["copy", "--dest-compress-format", "zstd", &remote(&own), &remote(&zstd)]);
    assert_eq!(manifest(&kiln, &zstd)["mediaType"], OCI);
}

#[test]
fn an_index_names_what_its_images_became() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    let (app, attested) = (registry.name("app:1"), registry.name("attested:1"));
    build(&kiln, &app, "scratch", &["--platform", "linux/amd64,linux/arm64"]);
    build(&kiln, &attested, "scratch", &["--provenance=true"]);
    kiln.run(["push", &app]);
    kiln.run(["push", &attested]);
    let remote = |name: &str| format!("docker://{name}");
    let (zstd, docker) = (registry.name("zstd:1"), registry.name("docker:1"));
    let to_zstd = ["copy", "--all", "--dest-compress-format", "zstd"];
    kiln.run([&to_zstd[..], &[&remote(&app), &remote(&zstd)]].concat());
    kiln.run(["copy", "--all", "--format", "v2s2", &remote(&app), &remote(&docker)]);
    let theirs = registry.name("theirs:1");
    skopeo(&["copy", "--all", "--format", "v2s2", &remote(&app), &remote(&theirs)]);
    assert_eq!(digests(&manifest(&kiln, &docker), "manifests").len(), 2);
    let platforms = |name: &str| -> Vec<Value> {
        let index = manifest(&kiln, name);
        index["manifests"].as_array().expect("a list").iter().map(|entry| entry["platform"].clone()).collect()
    };
    assert_eq!((platforms(&docker), platforms(&zstd)), (platforms(&theirs), platforms(&app)));
    assert_eq!(manifest(&kiln, &docker)["mediaType"], manifest(&kiln, &theirs)["mediaType"]);
    for name in [&zstd, &docker] {
        kiln.run(["remote", "validate", &remote(name)]);
        skopeo(&["inspect", "--tls-verify=false", "--override-arch", "arm64", &remote(name)]).says("\"arm64\"");
    }
    // From the store.
    let pushed = registry.name("pushed:1");
    kiln.run(["push", "--compression-format", "zstd", &app, &pushed]);
    assert_eq!(manifest(&kiln, &pushed), manifest(&kiln, &zstd));
    // What is said of an image is said of what it became.
    let said = registry.name("said:1");
    kiln.run([&to_zstd[..], &[&remote(&attested), &remote(&said)]].concat());
    let index = manifest(&kiln, &said);
    let entries = index["manifests"].as_array().expect("a list");
    assert_eq!(entries[1]["annotations"]["vnd.docker.reference.digest"], entries[0]["digest"]);
    kiln.try_run(["copy", "--all", "--format", "v2s2", &remote(&attested), &remote(&said)])
        .failure()
        .says("docker's manifests have no word for application/vnd.in-toto+json");
}

/// Proves: docker-push
#[test]
fn layers_are_compressed_as_hard_as_asked() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    let app = registry.name("app:1");
    kiln.build_text("FROM scratch\nCOPY Dockerfile /\nFROM busybox\nRUN seq 1 200000 >/numbers\n", &app);
    let pushed = |flags: &[&str]| -> Vec<u64> {
        let name = registry.name(&format!("app:x{}", flags.concat()));
        kiln.run([&["push"], flags, &[&app, &name]].concat());
        kiln.run(["remote", "validate", &format!("docker://{name}")]);
        let manifest = manifest(&kiln, &name);
        let layers = manifest["layers"].as_array().expect("layers");
        layers.iter().map(|layer| layer["size"].as_u64().expect("a size")).collect()
    };
    let (usual, fast, small) =
        (pushed(&[]), pushed(&["--compression-level", "1"]), pushed(&["--compression-level", "9"]));
    assert!(fast[0] > usual[0] && usual[0] > small[0], "{fast:?} {usual:?} {small:?}");
    let zstd = pushed(&["--compression-format", "zstd", "--compression-level", "19"]);
    assert!(zstd[0] < small[0], "{zstd:?}");
    // What came compressed stays so, unless all is to be compressed anew.
    kiln.run(["push", &app]);
    let other = Kiln::new();
    other.run(["pull", &app]);
    let (kept, anew) = (registry.name("kept:1"), registry.name("anew:1"));
    other.run(["push", "--compression-level", "9", &app, &kept]);
    assert_eq!(manifest(&kiln, &kept), manifest(&kiln, &app));
    other.run(["push", "--compression-level", "9", "--force-compression", &app, &anew]);
    assert_eq!(
        digests(&manifest(&kiln, &anew), "layers")[1],
        digests(&manifest(&kiln, &registry.name("app:x--compression-level9")), "layers")[1]
    );
}
