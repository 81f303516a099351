//! Limits, pausing and statistics, by the control groups of this machine, whichever version it has.

use std::{fs, path::PathBuf, thread, time::Duration};

use kiln_tests::{Account, Kiln};
use serde_json::Value;

/// What kiln keeps of how a container is.
fn state(kiln: &Kiln, name: &str) -> Value {
    let id = fs::read_link(kiln.root().join("containers/.names").join(name)).expect("a container has a name");
    let file = kiln.root().join("containers").join(id.file_name().unwrap()).join("state.json");
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// The container's directories in the hierarchies that have a file of this name.
fn files(kiln: &Kiln, name: &str, file: &str) -> Vec<PathBuf> {
    let parts = state(kiln, name)["cgroup"]["parts"].as_array().cloned().unwrap_or_default();
    let paths = parts.iter().filter_map(|part| Some(PathBuf::from(part["path"].as_str()?).join(file)));
    paths.filter(|path| path.exists()).collect()
}

fn read(kiln: &Kiln, name: &str, file: &str) -> Option<String> {
    files(kiln, name, file).first().map(|path| fs::read_to_string(path).unwrap().trim().to_owned())
}

#[test]
fn a_container_that_takes_too_much_memory_is_killed_and_said_to_be_out_of_it() {
    let kiln = Kiln::with_busybox();
    let eat = "dd if=/dev/zero of=/dev/null bs=200M count=1; exit $?";
    let line = ["run", "--name", "greedy", "-m", "24m", "--memory-swap", "24m", "busybox"];
    kiln.try_run(line.iter().copied().chain(["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"])).code(137);
    assert_eq!(state(&kiln, "greedy")["out_of_memory"], true);
    kiln.run(["run", "--name", "modest", "-m", "64m", "busybox", "sh", "-c", "exit 0"]);
    assert_eq!(state(&kiln, "modest")["out_of_memory"], false);
    // One of its processes was killed, and it ended by itself.
    let line = ["run", "--name", "heir", "-m", "24m", "--memory-swap", "24m", "busybox", "sh", "-c"];
    kiln.try_run(line.iter().copied().chain([eat])).code(137);
    assert_eq!(state(&kiln, "heir")["out_of_memory"], true);
    kiln.try_run(["run", "--rm", "-m", "1m", "busybox", "true"]).code(125).says("6MB");
}

#[test]
fn processes_are_counted() {
    let kiln = Kiln::with_busybox();
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 20 & done; echo started";
    let many = kiln.try_run(["run", "--rm", "--pids-limit", "5", "busybox", "sh", "-c", script]);
    assert!(many.output().contains("fork"), "{many}");
    let free = kiln.run(["run", "--rm", "--pids-limit", "-1", "busybox", "sh", "-c", script]);
    assert_eq!(free.stdout, "started\n");
}

#[test]
fn limits_are_written_to_the_containers_group_and_exec_is_in_it() {
    let kiln = Kiln::with_busybox();
    let line = [
        "run",
        "-d",
        "--name",
        "limited",
        "--cpus",
        "0.5",
        "--cpu-shares",
        "512",
        "-m",
        "100m",
        "--memory-reservation",
        "50m",
    ];
    kiln.run(line.iter().copied().chain(["--pids-limit", "50", "busybox", "sleep", "1000"]));
    let either = |one: &str, two: &str| read(&kiln, "limited", one).or_else(|| read(&kiln, "limited", two));
    let quota = either("cpu.cfs_quota_us", "cpu.max").expect("a processor controller");
    assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    assert_eq!(either("memory.limit_in_bytes", "memory.max").expect("a memory controller"), "104857600");
    assert_eq!(read(&kiln, "limited", "pids.max").expect("a pids controller"), "50");
    kiln.run(["exec", "-d", "limited", "sleep", "1001"]);
    let members = || read(&kiln, "limited", "cgroup.procs").unwrap_or_default().lines().count();
    for _ in 0..500 {
        if members() == 2 {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(members(), 2);
    let stats = kiln.run(["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}}", "limited"]).stdout;
    assert!(stats.starts_with("limited ") && stats.ends_with(" / 100MiB 2\n"), "{stats}");
    let groups = files(&kiln, "limited", "cgroup.procs");
    kiln.run(["rm", "-f", "limited"]);
    for file in groups {
        assert!(!file.exists(), "{}", file.display());
    }
}

#[test]
fn a_paused_container_stands_still_until_it_goes_on() {
    let kiln = Kiln::with_busybox();
    let script = "while :; do date +%s%N > /data/tick; sleep 0.01; done";
    let directory = kiln.context(&[("tick", "")]);
    let volume = format!("{}:/data", directory.path().display());
    kiln.run(["run", "-d", "--name", "clock", "-v", &volume, "busybox", "sh", "-c", script]);
    let tick = || fs::read_to_string(directory.path().join("tick")).unwrap();
    let moves = || {
        let before = tick();
        (0..200).any(|_| {
            thread::sleep(Duration::from_millis(20));
            tick() != before
        })
    };
    assert!(moves());
    kiln.run(["pause", "clock"]);
    let before = tick();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(tick(), before);
    kiln.run(["ps"]).says("(Paused)");
    kiln.try_run(["pause", "clock"]).code(1).says("already paused");
    kiln.run(["unpause", "clock"]);
    assert!(moves());
    kiln.try_run(["unpause", "clock"]).code(1).says("not paused");
    // One that is paused can be ended.
    kiln.run(["pause", "clock"]);
    kiln.run(["kill", "clock"]);
    assert_eq!(kiln.run(["wait", "clock"]).stdout, "137\n");
}

#[test]
fn a_user_without_a_group_of_their_own_is_told_what_does_not_hold() {
    let kiln = Kiln::of(Account::with_subuids()).import_busybox();
    let outcome =
        kiln.run(["run", "--rm", "--network", "host", "-m", "64m", "--pids-limit", "20", "busybox", "echo", "ran"]);
    assert_eq!(outcome.stdout, "ran\n");
    let holds = kiln.run(["info"]).stdout.lines().any(|line| line.contains("yes") && line.contains("cgroups"));
    assert_eq!(outcome.stderr.contains("--memory does not hold"), !holds, "{outcome}");
    kiln.run(["run", "-d", "--name", "idle", "--network", "host", "busybox", "sleep", "1000"]);
    kiln.run(["stats", "--no-stream"]).says("idle");
}
