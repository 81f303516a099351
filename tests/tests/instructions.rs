//! Every instruction, and what it does to the image's config and to a container of it.

use kiln_tests::{Kiln, Kind};
use serde_json::{Value, json};

fn config(kiln: &Kiln, dockerfile: &str) -> Value {
    kiln.build_text(dockerfile, "t");
    kiln.inspect("t")["Config"].clone()
}

/// Proves: D1.8-1
#[test]
fn run_changes_the_file_system_in_both_forms() {
    let kiln = Kiln::with_busybox();
    kiln.build_text(
        "FROM busybox\nRUN echo shell > /shell\nRUN [\"sh\", \"-c\", \"echo $0 exec > /exec\"]\nRUN rm /shell\n",
        "t",
    );
    assert_eq!(kiln.output("t", &["cat", "/exec"]), "sh exec\n");
    assert_eq!(kiln.run(["run", "--rm", "t", "ls", "/"]).stdout.lines().filter(|name| *name == "shell").count(), 0);
    assert!(kiln.filesystem("t").get("shell").is_none());
}

/// Proves: D1.5-1, D1.5-2, D1.5-4, D1.6-8, D1.8-2, --build-arg
#[test]
fn run_sees_environment_arguments_user_and_directory() {
    let kiln = Kiln::with_busybox();
    kiln.build(
        &kiln.context(&[(
            "Dockerfile",
            "FROM busybox\nENV A=env B=env\nARG B=arg\nARG C=default\nWORKDIR /here\nUSER www-data\n\
             RUN echo \"$A $B $C $(pwd) $(id -un)\" > /tmp/seen\n",
        )]),
        "t",
        &["--build-arg", "C=given"],
    );
    assert_eq!(kiln.output("t", &["cat", "/tmp/seen"]), "env env given /here www-data\n");
}

/// Proves: D1.9-1, D1.9-3, D1.9-5, D1.9-6
#[test]
fn heredocs_make_scripts_and_files() {
    let kiln = Kiln::with_busybox();
    kiln.build_text(
        "FROM busybox\nARG WHO=world\nRUN <<EOF\nset -e\necho one > /one\necho two > /two\nEOF\n\
         COPY <<file.txt <<'raw.txt' /made/\nhello $WHO\nfile.txt\nhello $WHO\nraw.txt\n\
         RUN <<EOF cat > /three\nthree\nEOF\n",
        "t",
    );
    assert_eq!(kiln.output("t", &["cat", "/one", "/two", "/three"]), "one\ntwo\nthree\n");
    assert_eq!(kiln.output("t", &["cat", "/made/file.txt", "/made/raw.txt"]), "hello world\nhello $WHO\n");
}

/// Proves: D1.10-10, D1.10-11, D1.10-12, D1.11-1
#[test]
fn copy_and_add_bring_files_with_owner_and_mode() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[
        (
            "Dockerfile",
            "FROM busybox\nCOPY a /a\nCOPY --chown=33:100 --chmod=640 a /owned\nADD files.tar /unpacked/\nCOPY dir /dir\n",
        ),
        ("a", "alpha\n"),
        ("dir/b", "beta\n"),
        ("packed", "inside\n"),
    ]);
    context.shell("tar -cf files.tar packed");
    kiln.build(&context, "t", &[]);
    let root = kiln.filesystem("t");
    let owned = root.get("owned").expect("/owned is there");
    assert_eq!((owned.uid, owned.gid, owned.mode), (33, 100, 0o640));
    assert_eq!((root.get("a").unwrap().uid, root.get("dir").unwrap().kind.clone()), (0, Kind::Directory));
    assert_eq!(kiln.output("t", &["cat", "/a", "/dir/b", "/unpacked/packed"]), "alpha\nbeta\ninside\n");
}

