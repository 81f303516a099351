//! `kiln run`: flags, streams, signals and exit codes, as docker's.

use std::{
    fs,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use kiln_tests::{Kiln, run_with_input, signal};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn the_exit_status_is_the_commands() {
    let kiln = Kiln::with_busybox();
    for code in [0, 1, 3, 42, 125, 255] {
        kiln.try_run(["run", "--rm", "busybox", "sh", "-c", &format!("exit {code}")]).code(code);
    }
}

#[test]
fn what_cannot_be_run_has_dockers_statuses() {
    let kiln = Kiln::with_busybox();
    kiln.try_run(["run", "--rm", "busybox", "no-such-command"]).code(127).says("no-such-command");
    kiln.try_run(["run", "--rm", "busybox", "/etc/passwd"]).code(126).says("/etc/passwd");
    kiln.try_run(["run", "--rm", "busybox", "/etc"]).code(126);
    kiln.try_run(["run", "--rm", "127.0.0.1:1/no/image"]).code(125);
    kiln.try_run(["run", "--no-such-flag", "busybox"]).code(125);
    kiln.try_run(["run", "--rm", "-u", "nobody-knows", "busybox", "true"]).code(125).says("nobody-knows");
}

#[test]
fn streams_are_kept_apart_and_standard_input_is_given_with_i() {
    let kiln = Kiln::with_busybox();
    let outcome = kiln.run(["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
    let with = kiln.command(["run", "--rm", "-i", "busybox", "cat"]);
    assert_eq!(run_with_input(with, b"given\n").success().stdout, "given\n");
    let without = kiln.command(["run", "--rm", "busybox", "cat"]);
    assert_eq!(run_with_input(without, b"not given\n").success().stdout, "");
}

#[test]
fn flags_set_environment_directory_user_and_entrypoint() {
    let kiln = Kiln::with_busybox().with_env("FROM_HOST", "inherited");
    let line = ["run", "--rm", "-e", "A=1", "-e", "FROM_HOST", "-w", "/made/here", "-u", "www-data", "busybox"];
    let script = "echo $A $FROM_HOST ${UNSET-unset} $(pwd) $(id -u):$(id -g)";
    let outcome = kiln.run(line.iter().copied().chain(["sh", "-c", script]));
    assert_eq!(outcome.stdout, "1 inherited unset /made/here 33:33\n");
    let numbers = kiln.run(["run", "--rm", "-u", "12:34", "busybox", "id"]);
    assert!(numbers.stdout.starts_with("uid=12 gid=34"), "{numbers}");
    let outcome = kiln.run(["run", "--rm", "--entrypoint", "/bin/echo", "busybox", "x", "y"]);
    assert_eq!(outcome.stdout, "x y\n");
}

#[test]
fn a_host_directory_is_mounted_writable_or_read_only() {
    let kiln = Kiln::with_busybox();
    let directory = kiln.context(&[("in", "from the host\n")]);
    let volume = format!("{}:/data", directory.path().display());
    kiln.run(["run", "--rm", "-v", &volume, "busybox", "sh", "-c", "cat /data/in && echo back > /data/out"])
        .says("from the host");
    assert_eq!(fs::read_to_string(directory.path().join("out")).unwrap(), "back\n");
    let read_only = format!("{volume}:ro");
    kiln.try_run(["run", "--rm", "-v", &read_only, "busybox", "touch", "/data/x"]).code(1);
}

#[test]
fn a_containers_changes_do_not_reach_its_image() {
    let kiln = Kiln::with_busybox();
    kiln.run(["run", "--rm", "busybox", "sh", "-c", "rm -r /etc; echo x > /x"]);
    kiln.run(["run", "--rm", "busybox", "sh", "-c", "test -f /etc/passwd && test ! -e /x"]);
}

#[test]
fn none_is_no_network_and_host_is_the_hosts() {
    let kiln = Kiln::with_busybox();
    let none =
        kiln.run(["run", "--rm", "--network=none", "busybox", "sh", "-c", "ls /sys/class/net; cat /proc/net/dev"]);
    let interfaces = none.stdout.lines().filter(|line| line.contains(':')).count();
    assert_eq!(interfaces, 1, "only lo:\n{none}");
    let host = kiln.run(["run", "--rm", "--network=host", "busybox", "readlink", "/proc/self/ns/net"]);
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(host.text(), own.to_str().unwrap());
}

#[test]
fn the_container_sees_itself_only() {
    let kiln = Kiln::with_busybox();
    let outcome = kiln.run(["run", "--rm", "busybox", "sh", "-c", "echo $$; ls -d /proc/[0-9]* | wc -l"]);
    let mut lines = outcome.stdout.lines();
    assert_eq!(lines.next(), Some("1"), "{outcome}");
    assert!(lines.next().unwrap().trim().parse::<u32>().unwrap() < 6, "{outcome}");
    kiln.run([
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "! mount -t tmpfs none /mnt 2>/dev/null && ! echo 1 > /proc/sysrq-trigger",
    ]);
}

#[test]
fn signals_are_forwarded() {
    let kiln = Kiln::with_busybox();
    let script = "trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let mut command = kiln.command(["run", "--rm", "busybox", "sh", "-c", script]);
    let log = kiln.home().join("log");
    let mut child = command.stdin(Stdio::null()).stdout(fs::File::create(&log).unwrap()).spawn().unwrap();
    let started = Instant::now();
    while !fs::read_to_string(&log).unwrap().contains("ready") {
        assert!(started.elapsed() < Duration::from_secs(30), "the container does not start");
        thread::sleep(Duration::from_millis(10));
    }
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert!(fs::read_to_string(&log).unwrap().contains("got it"));
}

#[test]
fn a_command_that_a_signal_ends_has_the_signals_status() {
    let kiln = Kiln::with_busybox();
    let mut child = kiln.command(["run", "--rm", "busybox", "sleep", "1000"]).stdin(Stdio::null()).spawn().unwrap();
    thread::sleep(Duration::from_millis(500));
    // As process 1 of its namespace sleep ignores what it has no handler for; only the kernel's own kill ends it.
    signal(&child, Signal::TERM);
    thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none());
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    assert!(!children.trim().is_empty());
    for pid in descendants(child.id()) {
        if fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep") {
            kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(137));
}

fn descendants(pid: u32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut all = Vec::new();
    for child in children.split_whitespace().filter_map(|word| word.parse::<i32>().ok()) {
        all.push(child);
        all.extend(descendants(child.unsigned_abs()));
    }
    all
}

#[test]
fn a_terminal_is_given_with_t() {
    let kiln = Kiln::with_busybox();
    let run = kiln.command(["run", "--rm", "-t", "busybox", "sh", "-c", "test -t 0 && test -t 1 && tty"]);
    let outcome = run_with_input(run, b"").no_panic();
    assert!(outcome.stdout.contains("/dev/"), "{outcome}");
}

#[test]
fn names_are_unique_and_containers_are_listed_until_removed() {
    let kiln = Kiln::with_busybox();
    kiln.run(["run", "--name", "mine", "busybox", "true"]);
    kiln.run(["ps", "-a"]).says("mine").says("busybox");
    kiln.try_run(["run", "--name", "mine", "busybox", "true"]).code(125).says("mine");
    kiln.run(["rm", "mine"]);
    kiln.run(["ps", "-a"]).never_says("mine");
    kiln.run(["run", "--rm", "--name", "mine", "busybox", "true"]);
    kiln.run(["ps", "-a"]).never_says("mine");
}

#[test]
fn a_volume_of_the_image_is_there() {
    let kiln = Kiln::with_busybox();
    kiln.build_text("FROM busybox\nRUN mkdir /data && echo kept > /data/f\nVOLUME /data\n", "t");
    kiln.run(["run", "--rm", "t", "sh", "-c", "cat /data/f && echo more > /data/g"]).says("kept");
}

#[test]
fn nothing_of_a_container_stays_mounted_or_running() {
    let kiln = Kiln::with_busybox();
    kiln.run(["run", "--rm", "busybox", "sh", "-c", "sleep 1000 & echo started"]);
    let root = kiln.root();
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(root.to_str().unwrap()), "{mounts}");
}

#[test]
fn what_follows_the_image_is_the_command_s() {
    let kiln = Kiln::with_busybox();
    let run = |words: &[&str]| kiln.try_run([&["run", "--rm", "--entrypoint=echo", "busybox"], words].concat());
    assert_eq!(run(&["-h", "x", "-p", "80", "--rm", "--", "--help"]).success().stdout, "-h x -p 80 --rm -- --help\n");
    assert_eq!(run(&["--", "-it"]).success().stdout, "-- -it\n");
    kiln.try_run(["run", "--no-such-flag", "busybox"]).failure().says("--no-such-flag");
    kiln.try_run(["run", "--rm"]).failure().says("IMAGE");
    let id = kiln.run(["create", "busybox", "--name", "x"]).text().to_owned();
    assert!(kiln.run(["inspect", &id]).stdout.contains("--name"));
}
