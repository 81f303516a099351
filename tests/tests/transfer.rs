//! Images on the move: between registries, layouts, archives and the store; indexes; mirrors, proxies and certificates.

use std::fs;

use kiln_tests::{Answer, Interposer, Kiln, Registry, SecureRegistry, Shown, command, eventually, run};
use serde_json::Value;

fn build(kiln: &Kiln, name: &str) {
    kiln.build_text("FROM busybox\nRUN echo travelled > /x\nCMD [\"cat\", \"/x\"]\n", name);
}

/// An image of a platform, with nothing in it that could run.
fn build_for(kiln: &Kiln, platform: &str, name: &str) {
    let context = kiln.context(&[("Dockerfile", "FROM scratch\nCOPY word /\n"), ("word", platform)]);
    kiln.build(&context, name, &["--platform", platform]);
}

fn raw(kiln: &Kiln, place: &str) -> String {
    kiln.run(["inspect", "--raw", place]).stdout
}

/// Proves: skopeo-copy
#[test]
fn copies_keep_every_byte() {
    let kiln = Kiln::with_busybox();
    let (ours, theirs) = (Registry::kiln(&kiln), Registry::distribution());
    let name = ours.name("team/app:1");
    build(&kiln, &name);
    kiln.run(["push", &name]);
    let directory = kiln.directory();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let places = [
        format!("docker://{name}"),
        format!("docker://{}", theirs.name("other/app:2")),
        format!("oci:{}:x", at("layout")),
        format!("docker-archive:{}:peer/app:3", at("docker.tar")),
        format!("oci-archive:{}:y", at("oci.tar")),
        format!("docker://{}", ours.name("back/app:1")),
    ];
    let original = raw(&kiln, &places[0]);
    for pair in places.windows(2) {
        kiln.run(["copy", &pair[0], &pair[1]]).says("Digest: sha256:");
        assert_eq!(raw(&kiln, &pair[1]), original, "{}", pair[1]);
    }
    for place in &places[1..5] {
        run(command("skopeo", ["inspect", "--tls-verify=false", place])).success().says("amd64");
        let described = kiln.run(["inspect", "--format", "{{.Id}}", place]).stdout;
        assert_eq!(described.trim(), kiln.image_id(&name), "{place}");
    }
    assert!(!directory.path().join("layout/blobs/sha512").exists(), "nothing is left in a layout");
    assert_eq!(fs::read_dir(directory.path()).expect("the directory").count(), 3, "nothing is left beside archives");
    let other = Kiln::new();
    assert_eq!(other.run(["run", "--rm", &ours.name("back/app:1")]).stdout, "travelled\n");
    kiln.try_run(["copy", &format!("oci:{}:no", at("layout")), &places[5]]).failure().says("there are x");
    kiln.try_run(["copy", "docker-daemon:x", &places[5]]).failure().says("docker-archive:");
}

#[test]
fn the_store_is_one_of_the_places() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    build(&kiln, "app:1");
    let id = kiln.image_id("app:1");
    let directory = kiln.directory();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let places = [
        format!("docker://{}", registry.name("a/b:1")),
        format!("oci:{}:x", at("layout")),
        format!("docker-archive:{}:peer/app:3", at("docker.tar")),
    ];
    for (number, place) in places.iter().enumerate() {
        kiln.run(["copy", "app:1", place]);
        let back = format!("containers-storage:back:{number}");
        kiln.run(["copy", place, &back]);
        assert_eq!(kiln.image_id(&format!("back:{number}")), id, "{place}");
    }
    // An archive of skopeo's own: its layers are not compressed, and it has no manifest.
    let theirs = format!("docker-archive:{}:peer/app:4", at("skopeo.tar"));
    run(command("skopeo", ["copy", &places[1], &theirs])).success();
    let copied = format!("docker://{}", registry.name("from/skopeo:1"));
    kiln.run(["copy", &theirs, &copied]);
    assert!(raw(&kiln, &copied).contains("tar+gzip"), "layers are compressed on the way");
    assert_eq!(Kiln::new().run(["run", "--rm", &registry.name("from/skopeo:1")]).stdout, "travelled\n");
    kiln.run(["push", "--compression-format=zstd", "app:1", &registry.name("a/zstd:1")]);
    assert!(raw(&kiln, &format!("docker://{}", registry.name("a/zstd:1"))).contains("tar+zstd"));
}