/// Proves: D1.6-1, D1.6-4, D1.4-6
#[test]
fn env_and_label_are_kept_and_inherited() {
    let kiln = Kiln::with_busybox();
    let config = config(
        &kiln,
        "FROM busybox AS base\nENV A=1 B=\"two words\"\nLABEL a=1\nFROM base\nENV C=$A-$B\nLABEL b=\"x y\" a=2\n",
    );
    let environment: Vec<&str> = config["Env"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(environment.contains(&"A=1") && environment.contains(&"B=two words"), "{environment:?}");
    assert!(environment.contains(&"C=1-two words"), "{environment:?}");
    assert_eq!(config["Labels"], json!({"a": "2", "b": "x y"}));
    assert_eq!(kiln.output("t", &["sh", "-c", "echo $C"]), "1-two words\n");
}

/// Proves: D1.7-1, D1.7-2
#[test]
fn cmd_and_entrypoint_combine_as_the_reference_says() {
    let kiln = Kiln::with_busybox();
    kiln.build_text("FROM busybox\nENTRYPOINT [\"echo\", \"entry\"]\nCMD [\"default\"]\n", "both");
    assert_eq!(kiln.run(["run", "--rm", "both"]).stdout, "entry default\n");
    assert_eq!(kiln.run(["run", "--rm", "both", "given"]).stdout, "entry given\n");
    assert_eq!(kiln.run(["run", "--rm", "--entrypoint", "echo", "both", "x"]).stdout, "x\n");
    kiln.build_text("FROM both\nENTRYPOINT [\"echo\", \"new\"]\n", "reset");
    assert_eq!(kiln.run(["run", "--rm", "reset"]).stdout, "new\n");
    kiln.build_text("FROM busybox\nENV W=shell\nCMD echo $W form\n", "shell");
    assert_eq!(kiln.inspect("shell")["Config"]["Cmd"], json!(["/bin/sh", "-c", "echo $W form"]));
    assert_eq!(kiln.run(["run", "--rm", "shell"]).stdout, "shell form\n");
}

/// Proves: D1.7-3
#[test]
fn shell_changes_the_shell_form() {
    let kiln = Kiln::with_busybox();
    let config = config(&kiln, "FROM busybox\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN echo $- > /flags\nCMD echo hi\n");
    assert_eq!(config["Shell"], json!(["/bin/sh", "-ec"]));
    assert_eq!(config["Cmd"], json!(["/bin/sh", "-ec", "echo hi"]));
    assert!(kiln.output("t", &["cat", "/flags"]).contains('e'));
}

/// Proves: D1.6-6, D1.6-8, D1.6-12, D1.6-13, D1.13-1
#[test]
fn expose_volume_stopsignal_user_and_workdir_are_recorded() {
    let kiln = Kiln::with_busybox();
    let config = config(
        &kiln,
        "FROM busybox\nEXPOSE 80 53/udp 8000-8001\nVOLUME /data [\"x\"]\nVOLUME [\"/json\"]\nSTOPSIGNAL SIGQUIT\n\
         USER operator:staff\nWORKDIR /a\nWORKDIR b\n",
    );
    let ports: Vec<&String> = config["ExposedPorts"].as_object().unwrap().keys().collect();
    assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"]);
    assert!(config["Volumes"].as_object().unwrap().contains_key("/json"));
    assert_eq!(config["StopSignal"], json!("SIGQUIT"));
    assert_eq!(config["User"], json!("operator:staff"));
    assert_eq!(config["WorkingDir"], json!("/a/b"));
    assert_eq!(kiln.run(["run", "--rm", "t", "sh", "-c", "id -un; id -gn; pwd"]).stdout, "operator\nstaff\n/a/b\n");
}

/// Proves: D1.7-4
#[test]
fn healthcheck_durations_are_nanoseconds() {
    let kiln = Kiln::with_busybox();
    let check =
        config(&kiln, "FROM busybox\nHEALTHCHECK --interval=1m30s --timeout=3s --retries=2 CMD true || exit 1\n");
    assert_eq!(
        check["Healthcheck"],
        json!({"Test": ["CMD-SHELL", "true || exit 1"], "Interval": 90_000_000_000_i64, "Timeout": 3_000_000_000_i64,
               "Retries": 2})
    );
    let none = config(&kiln, "FROM busybox\nHEALTHCHECK NONE\n");
    assert_eq!(none["Healthcheck"], json!({"Test": ["NONE"]}));
}

/// Proves: D1.7-6
#[test]
fn onbuild_runs_in_the_child_and_only_there() {
    let kiln = Kiln::with_busybox();
    kiln.build_text("FROM busybox\nONBUILD RUN echo triggered > /trigger\nONBUILD ENV T=1\n", "parent");
    assert_eq!(kiln.inspect("parent")["Config"]["OnBuild"], json!(["RUN echo triggered > /trigger", "ENV T=1"]));
    assert!(kiln.filesystem("parent").get("trigger").is_none());
    kiln.build_text("FROM parent\nRUN test \"$T\" = 1 && test -f /trigger\n", "child");
    assert!(kiln.inspect("child")["Config"]["OnBuild"].as_array().is_none_or(Vec::is_empty));
    assert_eq!(kiln.output("child", &["cat", "/trigger"]), "triggered\n");
}

/// Proves: D1.6-5, D1.13-2
#[test]
fn maintainer_is_the_author_and_history_tells_every_step() {
    let kiln = Kiln::with_busybox();
    kiln.build_text("FROM busybox\nMAINTAINER Some One\nRUN echo x > /x\nCMD [\"x\"]\n", "t");
    let saved = kiln.saved("t");
    assert_eq!(saved.config["author"], json!("Some One"));
    let history = saved.config["history"].as_array().unwrap();
    let layers = history.iter().filter(|entry| entry["empty_layer"] != json!(true)).count();
    assert_eq!(layers, saved.layers.len());
    kiln.run(["history", "--no-trunc", "t"]).says("echo x > /x").says("MAINTAINER Some One").says("CMD [\"x\"]");
}

/// Proves: D1.4-2, D1.10-16
#[test]
fn from_scratch_holds_only_what_is_copied() {
    let kiln = Kiln::with_busybox();
    kiln.build_text(
        "FROM scratch\nCOPY --from=busybox /bin/busybox /bin/echo\nCMD [\"/bin/echo\", \"scratch\"]\n",
        "t",
    );
    assert_eq!(kiln.filesystem("t").paths().collect::<Vec<_>>(), ["bin", "bin/echo"]);
    assert_eq!(kiln.run(["run", "--rm", "t"]).stdout, "scratch\n");
}

#[test]
fn setuid_programs_work_in_run_steps() {
    let kiln = Kiln::with_busybox();
    kiln.build_text(
        "FROM busybox\nRUN cp /bin/busybox /bin/su-id && ln -s su-id /bin/whoami2 && chmod 4755 /bin/su-id\n\
         USER nobody\nRUN cat /proc/self/status | grep NoNewPrivs > /tmp/privileges\n",
        "t",
    );
    assert!(kiln.output("t", &["cat", "/tmp/privileges"]).contains('0'));
    assert_eq!(kiln.filesystem("t").get("bin/su-id").unwrap().mode, 0o4755);
}

/// Proves: D1.8-4
#[test]
fn names_and_hosts_resolve_and_stay_out_of_the_layer() {
    let kiln = Kiln::with_busybox();
    kiln.build_text("FROM busybox\nRUN test -s /etc/resolv.conf && grep -q localhost /etc/hosts && echo y > /y\n", "t");
    assert_eq!(kiln.added("t", "busybox"), ["y"]);
}

/// Proves: D1.5-8
#[test]
fn platform_arguments_are_set() {
    let kiln = Kiln::with_busybox();
    kiln.build_text("FROM busybox\nARG TARGETOS\nARG TARGETARCH\nRUN echo $TARGETOS/$TARGETARCH > /platform\n", "t");
    let image = kiln.inspect("t");
    let expected = format!("{}/{}\n", image["Os"].as_str().unwrap(), image["Architecture"].as_str().unwrap());
    assert_eq!(kiln.output("t", &["cat", "/platform"]), expected);
}

/// Proves: D1.4-9, D1.6-4, --label, --build-arg
#[test]
fn label_and_build_arg_flags_take_effect() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "ARG B=nothing\nFROM ${B}\nLABEL a=1 b=2\n")]);
    kiln.build(&context, "t", &["--build-arg", "B=busybox", "--label", "b=3", "--label", "c=4"]);
    assert_eq!(kiln.inspect("t")["Config"]["Labels"], json!({"a": "1", "b": "3", "c": "4"}));
}

