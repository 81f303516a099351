//! Images looked at and changed where they are: `kiln remote`, beside skopeo and Debian's registry.

use std::fs;
use std::path::Path;

use kiln_tests::{Kiln, Registry, command, run};
use serde_json::Value;

/// A tar with one file.
fn tar(directory: &Path, name: &str, content: &str) -> String {
    fs::write(directory.join(name), content).expect("a file");
    let path = directory.join(format!("{name}.tar")).display().to_string();
    let at = directory.display().to_string();
    run(command("tar", ["-cf", &path, "--owner=0", "--group=0", "-C", &at, name])).success();
    path
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What skopeo says of a registry's image.
fn skopeo(place: &str, more: &[&str]) -> String {
    let place = format!("docker://{place}");
    let mut inspect = command("skopeo", ["inspect", "--tls-verify=false"]);
    inspect.args(more).arg(place);
    run(inspect).success().stdout
}

/// Proves: crane-read, skopeo-inspect
#[test]
fn what_a_registry_has_is_read_raw() {
    let kiln = Kiln::with_busybox();
    for registry in [Registry::kiln(&kiln), Registry::distribution()] {
        let name = registry.name("team/app:1");
        kiln.build_text("FROM busybox\nRUN echo x > /x\n", &name);
        kiln.run(["push", "-q", &name]);
        let remote = |words: &[&str]| kiln.run(["remote"].iter().chain(words)).stdout;
        let manifest = remote(&["manifest", &name]);
        assert_eq!(manifest, skopeo(&name, &["--raw"]));
        assert_eq!(remote(&["config", &name]), skopeo(&name, &["--raw", "--config"]));
        let digest = remote(&["digest", &name]).trim().to_owned();
        assert_eq!(digest, format!("sha256:{}", kiln_tests::sha256(manifest.as_bytes())));
        let config = json(&manifest)["config"]["digest"].as_str().expect("a digest").to_owned();
        let at = format!("{}@{config}", registry.name("team/app"));
        assert_eq!(remote(&["blob", &at]), remote(&["config", &name]));
        let missing = format!("{}@sha256:{}", registry.name("team/app"), "0".repeat(64));
        kiln.try_run(["remote", "blob", &missing]).failure().says("not found");
        assert_eq!(remote(&["ls", &registry.name("team/app")]), "1\n");
        remote(&["tag", &name, "stable"]);
        assert_eq!(remote(&["ls", &registry.name("team/app")]), "1\nstable\n");
        assert_eq!(remote(&["digest", &registry.name("team/app:stable")]).trim(), digest);
        assert_eq!(remote(&["catalog", &registry.address()]), "team/app\n");
        assert_eq!(remote(&["catalog", "--full-ref", &registry.address()]), format!("{}\n", registry.name("team/app")));
        kiln.run(["remote", "validate", &name]).says("PASS").says("1 manifests");
        remote(&["delete", &name]);
        kiln.try_run(["remote", "digest", &name]).failure().says("not found");
    }
}

/// Proves: crane-move
#[test]
fn a_layout_with_wrong_bytes_fails() {
    let kiln = Kiln::with_busybox();
    kiln.build_text("FROM busybox\nRUN echo x > /x\n", "app");
    let directory = kiln.directory();
    let place = format!("oci:{}:x", directory.path().join("layout").display());
    kiln.run(["copy", "app", &place]);
    kiln.run(["remote", "validate", &place]).says("PASS");
    let manifest = json(&kiln.run(["remote", "manifest", &place]).stdout);
    let layer = manifest["layers"][1]["digest"].as_str().expect("a digest").replace(':', "/");
    let blob = directory.path().join("layout/blobs").join(layer);
    let mut bytes = fs::read(&blob).expect("a blob");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&blob, bytes).expect("damaged");
    kiln.try_run(["remote", "validate", &place]).failure().says("FAIL").says("sha256:");
    fs::remove_file(&blob).expect("removed");
    kiln.try_run(["remote", "validate", &place]).failure().says("FAIL");
}

