//! Caches that travel: machines that share only a registry or a directory.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_tests::{Context, Kiln, Outcome, Registry};

/// A registry with `busybox` in it, and the reference to that.
fn registry_with_base() -> (Registry, String) {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    let base = registry.name("busybox:1");
    kiln.run(["tag", "busybox", &base]);
    kiln.run(["push", &base]);
    (registry, base)
}

/// Two stages whose results no second run gives again.
fn project(kiln: &Kiln, base: &str) -> Context {
    let dockerfile = format!(
        "FROM {base} AS tools\nRUN head -c 300000 /dev/urandom > /intermediate; head -c 20 /dev/urandom > /tool\n\
         FROM {base}\nCOPY src /src\nCOPY --from=tools /tool /tool\nRUN head -c 1000 /dev/urandom > /random\n\
         WORKDIR /work\nLABEL a=b\nCMD [\"sh\"]\n"
    );
    kiln.context(&[("Dockerfile", &dockerfile), ("src/a", "a"), ("src/b", "b")])
}

/// One stage of that kind.
fn single(kiln: &Kiln, base: &str) -> Context {
    let dockerfile = format!("FROM {base}\nCOPY src /src\nRUN head -c 1000 /dev/urandom > /random\nENV A=b\n");
    kiln.context(&[("Dockerfile", &dockerfile), ("src/a", "a")])
}

fn cached(outcome: &Outcome) -> usize {
    outcome.output().lines().filter(|line| line.ends_with(" CACHED")).count()
}

/// All of a build's steps came from the cache.
#[track_caller]
fn ran_nothing(outcome: &Outcome, steps: usize) {
    assert!(!outcome.output().contains("not cached"), "{outcome}");
    assert_eq!(cached(outcome), steps, "{outcome}");
}

/// The directory's files by size, largest first.
fn files(directory: &Path) -> Vec<(u64, PathBuf)> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let metadata = entry.metadata().expect("an entry");
            if metadata.is_dir() { open.push(entry.path()) } else { found.push((metadata.len(), entry.path())) }
        }
    }
    found.sort();
    found.reverse();
    found
}

/// Two empty stores that share only a registry: the second runs nothing, and its image is the same.
/// Proves: --cache-from, --cache-to
#[test]
fn the_second_machine_runs_nothing() {
    let (registry, base) = registry_with_base();
    let cache = registry.name("app:cache");
    for options in ["type=registry,mode=max", "type=keyed,mode=max"] {
        let [first, second] = [Kiln::new(), Kiln::new()];
        let to = format!("{options},ref={cache}-{}", options.len());
        let from = to.replace(",mode=max", "");
        let built = first.build(&project(&first, &base), "app", &["--cache-to", &to, "--cache-from", &from]);
        assert_eq!(cached(&built), 0, "{built}");
        let again = second.build(&project(&second, &base), "app", &["--cache-to", &to, "--cache-from", &from]);
        ran_nothing(&again, 5);
        assert_eq!(first.image_id("app"), second.image_id("app"));
        assert_eq!(first.output("app", &["md5sum", "/random"]), second.output("app", &["md5sum", "/random"]));
        again.says("nothing new");

        // A layer that nothing needed has stayed where it is, and comes when something does.
        let blobs = second.root().join("blobs");
        assert!(files(&blobs).iter().all(|(size, _)| !(300_000..310_000).contains(size)), "{:?}", files(&blobs));
        let context = project(&second, &base);
        context.shell("echo 'COPY --from=tools /intermediate /intermediate' >> Dockerfile");
        let more = second.build(&context, "more", &["--cache-from", &from]).says("fetching from cache: [tools 2/2]");
        assert_eq!(cached(&more), 5, "{more}");
        let of_first = project(&first, &base);
        of_first.shell("echo 'COPY --from=tools /intermediate /intermediate' >> Dockerfile");
        first.build(&of_first, "more", &[]);
        let sum = ["md5sum", "/intermediate"];
        assert_eq!(first.output("more", &sum), second.output("more", &sum));
    }
}

