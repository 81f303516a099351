//! `kiln registry gc`, `scrub` and `import`: what the owner of a registry's directory does, by command.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use kiln_tests::{Kiln, Outcome, Registry, command, kiln_binary, run};
use serde_json::Value;

fn maintain(arguments: &[&str], data: &Path, more: &[&str]) -> Outcome {
    let mut line = command(kiln_binary(), ["registry"]);
    line.args(arguments).arg("--data").arg(data).args(more);
    run(line)
}

fn json(outcome: Outcome) -> Value {
    serde_json::from_str(&outcome.success().stdout).expect("JSON")
}

fn image(kiln: &Kiln, name: &str) {
    kiln.build_text(&format!("FROM busybox\nRUN echo {name} > /x\nCMD [\"cat\", \"/x\"]\n"), name);
    kiln.run(["push", "-q", name]);
}

/// The largest blob of a registry's directory: a layer.
fn largest_blob(data: &Path) -> PathBuf {
    let blobs = fs::read_dir(data.join("blobs/sha256")).expect("blobs");
    let sized = blobs.flatten().map(|entry| (entry.metadata().expect("a file").len(), entry.path()));
    sized.max().expect("a blob").1
}

#[test]
fn garbage_is_shown_and_removed_while_the_registry_serves_and_without_it() {
    let kiln = Kiln::with_busybox();
    let directory = kiln.directory();
    let config = directory.path().join("registry.toml");
    fs::write(&config, "[gc]\ngrace = \"0s\"\ninterval = \"0s\"\n").expect("a file");
    let mut registry = Registry::kiln_with(&kiln, &["--config", config.to_str().expect("text")]);
    let (kept, gone) = (registry.name("team/kept:1"), registry.name("team/gone:1"));
    image(&kiln, &kept);
    image(&kiln, &gone);
    let data = registry.data();
    let with_config = ["--config", config.to_str().expect("text")];
    let gc = |more: &[&str]| maintain(&["gc"], &data, &[&with_config[..], more].concat());
    gc(&[]).success();
    kiln.run(["rmi", &format!("docker://{gone}")]);

    // Even without a grace period the second in which it went has to pass; then its blobs' own begins.
    let until = |kind: &str, more: &[&str]| {
        let started = Instant::now();
        loop {
            let report = json(gc(&[more, &["--format", "json"]].concat()));
            if report[kind].as_u64() > Some(0) {
                return report;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "no {kind} went: {report}");
            thread::sleep(Duration::from_millis(200));
        }
    };
    let seen = until("manifests", &["--dry-run"]);
    assert_eq!((&seen["dry_run"], &seen["manifests"]), (&Value::from(true), &Value::from(1)));
    gc(&["--dry-run"]).success().says("would remove 0 tags, 1 manifests");
    let removed = until("manifests", &[]);
    assert_eq!((&removed["removed"][0]["repository"], &removed["manifests"]), (&"team/gone".into(), &Value::from(1)));
    until("blobs", &[]);
    assert_eq!(gc(&["-q"]).success().stdout, "");
    let fresh = Kiln::new();
    assert_eq!(fresh.run(["run", "--rm", &kept]).stdout.trim(), kept);

    kiln.run(["rmi", &format!("docker://{kept}")]);
    registry.halt();
    until("manifests", &[]);
    until("blobs", &[]);
    assert_eq!(fs::read_dir(data.join("blobs/sha256")).expect("blobs").count(), 0, "nothing is left of both");
}

#[test]
fn damage_is_found_put_aside_and_healed_by_a_push() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    let name = registry.name("team/app:1");
    image(&kiln, &name);
    let scrub = |more: &[&str]| maintain(&["scrub"], &registry.data(), more);
    scrub(&[]).success().says("read ");
    assert_eq!(scrub(&["-q"]).success().stdout, "");
    let blob = largest_blob(&registry.data());
    let mut bytes = fs::read(&blob).expect("a blob");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, bytes).expect("a blob");
    let digest = blob.file_name().expect("a name").to_string_lossy().into_owned();

    let found = scrub(&["--format", "json"]).code(1).says("team/app");
    let report: Value = serde_json::from_str(&found.stdout).expect("JSON");
    assert_eq!(report["damaged"][0]["digest"], format!("sha256:{digest}"));
    assert!(registry.data().join("quarantine").is_dir() && !blob.exists());
    Kiln::new().try_run(["pull", &name]).failure();
    kiln.run(["push", &name]);
    scrub(&[]).success();
    assert_eq!(Kiln::new().run(["run", "--rm", &name]).stdout.trim(), name);
}

#[test]
fn debians_registry_is_taken_over_with_every_image() {
    let kiln = Kiln::with_busybox();
    let mut theirs = Registry::distribution();
    let old = theirs.name("team/app:1");
    image(&kiln, &old);
    kiln.run(["tag", &old, &theirs.name("team/app:2")]);
    kiln.run(["push", "-q", &theirs.name("team/app:2")]);
    theirs.halt();
    let mut ours = Registry::kiln(&kiln);
    let source = theirs.data();
    let import = |more: &[&str]| {
        let arguments = ["import", source.to_str().expect("text")];
        maintain(&arguments, &ours.data(), more)
    };
    import(&[]).failure().says("another registry server");
    ours.halt();
    let import = |more: &[&str]| {
        let arguments = ["import", source.to_str().expect("text")];
        maintain(&arguments, &ours.data(), more)
    };
    let report = json(import(&["--format", "json"]));
    assert_eq!((&report["repositories"], &report["tags"]), (&Value::from(1), &Value::from(2)));
    import(&[]).success().says("took over 1 repositories");
    let ours = ours.serve_again(&kiln);
    for tag in ["1", "2"] {
        let name = ours.name(&format!("team/app:{tag}"));
        assert_eq!(Kiln::new().run(["run", "--rm", &name]).stdout.trim(), old);
    }
}
