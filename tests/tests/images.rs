//! Commands about images: their output, their errors, and archives in and out.

use kiln_tests::{Kiln, killed_at, read_archive, run, run_with_input};
use serde_json::{Value, json};

fn small() -> Kiln {
    let kiln = Kiln::with_busybox();
    kiln.build_text("FROM busybox\nRUN echo x > /x\nLABEL l=1\nCMD [\"cat\", \"/x\"]\n", "small:1");
    kiln
}

/// Proves: docker-images
#[test]
fn images_lists_what_docker_lists() {
    let kiln = small();
    let outcome = kiln.run(["images"]);
    let mut lines = outcome.stdout.lines();
    let heading: Vec<&str> = lines.next().unwrap().split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
    assert_eq!(heading, ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"], "{outcome}");
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
    let row = rows.iter().find(|row| row[0] == "small").unwrap_or_else(|| panic!("{outcome}"));
    assert_eq!(row[1], "1");
    let id = kiln.image_id("small:1");
    assert_eq!(row[2], &id.trim_start_matches("sha256:")[..12]);
    let quiet = kiln.run(["images", "-q", "small"]);
    assert_eq!(quiet.text(), row[2]);
}

/// Proves: docker-tag, docker-rmi
#[test]
fn tags_are_names_and_the_last_one_takes_the_image_with_it() {
    let kiln = small();
    kiln.run(["tag", "small:1", "other:2"]);
    assert_eq!(kiln.image_id("small:1"), kiln.image_id("other:2"));
    let untagged = kiln.run(["rmi", "small:1"]);
    assert!(untagged.output().contains("Untagged: small:1") && !untagged.output().contains("Deleted"), "{untagged}");
    kiln.run(["run", "--rm", "other:2"]);
    kiln.run(["rmi", "other:2"]).says("Untagged: other:2").says("Deleted: sha256:");
    kiln.try_run(["inspect", "other:2"]).failure();
    kiln.run(["run", "--rm", "busybox", "true"]);
}

#[test]
fn an_image_is_found_by_the_beginning_of_its_id() {
    let kiln = small();
    let id = kiln.image_id("small:1");
    let hex = id.trim_start_matches("sha256:");
    assert_eq!(kiln.image_id(&hex[..12]), id);
    assert_eq!(kiln.image_id(&id), id);
    kiln.run(["run", "--rm", &hex[..10]]).says("x");
}

/// Proves: docker-image-inspect
#[test]
fn inspect_is_dockers_json() {
    let kiln = small();
    let image = kiln.inspect("small:1");
    for key in ["Id", "RepoTags", "Created", "Architecture", "Os", "Size", "Config", "RootFS"] {
        assert!(!image[key].is_null(), "no {key}: {image}");
    }
    assert_eq!(image["RepoTags"], json!(["small:1"]));
    assert_eq!(image["Config"]["Cmd"], json!(["cat", "/x"]));
    assert_eq!(image["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    let format = kiln.run(["inspect", "--format", "{{.Id}}", "small:1"]);
    assert_eq!(json!(format.text()), image["Id"]);
    kiln.try_run(["inspect", "small:1", "no-such"]).failure().says("small:1").says("no-such");
}

/// Proves: docker-history
#[test]
fn history_shows_every_step_newest_first() {
    let kiln = small();
    let outcome = kiln.run(["history", "--no-trunc", "small:1"]);
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert!(lines[0].starts_with("IMAGE") && lines[0].contains("CREATED BY"), "{outcome}");
    assert!(lines[1].contains("CMD") && lines[2].contains("LABEL") && lines[3].contains("echo x > /x"), "{outcome}");
}

/// Proves: docker-save, docker-load
#[test]
fn save_and_load_keep_the_image_exactly() {
    let kiln = small();
    let id = kiln.image_id("small:1");
    let archive = kiln.run(["save", "small:1", "busybox:latest"]).bytes;
    assert_eq!(read_archive(&archive).unwrap().len(), 2);
    let other = Kiln::new();
    run_with_input(other.command(["load"]), &archive).success().says("small:1").says("busybox:latest");
    assert_eq!(other.image_id("small:1"), id);
    assert_eq!(other.run(["run", "--rm", "small:1"]).stdout, "x\n");
    assert_eq!(other.run(["save", "small:1", "busybox:latest"]).bytes, archive, "saving is deterministic");
}

#[test]
fn save_and_load_work_with_files_and_damage_is_noticed() {
    let kiln = small();
    let directory = kiln.directory();
    let file = directory.path().join("image.tar");
    let path = file.to_str().unwrap();
    kiln.run(["save", "-o", path, "small:1"]);
    let other = Kiln::new();
    other.run(["load", "-i", path]).says("small:1");
    let mut bytes = std::fs::read(&file).unwrap();
    let third = Kiln::new();
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 600] {
        *byte ^= 0x55;
    }
    run_with_input(third.command(["load"]), &bytes).failure();
    run_with_input(third.command(["load"]), &bytes[..middle]).failure();
    third.run(["images", "-q"]).never_says("small");
}

/// At every step of giving the archive its name: there is none, or the old one, or the whole new one.
#[test]
fn saving_may_be_killed_at_any_moment_and_leaves_nothing() {
    let kiln = small();
    let directory = kiln.directory();
    let file = directory.path().join("image.tar");
    let save = kiln.command(["save", "-o", file.to_str().unwrap(), "small:1"]);
    let whole = kiln.run(["save", "small:1"]).bytes;
    for old in [None, Some("old")] {
        for number in 1.. {
            drop(std::fs::remove_file(&file));
            if let Some(old) = old {
                std::fs::write(&file, old).unwrap();
            }
            let ended = run(killed_at(&save, "linkat,rename,renameat,renameat2", number));
            let found = std::fs::read(&file).ok();
            assert!(found.as_ref() == Some(&whole) || found.as_deref() == old.map(str::as_bytes), "{ended}");
            if ended.status.success() {
                break;
            }
            kiln.run(["save", "-o", file.to_str().unwrap(), "small:1"]);
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "after {number}");
        }
    }
}

/// Proves: docker-import
#[test]
fn import_takes_a_root_file_system() {
    let kiln = Kiln::new();
    let tree = kiln.context(&[("etc/name", "imported\n")]);
    tree.shell("tar -czf root.tgz etc");
    let path = tree.path().join("root.tgz");
    let outcome =
        kiln.run(["import", "--change", "ENV A=b", "-c", "CMD [\"x\"]", path.to_str().unwrap(), "imported:1"]);
    assert_eq!(outcome.text(), kiln.image_id("imported:1"));
    let image = kiln.inspect("imported:1");
    assert_eq!(image["Config"]["Cmd"], json!(["x"]));
    assert_eq!(image["Config"]["Env"], json!(["A=b"]));
    assert!(kiln.filesystem("imported:1").get("etc/name").is_some());
}

#[test]
fn quiet_and_iidfile_give_the_id() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nRUN echo noise\n")]);
    let file = kiln.directory();
    let iid = file.path().join("iid");
    let path = context.path().to_str().unwrap();
    let outcome = kiln.run(["build", "-q", "--iidfile", iid.to_str().unwrap(), "-t", "t", path]);
    let id = kiln.image_id("t");
    assert_eq!((outcome.text(), outcome.stderr.as_str()), (id.as_str(), ""));
    assert_eq!(std::fs::read_to_string(iid).unwrap().trim(), id);
}

