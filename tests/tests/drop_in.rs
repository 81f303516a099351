//! Flags that kaniko, buildctl and buildah have and docker has not.

use std::fs;

use kiln_tests::{HttpServer, Kiln, Registry, free_port};
use serde_json::Value;

/// Proves: --destination, --context, --digest-file, --tar-path, --oci-layout-path, --no-push, --dockerfile,
/// --context-sub-path, --image-name-with-digest-file, --image-name-tag-with-digest-file, --verbosity,
/// --snapshot-mode, --cleanup, --force, --use-new-run, --skip-push-permission-check, --log-timestamp, --rm,
/// --force-rm
#[test]
fn an_executor_s_command_line_builds_and_pushes() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    let context = kiln.context(&[
        ("sub/build/My.Dockerfile", "FROM scratch\nCOPY a /a\n"),
        ("sub/a", "alpha\n"),
        ("a", "not this\n"),
    ]);
    let out = kiln.directory();
    let file = |name: &str| out.path().join(name).display().to_string();
    let names = [format!("{}/team/app:1", registry.address()), format!("{}/team/other:2", registry.address())];
    let place = format!("--context=dir://{}", context.path().display());
    let line = [
        "build",
        &place,
        "--context-sub-path=sub",
        "--dockerfile=build/My.Dockerfile",
        "--verbosity=info",
        "--snapshot-mode=redo",
        "--cleanup",
        "--force",
        "--use-new-run",
        "--skip-push-permission-check",
        "--log-timestamp=false",
        "--rm=false",
        "--force-rm",
        "-d",
        &names[0],
        &format!("--destination={}", names[1]),
        &format!("--digest-file={}", file("digest")),
        &format!("--image-name-with-digest-file={}", file("names")),
        &format!("--image-name-tag-with-digest-file={}", file("tags")),
        &format!("--tar-path={}", file("image.tar")),
        &format!("--oci-layout-path={}", file("layout")),
    ];
    kiln.run(line);
    let read = |name: &str| fs::read_to_string(out.path().join(name)).unwrap();
    let digest = read("digest");
    assert!(digest.starts_with("sha256:") && digest.len() == 71, "{digest:?}");
    assert!(read("names").starts_with(&format!("{}/team/app@{digest}\n", registry.address())));
    assert!(read("tags").ends_with(&format!("{}@{digest}\n", names[1])));
    let index: Value = serde_json::from_str(&read("layout/index.json")).unwrap();
    assert_eq!(index["manifests"][0]["digest"], digest);

    let other = Kiln::new();
    other.run(["pull", &format!("{}/team/app@{digest}", registry.address())]);
    other.run(["pull", &names[1]]);
    assert_eq!(other.filesystem(&names[1]).paths().collect::<Vec<_>>(), ["a"]);
    other.run(["load", "-i", &file("image.tar")]).says("team/app:1");

    // What is not pushed has the digest that it would have.
    let again = format!("{}/team/never:1", registry.address());
    let mut line: Vec<&str> = line.to_vec();
    line.extend(["--no-push", "-t", &again]);
    fs::remove_file(out.path().join("digest")).unwrap();
    kiln.run(line);
    assert_eq!(read("digest"), digest);
    other.try_run(["pull", &again]).failure();
}

/// Proves: --context
#[test]
fn a_context_may_be_an_archive_on_disk() {
    let kiln = Kiln::with_busybox();
    let files = kiln.context(&[("Dockerfile", "FROM scratch\nCOPY a /a\n"), ("a", "alpha\n")]);
    files.shell("tar -czf context.tar.gz Dockerfile a");
    let place = |name: &str| format!("--context={}", files.path().join(name).display());
    kiln.run(["build", "-t", "t", &place("context.tar.gz").replacen("=", "=tar://", 1)]);
    assert_eq!(kiln.filesystem("t").paths().collect::<Vec<_>>(), ["a"]);
    kiln.try_run(["build", "--context=s3://bucket/x.tar"]).failure().says("fetch it first");
    kiln.try_run(["build", &place("."), "."]).failure().says("--context");
    kiln.try_run(["build", &place("."), "--context-sub-path=../.."]).failure().says("no directory");
}

