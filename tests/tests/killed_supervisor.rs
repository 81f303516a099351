//! Whoever holds a container is killed: at any moment, the next command finds the truth, and what was left behind goes.

use std::fs;
use std::process::{Command, Stdio};

use kiln_tests::{Account, Kiln, eventually, free_port};
use rustix::process::{Pid, Signal, kill_process};

fn inspect(kiln: &Kiln, name: &str, format: &str) -> String {
    kiln.run(["inspect", "-f", format, name]).text().to_owned()
}

fn parent(pid: &str) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

/// The process that holds a container: above its first one, and above an OCI runtime in between.
fn supervisor(kiln: &Kiln, name: &str) -> String {
    let mut pid = parent(&inspect(kiln, name, "{{.State.Pid}}"));
    while fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim() != "kiln-container" {
        pid = parent(&pid);
    }
    pid
}

fn kill(pid: &str) {
    kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
}

fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// An OCI runtime goes on when nobody waits for it any more: its container is ended by whoever looks next.
#[test]
fn what_a_runtime_still_runs_is_ended_when_its_supervisor_was_killed() {
    for account in [Account::current(), Account::with_subuids()] {
        let kiln = Kiln::of(account).import_busybox();
        for runtime in ["runc", "crun"] {
            let line = ["run", "-d", "--network=none", "--runtime", runtime, "--name", runtime, "busybox", "sleep"];
            kiln.run(line.into_iter().chain(["1000"]));
            let process = inspect(&kiln, runtime, "{{.State.Pid}}");
            kill(&supervisor(&kiln, runtime));
            eventually("it is told", || kiln.run(["ps", "-a"]).stdout.contains("Exited (137)"));
            assert!(!is_alive(&process), "{runtime}: what is said to have ended has");
            let state = inspect(&kiln, runtime, "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}");
            assert_eq!(state, "exited 137 0");
            let finished = inspect(&kiln, runtime, "{{.State.FinishedAt}}");
            assert_eq!(inspect(&kiln, runtime, "{{.State.FinishedAt}}"), finished, "it ended once");
            kiln.run(["start", runtime]);
            assert_eq!(kiln.run(["exec", runtime, "echo", "again"]).stdout, "again\n");
            kiln.run(["rm", "-f", runtime]);
        }
    }
}

/// The life of a container that a runtime has, for an ordinary user; and with kiln's init.
#[test]
fn an_ordinary_users_runtime_is_entered_stopped_and_started() {
    let kiln = Kiln::of(Account::with_subuids()).import_busybox();
    for runtime in ["runc", "crun"] {
        let line =
            ["run", "-d", "--network=none", "--init", "--runtime", runtime, "--name", runtime, "busybox", "sh", "-c"];
        kiln.run(line.into_iter().chain(["trap 'exit 5' TERM; touch /made; while :; do sleep 0.05; done"]));
        eventually("it runs", || kiln.try_run(["exec", runtime, "ls", "/made"]).stdout == "/made\n");
        let first = kiln.run(["exec", runtime, "sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline"]);
        assert!(first.stdout.starts_with("/dev/init sh -c "), "{first}");
        kiln.run(["top", runtime]).says("/dev/init");
        kiln.run(["stop", runtime]);
        assert_eq!(inspect(&kiln, runtime, "{{.State.ExitCode}}"), "5");
        kiln.run(["start", runtime]);
        assert_eq!(kiln.run(["ps", "-q"]).stdout.lines().count(), 1);
        kiln.run(["rm", "-f", runtime]);
        let line = ["run", "--rm", "--network=none", "--init", "--runtime", runtime, "busybox"];
        kiln.try_run(line.into_iter().chain(["sh", "-c", "exit 7"])).code(7);
        kiln.try_run(line.into_iter().chain(["no-such-command"])).code(127);
    }
}

/// Strace kills the supervisor at its first attempt to remove a file of a directory, which is after the answer to whoever
/// waits.
#[test]
fn the_next_container_clears_up_after_a_supervisor_that_was_killed_after_its_answer() {
    killed_at_the_first_removal(&[], Ok("3\n"));
}

/// ... and before it, when there is an anonymous volume to remove.
#[test]
fn the_next_container_clears_up_after_a_supervisor_that_was_killed_before_its_answer() {
    killed_at_the_first_removal(&["-v", "/data"], Err("the supervisor of container box was killed"));
}

fn killed_at_the_first_removal(options: &[&str], answer: Result<&str, &str>) {
    let kiln = Kiln::with_busybox();
    kiln.run(["network", "create", "mine"]);
    let id = kiln.run(["network", "inspect", "-f", "{{.Id}}", "mine"]);
    let bridge = format!("kiln-{}", &id.text()[..10]);
    let exists = |interface: &str| std::path::Path::new("/sys/class/net").join(interface).exists();
    let directory = kiln.directory();
    let volume = format!("{}:/signal", directory.path().display());
    let published = format!("{}:80", free_port());
    let common = ["--rm", "--network", "mine", "--name", "box", "-p", &published, "-m", "64m"];
    let common = common.into_iter().chain(options.iter().copied());
    let wait = "until [ -e /signal/go ]; do sleep 0.02; done; exit 3";
    let line = ["run", "-d", "-v", &volume].into_iter().chain(common.clone());
    let id = kiln.run(line.chain(["busybox", "sh", "-c", wait]));
    let held_by = supervisor(&kiln, "box");
    let group = fs::read_to_string(format!("/proc/{}/cgroup", inspect(&kiln, "box", "{{.State.Pid}}"))).unwrap();
    assert!(group.contains(id.text()), "{group}");
    let mut tracer = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-e", "trace=unlinkat", "-e", "inject=unlinkat:signal=KILL", "-p", &held_by])
        .spawn()
        .unwrap();
    eventually("strace is there", || {
        let status = fs::read_to_string(format!("/proc/{held_by}/status")).unwrap();
        status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    });
    let mut waiting = kiln.command(["wait", "box"]);
    let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("somebody waits", || fs::read_to_string(format!("/proc/{}/wchan", waiting.id())).is_ok());
    std::thread::sleep(std::time::Duration::from_millis(300));
    directory.write("go", "");
    let waited = waiting.wait_with_output().unwrap();
    match answer {
        Ok(status) => assert_eq!(String::from_utf8_lossy(&waited.stdout), status),
        Err(words) => assert!(String::from_utf8_lossy(&waited.stderr).contains(words), "{waited:?}"),
    }
    tracer.wait().unwrap();
    assert!(!is_alive(&held_by));
    let aside = kiln.root().join("containers/.aside").join(id.text());
    assert!(aside.exists(), "it was killed before it had cleared up");
    assert!(exists(&bridge));
    assert_eq!(kiln.run(["ps", "-a", "-q"]).text(), "");
    // Its name, its port and its volume are free; the next one takes away what it left.
    let line = ["run"].into_iter().chain(common);
    let shown = kiln.run(line.chain(["busybox", "ip", "-o", "-4", "addr", "show", "eth0"]));
    assert!(shown.stdout.contains("inet "), "{shown}");
    assert!(!aside.exists(), "its files");
    assert_eq!(kiln.run(["volume", "ls", "-q"]).text(), "");
    eventually("its interfaces go with the bridge", || !exists(&bridge));
    kiln.run(["network", "rm", "mine"]);
}
