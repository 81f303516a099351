//! Flags of `build` beyond those that say what is built.

use std::{
    io::{Read, Write},
    os::unix::net::UnixListener,
};

use kiln_tests::Kiln;
use serde_json::json;

/// Proves: --env, --unsetenv, --unsetlabel, --from, --os-version, --os-feature, D1.4-13
#[test]
fn the_config_is_changed_when_all_is_built() {
    let kiln = Kiln::with_busybox();
    let base = "FROM busybox\nENV A=1 B=2\nLABEL l=1 m=2\nVOLUME /v /w\nEXPOSE 80 81/udp\nENTRYPOINT [\"e\"]\n\
                HEALTHCHECK CMD true\nCMD [\"c\"]\n";
    let context = kiln.context(&[("Dockerfile", base)]);
    let options = [
        "--env=A=3",
        "--env=C=4",
        "--unsetenv=B",
        "--unsetlabel=l",
        "--unsetvolume=/v",
        "--unsetexpose=80",
        "--unsetentrypoint",
        "--unsethealthcheck",
        "--os-version=1.2",
        "--os-feature=x",
    ];
    kiln.build(&context, "t", &options);
    let image = kiln.saved("t").config;
    let config = &image["config"];
    let env: Vec<&str> = config["Env"].as_array().unwrap().iter().filter_map(|line| line.as_str()).collect();
    assert_eq!(env.iter().filter(|line| !line.starts_with("PATH=")).copied().collect::<Vec<_>>(), ["A=3", "C=4"]);
    assert_eq!(config["Labels"], json!({"m": "2"}));
    assert_eq!(config["Volumes"], json!({"/w": {}}));
    assert_eq!(config["ExposedPorts"], json!({"81/udp": {}}));
    assert!(config.get("Entrypoint").is_none() && config.get("Healthcheck").is_none());
    assert_eq!((&image["os.version"], &image["os.features"]), (&json!("1.2"), &json!(["x"])));
    kiln.build_text("FROM t\nENV child=1\n", "child");
    let child = kiln.saved("child").config;
    assert_eq!((&child["os.version"], &child["os.features"]), (&json!("1.2"), &json!(["x"])));

    kiln.build_text("FROM busybox\nRUN echo other > /other\n", "other");
    kiln.build(&kiln.context(&[("Dockerfile", "FROM no-such-image\nENV X=1\n")]), "swapped", &["--from=other"]);
    assert!(kiln.filesystem("swapped").get("other").is_some());
}

/// Proves: --inherit-labels
#[test]
fn labels_of_the_base_may_be_left_behind() {
    let kiln = Kiln::with_busybox();
    kiln.build_text("FROM busybox\nLABEL base=1\n", "base");
    let context = kiln.context(&[("Dockerfile", "FROM base\nLABEL own=1\n")]);
    kiln.build(&context, "kept", &[]);
    kiln.build(&context, "left", &["--inherit-labels=false"]);
    assert_eq!(kiln.inspect("kept")["Config"]["Labels"], json!({"base": "1", "own": "1"}));
    assert_eq!(kiln.inspect("left")["Config"]["Labels"], json!({"own": "1"}));
}

/// Proves: --build-arg-file, --timestamp, --source-date-epoch, --rewrite-timestamp, D1.13-5, D1.13-6
#[test]
fn arguments_come_from_files_and_times_from_flags() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[
        ("Dockerfile", "FROM busybox\nARG A\nARG B\nRUN echo $A $B > /x\n"),
        ("arguments", "# comment\nA=file\nB=file\n"),
    ]);
    let file = format!("--build-arg-file={}", context.path().join("arguments").display());
    kiln.build(&context, "t", &[&file, "--build-arg=B=line"]);
    assert_eq!(kiln.output("t", &["cat", "/x"]), "file line\n");
    for flag in ["--timestamp=1000000000", "--source-date-epoch=1000000000"] {
        kiln.build(&context, "timed", &[flag, "--rewrite-timestamp"]);
        assert_eq!(kiln.saved("timed").config["created"], json!("2001-09-09T01:46:40Z"));
        assert_eq!(kiln.filesystem("timed").get("x").map(|node| node.mtime), Some(1_000_000_000));
    }
}