/// Proves: docker-manifest-create, docker-manifest-inspect, docker-manifest-push, docker-manifest-rm,
/// buildah-manifest
#[test]
fn indexes_are_made_pushed_pulled_and_copied() {
    let kiln = Kiln::new();
    let registry = Registry::kiln(&kiln);
    let (amd, arm) = (registry.name("multi:amd64"), registry.name("multi:arm64"));
    build_for(&kiln, "linux/amd64", &amd);
    build_for(&kiln, "linux/arm64", &arm);
    kiln.run(["push", "-q", &arm]);
    kiln.run(["rmi", &arm]);
    let list = registry.name("multi:1");
    // One image is here, the other at the registry.
    kiln.run(["manifest", "create", &list, &amd, &arm]).says("Created manifest list");
    kiln.try_run(["manifest", "create", &list, &amd]).failure().says("--amend");
    kiln.run(["manifest", "annotate", "--variant", "v8", "--annotation", "a=b", &list, &arm]);
    kiln.run(["index", "push", &list]).says("sha256:");
    let pushed = raw(&kiln, &format!("docker://{list}"));
    let index: Value = serde_json::from_str(&pushed).expect("an index");
    let platforms: Vec<&str> = index["manifests"]
        .as_array()
        .expect("entries")
        .iter()
        .map(|entry| entry["platform"]["architecture"].as_str().expect("an architecture"))
        .collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    assert_eq!(index["manifests"][1]["annotations"]["a"], "b");
    run(command("skopeo", ["inspect", "--tls-verify=false", "--override-arch=arm64", &format!("docker://{list}")]))
        .success()
        .says("arm64");
    kiln.run(["manifest", "inspect", &list]).says("arm64");
    kiln.run(["manifest", "rm", &list]);
    kiln.try_run(["manifest", "exists", &list]).failure();

    let directory = kiln.directory();
    let layout = format!("oci:{}:all", directory.path().join("layout").display());
    kiln.run(["copy", "--all", &format!("docker://{list}"), &layout]);
    assert_eq!(raw(&kiln, &layout), pushed);
    let there = Registry::distribution();
    let copy = format!("docker://{}", there.name("copied/multi:1"));
    kiln.run(["copy", "--all", &layout, &copy]);
    assert_eq!(raw(&kiln, &copy), pushed);

    let other = Kiln::new();
    let name = there.name("copied/multi:1");
    other.run(["pull", "--all-platforms", &name]).says("Status: Downloaded newer image");
    assert_eq!(other.inspect(&name)["Architecture"], "amd64");
    other.run(["images"]).says("copied/multi");
    let again = there.name("again/multi:2");
    other.run(["tag", &name, &again]);
    other.run(["push", &again]);
    assert_eq!(raw(&other, &format!("docker://{again}")), pushed);
    other.run(["rmi", &again]);
    assert_eq!(other.inspect(&name)["Architecture"], "amd64");
    other.run(["rmi", &name]);
    assert_eq!(other.run(["images", "-aq"]).stdout, "");
    let blobs = fs::read_dir(other.root().join("blobs/sha256")).expect("blobs").count();
    assert_eq!(blobs, 0, "nothing of an index is left when it is removed");
}

/// The requests of a registry's log that sent, or asked to mount, blobs of a repository.
fn requests(registry: &Registry, repository: &str) -> (usize, usize, usize) {
    let log = registry.log();
    let lines = log.lines().filter(|line| line.contains(&format!("/v2/{repository}/blobs/uploads/")));
    let (mut mounted, mut refused, mut sent) = (0, 0, 0);
    for line in lines {
        let is_put = line.contains("PUT");
        match line.contains("mount=") && !is_put {
            true if line.contains(" 201 ") || line.contains("\"status\":201") => mounted += 1,
            true => refused += 1,
            false => sent += usize::from(is_put),
        }
    }
    (mounted, refused, sent)
}