/// Proves: crane-edit
#[test]
fn layers_configs_and_bases_are_changed_at_the_registry() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    let directory = kiln.directory();
    let (old, new) = (registry.name("base:1"), registry.name("base:2"));
    kiln.build_text("FROM busybox\nRUN echo old > /base\nENV BASE=1\n", &old);
    kiln.build_text("FROM busybox\nRUN echo new > /base && echo more > /more\nENV BASE=2\n", &new);
    let app = registry.name("team/app:1");
    kiln.build_text(&format!("FROM {old}\nRUN echo app > /app\nCMD [\"cat\", \"/base\", \"/app\"]\n"), &app);
    for name in [&old, &new, &app] {
        kiln.run(["push", "-q", name]);
    }
    let other = Kiln::new();
    let runs = |name: &str| {
        other.run(["pull", "-q", name]);
        other.run(["run", "--rm", name]).stdout
    };

    let rebased = registry.name("team/app:rebased");
    let at = other.run(["remote", "rebase", &app, "--old_base", &old, "--new_base", &new, "-t", &rebased]);
    at.says(&format!("{}@sha256:", registry.name("team/app")));
    assert_eq!(runs(&rebased), "new\napp\n");
    let manifest = json(&skopeo(&rebased, &["--raw"]));
    let base = &manifest["annotations"]["org.opencontainers.image.base.digest"];
    assert_eq!(base.as_str(), Some(other.run(["remote", "digest", &new]).stdout.trim()));
    let config = json(&skopeo(&rebased, &["--config"]));
    let history: Vec<&str> =
        config["history"].as_array().expect("lines").iter().filter_map(|line| line["created_by"].as_str()).collect();
    assert!(
        history.iter().any(|line| line.contains("/more")) && !history.iter().any(|line| line.contains("echo old")),
        "{history:?}"
    );
    assert!(history.last().expect("a line").contains("/app"), "{history:?}");
    let wrong = other.try_run(["remote", "rebase", &app, "--old_base", &new, "--new_base", &old, "-t", &rebased]);
    wrong.failure().says("not those of the old base");

    let plain = tar(directory.path(), "added", "added\n");
    run(command("gzip", ["-kn", &plain])).success();
    let appended = registry.name("team/app:appended");
    for layer in [plain.clone(), format!("{plain}.gz")] {
        other.run(["remote", "append", "-b", &app, "-f", &layer, "-t", &appended]);
        other.run(["pull", "-q", &appended]);
        assert_eq!(other.run(["run", "--rm", &appended, "cat", "/added", "/app"]).stdout, "added\napp\n");
    }
    other.run(["remote", "validate", &appended]).says("PASS");
    let scratch = registry.name("scratch:1");
    other.run(["remote", "append", "-f", &plain, "-t", &scratch]);
    assert_eq!(json(&skopeo(&scratch, &[]))["Layers"].as_array().map(Vec::len), Some(1));
    let text = directory.path().join("added").display().to_string();
    other.try_run(["remote", "append", "-f", &text, "-t", &scratch]).failure().says("added");
}

#[test]
fn configs_and_annotations_are_changed_at_the_registry() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    let app = registry.name("team/app:1");
    kiln.build_text("FROM busybox\nENV BASE=1\nCMD [\"cat\", \"/etc/passwd\"]\n", &app);
    kiln.run(["push", "-q", &app]);
    let other = Kiln::new();
    let mutated = registry.name("team/app:mutated");
    let change = [
        "remote",
        "mutate",
        &app,
        "-t",
        &mutated,
        "--entrypoint",
        "echo",
        "--cmd",
        "a,b",
        "-e",
        "BASE=3",
        "-e",
        "X=y",
        "-l",
        "team=red",
        "-a",
        "note=this",
        "--user",
        "1:1",
        "--workdir",
        "/tmp",
        "--exposed-ports",
        "80/tcp",
    ];
    other.run(change);
    other.run(["pull", "-q", &mutated]);
    assert_eq!(other.run(["run", "--rm", &mutated]).stdout, "a b\n");
    let config = &json(&skopeo(&mutated, &["--config"]))["config"];
    assert_eq!((config["User"].as_str(), config["WorkingDir"].as_str()), (Some("1:1"), Some("/tmp")));
    assert_eq!(config["Labels"]["team"].as_str(), Some("red"));
    assert!(config["ExposedPorts"]["80/tcp"].is_object());
    let env = config["Env"].to_string();
    assert!(env.contains("BASE=3") && env.contains("X=y") && !env.contains("BASE=1"), "{env}");
    assert_eq!(json(&skopeo(&mutated, &["--raw"]))["annotations"]["note"].as_str(), Some("this"));
}