/// Proves: D1.7-8, D1.7-9
#[test]
fn triggers_take_files_from_what_the_child_has() {
    let kiln = Kiln::with_busybox();
    kiln.build_text(
        "FROM busybox\nONBUILD COPY --from=assets /file /copied\n\
         ONBUILD RUN --mount=from=assets,source=/file,target=/m --mount=from=named,target=/n cat /m /n/f > /mounted\n\
         ONBUILD COPY --from=other:1 /other /other\n\
         ONBUILD RUN --mount=type=cache,target=/c <<EOF\necho one > /c/x\ncp /c/x /cached\nEOF\n\
         ONBUILD COPY <<made.txt /made/\nhello\nmade.txt\n",
        "parent",
    );
    kiln.build_text("FROM scratch\nCOPY <<other /other\nan image\nother\n", "other:1");
    let named = kiln.context(&[("f", "named\n")]);
    let child = "FROM busybox AS assets\nRUN echo stage > /file\nFROM parent\nRUN cat /copied /mounted > /all\n";
    let context = kiln.context(&[("Dockerfile", child)]);
    kiln.build(&context, "child", &["--build-context", &format!("named={}", named.path().display())]);
    let files = ["cat", "/all", "/other", "/cached", "/made/made.txt"];
    assert_eq!(kiln.output("child", &files), "stage\nstage\nnamed\nan image\none\nhello\n");
    assert!(kiln.filesystem("child").get("c/x").is_none());
}