#[test]
fn what_a_registry_has_elsewhere_is_mounted_and_not_sent() {
    let kiln = Kiln::with_busybox().with_env("KILN_REGISTRY_LOG_ACCESS", "stderr");
    build(&kiln, "app:1");
    let directory = kiln.directory();
    for (number, registry) in [Registry::kiln(&kiln), Registry::distribution()].into_iter().enumerate() {
        let at = |repository: &str| format!("docker://{}", registry.name(repository));
        let layout = format!("oci:{}:x", directory.path().join(number.to_string()).display());
        kiln.run(["copy", "app:1", &at("a/x:1")]);
        kiln.run(["copy", &at("a/x:1"), &layout]);
        // Two layers and a config: none is sent.
        kiln.run(["copy", &layout, &at("b/y:1")]);
        assert_eq!(requests(&registry, "b/y"), (3, 0, 0), "{}", registry.log());
        assert_eq!(raw(&kiln, &at("b/y:1")), raw(&kiln, &at("a/x:1")));
        // What was pulled, too, also when its name is forgotten.
        let other = Kiln::new();
        other.run(["pull", "-q", &registry.name("b/y:1")]);
        other.run(["tag", &registry.name("b/y:1"), &registry.name("c/z:1")]);
        other.run(["rmi", &registry.name("b/y:1")]);
        other.run(["push", "-q", &registry.name("c/z:1")]);
        assert_eq!(requests(&registry, "c/z"), (3, 0, 0), "{}", registry.log());
        // A registry that lost everything has it sent.
        let mut registry = registry;
        if number == 1 {
            fs::remove_dir_all(registry.data()).expect("the registry's data");
        } else {
            registry.halt();
            fs::remove_dir_all(registry.data()).expect("the registry's data");
            registry = registry.serve_again(&kiln);
        }
        let at = |repository: &str| format!("docker://{}", registry.name(repository));
        kiln.run(["copy", &layout, &at("d/w:1")]);
        assert_eq!(Kiln::new().run(["run", "--rm", &registry.name("d/w:1")]).stdout, "travelled\n");
        assert_eq!(requests(&registry, "d/w").2, 3, "{}", registry.log());
    }
}

/// An OCI artifact that refers to a manifest, pushed to kiln's registry by curl; returns its digest.
fn attach(registry: &Registry, repository: &str, subject: &str, size: usize, kind: &str) -> String {
    let base = format!("http://{}/v2/{repository}", registry.name("").trim_end_matches('/'));
    let empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let target = format!("{base}/blobs/uploads/?digest={empty}");
    run(command("curl", ["-sf", "--data-binary", "{}", "-H", "Content-Type: application/octet-stream", &target]))
        .success();
    let blob = format!("{{\"mediaType\":\"application/vnd.oci.empty.v1+json\",\"digest\":\"{empty}\",\"size\":2}}");
    let manifest = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"artifactType\":\"{kind}\",\
         \"config\":{blob},\"layers\":[{blob}],\"subject\":{{\"mediaType\":\
         \"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"{subject}\",\"size\":{size}}}}}"
    );
    let digest = format!("sha256:{}", kiln_tests::sha256(manifest.as_bytes()));
    let target = format!("{base}/manifests/{digest}");
    let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json";
    run(command("curl", ["-sf", "-X", "PUT", "--data-binary", &manifest, "-H", kind, &target])).success();
    digest
}

#[test]
fn what_refers_to_an_image_goes_along() {
    let kiln = Kiln::with_busybox();
    let ours = Registry::kiln(&kiln);
    build(&kiln, &ours.name("a/app:1"));
    kiln.run(["push", "-q", &ours.name("a/app:1")]);
    let source = format!("docker://{}", ours.name("a/app:1"));
    let manifest = raw(&kiln, &source);
    let digest = format!("sha256:{}", kiln_tests::sha256(manifest.as_bytes()));
    let signature = attach(&ours, "a/app", &digest, manifest.len(), "test/signature");
    let countersigned = attach(&ours, "a/app", &signature, 500, "test/countersignature");
    let directory = kiln.directory();
    let layout = format!("oci:{}:x", directory.path().join("layout").display());
    let archive = format!("oci-archive:{}:x", directory.path().join("archive.tar").display());
    // Debian's registry knows no referrers: a tag stands in for them.
    let theirs = Registry::distribution();
    let there = format!("docker://{}", theirs.name("b/app:1"));
    let back = format!("docker://{}", ours.name("c/app:1"));
    kiln.run(["copy", "--referrers", &source, &layout]);
    kiln.run(["copy", "--referrers", &layout, &archive]);
    kiln.run(["copy", "--recursive", &archive, &there]);
    let tag = |digest: &str| digest.replace(':', "-");
    let tags = kiln.run(["tags", &theirs.name("b/app")]).stdout;
    assert!(tags.contains(&tag(&digest)) && tags.contains(&tag(&signature)), "{tags}");
    kiln.run(["copy", "--referrers", &there, &back]);
    let base = format!("http://{}", ours.name(""));
    let listed = |subject: &str| {
        let url = format!("{}/v2/c/app/referrers/{subject}", base.trim_end_matches('/'));
        run(command("curl", ["-sf", &url])).success().stdout
    };
    assert!(listed(&digest).contains(&signature) && listed(&digest).contains("test/signature"), "{}", listed(&digest));
    assert!(listed(&signature).contains(&countersigned), "{}", listed(&signature));
    // Without being asked, only the image comes.
    kiln.run(["copy", &source, &format!("docker://{}", ours.name("d/app:1"))]);
    let alone = format!("{}/v2/d/app/referrers/{digest}", base.trim_end_matches('/'));
    assert!(!run(command("curl", ["-sf", &alone])).success().stdout.contains(&signature));
    kiln.try_run(["copy", "--referrers", &source, "containers-storage:x"]).failure().says("keeps no referrers");
}