/// One place carries the steps of all platforms of a build.
#[test]
fn several_platforms_share_one_place() {
    let (registry, base) = registry_with_base();
    let dockerfile = format!(
        "FROM --platform=$BUILDPLATFORM {base} AS tools\nRUN head -c 20 /dev/urandom > /common\nARG TARGETARCH\n\
         RUN echo $TARGETARCH > /for; head -c 20 /dev/urandom >> /for\nFROM scratch\nCOPY --from=tools /common /for /\n"
    );
    for (number, to) in ["type=registry", "type=keyed"].iter().enumerate() {
        let place = format!("{to},ref={}", registry.name(&format!("app-{number}:cache")));
        let [first, second] = [Kiln::new(), Kiln::new()].map(|kiln| {
            let ids = kiln.directory();
            let file = ids.path().join("id").display().to_string();
            let context = kiln.context(&[("Dockerfile", &dockerfile)]);
            let to = format!("{place},mode=max");
            let options =
                ["--platform=linux/amd64,linux/arm64", "--cache-from", &place, "--cache-to", &to, "--iidfile", &file];
            (kiln.build(&context, "app", &options), fs::read_to_string(file).expect("an id"))
        });
        assert_eq!(cached(&first.0), 0, "{}", first.0);
        ran_nothing(&second.0, 5);
        assert_eq!(first.1, second.1);
        // One of them alone finds its own.
        let third = Kiln::new();
        let context = third.context(&[("Dockerfile", &dockerfile)]);
        ran_nothing(&third.build(&context, "app", &["--platform=linux/arm64", "--cache-from", &place]), 3);
    }
}

/// A step that is not in the store and in no cache: which were asked, and whether one has it of other things; and never
/// with what arguments.
#[test]
fn a_miss_says_who_was_asked() {
    let (registry, base) = registry_with_base();
    let dockerfile = format!("FROM {base}\nARG WORD\nRUN echo $WORD > /word\n");
    let [first, second] = [Kiln::new(), Kiln::new()];
    let [document, keys] = [registry.name("app:cache"), registry.name("keys")];
    let to = [format!("type=registry,ref={document}"), format!("type=keyed,ref={keys}")];
    let context = first.context(&[("Dockerfile", &dockerfile)]);
    first.build(&context, "t", &["--build-arg=WORD=private", "--cache-to", &to[0], "--cache-to", &to[1]]);
    let other = |arguments: &[&str]| second.build(&context, "t", arguments).never_says("private");
    other(&["--build-arg=WORD=a", "--cache-from", &to[0]])
        .says(&format!("never built here, and in {document} only on other layers, or with other files or variables"));
    let second = Kiln::new();
    let context = second.context(&[("Dockerfile", &dockerfile.replace("echo", "echo -n"))]);
    second
        .build(&context, "t", &["--cache-from", &to[0], "--cache-from", &to[1]])
        .says(&format!("never built here, and not in {document} and {keys} (a tag for each step)"));
    let third = Kiln::new();
    third.build(&third.context(&[("Dockerfile", &dockerfile)]), "t", &[]).says("not cached: never built\n");
}