/// Proves: --ulimit, --cap-add, --cap-drop, --security-opt, --dns, --dns-search, --dns-option, --no-hosts, --shm-size,
/// D1.8-20
#[test]
fn steps_get_what_the_flags_say() {
    let kiln = Kiln::with_busybox();
    let text = "FROM busybox\nRUN ulimit -n > /n; grep CapBnd /proc/self/status > /caps; \
                grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status > /security; cp /etc/resolv.conf /resolv; \
                cp /etc/hosts /hosts-seen 2>/dev/null || echo none > /hosts-seen; df -k /dev/shm | tail -1 > /shm\n";
    let context = kiln.context(&[("Dockerfile", text)]);
    kiln.build(&context, "plain", &[]);
    assert!(kiln.output("plain", &["cat", "/caps"]).contains("00000000a80425fb"));
    let options = [
        "--ulimit=nofile=100:200",
        "--cap-add=SYS_PTRACE",
        "--cap-drop=CAP_MKNOD",
        "--security-opt=no-new-privileges",
        "--security-opt=seccomp=unconfined",
        "--dns=192.0.2.1",
        "--dns-search=example.com",
        "--dns-option=ndots:3",
        "--no-hosts",
        "--shm-size=8m",
    ];
    kiln.build(&context, "t", &options);
    let seen = |path: &str| kiln.output("t", &["cat", path]);
    assert_eq!(seen("/n"), "100\n");
    assert!(seen("/caps").contains("00000000a00c25fb"), "{}", seen("/caps"));
    let security = seen("/security");
    assert!(security.contains("NoNewPrivs:\t1") && security.contains("Seccomp:\t0"), "{security}");
    let resolv = seen("/resolv");
    for line in ["nameserver 192.0.2.1", "search example.com", "options ndots:3"] {
        assert!(resolv.lines().any(|found| found == line), "{resolv}");
    }
    assert!(!seen("/hosts-seen").contains("buildkitsandbox"), "the hosts file is the image's");
    assert!(seen("/shm").contains(" 8192 "), "{}", seen("/shm"));
    kiln.try_build(&context, "t", &["--ulimit=what=1"]).failure().says("what");
}

/// Proves: --volume
#[test]
fn a_volume_is_seen_and_its_content_counts() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nRUN cat /in/f > /seen; touch /in/new || true\n")]);
    let host = kiln.context(&[("f", "one")]);
    let volume = |options: &str| format!("--volume={}:/in{options}", host.path().display());
    kiln.build(&context, "t", &[&volume(":ro")]);
    assert_eq!(kiln.output("t", &["cat", "/seen"]), "one");
    assert!(!host.path().join("new").exists());
    assert!(kiln.filesystem("t").get("in").is_none(), "a mount point is no change of the step");
    host.write("f", "two");
    kiln.build(&context, "t", &[&volume(":ro")]);
    assert_eq!(kiln.output("t", &["cat", "/seen"]), "two");
    kiln.build(&context, "t", &[&volume(":ro,salt=1")]);
    host.write("f", "three");
    kiln.build(&context, "t", &[&volume(":ro,salt=1")]);
    assert_eq!(kiln.output("t", &["cat", "/seen"]), "two", "the salt stands for the content");
}

/// Proves: D1.8-19, --allow
#[test]
fn an_insecure_step_needs_to_be_allowed() {
    let kiln = Kiln::with_busybox();
    let context = kiln
        .context(&[("Dockerfile", "FROM busybox\nRUN --security=insecure grep CapBnd /proc/self/status > /caps\n")]);
    kiln.try_build(&context, "t", &[]).failure().says("--allow security.insecure").says("Dockerfile:2");
    kiln.build(&context, "t", &["--allow", "security.insecure"]);
    let caps = kiln.output("t", &["cat", "/caps"]);
    assert!(!caps.contains("00000000a80425fb"), "{caps}");
}

