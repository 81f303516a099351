//! Flags of containers beyond the daily ones, changing one that runs, and what `cp` carries.

use std::fs;

use kiln_tests::{Account, Kiln, eventually};

/// Both ways to run kiln.
fn each(test: impl Fn(&Kiln)) {
    for account in [Account::current(), Account::with_subuids()] {
        test(&Kiln::of(account).import_busybox());
    }
}

fn status(kiln: &Kiln, name: &str) -> String {
    kiln.run(["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name]).text().to_owned()
}

fn start_service(kiln: &Kiln, name: &str, options: &[&str]) {
    let line = ["run", "-d", "--network=host", "--name", name].into_iter().chain(options.iter().copied());
    kiln.run(line.chain(["busybox", "sleep", "1000"]));
}

/// What containers share with the host and with each other, and what they set of the kernel.
#[test]
fn namespaces_are_shared_and_settings_made() {
    each(|kiln| {
        let run = |flags: &[&str], script: &str| {
            let line = ["run", "--rm", "--network=none"].into_iter().chain(flags.iter().copied());
            kiln.run(line.chain(["busybox", "sh", "-c", script])).stdout
        };
        let host = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
        for (flag, name) in [("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts"), ("--cgroupns", "cgroup")] {
            let look = format!("readlink /proc/self/ns/{name}");
            assert_ne!(run(&[], &look).trim(), host(name), "{name}");
            assert_eq!(run(&[flag, "host"], &look).trim(), host(name), "{flag} host");
        }
        // What a container of the host's processes leaves behind goes with it.
        let word = format!("{}", 100_000 + std::process::id());
        let left = format!("sleep {word} & sleep {word} & ls -d /proc/{}", std::process::id());
        assert_eq!(run(&["--pid", "host"], &left), format!("/proc/{}\n", std::process::id()));
        let is_left = || {
            let entries = fs::read_dir("/proc").unwrap().flatten();
            entries
                .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
                .any(|line| line.starts_with(b"sleep\0") && String::from_utf8_lossy(&line).contains(&word))
        };
        assert!(!is_left(), "its processes went with it");
        assert_eq!(run(&["--domainname", "example.org"], "cat /proc/sys/kernel/domainname"), "example.org\n");
        let sysctls = ["--sysctl", "net.ipv4.ip_unprivileged_port_start=7", "--sysctl", "kernel.shm_rmid_forced=1"];
        let read = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced";
        assert_eq!(run(&sysctls, read), "7\n1\n");
        for wrong in
            [&["--sysctl", "kernel.core_pattern=x"][..], &["--sysctl", "net.ipv4.ip_forward=1", "--network=host"]]
        {
            let line = ["run", "--rm"].iter().chain(wrong).chain(&["busybox", "true"]);
            kiln.try_run(line.copied()).code(125).says("not in a separate kernel namespace");
        }
        assert_eq!(run(&["--oom-score-adj", "321"], "cat /proc/self/oom_score_adj"), "321\n");
        kiln.try_run(["run", "--rm", "--oom-score-adj", "1001", "busybox", "true"]).code(125).says("1001");
        kiln.try_run(["run", "--rm", "--pid", "container:x", "busybox", "true"]).code(125).says("No such container: x");
        // Shared memory of another container.
        kiln.run(["run", "-d", "--network=none", "--ipc", "shareable", "--name", "first", "busybox", "sleep", "1000"]);
        kiln.run(["exec", "first", "sh", "-c", "echo shared > /dev/shm/file"]);
        assert_eq!(run(&["--ipc", "container:first"], "cat /dev/shm/file"), "shared\n");
        kiln.run(["rm", "-f", "first"]);
        kiln.try_run(["run", "--rm", "--ipc", "container:first", "busybox", "true"]).code(125).says("first");
    });
}

#[test]
fn logs_are_turned_over() {
    let kiln = Kiln::with_busybox();
    let script = "i=0; while [ $i -lt 300 ]; do echo line-$i; i=$((i+1)); usleep 500; done";
    let limits = ["--log-opt", "max-size=4k", "--log-opt", "max-file=3"];
    let line = ["run", "-d", "--network=host", "--name", "log"].into_iter().chain(limits);
    kiln.run(line.chain(["busybox", "sh", "-c", script]));
    let followed = kiln.run(["logs", "-f", "log"]).stdout;
    assert!(followed.ends_with("line-299\n"), "{followed}");
    let id = kiln.run(["inspect", "-f", "{{.Id}}", "log"]);
    let directory = kiln.root().join("containers").join(id.text());
    for (name, exists) in [("log", true), ("log.1", true), ("log.2", true), ("log.3", false)] {
        let size = fs::metadata(directory.join(name)).map(|metadata| metadata.len()).ok();
        assert_eq!(size.is_some_and(|size| size <= 4096), exists, "{name}: {size:?}");
    }
    let kept = kiln.run(["logs", "log"]).stdout;
    assert!(kept.ends_with("line-298\nline-299\n") && kept.lines().count() < 300, "{kept}");
    let last = kiln.run(["logs", "--tail", "120", "log"]).stdout;
    assert_eq!(last.lines().count(), 120, "over two files");
    assert!(last.starts_with("line-180\n"), "{last}");
    kiln.try_run(["run", "--rm", "--log-opt", "max-what=1", "busybox", "true"]).code(125).says("max-what");
    kiln.try_run(["run", "--rm", "--log-driver", "syslog", "busybox", "true"]).code(125).says("syslog");
}

#[test]
fn only_the_streams_that_are_asked_for_are_attached() {
    let kiln = Kiln::with_busybox();
    let both = ["busybox", "sh", "-c", "echo out; echo err >&2"];
    let run = |flags: &[&str]| {
        let line = ["run", "--network=host"].iter().chain(flags).chain(&both);
        let outcome = kiln.run(line.copied());
        (outcome.stdout, outcome.stderr)
    };
    assert_eq!(run(&["-a", "stdout"]), ("out\n".to_owned(), String::new()));
    assert_eq!(run(&["--attach=STDERR", "--name", "kept"]), (String::new(), "err\n".to_owned()));
    assert_eq!(run(&["-a", "stdout", "-a", "stderr"]), ("out\n".to_owned(), "err\n".to_owned()));
    assert_eq!(kiln.run(["logs", "kept"]).stdout, "out\n");
    kiln.try_run(["run", "-d", "-a", "stdout", "busybox", "true"]).code(125).says("-a and -d");
}

#[test]
fn limits_and_policies_are_updated() {
    let kiln = Kiln::with_busybox();
    start_service(&kiln, "box", &[]);
    kiln.run(["update", "-m", "64m", "--pids-limit", "20", "--restart", "on-failure:3", "box"]);
    let read = |format: &str| kiln.run(["inspect", "-f", format, "box"]).text().to_owned();
    assert_eq!(read("{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}"), "67108864 20");
    assert_eq!(
        read("{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}"),
        "on-failure 3"
    );
    let usage = kiln.run(["stats", "--no-stream", "--format", "{{.MemUsage}}", "box"]);
    assert!(usage.text().ends_with("/ 64MiB"), "{usage}");
    let many = "for i in $(seq 40); do sleep 10 & done; echo all";
    assert!(kiln.try_run(["exec", "box", "sh", "-c", many]).output().contains("fork"));
    // A restart keeps them.
    kiln.run(["update", "--pids-limit", "30", "box"]);
    kiln.run(["restart", "-t", "0", "box"]);
    assert_eq!(read("{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}"), "67108864 30");
    kiln.try_run(["update", "--restart", "sometimes", "box"]).code(1).says("sometimes");
    kiln.run(["rm", "-f", "box"]);
    kiln.run(["create", "--rm", "--name", "goes", "busybox"]);
    kiln.try_run(["update", "--restart", "always", "goes"]).code(1).says("AutoRemove");
}

/// What a boot of the machine starts again.
#[test]
fn what_should_run_is_started_again() {
    let kiln = Kiln::with_busybox();
    for (name, policy) in
        [("never", "no"), ("always", "always"), ("stopped", "unless-stopped"), ("killed", "unless-stopped")]
    {
        start_service(&kiln, name, &["--restart", policy]);
    }
    kiln.run(["create", "--network=host", "--restart", "always", "--name", "fresh", "busybox", "sleep", "1000"]);
    kiln.run(["stop", "-t", "0", "stopped", "always"]);
    for name in ["never", "killed"] {
        // As the end of the machine: whoever holds it is gone.
        let pid = kiln.run(["inspect", "-f", "{{.State.Pid}}", name]);
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.text())).unwrap();
        let parent = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
        let parent = rustix::process::Pid::from_raw(parent).unwrap();
        rustix::process::kill_process(parent, rustix::process::Signal::KILL).unwrap();
        eventually("it is gone", || status(&kiln, name) == "exited 137");
    }
    let started = kiln.run(["system", "start"]).stdout;
    assert_eq!(started, "always\nkilled\n");
    assert_eq!(kiln.run(["system", "start"]).stdout, "", "they run already");
    assert_eq!(status(&kiln, "killed"), "running 0");
    assert_eq!(status(&kiln, "never"), "exited 137");
}

