//! Where a build's result goes, in which form, and what is told of it.

use std::fs;
use std::path::Path;

use kiln_tests::{Context, Kiln, Registry, command, read_archive, run};
use serde_json::{Value, json};

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}"))
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

fn context(kiln: &Kiln) -> Context {
    kiln.context(&[("Dockerfile", "FROM busybox\nRUN seq 1 20000 > /numbers\n")])
}

#[test]
fn a_pipe_is_written_and_not_replaced() {
    let kiln = Kiln::with_busybox();
    let context = context(&kiln);
    let pipe = context.path().join("pipe");
    context.shell("mkfifo pipe");
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read(pipe).expect("a tar")
    });
    kiln.build(&context, "t", &["-o", &format!("type=tar,dest={}", pipe.display())]);
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&pipe.metadata().expect("the pipe").file_type()));
    assert!(reader.join().expect("it read").len() > 100_000);
}

/// The manifest of an image in a layout.
fn manifest(kiln: &Kiln, layout: &str) -> Value {
    json_of(&kiln.run(["inspect", "--raw", &format!("oci:{layout}")]).stdout)
}

fn types(manifest: &Value) -> Vec<String> {
    let layers = manifest["layers"].as_array().unwrap_or_else(|| panic!("no layers: {manifest}"));
    layers.iter().map(|layer| layer["mediaType"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Two images have the same files, with everything that belongs to them.
fn same_files(kiln: &Kiln, one: &str, other: &str) {
    let (first, second) = (kiln.filesystem(one), kiln.filesystem(other));
    let paths = |root: &kiln_tests::Filesystem| root.paths().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(paths(&first), paths(&second));
    for path in paths(&first) {
        assert_eq!(first.get(&path), second.get(&path), "{path}");
    }
}

/// Proves: --output, --load, D1.13-13
#[test]
fn several_outputs_at_once() {
    let kiln = Kiln::with_busybox();
    let context = context(&kiln);
    let directory = kiln.directory();
    let at = |name: &str| directory.path().join(name).display().to_string();
    kiln.build(
        &context,
        "t:1",
        &[
            "--load",
            &format!("--output=type=oci,dest={}", at("oci.tar")),
            &format!("--output=type=docker,dest={}", at("docker.tar")),
            &format!("--output=type=oci,dest={},tar=false", at("layout")),
            &format!("--output=type=local,dest={}", at("files")),
            &format!("--output=type=tar,dest={}", at("files.tar")),
            "--output=type=image,unpack=true,store=true",
            "-o",
            &at("more"),
        ],
    );
    let id = kiln.image_id("t:1");
    for archive in ["oci.tar", "docker.tar"] {
        let images = read_archive(&fs::read(at(archive)).expect(archive)).expect(archive);
        assert_eq!(images[0].names, ["docker.io/library/t:1"], "{archive}");
    }
    assert_eq!(manifest(&kiln, &format!("{}:1", at("layout")))["config"]["digest"], id.as_str());
    let numbers = read(Path::new(&at("files")).join("numbers"));
    assert!(numbers.ends_with("\n20000\n"));
    assert_eq!(read(Path::new(&at("more")).join("numbers")), numbers);
    run(command("tar", ["-xf", &at("files.tar"), "-C", &at("more"), "numbers"])).success();
    let tar = kiln.run(["build", "-q", "-o", "-", context.path().to_str().unwrap()]);
    let files = directory.write("stdout.tar", &tar.bytes);
    run(command("tar", ["-tf", files.to_str().unwrap(), "numbers"])).success();
    for wrong in ["type=oci,dest=x,compression=estargz", "type=what,dest=x", "type=local", "type=oci,dest=x,what=1"] {
        let outcome = kiln.try_build(&context, "t", &["--output", wrong]).failure();
        assert!(!outcome.stderr.contains("CACHED"), "refused before the build: {outcome}");
    }
    let left: Vec<String> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(left.iter().all(|name| !name.ends_with(".partial")), "{left:?}");
}

/// Proves: --output, --compression-format, --compression-level, --force-compression, --format, D1.13-14
#[test]
fn layers_are_compressed_as_asked() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::distribution();
    let base = registry.name("base:1");
    kiln.run(["tag", "busybox", &base]);
    kiln.run(["push", &base]);
    let other = Kiln::new();
    let context = other.context(&[("Dockerfile", &format!("FROM {base}\nRUN seq 1 20000 > /numbers\n"))]);
    let directory = other.directory();
    let built = |name: &str, options: &str, flags: &[&str]| {
        let place = directory.path().join(name).display().to_string();
        let output = format!("--output=type=oci,tar=false,dest={place}{options}");
        other.build(&context, "t", &[&[output.as_str()], flags].concat());
        manifest(&other, &place)
    };
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    assert_eq!(types(&built("plain", "", &[])), [gzip, gzip]);
    assert_eq!(types(&built("zstd", ",compression=zstd", &[])), [gzip, zstd], "the base keeps its own bytes");
    assert_eq!(types(&built("forced", ",compression=zstd,force-compression=true", &[])), [zstd, zstd]);
    let flags = ["--compression-format=zstd", "--force-compression"];
    assert_eq!(types(&built("flags", "", &flags)), [zstd, zstd]);
    let none = built("none", ",compression=uncompressed,force-compression=true", &[]);
    assert_eq!(types(&none), ["application/vnd.oci.image.layer.v1.tar"; 2]);
    let docker = built("docker", ",oci-mediatypes=false", &[]);
    assert_eq!(docker["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(docker["config"]["mediaType"], "application/vnd.docker.container.image.v1+json");
    assert_eq!(types(&docker)[1], "application/vnd.docker.image.rootfs.diff.tar.gzip");
    assert_eq!(built("format", "", &["--format=docker"])["mediaType"], docker["mediaType"]);
    let size = |manifest: &Value| manifest["layers"][1]["size"].as_u64().expect("a size");
    let (least, most) = (built("0", ",compression-level=0", &[]), built("9", "", &["--compression-level=9"]));
    assert!(size(&least) > size(&most), "{} {}", size(&least), size(&most));
    for name in ["zstd", "forced", "none", "docker", "9"] {
        let place = format!("oci:{}", directory.path().join(name).display());
        run(command("skopeo", ["copy", &place, &format!("oci:{}", directory.path().join("copied").display())]))
            .success();
    }
}

/// Proves: --annotation, --output, D1.13-12
#[test]
fn annotations_go_where_they_are_meant_to() {
    let kiln = Kiln::new();
    let registry = Registry::distribution();
    let name = registry.name("app:1");
    let context = kiln.context(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    kiln.build(&context, "one", &["--annotation=a=b", "--annotation=manifest-descriptor:d=e"]);
    let saved = |image: &str| {
        let file = kiln.home().join("saved.tar").display().to_string();
        kiln.run(["save", "-o", &file, image]);
        json_of(&run(command("skopeo", ["inspect", "--raw", &format!("oci-archive:{file}")])).success().stdout)
    };
    assert_eq!(saved("one")["annotations"], json!({"a": "b"}));
    kiln.build(
        &context,
        &name,
        &[
            "--platform=linux/amd64,linux/arm64",
            "--annotation=index:i=1",
            "--annotation=index,manifest[linux/arm64]:both=x",
            "--annotation=manifest-descriptor[linux/amd64]:d=e",
            "--output=type=registry,annotation.own=y",
        ],
    );
    let raw = |name: &str| json_of(&kiln.run(["inspect", "--raw", &format!("docker://{name}")]).stdout);
    let index = raw(&name);
    assert_eq!(index["annotations"], json!({"both": "x", "i": "1"}));
    assert_eq!(index["manifests"][0]["annotations"], json!({"d": "e"}));
    assert_eq!(index["manifests"][1].get("annotations"), None);
    let of = |at: usize| {
        let digest = index["manifests"][at]["digest"].as_str().expect("a digest");
        raw(&format!("{}@{digest}", registry.name("app")))["annotations"].clone()
    };
    assert_eq!(of(0), json!({"own": "y"}));
    assert_eq!(of(1), json!({"both": "x", "own": "y"}));
    kiln.try_build(&context, "t", &["--annotation=index:a=b"]).failure().says("index");
    kiln.try_build(&context, "t", &["--annotation=what:a=b"]).failure().says("manifest-descriptor");
}

/// Proves: --metadata-file, --iidfile, --iidfile-raw, --quiet, D1.13-15
#[test]
fn files_tell_what_was_made() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::distribution();
    let context = context(&kiln);
    let directory = kiln.directory();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let name = registry.name("app:1");
    let files = [
        format!("--metadata-file={}", at("metadata")),
        format!("--iidfile={}", at("id")),
        format!("--iidfile-raw={}", at("raw")),
    ];
    let mut line = vec!["build", "-q", "-t", &name, "--push"];
    line.extend(files.iter().map(String::as_str));
    line.push(context.path().to_str().expect("text"));
    let outcome = kiln.run(line);
    let id = kiln.image_id(&name);
    assert_eq!(outcome.stdout.trim(), id);
    assert_eq!(outcome.stderr, "");
    assert_eq!(read(at("id")), id);
    assert_eq!(format!("sha256:{}", read(at("raw"))), id);
    let metadata = json_of(&read(at("metadata")));
    assert_eq!(metadata["containerimage.config.digest"], id.as_str());
    assert_eq!(metadata["image.name"], name.as_str());
    let pushed = run(command("skopeo", ["inspect", "--tls-verify=false", &format!("docker://{name}")])).success();
    assert_eq!(metadata["containerimage.digest"], json_of(&pushed.stdout)["Digest"]);
    assert_eq!(metadata["containerimage.descriptor"]["digest"], metadata["containerimage.digest"]);
    assert_eq!(metadata["containerimage.descriptor"]["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    let several = ["--platform=linux/amd64,linux/arm64", &files[0], &files[1]];
    kiln.build(&kiln.context(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]), "two", &several);
    let metadata = json_of(&read(at("metadata")));
    assert_eq!(metadata.get("containerimage.config.digest"), None);
    assert_eq!(metadata["containerimage.digest"], read(at("id")).as_str());
    assert_eq!(metadata["image.name"], "docker.io/library/two:latest");
}

/// Proves: --manifest
#[test]
fn images_are_gathered_in_an_index() {
    let kiln = Kiln::new();
    let context = kiln.context(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    for platform in ["linux/amd64", "linux/arm64", "linux/arm64"] {
        let path = context.path().to_str().unwrap();
        kiln.run(["build", "-q", "--manifest=all:1", &format!("--platform={platform}"), path]);
    }
    let index = json_of(&kiln.run(["manifest", "inspect", "all:1"]).stdout);
    let entries = index["manifests"].as_array().expect("entries");
    let platforms: Vec<&str> = entries.iter().filter_map(|entry| entry["platform"]["architecture"].as_str()).collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    kiln.build(&context, "image:1", &[]);
    kiln.try_build(&context, "t", &["--manifest=image:1"]).failure().says("image:1");
}

/// Proves: --output, --push, --tag
#[test]
fn outputs_have_names_of_their_own() {
    let kiln = Kiln::new();
    let registry = Registry::distribution();
    let context = kiln.context(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let path = context.path().to_str().unwrap().to_owned();
    let (one, two) = (registry.name("a:1"), registry.name("b:2"));
    let output = format!(r#"type=image,"name={one},{two}",push=true"#);
    kiln.run(["build", "--output", &output, &path]);
    for name in [&one, &two] {
        run(command("skopeo", ["inspect", "--tls-verify=false", &format!("docker://{name}")])).success();
        kiln.inspect(name);
    }
    kiln.run(["build", "-t", &registry.name("c:1"), "-t", &registry.name("c:2"), "--push", &path]);
    assert_eq!(kiln.run(["tags", &registry.name("c")]).stdout, "1\n2\n");
    let digest = format!("type=registry,name={},push-by-digest=true", registry.name("d"));
    kiln.run(["build", "--output", &digest, "--metadata-file=m", &path]);
    let metadata = json_of(&read(kiln.home().join("m")));
    let digest = metadata["containerimage.digest"].as_str().expect("a digest").to_owned();
    let there = format!("docker://{}@{digest}", registry.name("d"));
    run(command("skopeo", ["inspect", "--tls-verify=false", "--raw", &there])).success();
    kiln.try_run(["tags", &registry.name("d")]);
    kiln.try_run(["build", "--push", &path]).failure().says("--tag");
}

/// Proves: --squash, --layers, --omit-history
#[test]
fn new_layers_become_one() {
    let kiln = Kiln::with_busybox();
    let base = "FROM busybox\nRUN mkdir -p /d/sub /gone && echo a > /d/a && echo b > /d/sub/b && echo x > /gone/x && \
                chown 5:6 /d && ln /d/a /d/hard\n";
    kiln.build_text(base, "base");
    let text = "FROM base\nRUN rm /d/a && echo c > /d/sub/c && chmod 750 /d/sub\n\
                RUN rm -r /gone && mkdir -p /new/deep && echo n > /new/deep/n && ln /new/deep/n /new/link\n\
                RUN rm -r /d/sub && echo file > /d/sub && ln -s /new /s\nENV AFTER=1\n";
    let context = kiln.context(&[("Dockerfile", text)]);
    kiln.build(&context, "plain", &[]);
    kiln.build(&context, "squashed", &["--squash"]);
    let (plain, squashed, below) = (kiln.saved("plain"), kiln.saved("squashed"), kiln.saved("base"));
    assert_eq!(plain.layers.len(), below.layers.len() + 3);
    assert_eq!(squashed.layers.len(), below.layers.len() + 1);
    same_files(&kiln, "plain", "squashed");
    let history = squashed.config["history"].as_array().expect("history");
    let layers = history.iter().filter(|line| line["empty_layer"] != json!(true)).count();
    assert_eq!(layers, squashed.layers.len());
    assert_eq!(history.last().expect("a line")["comment"], "merge of 3 layers");
    kiln.build(&context, "again", &["--layers=false"]);
    assert_eq!(kiln.image_id("again"), kiln.image_id("squashed"), "the same, by another name");
    kiln.build(&context, "all", &["--squash-all", "--omit-history"]);
    let all = kiln.saved("all");
    assert_eq!(all.layers.len(), 1);
    assert_eq!(all.config.get("history").and_then(Value::as_array).map_or(0, Vec::len), 0);
    same_files(&kiln, "plain", "all");
    assert_eq!(kiln.output("all", &["cat", "/d/sub", "/new/link"]), "file\nn\n");
}

/// Proves: --save-stages, --identity-label
#[test]
fn stages_may_be_kept_and_images_say_who_made_them() {
    let kiln = Kiln::with_busybox();
    let text = "FROM busybox AS one\nRUN echo one > /one\nFROM busybox AS unused\nRUN echo no > /no\n\
                FROM scratch\nCOPY --from=one /one /\n";
    let context = kiln.context(&[("Dockerfile", text)]);
    kiln.build(&context, "t", &[]);
    let unnamed = || kiln.run(["images", "-q", "--no-trunc", "--filter", "dangling=true"]).stdout;
    assert_eq!(unnamed(), "");
    kiln.build(&context, "kept", &["--save-stages", "--identity-label"]);
    let stage = unnamed();
    assert_eq!(stage.lines().count(), 1, "{stage}");
    assert_eq!(kiln.output(stage.trim(), &["cat", "/one"]), "one\n");
    assert!(kiln.inspect("kept")["Config"]["Labels"]["io.kiln.version"].is_string());
}