/// Proves: --reproducible
#[test]
fn reproducible_images_bear_the_same_times() {
    let ids = [0, 1].map(|round| {
        let kiln = Kiln::new().with_env("SOURCE_DATE_EPOCH", "1700000000").import_busybox();
        let kiln = kiln.with_env("SOURCE_DATE_EPOCH", "");
        let context = kiln.context(&[("Dockerfile", "FROM busybox\nCOPY a /\nRUN echo x > /x\n"), ("a", "alpha\n")]);
        context.shell(&format!("touch -d @17000000{round}0 a"));
        let build = kiln.command(["build", "--reproducible", "-t", "t", context.path().to_str().unwrap()]);
        let mut build = build;
        build.env_remove("SOURCE_DATE_EPOCH");
        kiln_tests::run(build).success();
        assert_eq!(kiln.saved("t").config["created"], "1970-01-01T00:00:00Z");
        kiln.image_id("t")
    });
    assert_eq!(ids[0], ids[1]);
}

/// Proves: --registry-mirror
#[test]
fn what_docker_hub_has_is_asked_of_a_mirror_first() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    let there = format!("{}/library/tool:1", registry.address());
    kiln.build_text("FROM busybox\nRUN echo mirrored > /m\n", &there);
    kiln.run(["push", &there]);
    let other = Kiln::new();
    let context = other.context(&[("Dockerfile", "FROM tool:1\nRUN cat /m\n")]);
    let mirror = format!("--registry-mirror={}", registry.address());
    let down = format!("--registry-mirror=127.0.0.1:{}", free_port());
    other.build(&context, "t", &[&down, &mirror]).says("mirrored");
}

/// Proves: --insecure-registry, --insecure, --insecure-pull, --skip-tls-verify, --skip-tls-verify-pull,
/// --skip-tls-verify-registry
#[test]
fn plain_http_is_taken_from_the_registry_that_was_named() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    let there = registry.name("tool:1");
    kiln.build_text("FROM busybox\nRUN echo plain > /m\n", &there);
    kiln.run(["push", &there]);
    // The same registry by an address that is not taken for loopback's.
    let (_, port) = registry.address().rsplit_once(':').map(|(host, port)| (host.to_owned(), port.to_owned())).unwrap();
    let host = format!("0.0.0.0:{port}");
    let other = Kiln::new();
    let context = other.context(&[("Dockerfile", &format!("FROM {host}/tool:1\nRUN cat /m\n"))]);
    other.try_build(&context, "t", &[]).failure();
    other.try_build(&context, "t", &["--insecure-registry=other.invalid"]).failure();
    other.build(&context, "t", &[&format!("--insecure-registry={host}")]).says("plain");
    let named = format!("--skip-tls-verify-registry={host}");
    for flag in ["--insecure", "--insecure-pull", "--skip-tls-verify", "--skip-tls-verify-pull", &named] {
        other.build(&context, "t", &[flag, "--pull"]);
    }
}

/// Proves: --retry, --retry-delay, --push-retry, --image-download-retry
#[test]
fn a_failed_request_is_made_again_as_often_as_said() {
    let kiln = Kiln::new();
    let server = HttpServer::failing(503);
    let address = server.url("").trim_start_matches("http://").to_owned();
    let context = kiln.context(&[("Dockerfile", &format!("FROM {address}/x:1\n"))]);
    let asked = |options: &[&str]| {
        kiln.try_build(&context, "t", options).failure().says("503");
        server.take_log().iter().filter(|line| line.contains("manifests")).count()
    };
    for flag in ["--retry=0", "--push-retry=0", "--image-download-retry=0"] {
        assert_eq!(asked(&[flag]), 1);
    }
    assert_eq!(asked(&["--retry=4", "--retry-delay=10ms"]), 5);
    kiln.try_build(&context, "t", &["--retry-delay=soon"]).failure().says("duration");
}

/// Proves: --oci-layout
#[test]
fn a_layout_has_a_name() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nRUN echo layout > /l\n")]);
    let layout = context.path().join("layout").display().to_string();
    kiln.build(&context, "base:1", &[&format!("--oci-layout-path={layout}")]);
    context.write("Dockerfile", "FROM base\nRUN cat /l\n");
    let named = format!("--oci-layout=store={layout}");
    kiln.build(&context, "t", &[&named, "--build-context=base=oci-layout://store:1", "--no-cache"]).says("layout");
    kiln.try_build(&context, "t", &["--oci-layout=x", "--build-context=base=oci-layout://x"])
        .failure()
        .says("NAME=DIR");
}

