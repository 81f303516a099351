//! Build arguments, platforms, and what the builder itself is told by them.

use kiln_tests::Kiln;

/// Proves: D1.4-7
#[test]
fn the_platform_of_from_may_be_a_variable() {
    let kiln = Kiln::new();
    let base = "127.0.0.1:1/base:1";
    let context = kiln.context(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /s\n")]);
    kiln.build(&context, base, &["--platform=linux/arm/v7"]);
    let text = format!("ARG KIND=arm\nARG P=linux/${{KIND}}/v7\nFROM --platform=$P {base}\nCOPY Dockerfile /x\n");
    context.write("Dockerfile", &text);
    kiln.build(&context, "t", &[]);
    let config = kiln.saved("t").config;
    assert_eq!((config["architecture"].as_str(), config["variant"].as_str()), (Some("arm"), Some("v7")));
    // Another platform is another image: what is here is not taken for it.
    kiln.try_build(&context, "t", &["--build-arg=P=linux/s390x"]).failure().says(base);
    kiln.try_build(&context, "t", &["--build-arg=P=linux/a/b/c"]).failure().says("Dockerfile:3").says("platform");
}

/// Proves: D1.5-9, D1.5-10
#[test]
fn automatic_arguments_can_be_given_and_name_the_target() {
    let kiln = Kiln::with_busybox();
    let text = "FROM busybox AS first\nARG TARGETOS\nARG TARGETSTAGE\nRUN echo $TARGETOS $TARGETSTAGE > /seen\n\
                FROM first AS last\nARG TARGETSTAGE\nRUN echo $TARGETSTAGE > /last\n";
    let context = kiln.context(&[("Dockerfile", text)]);
    kiln.build(&context, "t", &["--target=first", "--build-arg=TARGETOS=plan9"]);
    assert_eq!(kiln.output("t", &["cat", "/seen"]), "plan9 first\n");
    kiln.build(&context, "t", &[]);
    assert_eq!(kiln.output("t", &["cat", "/seen", "/last"]), "linux last\nlast\n");
    kiln.build_text("FROM busybox\nARG TARGETSTAGE\nRUN echo $TARGETSTAGE > /seen\n", "t");
    assert_eq!(kiln.output("t", &["cat", "/seen"]), "default\n");
}

/// Proves: D1.5-12
#[test]
fn arguments_of_the_builder_need_no_arg_and_leave_no_trace() {
    let kiln = Kiln::with_busybox();
    let text =
        "FROM busybox\nARG ROUND\nRUN --mount=type=cache,target=/c hostname > /name; ls /c > /found; touch /c/$ROUND\n";
    let context = kiln.context(&[("Dockerfile", text)]);
    let build = |round: &str, namespace: &str| {
        let (round, namespace) = (format!("ROUND={round}"), format!("BUILDKIT_CACHE_MOUNT_NS={namespace}"));
        let mut options = Vec::new();
        for argument in [
            "BUILDKIT_BUILD_NAME=nightly",
            "BUILDKIT_SANDBOX_HOSTNAME=box",
            "BUILDKIT_SYNTAX=dockerfile.v0",
            &round,
            &namespace,
        ] {
            options.extend(["--build-arg", argument]);
        }
        kiln.build(&context, "t", &options).never_says("not consumed");
        assert_eq!(kiln.output("t", &["cat", "/name"]), "box\n");
        kiln.output("t", &["cat", "/found"])
    };
    assert_eq!(build("1", "a"), "");
    assert_eq!(build("2", "a"), "1\n");
    assert_eq!(build("3", "b"), "", "another namespace has caches of its own");
    let config = String::from_utf8(kiln.saved("t").config_bytes).unwrap();
    assert!(!config.contains("BUILDKIT_") && !config.contains("nightly"), "{config}");
}

/// Proves: D1.5-15
#[test]
fn an_argument_that_nothing_asks_for_is_told() {
    let kiln = Kiln::with_busybox();
    kiln.build_text("FROM busybox\nONBUILD ARG LATER\nONBUILD RUN echo $LATER > /later\n", "base");
    let text =
        "ARG EARLY\nFROM base\nARG VERSION\nRUN echo $VERSION > /version\nFROM busybox AS other\nARG ELSEWHERE\n";
    let context = kiln.context(&[("Dockerfile", text)]);
    let build = |names: &[&str]| {
        let given: Vec<String> = names.iter().map(|name| format!("--build-arg={name}")).collect();
        let mut options = vec!["--target=0"];
        options.extend(given.iter().map(String::as_str));
        kiln.build(&context, "t", &options)
    };
    let known = [
        "EARLY=1",
        "VERSION=1",
        "ELSEWHERE=1",
        "LATER=1",
        "http_proxy=",
        "TARGETARCH=x",
        "BUILDKIT_INLINE_CACHE=1",
        "SOURCE_DATE_EPOCH=1",
        "NO_PROXY=x",
    ];
    build(&known).never_says("not consumed");
    build(&["VERSOIN=1", "OTHER=1"])
        .says("[Warning] One or more build-args [OTHER VERSOIN] were not consumed")
        .says("did you mean VERSION by VERSOIN?");
}

/// Proves: D1.13-7
#[test]
fn the_dockerfile_may_set_the_time() {
    let kiln = Kiln::with_busybox();
    let text = "ARG SECONDS=1000000000\nARG SOURCE_DATE_EPOCH=$SECONDS\nFROM busybox\nARG SOURCE_DATE_EPOCH\n\
                RUN echo ${SOURCE_DATE_EPOCH:-none} > /epoch\n";
    let context = kiln.context(&[("Dockerfile", text)]);
    let build = |kiln: &Kiln, options: &[&str]| {
        kiln.build(&context, "t", options);
        let created = kiln.saved("t").config["created"].as_str().unwrap().to_owned();
        (created, kiln.filesystem("t").get("epoch").unwrap().mtime, kiln.output("t", &["cat", "/epoch"]))
    };
    let of_file = ("2001-09-09T01:46:40Z".to_owned(), 1_000_000_000, "1000000000\n".to_owned());
    assert_eq!(build(&kiln, &[]), of_file);
    let given = ("1970-01-01T00:00:07Z".to_owned(), 7, "7\n".to_owned());
    assert_eq!(build(&kiln, &["--build-arg=SOURCE_DATE_EPOCH=7"]), given);
    let (created, _, seen) = build(&kiln, &["--build-arg=SOURCE_DATE_EPOCH="]);
    assert!(!created.starts_with("2001") && seen == "none\n", "an empty one asks for no time: {created} {seen}");
    let kiln = kiln.with_env("SOURCE_DATE_EPOCH", "7");
    assert_eq!(build(&kiln, &[]), given, "the environment's is an argument, too");
    let kiln = Kiln::with_busybox();
    kiln.try_build(&context, "t", &["--build-arg=SECONDS=soon"])
        .failure()
        .says("number of seconds")
        .says("Dockerfile:2");
    kiln.try_build(&context, "t", &["--build-arg=SOURCE_DATE_EPOCH=soon"]).failure().says("number of seconds");
}