/// A directory carries a cache as well, and the image itself does.
/// Proves: --import-cache, --export-cache
#[test]
fn a_directory_and_an_image_carry_their_cache() {
    let (registry, base) = registry_with_base();
    let [first, second, third] = [Kiln::new(), Kiln::new(), Kiln::new()];
    let shared = first.directory();
    let place = shared.path().join("cache").to_str().expect("text").to_owned();
    let to = format!("type=local,dest={place},mode=max");
    first.build(&project(&first, &base), "app", &["--export-cache", &to]).says("exporting cache to");
    let again = second.build(&project(&second, &base), "app", &["--import-cache", &format!("type=local,src={place}")]);
    ran_nothing(&again, 5);
    assert_eq!(first.image_id("app"), second.image_id("app"));

    // What is no longer needed goes on request.
    let before = files(Path::new(&place)).len();
    let context = single(&first, &base);
    first.build(&context, "single", &["--cache-to", &format!("type=local,dest={place},reset=true")]);
    assert!(files(Path::new(&place)).len() < before, "{:?}", files(Path::new(&place)));
    let again = second.build(&context, "single", &["--cache-from", &format!("type=local,src={place}")]);
    ran_nothing(&again, 2);

    let name = registry.name("app:1");
    first.build(&project(&first, &base), &name, &["--build-arg", "BUILDKIT_INLINE_CACHE=1", "--push"]);
    let options = ["--cache-from", &name, "--cache-to", "type=inline"];
    let again = third.build(&project(&third, &base), &name, &options);
    ran_nothing(&again, 5);
    assert_eq!(first.image_id(&name), third.image_id(&name));
}

/// With mode=min only the result's own layers travel. Of other stages it is known what they gave: enough as long as no
/// step needs their files, and no more than that.
#[test]
fn min_knows_what_other_stages_gave() {
    let (registry, base) = registry_with_base();
    let first = Kiln::new();
    let caches = [registry.name("app:min"), registry.name("keys")];
    let [document, keys] = [format!("type=registry,ref={}", caches[0]), format!("type=keyed,ref={}", caches[1])];
    first.build(&project(&first, &base), "app", &["--cache-to", &document, "--cache-to", &keys]);
    for cache in [&document, &keys] {
        let second = Kiln::new();
        let context = project(&second, &base);
        let again = second.build(&context, "app", &["--cache-from", cache, "--cache-to", cache]);
        ran_nothing(&again, 5);
        again.says("nothing new");
        assert_eq!(first.image_id("app"), second.image_id("app"));

        // Another step on top needs the result's files only.
        context.shell("echo 'RUN echo more > /more' >> Dockerfile");
        let more = second.build(&context, "more", &["--cache-from", cache]);
        assert_eq!(cached(&more), 5, "{more}");

        // This one needs those of the other stage, whose step must run.
        let third = Kiln::new();
        let dry = |context: &Context| {
            let path = context.path().to_str().expect("text");
            third.run(["build", "--dry-run", "--cache-from", cache, path])
        };
        dry(&project(&second, &base)).never_says("RUN     [").says("CACHED  [tools 2/2]");
        context.shell("echo 'COPY --from=tools /intermediate /intermediate' >> Dockerfile");
        dry(&context).says("RUN     [tools 2/2]");
        let more = third.build(&context, "more", &["--cache-from", cache]);
        let ran = |text: &str| more.output().lines().any(|line| line.contains(text) && line.contains("300000"));
        assert!(ran("head -c") && cached(&more) < 5, "{more}");
        third.output("more", &["test", "-s", "/intermediate"]);
    }
}