/// Proves: --source-policy-file, D1.12-15
#[test]
fn a_policy_denies_and_replaces_sources() {
    let kiln = Kiln::with_busybox();
    let server = HttpServer::start(&[("/good", b"good\n"), ("/other", b"other\n")]);
    kiln.build_text("FROM busybox\nRUN echo pinned > /p\n", "busybox:pinned");
    let sum = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    let policy = format!(
        r#"{{"rules": [
            {{"action": "DENY", "selector": {{"identifier": "*"}}}},
            {{"action": "ALLOW", "selector": {{"identifier": "docker-image://docker.io/library/busybox:pinned"}}}},
            {{"action": "CONVERT", "selector": {{"identifier": "docker-image://docker.io/library/busybox:latest"}},
              "updates": {{"identifier": "docker-image://docker.io/library/busybox:pinned"}}}},
            {{"action": "ALLOW", "selector": {{"identifier": "{0}"}}}},
            {{"action": "CONVERT", "selector": {{"identifier": "{1}"}}, "updates": {{"identifier": "{0}"}}}},
            {{"action": "ALLOW", "selector": {{"identifier": "{2}"}}}},
            {{"action": "CONVERT", "selector": {{"identifier": "{2}"}}, "updates": {{"attrs": {{"http.checksum": "{sum}"}}}}}}
        ]}}"#,
        server.url("/good"),
        server.url("/old"),
        server.url("/other"),
    );
    let context = kiln.context(&[("policy.json", &policy)]);
    let file = format!("--source-policy-file={}", context.path().join("policy.json").display());
    let build = |text: &str, more: &[&str]| {
        context.write("Dockerfile", text);
        kiln.try_build(&context, "t", &[&[file.as_str()], more].concat())
    };
    build(&format!("FROM busybox\nADD {} /got\nRUN cat /p /got\n", server.url("/old")), &[]).success().says("pinned");
    assert_eq!(kiln.output("t", &["cat", "/got"]), "good\n");
    build("FROM other.invalid/x\n", &[])
        .failure()
        .says("denies docker-image://other.invalid/x:latest")
        .says("Dockerfile:1");
    let denied = "FROM busybox\nCOPY --from=other.invalid/x:2 /a /b\n";
    build(denied, &[]).failure().says("denies").says("Dockerfile:2");
    let named = "FROM named\n";
    build(named, &["--build-context=named=docker-image://other.invalid/y"]).failure().says("denies");
    build(&format!("FROM busybox\nADD {} /got\n", server.url("/other")), &[]).failure().says("sha256:000");
    context.write("policy.json", r#"{"rules": [{"action": "FORBID"}]}"#);
    build("FROM scratch\n", &[]).failure().says("policy.json").says("FORBID");
}

/// Proves: --debug-json-cache-metrics
#[test]
fn metrics_of_the_cache_are_json() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nRUN echo 1\nRUN echo 2\n")]);
    let metrics = |place: &str| {
        let outcome = kiln.build(&context, "t", &[&format!("--debug-json-cache-metrics={place}")]);
        let text = match place {
            "stdout" => outcome.stdout,
            "stderr" => outcome.stderr,
            path => fs::read_to_string(path).unwrap(),
        };
        let json: Value = serde_json::from_str(text.trim_end().lines().last().unwrap()).unwrap();
        let number = |name: &str| json[name].as_u64().unwrap();
        (number("total"), number("user_cached"), number("miss"), text.contains("cache miss: [2/3] RUN echo 1\n"))
    };
    let (total, cached, missed, told) = metrics("stdout");
    assert_eq!((cached, missed, told), (0, 2, true), "of {total}");
    assert_eq!(metrics("stderr"), (total, 2, 0, false));
    assert_eq!(metrics(context.path().join("metrics").to_str().unwrap()), (total, 2, 0, false));
}

/// Proves: --progress
#[test]
fn the_last_of_two_flags_counts() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM busybox AS one\nRUN echo words\nFROM scratch AS two\n")]);
    let path = context.path().to_str().unwrap();
    let plain = ["build", "--progress=quiet", "--progress=plain", "--target=two", "--target=one", path];
    kiln.run(plain).says("#2 ").says("words");
    kiln.run(["build", "--no-cache", "--progress=plain", "--progress=rawjson", "--target=one", path])
        .says("{\"event\"");
    kiln.run(["build", "--no-cache", "--progress=plain", "--progress=quiet", path]).never_says("words");
    kiln.try_run(["build", "--progress=what", path]).failure().says("plain").says("json");
}