/// Proves: D1.8-18
#[test]
fn a_step_chooses_its_network() {
    let kiln = Kiln::with_busybox();
    let text = "FROM busybox\nRUN --network=none readlink /proc/self/ns/net > /none\n\
                RUN --network=default readlink /proc/self/ns/net > /default\nRUN readlink /proc/self/ns/net > /plain\n";
    let context = kiln.context(&[("Dockerfile", text)]);
    kiln.build(&context, "t", &[]);
    let seen = |file: &str| kiln.output("t", &["cat", file]);
    let host = std::fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    assert_eq!((seen("/default").trim(), seen("/plain").trim()), (host.as_str(), host.as_str()));
    assert_ne!(seen("/none").trim(), host);
    kiln.build(&context, "t", &["--network=none"]);
    assert_ne!(seen("/default").trim(), host, "the default is the build's");

    context.write("Dockerfile", "FROM busybox\nRUN --network=host readlink /proc/self/ns/net > /host\n");
    for options in [&[][..], &["--network=none"]] {
        kiln.try_build(&context, "t", options).failure().says("--allow network.host").says("Dockerfile:2");
    }
    for options in [&["--allow=network.host", "--network=none"][..], &["--network=host"]] {
        kiln.build(&context, "t", options);
        assert_eq!(seen("/host").trim(), host);
    }
    context.write("Dockerfile", "FROM busybox\nRUN --network=hots true\n");
    kiln.try_build(&context, "t", &[]).failure().says("expected `default`, `none` or `host`");
}

/// Proves: D1.9-2, D1.9-9
#[test]
fn a_heredoc_is_run_by_the_program_that_it_names() {
    let kiln = Kiln::with_busybox();
    kiln.build_text(
        "FROM busybox\nSHELL [\"/no/such/shell\"]\nRUN <<SCRIPT\n#!/bin/awk -f\nBEGIN { print \"awk\" > \"/made\" }\nSCRIPT\n",
        "t",
    );
    assert_eq!(kiln.output("t", &["cat", "/made"]), "awk\n");
    // A shell that is none gets the whole text as its argument.
    kiln.build_text(
        "FROM busybox\nSHELL [\"/bin/awk\"]\nRUN <<EOF\nBEGIN { print \"argument\" > \"/shell\" }\nEOF\n",
        "u",
    );
    assert_eq!(kiln.output("u", &["cat", "/shell"]), "argument\n");
    assert_eq!(kiln.added("t", "busybox"), ["made"]);
}

/// Proves: D1.13-3
#[test]
fn an_image_without_a_layer_can_be_kept_moved_and_built_on() {
    let kiln = Kiln::new();
    kiln.build_text("FROM scratch\nENV A=1\nCMD [\"/x\"]\n", "empty:1");
    kiln.build_text("FROM empty:1\nLABEL child=yes\n", "child:1");
    let saved = kiln.saved("child:1");
    assert!(saved.layers.is_empty());
    assert_eq!(saved.config["rootfs"], json!({"type": "layers", "diff_ids": []}));
    assert_eq!(saved.config["config"]["Labels"], json!({"child": "yes"}));
    let id = kiln.image_id("child:1");
    let file = kiln.home().join("child.tar").display().to_string();
    kiln.run(["save", "-o", &file, "child:1"]);
    kiln.run(["rmi", "child:1"]);
    kiln.run(["load", "-i", &file]);
    assert_eq!(kiln.image_id("child:1"), id);
    kiln.build_text("FROM child:1\nCOPY <<f /f\nx\nf\n", "more:1");
    assert_eq!(kiln.filesystem("more:1").paths().collect::<Vec<_>>(), ["f"]);
}