#[test]
fn a_build_without_a_name_is_kept_by_its_id() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nRUN echo nameless > /n\n")]);
    let outcome = kiln.run(["build", "-q", context.path().to_str().unwrap()]);
    assert_eq!(kiln.output(outcome.text(), &["cat", "/n"]), "nameless\n");
}

#[test]
fn outputs_go_to_directories_and_archives() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM scratch\nCOPY a /d/a\nCMD [\"/d/a\"]\n"), ("a", "alpha\n")]);
    let out = kiln.directory();
    let at = |name: &str| out.path().join(name).to_str().unwrap().to_owned();
    let build = |output: &str| kiln.run(["build", "--output", output, context.path().to_str().unwrap()]);

    build(&format!("type=local,dest={}", at("local")));
    assert_eq!(std::fs::read_to_string(at("local/d/a")).unwrap(), "alpha\n");
    build(&at("short"));
    assert_eq!(std::fs::read_to_string(at("short/d/a")).unwrap(), "alpha\n");
    build(&format!("type=tar,dest={}", at("root.tar")));
    run(kiln_tests::command("tar", ["-tf", &at("root.tar")])).success().says("d/a");
    build(&format!("type=docker,dest={}", at("docker.tar")));
    let images = read_archive(&std::fs::read(at("docker.tar")).unwrap()).unwrap();
    assert_eq!(images[0].config["config"]["Cmd"], json!(["/d/a"]));
    build(&format!("type=oci,dest={}", at("oci.tar")));
    run(kiln_tests::command("tar", ["-tf", &at("oci.tar")])).success().says("index.json").says("oci-layout");
}