#[test]
fn directories_are_skopeos_and_indexes_come_into_the_store() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    let (amd, arm, list) = (registry.name("m:amd64"), registry.name("m:arm64"), registry.name("m:1"));
    build_for(&kiln, "linux/amd64", &amd);
    build_for(&kiln, "linux/arm64", &arm);
    kiln.run(["manifest", "create", &list, &amd, &arm]);
    kiln.run(["manifest", "push", &list]);
    let source = format!("docker://{list}");
    let index = raw(&kiln, &source);
    let directory = kiln.directory();
    let at = |transport: &str, name: &str| format!("{transport}:{}", directory.path().join(name).display());
    kiln.run(["copy", "--all", &source, &at("dir", "ours")]);
    let copy = ["copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false"];
    run(command("skopeo", copy.iter().copied().chain([source.as_str(), &at("dir", "theirs")]))).success();
    let mut names: Vec<Vec<String>> = ["ours", "theirs"]
        .map(|name| {
            let files = fs::read_dir(directory.path().join(name)).expect("files").flatten();
            files.map(|file| file.file_name().to_string_lossy().into_owned()).collect()
        })
        .into();
    names.iter_mut().for_each(|names| names.sort());
    assert_eq!(names[0], names[1]);
    let (one, two) = (format!("docker://{}", registry.name("one:1")), format!("docker://{}", registry.name("two:1")));
    run(command("skopeo", copy.iter().copied().chain([at("dir", "ours").as_str(), &one]))).success();
    kiln.run(["copy", "--all", &at("dir", "theirs"), &two]);
    assert_eq!((raw(&kiln, &one), raw(&kiln, &two)), (index.clone(), index.clone()));
    kiln.run(["copy", &amd, &at("dir", "of-the-store")]);
    kiln.run(["copy", &at("dir", "of-the-store"), "containers-storage:back:1"]);
    assert_eq!(kiln.image_id("back:1"), kiln.image_id(&amd));
    fs::create_dir(directory.path().join("other")).expect("a directory");
    fs::write(directory.path().join("other/mine"), "").expect("a file");
    kiln.try_run(["copy", &source, &at("dir", "other")]).failure().says("neither empty");

    // Every image of the index, from the registry and from files.
    for (number, place) in [source.as_str(), &at("dir", "ours")].into_iter().enumerate() {
        let other = Kiln::new();
        let name = format!("all:{number}");
        other.run(["copy", "--all", place, &format!("containers-storage:{name}")]);
        let again = registry.name(&format!("again:{number}"));
        other.run(["tag", &name, &again]);
        other.run(["push", &again]);
        assert_eq!(raw(&other, &format!("docker://{again}")), index);
    }
}

/// Proves: docker-pull, docker-push, skopeo-list-tags, skopeo-delete
#[test]
fn all_tags_are_pushed_listed_pulled_and_deleted() {
    let kiln = Kiln::with_busybox();
    for registry in [Registry::kiln(&kiln), Registry::distribution()] {
        let repository = registry.name("many/tags");
        for tag in ["a", "b", "c"] {
            kiln.run(["tag", "busybox", &format!("{repository}:{tag}")]);
        }
        kiln.try_run(["push", "-a", &format!("{repository}:a")]).failure().says("--all-tags/-a");
        kiln.run(["push", "-a", &repository]).says("c: digest: sha256:");
        assert_eq!(kiln.run(["tags", &repository]).stdout, "a\nb\nc\n");
        let other = Kiln::new();
        other.run(["pull", "-aq", &repository]);
        let listed = other.run(["images", "--format", "{{.Tag}}", &repository]);
        assert_eq!(listed.stdout.split_whitespace().count(), 3, "{listed}");
        other.run(["pull", &format!("{repository}:a")]).says("Image is up to date");
        kiln.run(["rmi", &format!("docker://{repository}:b")]).says("Untagged: docker://");
        assert!(!kiln.run(["tags", &repository]).stdout.contains('b'));
        kiln.try_run(["rmi", &format!("docker://{repository}:b")]).failure().says("not found");
    }
    kiln.try_run(["tags", &Registry::kiln(&kiln).name("nothing")]).failure().says("not found");
}