/// Proves: crane-edit
#[test]
fn all_layers_become_one() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    let app = registry.name("team/app:1");
    kiln.build_text(
        "FROM busybox\nRUN echo gone > /gone && echo kept > /kept\nRUN rm /gone\nCMD [\"cat\", \"/kept\"]\n",
        &app,
    );
    kiln.run(["push", "-q", &app]);
    let flat = registry.name("team/app:flat");
    let fresh = Kiln::new();
    fresh.run(["remote", "flatten", &app, "-t", &flat]);
    assert_eq!(fresh.run(["images", "-aq"]).stdout, "", "nothing is left in the store");
    assert_eq!(json(&skopeo(&flat, &[]))["Layers"].as_array().map(Vec::len), Some(1));
    fresh.run(["pull", "-q", &flat]);
    assert_eq!(fresh.run(["run", "--rm", &flat]).stdout, "kept\n");
    fresh.try_run(["run", "--rm", &flat, "cat", "/gone"]).failure();
}

/// Proves: crane-index
#[test]
fn indexes_are_put_together_and_filtered() {
    let kiln = Kiln::new();
    let registry = Registry::distribution();
    let images = ["amd64", "arm64", "s390x"].map(|arch| {
        let name = registry.name(&format!("one:{arch}"));
        let context = kiln.context(&[("Dockerfile", "FROM scratch\nCOPY word /\n"), ("word", arch)]);
        kiln.build(&context, &name, &["--platform", &format!("linux/{arch}")]);
        kiln.run(["push", "-q", &name]);
        name
    });
    let (two, all, some) = (registry.name("multi:2"), registry.name("multi:3"), registry.name("else/multi:1"));
    kiln.run(["remote", "index", "append", "-m", &images[0], "-m", &images[1], "-t", &two]).says("multi@sha256:");
    kiln.run(["remote", "index", "append", &two, "-m", &images[2], "-t", &all]);
    let platforms = |name: &str| -> Vec<String> {
        let index = json(&skopeo(name, &["--raw"]));
        let entries = index["manifests"].as_array().expect("entries").iter();
        entries.map(|entry| entry["platform"]["architecture"].as_str().expect("a platform").to_owned()).collect()
    };
    assert_eq!(platforms(&all), ["amd64", "arm64", "s390x"]);
    let filter =
        ["remote", "index", "filter", &all, "--platform", "linux/arm64", "--platform", "linux/s390x", "-t", &some];
    kiln.run(filter);
    assert_eq!(platforms(&some), ["arm64", "s390x"]);
    kiln.run(["remote", "validate", &some]).says("3 manifests");
    assert_eq!(kiln.run(["remote", "config", "--platform", "linux/arm64", &some]).stdout.matches("arm64").count(), 1);
    kiln.try_run(["remote", "index", "filter", &all, "--platform", "linux/ppc64le", "-t", &some])
        .failure()
        .says("ppc64le");
    kiln.try_run(["remote", "index", "filter", &images[0], "--platform", "linux/amd64", "-t", &some])
        .failure()
        .says("not an index");
}

/// Proves: referrers-attach-discover
#[test]
fn files_are_attached_and_found() {
    let kiln = Kiln::with_busybox();
    let directory = kiln.directory();
    let sbom = directory.path().join("sbom.json").display().to_string();
    fs::write(&sbom, "{\"spdxVersion\":\"SPDX-2.3\"}").expect("a file");
    // Debian's registry knows no referrers: a tag stands in for them.
    for registry in [Registry::kiln(&kiln), Registry::distribution()] {
        let name = registry.name("app:1");
        kiln.build_text("FROM busybox\nRUN echo x > /x\n", &name);
        kiln.run(["push", "-q", &name]);
        let file = format!("{sbom}:application/spdx+json");
        let words = ["remote", "attach", &name, &file, "--artifact-type", "application/spdx+json", "-a", "by=kiln"];
        let at = kiln.run(words).text().to_owned();
        kiln.run(["remote", "attach", &name, "--artifact-type", "test/mark"]);
        let list = |more: &[&str]| kiln.run(["remote", "referrers", &name].iter().chain(more)).stdout;
        let digest = at.split_once('@').expect("a digest").1;
        assert_eq!(list(&["--artifact-type", "application/spdx+json"]), format!("{digest}  application/spdx+json\n"));
        assert_eq!(list(&[]).lines().count(), 2);
        let entries = json(&list(&["--format", "json"]));
        assert_eq!(entries["manifests"].as_array().map(Vec::len), Some(2));
        let manifest = json(&kiln.run(["remote", "manifest", &at]).stdout);
        assert_eq!(manifest["layers"][0]["annotations"]["org.opencontainers.image.title"].as_str(), Some("sbom.json"));
        let blob = manifest["layers"][0]["digest"].as_str().expect("a digest");
        let content = kiln.run(["remote", "blob", &format!("{}@{blob}", registry.name("app"))]).stdout;
        assert_eq!(content, fs::read_to_string(&sbom).expect("the file"));
        let layout = format!("oci:{}:x", directory.path().join(registry.address()).display());
        kiln.run(["copy", "--referrers", &format!("docker://{name}"), &layout]);
        kiln.run(["remote", "attach", &layout, "--artifact-type", "test/third"]);
        assert_eq!(kiln.run(["remote", "referrers", &layout]).stdout.lines().count(), 3);
        kiln.run(["inspect", "--raw", &layout]);
    }
}