#[test]
fn json_progress_is_json() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nRUN echo hello from the step\n")]);
    let outcome = kiln.run(["build", "--progress=json", "-t", "t", context.path().to_str().unwrap()]);
    let lines: Vec<Value> = outcome.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!lines.is_empty(), "{outcome}");
}

/// Proves: docker-info
#[test]
fn info_says_what_the_machine_can_do() {
    Kiln::new().run(["info"]).says("user namespaces").says("overlay").says("seccomp").says("cgroups");
}

/// Proves: podman-image
#[test]
fn layers_platforms_and_changes_are_shown() {
    let kiln = Kiln::with_busybox();
    kiln.build_text("FROM busybox\nRUN echo a > /a && echo b > /b\n", "base:1");
    kiln.build_text("FROM base:1\nRUN rm /a && echo c >> /b && mkdir /d && echo e > /d/e\n", "app:1");
    let tree = kiln.run(["image", "tree", "app:1"]).stdout;
    let lines: Vec<&str> = tree.lines().collect();
    assert!(lines[1] == "Tags:     [app:1]" && lines[3] == "Image Layers", "{tree}");
    assert!(lines[4].starts_with("├── ID: ") && lines[4].ends_with("Top Layer of: [busybox:latest]"), "{tree}");
    assert!(lines[5].ends_with("Top Layer of: [base:1]"), "{tree}");
    assert!(lines[6].starts_with("└── ID: ") && lines[6].ends_with("Top Layer of: [app:1]"), "{tree}");
    let changes = "D /a\nC /b\nA /d\nA /d/e\n";
    assert_eq!(kiln.run(["image", "diff", "app:1"]).stdout, changes);
    assert_eq!(kiln.run(["image", "diff", "app:1", "base:1"]).stdout, changes);
    assert_eq!(kiln.run(["image", "diff", "app:1", "app:1"]).stdout, "");
    let back = kiln.run(["image", "diff", "--format", "json", "base:1", "app:1"]).stdout;
    let back: serde_json::Value = serde_json::from_str(&back).expect("json");
    assert_eq!(back, serde_json::json!({"added": ["/a"], "changed": ["/b"], "deleted": ["/d"]}));

    let context =
        kiln.context(&[("Dockerfile", "FROM scratch\nARG TARGETARCH\nLABEL a=$TARGETARCH\nCOPY x /\n"), ("x", "y")]);
    kiln.build(&context, "multi:1", &["--platform", "linux/amd64,linux/arm64"]);
    let tree = kiln.run(["images", "--tree"]).stdout;
    let lines: Vec<&str> = tree.lines().collect();
    assert!(lines[0].starts_with("IMAGE ") && lines[0].ends_with("CONTENT SIZE"), "{tree}");
    let at = lines.iter().position(|line| line.starts_with("multi:1 ")).expect("the index");
    assert!(lines[at + 1].starts_with("├─ linux/amd64") && lines[at + 2].starts_with("└─ linux/arm64"), "{tree}");
    assert_eq!(kiln.run(["images", "--tree", "app"]).stdout.lines().count(), 2);
}