/// How many requests for uploads with this method a registry of kiln's has answered.
fn uploads(registry: &Registry, method: &str) -> u64 {
    let url = format!("http://{}", registry.name("metrics"));
    let metrics = run(command("curl", ["-sf", &url])).success();
    let wanted = |line: &&str| line.contains("endpoint=\"upload\"") && line.contains(&format!("method=\"{method}\""));
    let counted = metrics.stdout.lines().filter(wanted).map(|line| {
        let count = line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok());
        count.unwrap_or_else(|| panic!("no count: {line}"))
    });
    counted.sum::<u64>()
}

#[test]
fn what_was_compressed_while_it_was_sent_is_known_but_not_kept() {
    let kiln = Kiln::new();
    let (registry, another) = (Registry::kiln(&kiln), Registry::kiln(&kiln));
    let text = (0..400_000).map(|line| format!("{line}\n")).collect::<String>();
    let context = kiln.context(&[("Dockerfile", "FROM scratch\nCOPY text /\n"), ("text", &text)]);
    kiln.build(&context, "app", &[]);
    let names = [registry.name("a/app:1"), registry.name("a/app:2"), registry.name("b/app:1"), another.name("c/app:1")];
    let push = |name: &String| {
        kiln.run(["tag", "app", name]);
        kiln.run(["push", "-q", name]);
        (raw(&kiln, &format!("docker://{name}")), uploads(&registry, "PATCH"))
    };
    let (first, sent) = push(&names[0]);
    assert_eq!(sent, 1, "it is streamed");
    let layer = serde_json::from_str::<Value>(&first).expect("a manifest")["layers"][0]["digest"].clone();
    let layer = layer.as_str().expect("a digest").replace(':', "/");
    assert!(!kiln.root().join("blobs").join(&layer).exists());
    for name in &names[1..] {
        let (again, sent) = push(name);
        assert_eq!((again, sent), (first.clone(), 1), "the other tag has it, the other repository mounts it: {name}");
        // A collection forgets nothing that can be made again.
        kiln.run(["system", "prune", "-f"]);
    }
    assert_eq!(uploads(&another, "PATCH"), 1, "another registry gets it as the first did");
    let archive = kiln.directory();
    let saved = archive.path().join("saved.tar").display().to_string();
    kiln.run(["save", "-o", &saved, "app"]);
    assert_eq!(raw(&kiln, &format!("oci-archive:{saved}")), first, "and here it is made anew");
    assert!(kiln.root().join("blobs").join(&layer).exists());
}

/// Proves: registry-tls-and-mirrors
#[test]
fn registries_conf_names_mirrors_and_blocks() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    let there = registry.name("hub/library/app:1");
    build(&kiln, &there);
    kiln.run(["push", &there]);
    let host = there.split('/').next().expect("a host");
    let conf = format!(
        "[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"127.0.0.1:1/dead\"\n\
         [[registry.mirror]]\nlocation = \"{host}/hub\"\n[[registry]]\nlocation = \"blocked.test\"\nblocked = true\n\
         [[registry]]\nprefix = \"moved.test/old\"\nlocation = \"{host}/hub\"\n"
    );
    let containers = kiln.home().join(".config/containers");
    fs::create_dir_all(&containers).expect("a directory");
    fs::write(containers.join("registries.conf"), conf).expect("registries.conf");
    kiln.run(["pull", "app:1"]).says("docker.io/library/app:1");
    assert_eq!(kiln.image_id("app:1"), kiln.image_id(&there));
    kiln.run(["pull", "moved.test/old/library/app:1"]);
    kiln.run(["tag", "app:1", "moved.test/old/new:1"]);
    kiln.run(["push", "moved.test/old/new:1"]);
    assert_eq!(kiln.run(["tags", &registry.name("hub/new")]).stdout, "1\n");
    kiln.try_run(["pull", "blocked.test/app:1"]).failure().says("registries.conf blocks blocked.test");
}

