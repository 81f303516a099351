//! Base images that are not in the store: of their layers only those come that are needed, and when they are.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use kiln_tests::{Account, Context, Gate, Kiln, Registry, command, run};
use serde_json::{Value, json};

/// A registry whose requests can be looked at, with the base images `base:1` (four layers) and `small:1` (one).
struct Watched {
    registry: Registry,
    log: PathBuf,
    /// Those of `base:1`, as blobs.
    layers: Vec<String>,
    _directory: Context,
}

/// What was asked for in a repository.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    manifests: usize,
    /// How often each blob was read.
    blobs: BTreeMap<String, usize>,
}

impl Watched {
    fn new() -> Self {
        let kiln = Kiln::with_busybox();
        let directory = kiln.directory();
        let log = directory.path().join("access");
        let text = format!("[log]\naccess = {log:?}\n");
        let config = directory.write("registry.toml", text);
        let registry = Registry::kiln_with(&kiln, &["--config", config.to_str().expect("text")]);
        let mut watched = Self { registry, log, layers: Vec::new(), _directory: directory };
        let files =
            [("Dockerfile", "FROM busybox\nCOPY 1 /1\nCOPY 2 /2\nRUN echo 3 > /3\n"), ("1", "1\n"), ("2", "2\n")];
        for (name, context) in [
            ("base:1", kiln.context(&files)),
            ("small:1", kiln.context(&[("Dockerfile", "FROM scratch\nCOPY s /s\n"), ("s", "s\n")])),
        ] {
            let name = watched.registry.name(name);
            kiln.build(&context, &name, &["--push"]);
        }
        watched.layers = watched.layers_of("base");
        watched.asked("base");
        watched
    }

    fn get(&self, path: &str) -> Vec<u8> {
        let url = format!("http://{}/v2/{path}", self.registry.address());
        run(command("curl", ["-sS", "-H", "Accept: application/vnd.oci.image.manifest.v1+json", &url]))
            .stdout
            .into_bytes()
    }

    fn manifest(&self, repository: &str) -> Value {
        serde_json::from_slice(&self.get(&format!("{repository}/manifests/1"))).expect("a manifest")
    }

    fn layers_of(&self, repository: &str) -> Vec<String> {
        let layers = self.manifest(repository)["layers"].as_array().expect("layers").clone();
        layers.iter().map(|layer| layer["digest"].as_str().expect("a digest").to_owned()).collect()
    }

    /// What was asked for in a repository since the last time.
    fn asked(&self, repository: &str) -> Asked {
        let mut asked = Asked::default();
        for target in self.got() {
            let Some(rest) = target.strip_prefix(&format!("/v2/{repository}/")) else { continue };
            if rest.starts_with("manifests/") {
                asked.manifests += 1;
            } else if let Some(digest) = rest.strip_prefix("blobs/") {
                *asked.blobs.entry(digest.to_owned()).or_default() += 1;
            }
        }
        asked
    }

    /// How many blobs of all repositories were read since the last time.
    fn blobs_asked(&self) -> usize {
        self.got().iter().filter(|target| target.contains("/blobs/sha256:")).count()
    }

    /// What was read since the last time.
    fn got(&self) -> Vec<String> {
        // Requests are written down when they are over, and this one after those before it.
        thread::sleep(Duration::from_millis(50));
        let _ = self.get("end/of/it/tags/list");
        let text = loop {
            let text = fs::read_to_string(&self.log).expect("the access log");
            if text.contains("/v2/end/of/it/") && text.ends_with('\n') {
                break text;
            }
            thread::sleep(Duration::from_millis(10));
        };
        fs::write(&self.log, "").expect("the access log");
        let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
        let got = entries.filter(|entry| entry["method"] == "GET");
        got.map(|entry| entry["target"].as_str().expect("a target").to_owned()).collect()
    }

    /// How often layers of the base image were read since the last time, sorted.
    fn layers_asked(&self) -> Vec<usize> {
        let asked = self.asked("base");
        let mut counts: Vec<usize> = self.layers.iter().filter_map(|layer| asked.blobs.get(layer)).copied().collect();
        counts.sort_unstable();
        counts
    }

    fn base(&self) -> String {
        self.registry.name("base:1")
    }
}

#[test]
fn the_base_of_an_unneeded_stage_is_not_asked_for() {
    let watched = Watched::new();
    let kiln = Kiln::new();
    let dockerfile = format!(
        "FROM {} AS unneeded\nRUN cat /1\nFROM {}\nCOPY a /a\n",
        watched.base(),
        watched.registry.name("small:1")
    );
    kiln.build(&kiln.context(&[("Dockerfile", &dockerfile), ("a", "a")]), "t", &[]);
    assert_eq!(watched.asked("base"), Asked::default());
}

