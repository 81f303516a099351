//! What the OCI runtime specification asks of a container's process and file systems, looked at from the inside; as root
//! and as an ordinary user.

use std::fs;

use kiln_tests::{Account, Kiln};

fn each(test: impl Fn(&Kiln)) {
    for account in [Account::current(), Account::with_subuids()] {
        test(&Kiln::of(account).import_busybox());
    }
}

/// What a shell script in a new container says.
#[track_caller]
fn inside(kiln: &Kiln, flags: &[&str], script: &str) -> String {
    let line = ["run", "--rm", "--network", "none"].into_iter().chain(flags.iter().copied());
    kiln.run(line.chain(["busybox", "sh", "-c", script])).stdout
}

/// `process`: arguments, environment, directory, user and groups, limits, score, privileges.
#[test]
fn the_process_is_as_specified() {
    each(|kiln| {
        let line = ["run", "--rm", "--network=none", "busybox", "printf", "%s|", "a b", "", "c'd"];
        assert_eq!(kiln.run(line).stdout, "a b||c'd|");
        let environment = inside(kiln, &["-e", "A=b c", "-e", "EMPTY="], "env | sort");
        assert!(environment.contains("A=b c\n") && environment.contains("EMPTY=\n"), "{environment}");
        assert_eq!(
            inside(kiln, &["-w", "/made/here"], "pwd; ls -ld /made/here | cut -c1-10"),
            "/made/here\ndrwxr-xr-x\n"
        );
        let user = ["-u", "5:7", "--group-add", "9"];
        assert_eq!(inside(kiln, &user, "id -u; id -g; grep Groups /proc/self/status"), "5\n7\nGroups:\t9 \n");
        assert_eq!(inside(kiln, &[], "umask"), "0022\n");
        let limits = ["--ulimit", "core=0", "--ulimit", "nofile=100:200", "--ulimit", "stack=1048576"];
        assert_eq!(inside(kiln, &limits, "ulimit -c; ulimit -n; ulimit -Hn; ulimit -s"), "0\n100\n200\n1024\n");
        let status = inside(kiln, &["-u", "5"], "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status");
        let sets: Vec<&str> = status.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
        let nothing = "0000000000000000";
        assert_eq!(
            sets,
            [nothing, nothing, nothing, "00000000a80425fb", nothing],
            "inherited, permitted, effective, bounding, ambient"
        );
        assert_eq!(inside(kiln, &[], "cat /proc/1/comm; echo $$"), "sh\n1\n", "the command is process 1");
        assert_eq!(inside(kiln, &[], "readlink /proc/self/fd/0"), "/dev/null\n", "without -i there is no input");
    });
}

/// `linux.namespaces`
#[test]
fn every_namespace_is_its_own() {
    each(|kiln| {
        let names = ["mnt", "pid", "net", "ipc", "uts", "cgroup"];
        let script = format!("for name in {}; do readlink /proc/self/ns/$name; done", names.join(" "));
        let (one, other) = (inside(kiln, &[], &script), inside(kiln, &[], &script));
        for ((name, one), other) in names.iter().zip(one.lines()).zip(other.lines()) {
            let host = fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
            assert_ne!(one, host, "{name}");
            assert!(other.starts_with(&format!("{name}:[")), "{other}");
        }
        assert_eq!(inside(kiln, &["-h", "box"], "hostname box2 2>/dev/null || hostname"), "box\n");
        assert_eq!(inside(kiln, &[], "ls /sys/class/net"), "lo\n");
        assert!(inside(kiln, &[], "ip addr show lo").contains("LOOPBACK,UP"));
    });
}