/// What is in cache mounts travels too, to an ordinary user as well.
#[test]
fn cache_mounts_start_warm_elsewhere() {
    let (registry, base) = registry_with_base();
    let [root, user] = [Kiln::new(), Kiln::of(kiln_tests::Account::with_subuids())];
    let shared = root.directory();
    let local = shared.path().join("cache").to_str().expect("text").to_owned();
    let fill = format!(
        "FROM {base}\nRUN --mount=type=cache,id=packages,target=/c mkdir /c/d; echo one > /c/d/one; ln -s d/one /c/link; \
         ln /c/d/one /c/same; chmod 600 /c/d/one; chown 12:34 /c/d; touch -d '2001-02-03 04:05:06' /c/d/one\n"
    );
    let first = root.context(&[("Dockerfile", &fill)]);
    let look = "stat -c '%a %u:%g %h %Y' /c/d/one /c/d /c; cat /c/link; date -r /c/d/one; echo two >> /c/two";
    let use_it = format!("FROM {base}\nRUN --mount=type=cache,id=packages,target=/c {look}\n");
    for (to, from) in [
        (format!("type=registry,ref={}", registry.name("c:1")), format!("type=registry,ref={}", registry.name("c:1"))),
        (format!("type=keyed,ref={}", registry.name("k")), format!("type=keyed,ref={}", registry.name("k"))),
        (format!("type=local,dest={local}"), format!("type=local,src={local}")),
    ] {
        let to = format!("{to},mounts=true");
        root.build(&first, "t", &["--cache-to", &to]).says("1 mounts");
        root.build(&first, "t", &["--cache-to", &to]).says("nothing new");
        for second in [Kiln::new(), Kiln::of(kiln_tests::Account::with_subuids())] {
            let context = second.context(&[("Dockerfile", &use_it)]);
            let built = second.build(&context, "t", &["--cache-from", &from]);
            for seen in ["600 0:0 2 981173106", "755 12:34", " one"] {
                assert!(built.output().contains(seen), "{seen}: {built}");
            }
        }
        // One that needs nothing of it hands it on as it is.
        let third = Kiln::new();
        let again =
            third.build(&third.context(&[("Dockerfile", &fill)]), "t", &["--cache-from", &from, "--cache-to", &to]);
        ran_nothing(&again, 1);
        again.says("nothing new");
    }
    // What a later build adds is sent, and --no-cache starts without any of it.
    let from = format!("type=registry,ref={}", registry.name("c:1"));
    let context = user.context(&[("Dockerfile", &use_it)]);
    let to = format!("{from},mounts=true");
    user.build(&context, "t", &["--cache-from", &from, "--cache-to", &to]).says("1 mounts");
    let last = Kiln::new();
    let see = format!("FROM {base}\nRUN --mount=type=cache,id=packages,target=/c cat /c/two /c/link\n");
    let context = last.context(&[("Dockerfile", &see)]);
    last.build(&context, "t", &["--cache-from", &from]).says(" two").says(" one");
    Kiln::new().try_build(&context, "t", &["--cache-from", &from, "--no-cache"]).failure().says("can't open");
}

/// What is there already is not sent again, and only what changed is.
#[test]
fn only_what_changed_is_sent() {
    let (registry, base) = registry_with_base();
    let kiln = Kiln::new();
    for cache in [
        format!("type=registry,ref={},mode=max", registry.name("app:cache")),
        format!("type=keyed,ref={},mode=max", registry.name("keys")),
    ] {
        let context = project(&kiln, &base);
        let build = || kiln.build(&context, "app", &["--cache-to", &cache]);
        build().never_says("nothing new");
        build().says("nothing new");
        context.write("src/a", format!("changed for {cache}"));
        let sent = build();
        // The changed COPY, the RUN on top of it, and the WORKDIR, which has its time; what is copied from the other
        // stage is what it was.
        assert!(["of which 3 were", " 3 layers were"].iter().any(|text| sent.output().contains(text)), "{sent}");
        assert_eq!(sent.output().lines().filter(|line| line.contains("not cached")).count(), 4, "{sent}");
    }
}

/// mode=min carries the result's own stages, mode=max all of them; plain names are understood as docker and buildah do.
#[test]
fn min_and_max_and_plain_names() {
    let (registry, base) = registry_with_base();
    let first = Kiln::new();
    let (min, plain, repository) =
        (registry.name("app:min"), registry.name("app:plain"), registry.name("app-repository"));
    let context = project(&first, &base);
    first.build(
        &context,
        "app",
        &["--cache-to", &format!("type=registry,ref={min}"), "--cache-to", &plain, "--cache-to", &repository],
    );
    for (place, layers) in [(&plain, true), (&repository, true), (&min, false)] {
        let second = Kiln::new();
        let context = project(&second, &base);
        context.shell("echo 'COPY --from=tools /intermediate /intermediate' >> Dockerfile");
        let missing = registry.name("nothing:there");
        let built = second.build(&context, "app", &["--cache-from", &missing, "--cache-from", place]);
        let tools_cached = cached(&built) == 5;
        assert_eq!(tools_cached, layers, "{place}: {built}");
        assert!(built.output().contains("there is no cache at"), "{built}");
    }
}

