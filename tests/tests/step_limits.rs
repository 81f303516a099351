//! What RUN steps may use of the machine, and the flags that say how they and their images are come by.

use std::fs;

use kiln_tests::{Account, Kiln, Registry, command, run};

/// Proves: --memory, --memory-swap, --cpu-period, --cpu-quota, --cpu-shares, --cpuset-cpus, --cpuset-mems,
/// --cgroup-parent, D1.13-18
#[test]
fn steps_are_limited_by_their_control_group() {
    let kiln = Kiln::with_busybox();
    // What a step sees of its own group in the host's tree, whichever version the machine has.
    let text = "FROM busybox\nARG PARENT\nRUN for f in memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes \
                cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpu/cpu.shares cpuset/cpuset.cpus cpuset/cpuset.mems; do \
                echo \"$f $(cat /host/${f%%/*}/$PARENT/build-*/${f#*/} 2>/dev/null)\"; done > /limits; \
                for f in memory.max cpu.max cpu.weight cpuset.cpus; do \
                echo \"$f $(cat /host/$PARENT/build-*/$f 2>/dev/null)\"; done >> /limits\n";
    let context = kiln.context(&[("Dockerfile", text)]);
    let parent = format!("kiln-test-{}", std::process::id());
    let (parent_flag, argument) = (format!("--cgroup-parent=/{parent}"), format!("--build-arg=PARENT={parent}"));
    let options = [
        "--memory=64m",
        "--memory-swap=128m",
        "--cpu-period=50000",
        "--cpu-quota=25000",
        "--cpu-shares=512",
        "--cpuset-cpus=0",
        "--cpuset-mems=0",
        &parent_flag,
        &argument,
        "--volume=/sys/fs/cgroup:/host:ro,salt=1",
    ];
    kiln.build(&context, "t", &options);
    let limits = kiln.output("t", &["cat", "/limits"]);
    let of = |file: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(&format!("{file} ")));
        line.filter(|value| !value.is_empty()).map(str::to_owned)
    };
    let either = |one: &str, two: &str| of(one).or_else(|| of(two)).unwrap_or_else(|| panic!("{one}:\n{limits}"));
    assert_eq!(either("memory/memory.limit_in_bytes", "memory.max"), "67108864");
    assert!(matches!(either("cpu/cpu.cfs_quota_us", "cpu.max").as_str(), "25000" | "25000 50000"), "{limits}");
    assert!(matches!(either("cpu/cpu.shares", "cpu.weight").as_str(), "512" | "20"), "{limits}");
    assert_eq!(either("cpuset/cpuset.cpus", "cpuset.cpus"), "0");
    if let Some(both) = of("memory/memory.memsw.limit_in_bytes") {
        assert_eq!(both, "134217728");
    }
    // Limits are no part of a key, and nothing of the group is left.
    kiln.build(&context, "t", &[&argument, "--volume=/sys/fs/cgroup:/host:ro,salt=1"]).says("CACHED");
    let left =
        run(command("find", ["/sys/fs/cgroup", "-maxdepth", "3", "-path", &format!("*{parent}/*"), "-type", "d"]));
    assert_eq!(left.stdout, "");
    for line in
        run(command("find", ["/sys/fs/cgroup", "-maxdepth", "2", "-type", "d", "-name", &parent])).stdout.lines()
    {
        let _ = fs::remove_dir(line);
    }
    let greedy = kiln.context(&[("Dockerfile", "FROM busybox\nRUN dd if=/dev/zero of=/dev/null bs=200M count=1\n")]);
    let outcome = kiln.try_build(&greedy, "g", &["-m", "24m", "--memory-swap=24m"]).failure();
    assert!(outcome.stderr.contains("--memory"), "{outcome}");
    kiln.try_build(&context, "t", &["--memory=1m"]).failure().says("6MB");
}

/// Proves: --memory, --isolation, --userns
#[test]
fn an_ordinary_user_is_told_what_does_not_hold() {
    let kiln = Kiln::of(Account::with_subuids()).import_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nRUN id -u > /id\n")]);
    let options = ["--memory=64m", "--isolation=rootless", "--userns=private"];
    let outcome = kiln.build(&context, "t", &options);
    let holds = kiln.run(["info"]).stdout.lines().any(|line| line.contains("yes") && line.contains("cgroups"));
    assert_eq!(outcome.stderr.contains("--memory does not hold"), !holds, "{outcome}");
    assert_eq!(kiln.output("t", &["cat", "/id"]), "0\n");
}