/// With everything in the cache and nothing of the base in the result, none of its layers comes; nor is anybody asked
/// the next time. As soon as one step must run, all come.
/// Proves: --cache-from
#[test]
fn what_is_cached_needs_no_layer_of_its_base() {
    let watched = Watched::new();
    let dockerfile = format!(
        "FROM {} AS build\nWORKDIR /w\nCOPY a /a\nRUN cat /1 /2 /3 > /out\nFROM scratch\nCOPY --from=build /out /out\n",
        watched.base()
    );
    let shared = Kiln::new().directory();
    let cache = format!("type=local,src={}", shared.path().join("cache").display());
    let files = |more: &str| [("Dockerfile", format!("{dockerfile}{more}")), ("a", "a".to_owned())];
    let context = |kiln: &Kiln, more: &str| {
        let files = files(more);
        kiln.context(&files.each_ref().map(|(path, text)| (*path, text.as_str())))
    };
    let first = Kiln::new();
    let to = format!("{},mode=max", cache.replace("src", "dest"));
    first.build(&context(&first, ""), "t", &["--cache-to", &to]);
    assert_eq!(watched.layers_asked(), [1, 1, 1, 1]);

    let second = Kiln::new();
    let directory = second.directory();
    let out = directory.path().join("out");
    let output = format!("type=local,dest={}", out.display());
    let project = context(&second, "");
    let path = project.path().to_str().expect("text");
    for option in ["--dry-run", "--progress=plain"] {
        second.run(["build", "--cache-from", &cache, "-o", &output, option, path]).never_says("not cached");
        let asked = watched.asked("base");
        assert!(asked.manifests <= 1 && asked.blobs.len() <= 1, "{asked:?}");
        assert!(watched.layers.iter().all(|layer| !asked.blobs.contains_key(layer)), "{asked:?}");
    }
    assert_eq!(fs::read_to_string(out.join("out")).expect("the result"), "1\n2\n3\n");
    second.run(["images", "-q", &watched.base()]).never_says("sha256");
    watched.asked("base");
    second.build(&project, "again", &["--cache-from", &cache]).never_says("not cached");
    assert_eq!(watched.asked("base"), Asked::default());

    project.shell("sed -i 's/cat/tac/' Dockerfile");
    second.build(&project, "changed", &["--cache-from", &cache]);
    assert_eq!(watched.layers_asked(), [1, 1, 1, 1]);
    let third = Kiln::new();
    let unchanged = context(&third, "");
    third.build(&unchanged, "t", &["--cache-from", &cache]);
    let base = watched.base();
    drop(watched);
    third.build(&unchanged, "again", &["--cache-from", &cache]).never_says("not cached");
    unchanged.shell("sed -i 's/cat/tac/' Dockerfile");
    let lost = third.try_build(&unchanged, "t", &["--cache-from", &cache]).code(1);
    lost.says(&format!("the image {base} cannot be had: layer sha256:"));
    assert_eq!(second.output(&base, &["cat", "/1"]), "1\n");
    project.shell("sed -i 's/tac/cat -n/' Dockerfile");
    second.build(&project, "again", &[]);
}

/// The image that is stored is whole, whether a step needed its base's files or not.
#[test]
fn the_image_is_whole() {
    for instructions in ["LABEL a=b", "COPY a /a", "COPY --link a /a", "RUN echo a > /a", "WORKDIR /2/../new"] {
        let watched = Watched::new();
        // Some of them as an ordinary user.
        let kiln = if instructions.starts_with("COPY") { Kiln::of(Account::with_subuids()) } else { Kiln::new() };
        let dockerfile = format!("FROM {}\n{instructions}\n", watched.base());
        kiln.build(&kiln.context(&[("Dockerfile", &dockerfile), ("a", "a")]), "t", &[]);
        assert_eq!(watched.layers_asked(), [1, 1, 1, 1], "{instructions}");
        let base = watched.base();
        drop(watched);
        assert_eq!(kiln.output("t", &["cat", "/1", "/2", "/3"]), "1\n2\n3\n");
        assert_eq!(kiln.output(&base, &["cat", "/1"]), "1\n");
        kiln.filesystem("t").get("/1").expect("a file of the base");
    }
}

