//! Containers that outlive the shell: what docker's and podman's users do with them, as root and as an ordinary user.

use std::{fs, thread, time::Duration};

use kiln_tests::{Account, Kiln, OnTerminal, eventually, free_port, run_with_input};
use serde_json::Value;

/// Both ways to run kiln.
fn each(test: impl Fn(&Kiln)) {
    for account in [Account::current(), Account::with_subuids()] {
        test(&Kiln::of(account).import_busybox());
    }
}

const SERVICE: &str = "echo ready; trap 'echo bye; exit 5' TERM; while :; do sleep 0.05; done";

fn status(kiln: &Kiln, name: &str) -> String {
    kiln.run(["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name]).text().to_owned()
}

fn start_service(kiln: &Kiln, name: &str, options: &[&str]) {
    let mut line = vec!["run", "-d", "--network=host", "--name", name];
    line.extend(options);
    line.extend(["busybox", "sh", "-c", SERVICE]);
    kiln.run(line);
    eventually("the service is ready", || kiln.run(["logs", name]).stdout.contains("ready"));
}

#[test]
fn a_detached_container_is_listed_looked_into_stopped_and_removed() {
    each(|kiln| {
        let id = kiln.run(["run", "-d", "--network=host", "--name", "web", "busybox", "sh", "-c", SERVICE]);
        assert_eq!(id.text().len(), 64, "{id}");
        eventually("it writes", || kiln.run(["logs", "web"]).stdout == "ready\n");
        let listed = kiln.run(["ps"]);
        let heading = listed.stdout.lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(heading.starts_with("CONTAINER ID IMAGE COMMAND CREATED STATUS"), "{listed}");
        assert!(heading.ends_with("NAMES"), "{listed}");
        assert_eq!(kiln.run(["ps", "-q", "--no-trunc"]).text(), id.text());
        assert_eq!(kiln.run(["exec", "web", "sh", "-c", "echo in $0; exit 0", "x"]).stdout, "in x\n");
        kiln.try_run(["exec", "web", "sh", "-c", "exit 7"]).code(7);
        kiln.try_run(["exec", "web", "no-such-command"]).code(127);
        kiln.try_run(["exec", "web", "/etc"]).code(126);
        let cat = kiln.command(["exec", "-i", "web", "cat"]);
        assert_eq!(run_with_input(cat, b"given\n").success().stdout, "given\n");
        let flags =
            ["exec", "-e", "A=1", "-w", "/etc", "-u", "1:2", "web", "sh", "-c", "echo $A $(pwd) $(id -u):$(id -g)"];
        assert_eq!(kiln.run(flags).stdout, "1 /etc 1:2\n");
        kiln.run(["top", "web"]).says("CMD").says("sleep 0.05");
        kiln.try_run(["rm", "web"]).code(1).says("running");
        kiln.run(["stop", "web"]);
        assert_eq!(status(kiln, "web"), "exited 5");
        assert_eq!(kiln.run(["logs", "web"]).stdout, "ready\nbye\n");
        assert_eq!(kiln.run(["ps", "-q"]).text(), "");
        kiln.try_run(["exec", "web", "true"]).code(1).says("not running");
        kiln.run(["start", "web"]);
        eventually("it writes again", || kiln.run(["logs", "web"]).stdout == "ready\nbye\nready\n");
        kiln.run(["kill", "web"]);
        assert_eq!(kiln.run(["wait", "web"]).text(), "137");
        kiln.run(["restart", "web"]);
        assert_eq!(status(kiln, "web"), "running 0");
        kiln.run(["rename", "web", "other"]);
        kiln.try_run(["rename", "web", "x2"]).code(1);
        kiln.run(["rm", "-f", "other"]);
        assert_eq!(kiln.run(["ps", "-a", "-q"]).text(), "");
        let left: Vec<_> = fs::read_dir(kiln.root().join("containers")).unwrap().flatten().collect();
        assert!(left.iter().all(|entry| entry.file_name().to_string_lossy().starts_with('.')), "{left:?}");
    });
}

#[test]
fn a_removing_container_goes_when_it_is_stopped() {
    let kiln = Kiln::with_busybox();
    start_service(&kiln, "gone", &["--rm"]);
    kiln.run(["stop", "gone"]);
    assert_eq!(kiln.run(["ps", "-a", "-q"]).text(), "");
    start_service(&kiln, "gone", &["--rm"]);
    kiln.run(["rm", "-f", "gone"]);
    assert_eq!(kiln.run(["ps", "-a", "-q"]).text(), "");
}

#[test]
fn a_signal_that_is_ignored_is_followed_by_the_kill() {
    let kiln = Kiln::with_busybox();
    kiln.run(["run", "-d", "--network=host", "--name", "deaf", "busybox", "sleep", "1000"]);
    kiln.run(["stop", "-t", "1", "deaf"]);
    assert_eq!(status(&kiln, "deaf"), "exited 137");
    // With an init, signals have their usual effect.
    kiln.run(["run", "-d", "--network=host", "--init", "--name", "init", "busybox", "sleep", "1000"]);
    kiln.run(["stop", "-t", "60", "init"]);
    assert_eq!(status(&kiln, "init"), "exited 143");
    let trap = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done";
    kiln.run(["run", "-d", "--network=host", "--stop-signal", "USR1", "--name", "own", "busybox", "sh", "-c", trap]);
    eventually("it is ready", || kiln.run(["logs", "own"]).stdout.contains("ready"));
    kiln.run(["stop", "own"]);
    assert_eq!(status(&kiln, "own"), "exited 9");
}

#[test]
fn logs_are_followed_counted_and_cut_by_time() {
    let kiln = Kiln::with_busybox();
    let script = "for i in 1 2 3 4 5; do echo $i; sleep 0.05; done; echo error >&2; sleep 0.2; printf partial";
    kiln.run(["run", "-d", "--network=host", "--name", "log", "busybox", "sh", "-c", script]);
    let followed = kiln.run(["logs", "-f", "log"]);
    assert_eq!((followed.stdout.as_str(), followed.stderr.as_str()), ("1\n2\n3\n4\n5\npartial", "error\n"));
    assert_eq!(kiln.run(["logs", "--tail", "2", "log"]).stdout, "5\npartial");
    assert_eq!(kiln.run(["logs", "--since", "1h", "log"]).stdout, followed.stdout);
    assert_eq!(kiln.run(["logs", "--until", "1h", "log"]).stdout, "");
    let stamped = kiln.run(["logs", "-t", "log"]).stdout;
    let third = stamped.lines().nth(2).unwrap();
    let (time, text) = third.split_once(' ').unwrap();
    assert_eq!(text, "3");
    assert!(kiln.run(["logs", "--since", time, "log"]).stdout.starts_with("3\n"), "{stamped}");
    kiln.try_run(["logs", "nobody"]).code(1).says("nobody");
}

#[test]
fn created_containers_start_attached_and_with_input() {
    let kiln = Kiln::with_busybox();
    kiln.run(["create", "-i", "--network=host", "--name", "cat", "busybox", "cat"]);
    assert_eq!(status(&kiln, "cat"), "created 0");
    let start = kiln.command(["start", "-a", "-i", "cat"]);
    assert_eq!(run_with_input(start, b"through\n").success().stdout, "through\n");
    kiln.run(["create", "--network=host", "--name", "status", "busybox", "sh", "-c", "exit 6"]);
    kiln.try_run(["start", "-a", "status"]).code(6);
    let cidfile = kiln.home().join("cid");
    let path = cidfile.to_str().unwrap();
    kiln.run(["run", "--network=host", "--cidfile", path, "--name", "cid", "busybox", "true"]);
    let id = kiln.run(["inspect", "-f", "{{.Id}}", "cid"]);
    assert_eq!(fs::read_to_string(&cidfile).unwrap(), id.text());
    kiln.try_run(["run", "--network=host", "--cidfile", path, "busybox", "true"]).code(125).says("cid");
}

#[test]
fn restart_policies_hold() {
    let kiln = Kiln::with_busybox();
    let options = ["--restart", "on-failure:2", "--name", "again", "busybox", "sh", "-c", "echo run; exit 3"];
    kiln.run(["run", "-d", "--network=host"].into_iter().chain(options));
    assert_eq!(kiln.run(["wait", "again"]).text(), "3");
    assert_eq!(kiln.run(["logs", "again"]).stdout, "run\nrun\nrun\n");
    assert_eq!(kiln.run(["inspect", "-f", "{{.RestartCount}}", "again"]).text(), "2");
    kiln.run(["run", "-d", "--network=host", "--restart", "always", "--name", "always", "busybox", "echo", "run"]);
    eventually("it runs again", || kiln.run(["logs", "always"]).stdout.lines().count() >= 3);
    kiln.run(["stop", "always"]);
    assert!(status(&kiln, "always").starts_with("exited"));
    kiln.try_run(["run", "--rm", "--restart", "always", "busybox", "true"]).code(125).says("--rm");
}

#[test]
fn health_checks_run() {
    each(|kiln| {
        let check = ["--health-cmd", "test -e /ok", "--health-interval", "50ms", "--health-retries", "2"];
        start_service(kiln, "health", &check);
        let health = |wanted: &str| {
            eventually(wanted, || kiln.run(["inspect", "-f", "{{.State.Health.Status}}", "health"]).text() == wanted);
        };
        health("unhealthy");
        kiln.run(["ps"]).says("(unhealthy)");
        kiln.run(["exec", "health", "touch", "/ok"]);
        health("healthy");
        assert!(kiln.run(["ps", "-q", "-f", "health=healthy"]).text().len() == 12);
        kiln.run(["rm", "-f", "health"]);
        // What takes too long has failed.
        let slow = ["--health-cmd", "sleep 100", "--health-interval", "50ms", "--health-timeout", "50ms"];
        start_service(kiln, "health", &slow);
        health("unhealthy");
        kiln.run(["rm", "-f", "health"]);
    });
}

#[test]
fn changes_are_listed_and_committed() {
    each(|kiln| {
        let script = "mkdir /new; echo x > /new/f; rm /etc/group; echo y >> /etc/passwd; echo ready; sleep 1000";
        kiln.run(["run", "-d", "--network=host", "--name", "work", "busybox", "sh", "-c", script]);
        eventually("it is ready", || kiln.run(["logs", "work"]).stdout == "ready\n");
        let changes = "C /etc\nD /etc/group\nC /etc/passwd\nA /new\nA /new/f\n";
        assert_eq!(kiln.run(["diff", "work"]).stdout, changes);
        kiln.run([
            "commit",
            "-a",
            "me",
            "-m",
            "why",
            "-c",
            "CMD [\"cat\", \"/new/f\"]",
            "-c",
            "ENV A=1",
            "work",
            "made:1",
        ]);
        assert_eq!(kiln.run(["run", "--rm", "--network=host", "made:1"]).stdout, "x\n");
        kiln.run(["run", "--rm", "--network=host", "made:1", "sh", "-c", "test ! -e /etc/group && test $A = 1"]);
        let image = kiln.inspect("made:1");
        assert_eq!((image["Author"].as_str(), image["Comment"].as_str()), (Some("me"), Some("why")));
        kiln.run(["rm", "-f", "work"]);
        kiln.run(["run", "--rm", "--network=host", "made:1", "true"]);
        // One that does not run, and without a name.
        kiln.run(["run", "--network=host", "--name", "work", "busybox", "touch", "/left"]);
        let id = kiln.run(["commit", "work"]);
        kiln.run(["run", "--rm", "--network=host", id.text(), "ls", "/left"]);
        kiln.run(["images", "-a"]).says("<none>");
    });
}

#[test]
fn files_are_copied_both_ways() {
    each(|kiln| {
        let directory = kiln.context(&[("one", "1\n"), ("tree/two", "2\n"), ("tree/sub/three", "3\n")]);
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        for running in [true, false] {
            kiln.run(["run", "-d", "--network=host", "--name", "box", "-v", "data:/data", "busybox", "sleep", "1000"]);
            if !running {
                kiln.run(["kill", "box"]);
                kiln.run(["wait", "box"]);
            }
            let read = |inside: &str| kiln.run(["cp", &format!("box:{inside}"), "-"]).bytes;
            kiln.run(["cp", &path("one"), "box:/tmp"]);
            kiln.run(["cp", &path("one"), "box:/data/renamed"]);
            kiln.run(["cp", &path("tree"), "box:/tmp"]);
            kiln.run(["cp", &format!("{}/.", path("tree")), "box:/data"]);
            kiln.run(["cp", &path("tree"), "box:/fresh"]);
            for (inside, text) in [
                ("/tmp/one", "1\n"),
                ("/data/renamed", "1\n"),
                ("/tmp/tree/two", "2\n"),
                ("/data/sub/three", "3\n"),
                ("/fresh/sub/three", "3\n"),
            ] {
                let archive = read(inside);
                assert!(String::from_utf8_lossy(&archive).contains(text), "{inside}");
            }
            let out = kiln.directory();
            let target = out.path().join("tree").to_str().unwrap().to_owned();
            kiln.run(["cp", "box:/tmp/tree", &target]);
            assert_eq!(fs::read_to_string(out.path().join("tree/sub/three")).unwrap(), "3\n");
            kiln.run(["cp", "box:/tmp/one", &target]);
            assert_eq!(fs::read_to_string(out.path().join("tree/one")).unwrap(), "1\n");
            let archive = kiln.command(["cp", "-", "box:/data"]);
            run_with_input(archive, &read("/tmp/tree")).success();
            assert!(!read("/data/tree/two").is_empty());
            kiln.try_run(["cp", "box:/nothing", &target]).code(1).says("/nothing");
            kiln.try_run(["cp", &path("tree"), "box:/tmp/one"]).code(1).says("directory");
            kiln.try_run(["cp", &path("one"), "box:/no/where/"]).code(1);
            kiln.run(["rm", "-f", "box"]);
        }
    });
}

#[test]
fn volumes_are_made_kept_and_pruned() {
    each(|kiln| {
        kiln.build_text("FROM busybox\nRUN mkdir /data && echo image > /data/f\nVOLUME /data\n", "with-volume");
        kiln.run(["volume", "create", "--label", "a=b", "named"]);
        kiln.run([
            "run",
            "--rm",
            "--network=host",
            "-v",
            "named:/data",
            "with-volume",
            "sh",
            "-c",
            "cat /data/f; echo x > /data/g",
        ])
        .says("image");
        let seen =
            ["--mount", "type=volume,src=named,dst=/v,readonly", "busybox", "sh", "-c", "cat /v/g; ! touch /v/h"];
        kiln.run(["run", "--rm", "--network=host"].into_iter().chain(seen)).says("x");
        assert_eq!(kiln.run(["volume", "ls", "-q"]).text(), "named");
        kiln.run(["volume", "inspect", "named"]).says("\"a\": \"b\"");
        kiln.run(["run", "--network=host", "--name", "user", "-v", "named:/n", "with-volume", "true"]);
        assert_eq!(kiln.run(["volume", "ls", "-q"]).stdout.lines().count(), 2);
        kiln.try_run(["volume", "rm", "named"]).code(1).says("in use");
        kiln.run(["run", "--rm", "--network=host", "--volumes-from", "user", "busybox", "cat", "/n/g"]).says("x");
        kiln.run(["rm", "-v", "user"]);
        assert_eq!(kiln.run(["volume", "ls", "-q"]).text(), "named", "the anonymous one went");
        kiln.run(["run", "--network=host", "--name", "user", "with-volume", "true"]);
        kiln.run(["rm", "user"]);
        kiln.run(["volume", "prune", "-f"]);
        assert_eq!(kiln.run(["volume", "ls", "-q"]).text(), "named", "named ones stay");
        kiln.run(["volume", "rm", "named"]);
        let memory = [
            "--tmpfs",
            "/t:size=64k,mode=700",
            "busybox",
            "sh",
            "-c",
            "! dd if=/dev/zero of=/t/f bs=1k count=100 2>&1",
        ];
        kiln.run(["run", "--rm", "--network=host"].into_iter().chain(memory)).says("space");
        kiln.try_run(["run", "--rm", "--mount", "type=bind,src=/no/such,dst=/x", "busybox", "true"])
            .code(125)
            .says("/no/such");
    });
}

#[test]
fn an_image_in_use_is_not_removed() {
    let kiln = Kiln::with_busybox();
    kiln.run(["run", "--network=host", "--name", "user", "busybox", "true"]);
    let id = kiln.run(["ps", "-a", "-q"]);
    kiln.try_run(["rmi", "busybox"]).code(1).says("must force").says(id.text());
    kiln.run(["rm", "user"]);
    kiln.run(["rmi", "busybox"]);
}

/// Proves: docker-image-prune, docker-system-df, docker-system-prune
#[test]
fn what_is_not_needed_is_pruned_and_counted() {
    let kiln = Kiln::with_busybox();
    kiln.run(["run", "--network=host", "--name", "old", "busybox", "sh", "-c", "echo text > /file"]);
    start_service(&kiln, "runs", &[]);
    let usage = kiln.run(["system", "df"]);
    assert!(usage.stdout.contains("Containers      2         1"), "{usage}");
    kiln.run(["container", "prune", "-f", "--filter", "until=1h"]).says("Total reclaimed space: 0B");
    kiln.run(["container", "prune", "-f"]).says("Deleted Containers:");
    assert_eq!(kiln.run(["container", "ls", "-a", "--format", "{{.Names}}"]).text(), "runs");
    kiln.run(["image", "prune", "-a", "-f"]).never_says("busybox");
    kiln.run(["rm", "-f", "runs"]);
    kiln.run(["system", "prune", "-a", "-f"]).says("busybox");
    assert_eq!(kiln.run(["image", "ls", "-q"]).text(), "");
}

#[test]
fn ps_filters_and_formats() {
    let kiln = Kiln::with_busybox();
    kiln.try_run(["run", "--network=host", "--name", "first", "-l", "kind=a", "busybox", "sh", "-c", "exit 3"]).code(3);
    kiln.run(["create", "--network=host", "--name", "second", "busybox"]);
    start_service(&kiln, "third", &["--label", "kind=b"]);
    let names = |options: &[&str]| {
        let line = ["ps", "--format", "{{.Names}}"].iter().chain(options).copied();
        kiln.run(line).stdout.lines().collect::<Vec<_>>().join(" ")
    };
    for (options, expected) in [
        (&[][..], "third"),
        (&["-a"], "third second first"),
        (&["-l"], "third"),
        (&["-n", "2"], "third second"),
        (&["-f", "status=created"], "second"),
        (&["-f", "exited=3"], "first"),
        (&["-a", "-f", "name=ir"], "third first"),
        (&["-a", "-f", "label=kind=a"], "first"),
        (&["-a", "-f", "label=kind", "-f", "status=running"], "third"),
        (&["-a", "-f", "since=second"], "third"),
        (&["-a", "-f", "before=second"], "first"),
        (&["-a", "-f", "ancestor=busybox"], "third second first"),
    ] {
        assert_eq!(names(options), expected, "{options:?}");
    }
    kiln.try_run(["ps", "-f", "nonsense=1"]).code(1);
    kiln.run(["ps", "-a", "-s"]).says("SIZE").says("virtual");
    let json = kiln.run(["ps", "--format", "json"]);
    let row: Value = serde_json::from_str(json.text()).unwrap();
    assert_eq!((row["Names"].as_str(), row["State"].as_str()), (Some("third"), Some("running")));
    let described: Value = serde_json::from_str(&kiln.run(["inspect", "first"]).stdout).unwrap();
    assert_eq!(described[0]["Name"], "/first");
    assert_eq!(described[0]["State"]["ExitCode"], 3);
    assert_eq!(described[0]["Config"]["Labels"]["kind"], "a");
}

#[test]
fn flags_of_a_container_reach_it() {
    each(|kiln| {
        let run = |flags: &[&str], script: &str| {
            let command = ["busybox", "sh", "-c", script];
            let line = ["run", "--rm", "--network=none"].iter().chain(flags).chain(&command);
            kiln.run(line.copied()).stdout
        };
        assert!(run(&["--add-host", "there:1.2.3.4"], "cat /etc/hosts").contains("1.2.3.4\tthere"));
        let resolver = run(&["--dns", "9.9.9.9", "--dns-search", "example.org"], "cat /etc/resolv.conf");
        assert!(resolver.contains("nameserver 9.9.9.9") && resolver.contains("search example.org"), "{resolver}");
        assert_eq!(run(&["-h", "named"], "hostname"), "named\n");
        assert_eq!(run(&["--ulimit", "nofile=64:128"], "ulimit -n; ulimit -Hn"), "64\n128\n");
        assert!(run(&["--shm-size", "1m"], "df -k /dev/shm").contains(" 1024 "));
        assert_eq!(run(&["--cap-drop", "ALL"], "grep CapEff /proc/self/status"), "CapEff:\t0000000000000000\n");
        assert_eq!(
            run(&["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status"),
            "NoNewPrivs:\t1\n"
        );
        assert_eq!(run(&["--read-only", "--tmpfs", "/run"], "touch /x 2>/dev/null || touch /run/x && echo ok"), "ok\n");
        assert!(run(&["--init"], "cat /proc/1/comm").starts_with("kiln-init"));
        assert!(run(&["--group-add", "7"], "id -G").split_whitespace().any(|group| group == "7"));
        assert_eq!(
            run(&["--device", "/dev/null:/dev/mine"], "test -c /dev/mine && echo x > /dev/mine && echo ok"),
            "ok\n"
        );
        let file = kiln.context(&[("env", "# note\nA=from file\nB=2\n")]);
        let path = file.path().join("env").to_str().unwrap().to_owned();
        assert_eq!(run(&["--env-file", &path, "-e", "B=3"], "echo $A $B"), "from file 3\n");
    });
}

#[test]
fn a_terminal_is_left_by_the_detach_keys_and_attached_to_again() {
    each(|kiln| {
        let with_terminal = |line: &[&str]| OnTerminal::start(kiln.command(line.iter().copied()));
        let mut terminal = with_terminal(&["run", "-it", "--network=host", "--name", "tty", "busybox", "sh"]);
        terminal.presses("X=kept; echo one-$X\r");
        terminal.sees("one-kept");
        terminal.presses("\x10\x11");
        assert_eq!(terminal.ends().code(), Some(0));
        assert_eq!(status(kiln, "tty"), "running 0");
        let mut terminal = with_terminal(&["attach", "--detach-keys", "ctrl-a,z", "tty"]);
        terminal.presses("echo two-$X\r");
        terminal.sees("two-kept");
        terminal.presses("\x01z");
        assert_eq!(terminal.ends().code(), Some(0));
        let mut terminal = with_terminal(&["exec", "-it", "tty", "sh"]);
        terminal.presses("tty; exit 6\r");
        terminal.sees("/dev/pts/1");
        assert_eq!(terminal.ends().code(), Some(6));
        let mut terminal = with_terminal(&["attach", "tty"]);
        terminal.presses("exit 4\r");
        assert_eq!(terminal.ends().code(), Some(4));
        assert_eq!(status(kiln, "tty"), "exited 4");
    });
}

#[test]
fn many_containers_are_started_and_cost_little() {
    let kiln = Kiln::with_busybox();
    let ids: Vec<String> = (0..20)
        .map(|_| kiln.run(["run", "-d", "--network=host", "busybox", "sleep", "1000"]).text().to_owned())
        .collect();
    assert_eq!(kiln.run(["ps", "-q"]).stdout.lines().count(), 20);
    // Of the supervisor's own memory, not of the binary's pages that all share.
    for id in &ids {
        let pid = kiln.run(["inspect", "-f", "{{.State.Pid}}", id]);
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.text())).unwrap();
        let parent: u32 = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
        let memory = fs::read_to_string(format!("/proc/{parent}/smaps_rollup")).unwrap();
        let line = memory.lines().find(|line| line.starts_with("Pss:")).unwrap();
        let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(kilobytes < 3000, "{memory}");
    }
    kiln.run(["rm", "-f"].into_iter().chain(ids.iter().map(String::as_str)));
    assert_eq!(kiln.run(["ps", "-a", "-q"]).text(), "");
}

/// Whoever is told the end finds the name, the ports and the places on networks free, while the rest is still cleaned up.
#[test]
fn a_removed_containers_name_is_free_at_once() {
    let kiln = Kiln::with_busybox();
    let port = free_port();
    let publish = format!("{port}:80");
    for network in ["host", "bridge"] {
        for round in 0..5 {
            let line = ["run", "--rm", "--name", "same", "--network", network, "-p", &publish, "-v", "/data"];
            kiln.run(line.into_iter().chain(["busybox", "touch", "/data/file", "/file"]));
            assert_eq!(kiln.run(["ps", "-a", "-q"]).text(), "", "round {round}");
            assert_eq!(kiln.run(["volume", "ls", "-q"]).text(), "", "round {round}");
        }
    }
    eventually("nothing is left", || {
        let aside = kiln.root().join("containers/.aside");
        fs::read_dir(aside).unwrap().next().is_none()
    });
}

/// Containers without limits have no control group until something asks for one.
#[test]
fn a_container_without_limits_is_paused_measured_and_executed_in() {
    let kiln = Kiln::with_busybox();
    let script = "while :; do echo x; sleep 0.01; done";
    kiln.run(["run", "-d", "--network=host", "--name", "free", "busybox", "sh", "-c", script]);
    let count = || kiln.run(["logs", "free"]).stdout.lines().count();
    eventually("it writes", || count() > 0);
    let row = |format: &str| kiln.run(["stats", "--no-stream", "--format", format, "free"]).stdout;
    assert!(!row("{{.MemUsage}}").starts_with("0B"), "it uses memory");
    kiln.run(["pause", "free"]);
    let before = count();
    thread::sleep(Duration::from_millis(200));
    assert_eq!(count(), before, "it stands still");
    assert!(status(&kiln, "free").starts_with("paused"));
    kiln.try_run(["exec", "free", "true"]).failure().says("paused");
    kiln.run(["unpause", "free"]);
    eventually("it goes on", || count() > before);
    kiln.run(["exec", "free", "true"]);
    assert!(!row("{{.MemUsage}}").starts_with("0B"), "it uses memory still");
    kiln.run(["pause", "free"]);
    kiln.run(["rm", "-f", "free"]);
}