/// The default file systems, devices and links.
#[test]
fn the_default_file_systems_are_there() {
    each(|kiln| {
        let mounts = inside(kiln, &[], "cat /proc/mounts");
        let options = |place: &str| {
            let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(place));
            let fields: Vec<&str> = line.unwrap_or_else(|| panic!("{place}: {mounts}")).split(' ').collect();
            (fields[2].to_owned(), fields[3].to_owned())
        };
        for (place, kind, wanted) in [
            ("/", "overlay", "rw nodev"),
            ("/proc", "proc", "rw nosuid nodev noexec"),
            ("/dev", "tmpfs", "rw nosuid"),
            ("/dev/pts", "devpts", "rw nosuid noexec"),
            ("/dev/shm", "tmpfs", "rw nosuid nodev noexec size=65536k"),
            ("/dev/mqueue", "mqueue", "rw nosuid nodev noexec"),
            ("/sys", "sysfs", "ro nosuid nodev noexec"),
        ] {
            let (found, options) = options(place);
            assert_eq!(found, kind, "{place}");
            for option in wanted.split(' ') {
                assert!(options.split(',').any(|one| one == option), "{place}: {option} in {options}");
            }
        }
        let devices = "for name in null zero full random urandom tty; do test -c /dev/$name || echo $name; done; \
                       head -c 2 /dev/zero | wc -c; echo x > /dev/null; echo x > /dev/full || echo full";
        assert_eq!(
            inside(kiln, &[], &format!("{{ {devices}; }} 2>/dev/null")).lines().collect::<Vec<_>>(),
            ["2", "full"]
        );
        let links = inside(kiln, &[], "for name in fd stdin stdout stderr ptmx; do readlink /dev/$name; done");
        assert_eq!(links, "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n");
    });
}

/// `root.readonly`, `mounts`, `linux.maskedPaths` and `readonlyPaths`.
#[test]
fn what_is_read_only_is_not_written() {
    each(|kiln| {
        let script = "for path in / /etc /dev/shm /run /v; do touch $path/x 2>/dev/null && echo $path; done; true";
        let flags = ["--read-only", "--tmpfs", "/run", "-v", "data:/v:ro"];
        assert_eq!(inside(kiln, &flags, script), "/dev/shm\n/run\n");
        let size = inside(kiln, &["--tmpfs", "/t:size=1m,mode=700"], "df -k /t | tail -1; ls -ld /t | cut -c1-10");
        assert!(size.contains(" 1024 ") && size.ends_with("drwx------\n"), "{size}");
        // In order: what is mounted later lies on top.
        let nested = ["-v", "outer:/m", "-v", "inner:/m/in"];
        inside(kiln, &nested, "echo i > /m/in/f");
        assert_eq!(inside(kiln, &["-v", "outer:/m", "-v", "inner:/i"], "ls -A /m/in; cat /i/f"), "i\n");
        for path in ["/proc/kcore", "/proc/keys", "/proc/timer_list"] {
            let read = format!("test ! -e {path} || test -z \"$(head -c 1 {path})\" && echo hidden");
            assert_eq!(inside(kiln, &[], &read), "hidden\n", "{path}");
        }
    });
}

/// The states of a container, and what may be done in which.
#[test]
fn operations_fit_the_state() {
    each(|kiln| {
        let status = || kiln.run(["inspect", "-f", "{{.State.Status}}", "box"]).text().to_owned();
        kiln.run(["create", "--network", "none", "--name", "box", "busybox", "sleep", "1000"]);
        assert_eq!(status(), "created");
        kiln.try_run(["kill", "box"]).code(1).says("not running");
        kiln.try_run(["exec", "box", "true"]).code(1).says("not running");
        kiln.try_run(["create", "--name", "box", "busybox"]).failure().says("already in use");
        kiln.run(["start", "box"]);
        assert_eq!(status(), "running");
        kiln.run(["start", "box"]);
        kiln.try_run(["rm", "box"]).code(1).says("running");
        kiln.try_run(["kill", "-s", "NONSENSE", "box"]).code(1).says("NONSENSE");
        kiln.run(["kill", "-s", "0x9".trim_start_matches("0x"), "box"]);
        kiln.run(["wait", "box"]);
        assert_eq!(status(), "exited");
        kiln.try_run(["kill", "box"]).code(1).says("not running");
        kiln.run(["rm", "box"]);
        kiln.try_run(["inspect", "box"]).code(1);
        kiln.try_run(["start", "box"]).code(1).says("box");
    });
}