#[test]
fn an_archive_goes_from_a_stopped_container_to_itself() {
    each(|kiln| {
        let script = "dd if=/dev/zero of=/big bs=1M count=3 2>/dev/null; mkdir /target";
        kiln.run(["run", "--network=none", "--name", "box", "busybox", "sh", "-c", script]);
        let mut out = kiln.command(["cp", "box:/big", "-"]);
        let mut out = out.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut into = kiln.command(["cp", "-", "box:/target"]);
        into.stdin(out.stdout.take().unwrap());
        assert!(into.status().unwrap().success() && out.wait().unwrap().success());
        let listed = kiln.run(["diff", "box"]);
        assert!(listed.stdout.contains("A /target/big"), "{listed}");
    });
}

#[test]
fn extended_attributes_are_copied_both_ways() {
    each(|kiln| {
        let directory = kiln.context(&[("file", "text\n"), ("tree/below", "text\n")]);
        let path = |name: &str| directory.path().join(name).display().to_string();
        for name in ["file", "tree", "tree/below"] {
            rustix::fs::setxattr(path(name), "user.note", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
        }
        kiln.run(["create", "--network=none", "--name", "box", "busybox"]);
        kiln.run(["cp", &path("file"), "box:/file"]);
        kiln.run(["cp", &path("tree"), "box:/tree"]);
        let out = kiln.directory();
        let target = |name: &str| out.path().join(name).display().to_string();
        kiln.run(["cp", "box:/file", &target("file")]);
        kiln.run(["cp", "box:/tree", &target("tree")]);
        for name in ["file", "tree", "tree/below"] {
            let mut value = [0; 16];
            let length = rustix::fs::getxattr(target(name), "user.note", &mut value).unwrap_or_default();
            assert_eq!(&value[..length], b"kept", "{name}");
        }
        assert_eq!(fs::read_to_string(target("file")).unwrap(), "text\n");
    });
}