/// What is only pushed, and all in the cache, leaves every layer where it is when the registry has it: under the name, or
/// in another repository. Another registry, and `--load`, get them all.
/// Proves: --push, --load
#[test]
fn a_push_brings_nothing_that_the_registry_has() {
    let watched = Watched::new();
    let name = |name: &str| watched.registry.name(name);
    let cache = format!("type=registry,ref={}", name("cache:1"));
    let dockerfile = format!("FROM {}\nCOPY a /a\nRUN head -c 20 /dev/urandom > /random\nENV A=b\n", watched.base());
    let build = |kiln: &Kiln, target: &str, more: &[&str]| {
        let context = kiln.context(&[("Dockerfile", &dockerfile), ("a", "a")]);
        kiln.build(&context, target, &[&["--push", "--cache-from", &cache], more].concat())
    };
    let first = Kiln::new();
    build(&first, &name("app:1"), &["--cache-to", &cache]);
    let id = first.image_id(&name("app:1"));
    let random = first.output(&name("app:1"), &["md5sum", "/random"]);
    for target in ["app:2", "other:1"] {
        let kiln = Kiln::new();
        watched.asked("base");
        let told = kiln.directory();
        let [metadata, ids] = ["metadata", "id"].map(|file| told.path().join(file).display().to_string());
        let built = build(&kiln, &name(target), &["--metadata-file", &metadata, "--iidfile", &ids])
            .never_says("not cached")
            .says("not kept here: 6 of its layers");
        let blobs = watched.blobs_asked();
        assert_eq!(blobs, 2, "the configs of base and cache only: {built}");
        assert_eq!(kiln.run(["images", "-q"]).stdout, "");
        let user = Kiln::new();
        assert_eq!(user.output(&name(target), &["md5sum", "/random"]), random);
        assert_eq!(user.image_id(&name(target)), id);
        assert_eq!(fs::read_to_string(ids).expect("an id"), id);
        let metadata: Value = serde_json::from_str(&fs::read_to_string(metadata).expect("a file")).expect("JSON");
        let reference = format!("docker://{}", name(target));
        let there: Value = serde_json::from_str(&user.run(["inspect", &reference]).stdout).expect("JSON");
        let there = there.as_array().map_or(&there, |list| &list[0]);
        assert_eq!(metadata["containerimage.digest"], there["Digest"]);
        // With a step of its own it is an image of the store, as ever.
        let context = kiln.context(&[("Dockerfile", &format!("{dockerfile}RUN echo more\n")), ("a", "a")]);
        kiln.build(&context, &name("app:3"), &["--push", "--cache-from", &cache]).never_says("not kept");
        kiln.output(&name("app:3"), &["cat", "/1"]);
    }
    let loaded = Kiln::new();
    build(&loaded, &name("app:4"), &["--load"]).never_says("not cached").never_says("not kept");
    // A name of the store does not go on meaning an older image.
    let named = Kiln::with_busybox();
    named.run(["tag", "busybox", &name("app:5")]);
    build(&named, &name("app:5"), &[]).never_says("not cached").never_says("not kept");
    assert_eq!(named.output(&name("app:5"), &["md5sum", "/random"]), random);
    let elsewhere = Registry::distribution();
    let other = Kiln::new();
    build(&other, &elsewhere.name("app:1"), &[]).never_says("not cached").never_says("not kept");
    let pulled = Kiln::new();
    assert_eq!(pulled.output(&elsewhere.name("app:1"), &["md5sum", "/random"]), random);
    drop(watched);
    assert_eq!(loaded.run(["images", "-q"]).stdout.lines().count(), 2, "the base, and the result");
    assert_eq!(other.output(&elsewhere.name("app:1"), &["md5sum", "/random"]), random);
}

/// Two builds at once fetch each layer once; one build fetches all at once.
#[test]
fn each_layer_comes_once_and_all_at_the_same_time() {
    let watched = Watched::new();
    let kiln = Kiln::new();
    let builds = ["one", "two", "three"].map(|name| {
        let dockerfile = format!("FROM {}\nRUN echo {name} && cat /1\n", watched.base());
        (name, kiln.context(&[("Dockerfile", &dockerfile)]))
    });
    thread::scope(|scope| {
        for (name, context) in &builds {
            scope.spawn(|| kiln.build(context, name, &[]));
        }
    });
    assert_eq!(watched.layers_asked(), [1, 1, 1, 1]);

    let layers: Vec<String> = watched.layers.iter().map(|layer| format!("/blobs/{layer}")).collect();
    // The second is the base of another stage: nothing is known to be needed before its step must run.
    for dockerfile in ["FROM {}\nRUN cat /1\n", "FROM {} AS a\nRUN cat /2 > /out\nFROM scratch\nCOPY --from=a /out /\n"]
    {
        let gate = Gate::new(&watched.registry.address(), &layers);
        let kiln = Kiln::new();
        let dockerfile = dockerfile.replace("{}", &gate.name("base:1"));
        kiln.build(&kiln.context(&[("Dockerfile", &dockerfile)]), "t", &[]);
        assert_eq!(gate.passed(), 4);
    }
}