/// Proves: registry-tls-and-mirrors
#[test]
fn proxies_and_certificates_are_used() {
    let directory = Kiln::new().directory();
    let registry = SecureRegistry::start(directory.path(), Shown::Vouched);
    let proxy = registry.proxy();
    let kiln = Kiln::with_busybox().with_env("HTTPS_PROXY", &proxy).with_env("HTTP_PROXY", &proxy);
    let name = "registry.test:5000/app:1";
    build(&kiln, name);
    kiln.try_run(["push", name]).failure().says("certificate");
    kiln.run(["push", "--tls-verify=false", name]);
    let trusted = kiln.home().join(".config/containers/certs.d/registry.test:5000");
    fs::create_dir_all(&trusted).expect("a directory");
    fs::copy(directory.path().join("ca.pem"), trusted.join("ca.crt")).expect("a certificate");
    kiln.run(["pull", name]).says("Image is up to date");
    fs::remove_dir_all(&trusted).expect("the directory");
    kiln.try_run(["pull", name]).failure();
    let given = kiln.directory();
    fs::copy(directory.path().join("ca.pem"), given.path().join("ca.crt")).expect("a certificate");
    kiln.run(["pull", "--cert-dir", given.path().to_str().expect("text"), name]);
    let conf = kiln.home().join(".config/containers/registries.conf");
    fs::write(conf, "[[registry]]\nlocation = \"registry.test:5000\"\ninsecure = true\n").expect("registries.conf");
    kiln.run(["pull", name]);
}

/// Proves: registry-tls-and-mirrors
#[test]
fn socks_proxies_find_the_registry_by_its_name() {
    let directory = Kiln::new().directory();
    let registry = SecureRegistry::start(directory.path(), Shown::Vouched);
    let name = "registry.test:5000/app:1";
    let with = |variable: &str, scheme: &str| {
        Kiln::with_busybox().with_env(variable, &format!("{scheme}://{}", registry.socks_proxy()))
    };
    for (variable, scheme) in [("HTTPS_PROXY", "socks5"), ("HTTPS_PROXY", "socks5h"), ("ALL_PROXY", "socks5")] {
        let kiln = with(variable, scheme);
        kiln.run(["tag", "busybox", name]);
        kiln.run(["push", "--tls-verify=false", name]);
        let pull = ["pull", "--retry", "0", name];
        Kiln::new().with_env(variable, &format!("{scheme}://127.0.0.1:1")).try_run(pull).failure();
        kiln.with_env("NO_PROXY", "registry.test").try_run(pull).failure().says("dns error");
    }
}

#[test]
fn a_copy_that_was_killed_is_in_nobodys_way() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    build(&kiln, &registry.name("app:1"));
    kiln.run(["push", "-q", &registry.name("app:1")]);
    let layer = raw(&kiln, &format!("docker://{}", registry.name("app:1")));
    let layer: Value = serde_json::from_str(&layer).expect("a manifest");
    let layer = layer["layers"][0]["digest"].as_str().expect("a digest").to_owned();
    let there = kiln.directory();
    for place in ["oci:layout:1", "dir:directory", "oci-archive:archive.tar:1"] {
        let blob = layer.clone();
        let silent = Interposer::new(&registry.address(), move |head, _| {
            if head.contains(&blob) {
                std::thread::sleep(std::time::Duration::from_secs(600));
            }
            Answer::Pass
        });
        let (transport, rest) = place.split_once(':').expect("a transport");
        let place = format!("{transport}:{}/{rest}", there.path().display());
        let from = |name: String| format!("docker://{name}");
        let mut copying =
            kiln.command(["copy", "-q", &from(silent.name("app:1")), &place]).spawn().expect("kiln starts");
        eventually("the layer is asked for", || silent.seen().iter().any(|head| head.contains(&layer)));
        copying.kill().and_then(|()| copying.wait().map(drop)).expect("it ends");
        kiln.run(["copy", "-q", &from(registry.name("app:1")), &place]);
        kiln.run(["remote", "validate", &place]);
    }
    let left = run(command("find", [there.path().to_str().expect("text"), "-name", ".kiln-copy-*"])).success();
    assert_eq!(left.stdout, "");
}
