//! Containers that an OCI runtime of somebody else runs: Debian's runc and crun get a bundle from kiln.

use kiln_tests::{Account, Kiln, OnTerminal, eventually};

const RUNTIMES: [&str; 2] = ["runc", "crun"];

fn each(test: impl Fn(&Kiln, &str)) {
    for runtime in RUNTIMES {
        test(&Kiln::with_busybox(), runtime);
    }
}

#[test]
fn a_runtime_runs_what_the_flags_say() {
    each(|kiln, runtime| {
        let run = |flags: &[&str], script: &str| {
            let line = ["run", "--rm", "--runtime", runtime].into_iter().chain(flags.iter().copied());
            kiln.try_run(line.chain(["busybox", "sh", "-c", script]))
        };
        let none = ["--network", "none"];
        let said = |flags: &[&str], script: &str| {
            let flags: Vec<&str> = none.iter().chain(flags).copied().collect();
            run(&flags, script).success().stdout
        };
        assert_eq!(said(&["-e", "A=1", "-w", "/etc", "-u", "1:2"], "echo $A $(pwd) $(id -u):$(id -g)"), "1 /etc 1:2\n");
        assert_eq!(said(&["-h", "named"], "hostname; cat /etc/hostname"), "named\nnamed\n");
        assert_eq!(
            said(&[], "grep -E 'CapEff|Seccomp:|NoNewPrivs' /proc/self/status"),
            "CapEff:\t00000000a80425fb\nNoNewPrivs:\t0\nSeccomp:\t2\n"
        );
        assert_eq!(
            said(
                &["--cap-drop", "ALL", "--security-opt", "no-new-privileges"],
                "grep -E 'CapEff|NoNewPrivs' /proc/self/status"
            ),
            "CapEff:\t0000000000000000\nNoNewPrivs:\t1\n"
        );
        assert_eq!(
            said(&["--read-only", "--tmpfs", "/run"], "touch /x 2>/dev/null || touch /run/x && echo ok"),
            "ok\n"
        );
        assert_eq!(said(&["--ulimit", "nofile=64:128"], "ulimit -n; ulimit -Hn"), "64\n128\n");
        assert_eq!(said(&["-v", "data:/data"], "echo kept > /data/f; cat /data/f"), "kept\n");
        assert_eq!(said(&["-v", "data:/data:ro"], "cat /data/f; touch /data/g 2>/dev/null || echo ro"), "kept\nro\n");
        assert!(said(&["--add-host", "there:1.2.3.4"], "cat /etc/hosts").contains("1.2.3.4\tthere"));
        assert_eq!(
            said(
                &["--sysctl", "net.ipv4.ip_unprivileged_port_start=9"],
                "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"
            ),
            "9\n"
        );
        assert_eq!(said(&[], "echo x 2>/dev/null > /proc/sys/kernel/core_pattern || echo refused"), "refused\n");
        assert_eq!(said(&["--oom-score-adj", "99"], "cat /proc/self/oom_score_adj"), "99\n");
        assert!(run(&[], "ip addr show eth0").success().stdout.contains("inet 10."));
        run(&none, "exit 7").code(7);
        kiln.try_run(["run", "--rm", "--network", "none", "--runtime", runtime, "busybox", "no-such-command"])
            .code(127);
        assert_eq!(kiln.run(["ps", "-a", "-q"]).text(), "");
    });
}

#[test]
fn its_container_lives_as_any_other() {
    each(|kiln, runtime| {
        let script = "echo ready; trap 'echo bye; exit 5' TERM; touch /made; while :; do sleep 0.05; done";
        let line = ["run", "-d", "--runtime", runtime, "-m", "64m", "--name", "box", "busybox", "sh", "-c", script];
        kiln.run(line);
        eventually("it writes", || kiln.run(["logs", "box"]).stdout == "ready\n");
        assert_eq!(kiln.run(["inspect", "-f", "{{.HostConfig.Runtime}}", "box"]).text(), runtime);
        assert_eq!(kiln.run(["exec", "box", "sh", "-c", "ls /made; cat /proc/1/comm"]).stdout, "/made\nsh\n");
        kiln.run(["top", "box"]).says("sleep 0.05");
        assert_eq!(kiln.run(["diff", "box"]).stdout, "A /made\n");
        kiln.run(["pause", "box"]);
        kiln.run(["unpause", "box"]);
        let usage = kiln.run(["stats", "--no-stream", "--format", "{{.MemUsage}}", "box"]);
        assert!(usage.text().ends_with("/ 64MiB"), "{usage}");
        kiln.run(["stop", "box"]);
        assert_eq!(kiln.run(["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "box"]).text(), "exited 5");
        kiln.run(["start", "box"]);
        eventually("it writes again", || kiln.run(["logs", "box"]).stdout == "ready\nbye\nready\n");
        kiln.run(["kill", "box"]);
        assert_eq!(kiln.run(["wait", "box"]).text(), "137");
        kiln.run(["start", "box"]);
        kiln.run(["rm", "-f", "box"]);
        assert_eq!(kiln.run(["ps", "-a", "-q"]).text(), "");
        let mut shell = OnTerminal::start(kiln.command(["run", "-it", "--rm", "--runtime", runtime, "busybox", "sh"]));
        shell.types("tty; echo on-$((40+2))");
        shell.sees("on-42");
        shell.types("exit 4");
        assert_eq!(shell.ends().code(), Some(4));
    });
}

#[test]
fn an_ordinary_user_has_a_runtime_too() {
    let kiln = Kiln::of(Account::with_subuids()).import_busybox();
    for runtime in RUNTIMES {
        let line = [
            "run",
            "--rm",
            "--network",
            "none",
            "--runtime",
            runtime,
            "busybox",
            "sh",
            "-c",
            "id -u; echo x > /f; cat /f",
        ];
        assert_eq!(kiln.run(line).stdout, "0\nx\n", "{runtime}");
    }
}

#[test]
fn a_runtime_that_is_not_there_is_named() {
    let kiln = Kiln::with_busybox();
    let line = ["run", "--rm", "--network", "none", "--runtime", "/no/such/runtime", "busybox", "true"];
    kiln.try_run(line).code(125).says("/no/such/runtime");
    let image = ["run", "--rm", "--runtime", "runc", "--mount", "type=image,src=busybox,dst=/i", "busybox", "true"];
    kiln.try_run(image).code(125).says("runc cannot mount an image (/i)");
    assert_eq!(kiln.run(["ps", "-a", "-q"]).text(), "");
}