/// A cache that is damaged, hostile or gone costs time, and never the build.
#[test]
fn a_broken_cache_is_no_cache() {
    let kiln = Kiln::with_busybox();
    let context =
        kiln.context(&[("Dockerfile", "FROM busybox\nRUN head -c 200000 /dev/urandom > /x\nRUN echo y > /y\n")]);
    let shared = kiln.directory();
    let place = shared.path().join("cache");
    let (to, from) =
        (format!("type=local,dest={},mode=max", place.display()), format!("type=local,src={}", place.display()));
    kiln.build(&context, "app", &["--cache-to", &to]);

    // A damaged layer is noticed when it is fetched, and its step runs.
    let (size, largest) = files(&place).remove(0);
    let mut bytes = fs::read(&largest).expect("a blob");
    let middle = usize::try_from(size / 2).expect("a size");
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).expect("it can be damaged");
    let second = Kiln::with_busybox();
    let built = second.build(&context, "app", &["--cache-from", &from]).says("beginning anew").says("never built");
    assert!(built.output().contains("from the cache"), "{built}");
    second.output("app", &["test", "-s", "/x"]);

    // BuildKit's own caches, whose keys cannot be computed here: an index of layers, and a manifest.
    let buildkit = "application/vnd.buildkit.cacheconfig.v0";
    let config = format!("{{\"mediaType\":\"{buildkit}\",\"digest\":\"sha256:{}\",\"size\":2}}", "0".repeat(64));
    let oci = "application/vnd.oci.image";
    for document in [
        format!("{{\"schemaVersion\":2,\"mediaType\":\"{oci}.index.v1+json\",\"manifests\":[{config}]}}"),
        format!("{{\"schemaVersion\":2,\"mediaType\":\"{oci}.manifest.v1+json\",\"config\":{config},\"layers\":[]}}"),
    ] {
        let made = shared.path().join("buildkit");
        let digest = kiln_tests::run(kiln_tests::command("sh", ["-c", "printf %s \"$1\" | sha256sum", "-", &document]));
        let digest = digest.stdout[..64].to_owned();
        fs::create_dir_all(made.join("blobs/sha256")).expect("a directory");
        fs::write(made.join("blobs/sha256").join(&digest), &document).expect("a blob");
        let size = document.len();
        let index = format!(
            "{{\"schemaVersion\":2,\"manifests\":[{{\"mediaType\":\"{oci}.index.v1+json\",\"digest\":\"sha256:{digest}\",\
             \"size\":{size},\"annotations\":{{\"org.opencontainers.image.ref.name\":\"latest\"}}}}]}}"
        );
        fs::write(made.join("index.json"), index).expect("an index");
        let from = format!("type=local,src={}", made.display());
        Kiln::with_busybox().build(&context, "app", &["--cache-from", &from]).says("BuildKit made it");
    }

    // Documents that are none, and a registry that is not there.
    let index = place.join("index.json");
    for text in ["", "{", "[]", "{\"schemaVersion\":2,\"manifests\":[{}]}"] {
        fs::write(&index, text).expect("the index can be written");
        Kiln::with_busybox().build(&context, "app", &["--cache-from", &from]).says("is left out");
    }
    let nowhere = format!("type=registry,ref=127.0.0.1:{}/a/b:1", kiln_tests::free_port());
    second.build(&context, "app", &["--no-cache", "--cache-from", &nowhere]).never_says("left out");
    Kiln::with_busybox().build(&context, "app", &["--cache-from", &nowhere]).says("is left out");
    second.try_build(&context, "app", &["--cache-to", &nowhere]).failure().says("export cache to 127.0.0.1");
    second.build(&context, "app", &["--cache-to", &format!("{nowhere},ignore-error=true")]).says("failed:");

    for (wrong, part) in
        [("type=gha", "needs that service"), ("type=tape,ref=x", "registry, keyed"), ("type=local", "dest=")]
    {
        second.try_build(&context, "app", &["--cache-to", wrong]).failure().says(part);
    }
    second.try_build(&context, "app", &["--cache-from", "type=s3,region=x"]).failure().says("needs that service");
}