/// A mistake in the Dockerfile is told, and the build over, while the base is still on its way.
#[test]
fn a_mistake_does_not_wait_for_the_base() {
    let watched = Watched::new();
    let never = ["/blobs/never".to_owned()];
    let paths: Vec<String> = watched.layers.iter().map(|layer| format!("/blobs/{layer}")).chain(never).collect();
    let gate = Gate::new(&watched.registry.address(), &paths);
    let kiln = Kiln::new();
    let context = kiln.context(&[("Dockerfile", &format!("FROM {}\nCOPY missing /x\n", gate.name("base:1")))]);
    kiln.try_build(&context, "t", &[]).code(1).says("\"missing\": not found");
    assert_eq!((gate.passed(), gate.turned_away()), (0, 0));
}

/// The store's image is used without a question, unless `--pull` asks for the newest.
/// Proves: --pull
#[test]
fn pull_asks_for_the_newest() {
    let watched = Watched::new();
    let kiln = Kiln::new();
    let context = kiln.context(&[("Dockerfile", &format!("FROM {}\nRUN cat /1 > /out\n", watched.base()))]);
    kiln.build(&context, "t", &[]);
    let other = Kiln::with_busybox();
    let newer = other.context(&[("Dockerfile", "FROM busybox\nRUN echo newer > /1\n")]);
    other.build(&newer, &watched.base(), &["--push"]);
    watched.asked("base");
    kiln.build(&context, "t", &[]).never_says("not cached");
    assert_eq!(watched.asked("base"), Asked::default());
    kiln.build(&context, "t", &["--pull"]);
    assert_eq!(kiln.output("t", &["cat", "/out"]), "newer\n");
    // Only what is new came, and nothing when nothing is.
    assert_eq!(watched.asked("base").blobs.len(), 2, "a config and a layer");
    kiln.build(&context, "t", &["--pull"]).never_says("not cached");
    assert_eq!(watched.asked("base").blobs.len(), 0);
}

/// A layer that is damaged, or not what the config says is refused, wherever it is needed, and nothing of it stays.
#[test]
fn a_layer_that_is_not_what_it_should_be_is_refused() {
    let watched = Watched::new();
    let kiln = Kiln::new();
    // Another layer's content under the first one's diffID.
    let mut manifest = watched.manifest("small");
    let config = manifest["config"]["digest"].as_str().expect("a digest");
    let mut lie: Value = serde_json::from_slice(&watched.get(&format!("small/blobs/{config}"))).expect("a config");
    lie["rootfs"]["diff_ids"] = json!([format!("sha256:{}", "5".repeat(64))]);
    let bytes = serde_json::to_vec(&lie).expect("bytes");
    let digest = format!("sha256:{}", kiln_tests::sha256(&bytes));
    manifest["config"]["digest"] = json!(digest);
    manifest["config"]["size"] = json!(bytes.len());
    let directory = kiln.directory();
    let send = |method: &str, path: &str, kind: &str, bytes: &[u8]| {
        let file = directory.write("body", bytes);
        let url = format!("http://{}/v2/{path}", watched.registry.address());
        let (header, data) = (format!("Content-Type: {kind}"), format!("@{}", file.display()));
        run(command("curl", ["-sSf", "-X", method, "-H", &header, "--data-binary", &data, &url])).success();
    };
    send("POST", &format!("small/blobs/uploads/?digest={digest}"), "application/octet-stream", &bytes);
    let kind = "application/vnd.oci.image.manifest.v1+json";
    send("PUT", "small/manifests/lie", kind, &serde_json::to_vec(&manifest).expect("bytes"));
    // Damage.
    let file = |digest: &str| watched.registry.data().join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
    let damaged = fs::read(file(&watched.layers[1])).expect("a blob");
    fs::write(file(&watched.layers[1]), damaged.iter().map(|byte| byte ^ 1).collect::<Vec<u8>>()).expect("a blob");

    let refused = |name: &str, steps: &str, words: &str| {
        let name = watched.registry.name(name);
        let context = kiln.context(&[("Dockerfile", &format!("FROM {name}\n{steps}\n")), ("a", "a")]);
        for _ in 0..2 {
            kiln.try_build(&context, "t", &[]).code(1).says(&format!("the image {name} cannot be had")).says(words);
        }
    };
    for steps in ["LABEL a=b", "COPY a /a", "WORKDIR /w"] {
        refused("small:lie", steps, "content of");
        refused("base:1", steps, &watched.layers[1]);
    }
    assert_eq!(kiln.run(["images", "-aq"]).stdout, "");
    let layers = fs::read_dir(kiln.root().join("layers")).expect("layers").count();
    assert!(layers < 4, "{layers} layers are kept");
}