/// Proves: --isolation, --userns, --no-hostname, --network, --add-host
#[test]
fn there_is_one_sandbox_and_what_asks_for_another_is_told() {
    let kiln = Kiln::with_busybox();
    let text = "FROM busybox\nRUN echo own > /etc/hostname\nRUN cat /etc/hostname > /seen; grep -c : /proc/net/dev > /interfaces; \
                grep example /etc/hosts > /host || true\n";
    let context = kiln.context(&[("Dockerfile", text)]);
    for isolation in ["default", "oci", "rootless", "chroot"] {
        kiln.build(&context, "t", &[&format!("--isolation={isolation}"), "--no-hostname", "--userns=host"]);
    }
    assert_eq!(kiln.output("t", &["cat", "/seen"]), "own\n");
    kiln.build(
        &context,
        "t",
        &["--network=none", "--add-host=example.org:192.0.2.7", "--add-host=six.example=[2001:db8::1]"],
    );
    assert_eq!(kiln.output("t", &["cat", "/interfaces"]), "1\n");
    assert_eq!(kiln.output("t", &["cat", "/host"]), "192.0.2.7\texample.org\n2001:db8::1\tsix.example\n");
    kiln.build(&context, "t", &["--network=host"]);
    for wrong in
        ["--isolation=hyperv", "--userns=ns:/proc/1/ns/user", "--userns=private", "--network=what", "--add-host=x"]
    {
        kiln.try_build(&context, "t", &[wrong]).failure();
    }
}

/// Proves: --http-proxy
#[test]
fn proxy_settings_are_passed_on_when_that_is_asked_for() {
    let kiln = Kiln::with_busybox().with_env("HTTPS_PROXY", "http://proxy.invalid:1");
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nARG N\nRUN echo \"$HTTPS_PROXY\" > /proxy\n")]);
    kiln.build(&context, "t", &[]);
    assert_eq!(kiln.output("t", &["cat", "/proxy"]), "\n");
    kiln.build(&context, "t", &["--http-proxy", "--build-arg=N=1"]);
    assert_eq!(kiln.output("t", &["cat", "/proxy"]), "http://proxy.invalid:1\n");
    kiln.build(&context, "t", &["--http-proxy=false", "--build-arg=N=1"]).says("CACHED");
    assert!(!kiln.saved("t").config.to_string().contains("invalid"), "the image does not know of it");
}

/// Proves: --logfile, --quiet
#[test]
fn what_is_shown_may_go_to_a_file() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nRUN echo said in a step\n")]);
    let log = kiln.home().join("log");
    let outcome = kiln.build(&context, "t", &[&format!("--logfile={}", log.display())]);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""));
    let text = fs::read_to_string(&log).expect("a log");
    assert!(text.contains("said in a step") && text.contains("naming to docker.io/library/t:latest"), "{text}");
    let quiet = kiln.run(["build", "-q", context.path().to_str().unwrap()]);
    assert_eq!(quiet.stdout.trim(), kiln.image_id("t"));
    assert_eq!(quiet.stderr, "");
}

/// Proves: --pull, --creds, --authfile, --tls-verify, --cert-dir
#[test]
fn base_images_are_asked_for_as_the_flags_say() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::distribution();
    let name = registry.name("base:1");
    let context = kiln.context(&[("Dockerfile", &format!("FROM {name}\nRUN cat /version > /seen\n"))]);
    let publish = |version: &str| {
        let other = Kiln::with_busybox();
        other.build_text(&format!("FROM busybox\nRUN echo {version} > /version\n"), &name);
        other.run(["push", &name]);
    };
    publish("one");
    kiln.try_build(&context, "t", &["--pull=never"]).failure().says("base:1");
    let seen = |options: &[&str]| {
        kiln.build(&context, "t", options);
        kiln.output("t", &["cat", "/seen"])
    };
    assert_eq!(seen(&[]), "one\n");
    publish("two");
    assert_eq!(seen(&[]), "one\n");
    assert_eq!(seen(&["--pull=missing"]), "one\n");
    assert_eq!(seen(&["--pull=false"]), "one\n");
    assert_eq!(seen(&["--pull"]), "two\n");
    publish("three");
    assert_eq!(seen(&["--pull=newer"]), "three\n");
    let certificates = kiln.directory();
    let certificates = format!("--cert-dir={}", certificates.path().display());
    let flags = ["--pull=true", "--creds=user:word", "--tls-verify=false", &certificates];
    assert_eq!(seen(&flags), "three\n");
    kiln.try_build(&context, "t", &["--pull", "--cert-dir=/nowhere"]).failure().says("/nowhere");
    drop(registry);
    assert_eq!(seen(&["--pull=newer"]), "three\n");
    assert_eq!(seen(&["--pull=never"]), "three\n");
    kiln.try_build(&context, "t", &["--pull=always"]).failure();
    kiln.try_build(&context, "t", &["--pull=what"]).failure().says("newer");
    kiln.try_build(&context, "t", &["--pull", "--authfile=/nowhere/at/all"]).failure();
}