/// Debian's registry takes the same caches, and an ordinary user shares them with root.
#[test]
fn another_registry_and_an_ordinary_user() {
    let registry = Registry::distribution();
    let first = Kiln::with_busybox();
    let base = registry.name("busybox:1");
    first.run(["tag", "busybox", &base]);
    first.run(["push", &base]);
    for cache in [
        format!("type=registry,ref={}", registry.name("app:cache")),
        format!("type=keyed,ref={}", registry.name("keys")),
    ] {
        let to = format!("{cache},mode=max,compression=zstd");
        first.build(&project(&first, &base), "app", &["--cache-to", &to]);
        let second = Kiln::of(kiln_tests::Account::with_subuids());
        let again = second.build(&project(&second, &base), "app", &["--cache-from", &cache, "--cache-to", &to]);
        ran_nothing(&again, 5);
        again.says("nothing new");
        assert_eq!(first.image_id("app"), second.image_id("app"));
    }
    // Many records at once share their config, and two of them a layer: each blob is sent once.
    let steps: String = (0..20).map(|number| format!("RUN echo {number} > /{number}\n")).collect();
    let context = first.context(&[("Dockerfile", &format!("FROM {base}\n{steps}"))]);
    let to = format!("type=keyed,ref={}", registry.name("many"));
    first.build(&context, "many", &["--cache-to", &to]).says("21 of 21 records, 0 mounts, 20 layers were sent");
    ran_nothing(&Kiln::new().build(&context, "many", &["--cache-from", &to]), 20);
}

/// kaniko's and buildah's flags for the same.
/// Proves: --cache-repo, --cache-ttl, --cache, --cache-copy-layers, --cache-run-layers, --no-push-cache, --layers, --no-cache-filter
#[test]
fn flags_of_kaniko_and_buildah() {
    let (registry, base) = registry_with_base();
    let [first, second, third] = [Kiln::new(), Kiln::new(), Kiln::new()];
    let repository = registry.name("cache/app");
    let options =
        ["--cache=true", "--cache-copy-layers", "--cache-run-layers=true", "--layers", "--cache-repo", &repository];
    let unused = registry.name("cache/unused");
    second.build(&project(&second, &base), "app", &["--cache-repo", &unused, "--no-push-cache"]);
    third.try_run(["tags", &unused]).failure();

    first.build(&project(&first, &base), "app", &options);
    let again = third.build(&project(&third, &base), "app", &options);
    ran_nothing(&again, 5);
    assert_eq!(first.image_id("app"), third.image_id("app"));

    let context = project(&first, &base);
    ran_nothing(&first.build(&context, "app", &["--cache-ttl=24h"]), 5);
    assert_eq!(cached(&first.build(&context, "app", &["--cache-ttl=1ms"])), 0);
    assert_eq!(cached(&first.build(&context, "app", &["--cache-ttl=0"])), 0);
    assert_eq!(cached(&first.build(&context, "app", &["--cache=false"])), 0);
    // Only the named stage runs again, and what it changes.
    let again = first.build(&context, "app", &["--no-cache-filter=nothing,TOOLS"]);
    assert!(again.output().contains("not cached: --no-cache") && cached(&again) >= 1, "{again}");
    first.try_build(&context, "app", &["--cache-ttl=soon"]).failure().says("duration");
}