/// What a mirror has.
fn tags(kiln: &Kiln, repository: &str) -> String {
    kiln.run(["remote", "ls", repository]).stdout
}

/// Proves: skopeo-sync
#[test]
fn repositories_are_mirrored_as_skopeo_does() {
    let kiln = Kiln::with_busybox();
    let (ours, theirs) = (Registry::kiln(&kiln), Registry::distribution());
    for tag in ["1", "2", "edge"] {
        let name = ours.name(&format!("team/app:{tag}"));
        kiln.build_text(&format!("FROM busybox\nRUN echo {tag} > /tag\n"), &name);
        kiln.run(["push", "-q", &name]);
    }
    let directory = kiln.directory();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let (source, mirror) = (ours.name("team/app"), theirs.name("mirror"));
    let docker = ["sync", "--src", "docker", "--dest", "docker"];
    kiln.run(docker.iter().copied().chain(["--dry-run", &source, &mirror])).says("Would have synced 3 images");
    assert_eq!(kiln.run(["remote", "catalog", &theirs.address()]).stdout, "");
    kiln.run(docker.iter().copied().chain([source.as_str(), &mirror])).says("Synced 3 images");
    assert_eq!(tags(&kiln, &theirs.name("mirror/app")), "1\n2\nedge\n");
    assert_eq!(
        raw(&kiln, &theirs.name("mirror/app:2")),
        raw(&kiln, &ours.name("team/app:2")),
        "every byte stays as it is"
    );
    kiln.run(docker.iter().copied().chain(["--scoped", &ours.name("team/app:1"), &mirror]));
    let scoped = format!("mirror/{}/team/app", ours.address().replace(':', "-"));
    assert_eq!(tags(&kiln, &theirs.name(&scoped)), "1\n");

    // Into a directory, ours and skopeo's alike, and out of it.
    kiln.run(["sync", "--src", "docker", "--dest", "dir", &source, &at("ours")]);
    let skopeo = ["sync", "--src", "docker", "--dest", "dir", "--src-tls-verify=false", &source, &at("theirs")];
    run(command("skopeo", skopeo)).success();
    let compare = run(command("diff", ["-r", &at("ours"), &at("theirs")]));
    compare.success();
    kiln.run(["sync", "--src", "dir", "--dest", "docker", &at("theirs"), &theirs.name("back")]);
    assert_eq!(tags(&kiln, &theirs.name("back/app")), "1\n2\nedge\n");

    let list = format!(
        "{}:\n  tls-verify: false\n  images:\n    team/app: [\"edge\"]\n    no/thing: [\"1\"]\n  images-by-tag-regex:\n    team/app: ^[0-9]$\n",
        ours.address()
    );
    fs::write(at("list.yaml"), list).expect("a list");
    let yaml = ["sync", "--src", "yaml", "--dest", "docker", &at("list.yaml"), &theirs.name("listed")];
    kiln.try_run(yaml).failure().says("no/thing");
    kiln.try_run(yaml.iter().chain(&["--keep-going"])).failure().says("1 of 4 images");
    assert_eq!(tags(&kiln, &theirs.name("listed/app")), "1\n2\nedge\n");
    fs::write(at("list.yaml"), "r.example:\n  imagse: {}\n").expect("a list");
    kiln.try_run(yaml).failure().says("imagse");
}

fn raw(kiln: &Kiln, name: &str) -> String {
    kiln.run(["remote", "manifest", name]).stdout
}