/// Proves: D1.8-15, --ssh
#[test]
fn an_agent_is_reached_through_a_socket_of_the_step() {
    let kiln = Kiln::new().import_debian();
    let directory = kiln.directory();
    let socket = directory.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut word = [0; 4];
            if stream.read_exact(&mut word).is_ok() {
                stream.write_all(&[b"agent ".as_slice(), &word].concat()).unwrap();
            }
        }
    });
    let perl = "perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); \
                connect(S, sockaddr_un($ENV{SSH_AUTH_SOCK})) or die $!; syswrite(S, \"ping\"); sysread(S, $x, 99); print $x'";
    let text = format!(
        "FROM debian:12\nRUN --mount=type=ssh {perl} > /said && stat -c '%a %u %F' $SSH_AUTH_SOCK > /socket\n\
         RUN --mount=type=ssh,id=other,target=/a.sock,mode=0666,uid=5 echo $SSH_AUTH_SOCK > /other\n"
    );
    let context = kiln.context(&[("Dockerfile", &text)]);
    let (agent, other) = (format!("default={}", socket.display()), format!("other={}", socket.display()));
    kiln.build(&context, "t", &["--ssh", &agent, "--ssh", &other]);
    assert_eq!(kiln.output("t", &["cat", "/said"]), "agent ping");
    assert_eq!(kiln.output("t", &["cat", "/socket"]), "600 0 socket\n");
    assert_eq!(kiln.output("t", &["cat", "/other"]), "/a.sock\n");
    assert!(kiln.filesystem("t").get("run/buildkit").is_none());
    let required = kiln.context(&[("Dockerfile", "FROM debian:12\nRUN --mount=type=ssh,required true\n")]);
    kiln.try_build(&required, "t", &[]).failure().says("--ssh default").says("Dockerfile:2");
    let file = directory.write("key", "no socket");
    kiln.try_build(&required, "t", &["--ssh", &format!("default={}", file.display())]).failure().says("ssh-add");
}

/// Proves: D1.8-9, D1.8-11
#[test]
fn a_cache_may_start_from_files_and_show_a_part_of_itself() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[(
        "Dockerfile",
        "FROM busybox AS seed\nRUN mkdir -p /s/sub && echo seed > /s/sub/f && ln -s /etc /s/out\nFROM scratch AS start\n\
         COPY --from=seed /s /\nFROM busybox\nRUN --mount=type=cache,target=/c,from=start ls /c > /all\n\
         RUN --mount=type=cache,id=/c,target=/c,from=start,source=sub cat /c/f > /part\n",
    )]);
    kiln.build(&context, "t", &[]);
    assert_eq!(kiln.output("t", &["cat", "/all"]), "out\nsub\n");
    assert_eq!(kiln.output("t", &["cat", "/part"]), "seed\n");
    context.write(
        "Dockerfile",
        "FROM busybox\nRUN --mount=type=cache,target=/c ln -s /etc /c/out\n\
         RUN --mount=type=cache,id=/c,target=/d,source=out ls /d\n",
    );
    kiln.try_build(&context, "t", &[]).failure().says("cache mount");
}

/// Proves: D1.8-7
#[test]
fn a_part_of_a_stage_is_keyed_by_its_content() {
    let kiln = Kiln::with_busybox();
    let text = |other: &str| {
        format!(
            "FROM busybox AS s\nRUN mkdir /p && echo same > /p/f && echo {other} > /other\nFROM busybox\n\
             RUN --mount=from=s,source=/p,target=/m cat /m/f /proc/sys/kernel/random/uuid > /seen\n"
        )
    };
    kiln.build_text(&text("one"), "one");
    kiln.build_text(&text("two"), "two");
    let seen = |image: &str| kiln.output(image, &["cat", "/seen"]);
    assert_eq!(seen("one"), seen("two"), "what else changed in the stage does not concern the step");
}
