//! Options of containers that the daily ones leave out, what takes docker's place of a volume, and the commands around
//! them: `export`, `version`, and the filters of `ps`.

use std::fs;
use std::process::Stdio;

use kiln_tests::{Account, Kiln, eventually};

/// Both ways to run kiln.
fn each(test: impl Fn(&Kiln)) {
    for account in [Account::current(), Account::with_subuids()] {
        test(&Kiln::of(account).import_busybox());
    }
}

fn shell(kiln: &Kiln, options: &[&str], script: &str) -> String {
    let line = ["run", "--rm", "--network=none"].into_iter().chain(options.iter().copied());
    kiln.run(line.chain(["busybox", "sh", "-c", script])).stdout
}

fn inspect(kiln: &Kiln, name: &str, format: &str) -> String {
    kiln.run(["inspect", "-f", format, name]).text().to_owned()
}

#[test]
fn the_processes_of_another_container_are_seen_and_outlive_the_guest() {
    each(|kiln| {
        kiln.run(["run", "-d", "--name", "host", "busybox", "sleep", "1000"]);
        let guest = ["--pid", "container:host"];
        let seen = shell(kiln, &guest, "cat /proc/1/cmdline | tr '\\0' ' '; readlink /proc/self/ns/pid");
        let (first, namespace) = seen.split_once("pid:").unwrap();
        assert_eq!(first, "sleep 1000 ");
        let own = kiln.run(["exec", "host", "readlink", "/proc/self/ns/pid"]);
        assert_eq!(own.text(), format!("pid:{}", namespace.trim()));
        // One that leaves processes behind takes them along, and nothing else.
        let line = ["run", "-d", "--network=none", "--name", "guest", "--pid", "container:host", "busybox", "sh", "-c"];
        kiln.run(line.into_iter().chain(["(sleep 2001 &); (sleep 2002 &); echo ready; exec sleep 2003"]));
        eventually("it is ready", || kiln.run(["logs", "guest"]).stdout == "ready\n");
        let mine = kiln.run(["top", "guest"]).stdout;
        assert!(["2001", "2002", "2003"].iter().all(|word| mine.contains(word)) && !mine.contains("1000"), "{mine}");
        assert_eq!(kiln.run(["exec", "guest", "sh", "-c", "ls -d /proc/1"]).stdout, "/proc/1\n");
        kiln.run(["kill", "guest"]);
        assert_eq!(kiln.run(["wait", "guest"]).text(), "137");
        let left = kiln.run(["exec", "host", "ps"]).stdout;
        assert!(left.contains("sleep 1000") && !left.contains("sleep 200"), "{left}");
        assert_eq!(inspect(kiln, "guest", "{{.HostConfig.PidMode}}"), "container:host");
        kiln.run(["stop", "-t", "0", "host"]);
        kiln.try_run(["start", "guest"]).code(1).says("cannot join PID of a non running container: host");
    });
}

#[test]
fn labels_annotations_and_what_is_said_of_health_are_kept() {
    let kiln = Kiln::with_busybox();
    let file = kiln.context(&[("labels", "# none\none=1\n\ntwo\n")]);
    let labels = file.path().join("labels");
    let line = [
        "create",
        "--name",
        "box",
        "--label-file",
        labels.to_str().unwrap(),
        "-l",
        "one=2",
        "--annotation",
        "org.example=yes",
        "--userns",
        "host",
        "--mac-address",
        "02:42:ac:11:00:99",
        "--stop-timeout",
        "1",
        "--health-cmd",
        "true",
        "--health-start-period",
        "3s",
        "--health-start-interval",
        "200ms",
        "--blkio-weight",
        "500",
        "--memory-swappiness",
        "10",
    ];
    kiln.run(line.into_iter().chain(["busybox", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]));
    assert_eq!(inspect(&kiln, "box", "{{json .Config.Labels}}"), r#"{"one":"2","two":""}"#);
    assert_eq!(inspect(&kiln, "box", "{{json .HostConfig.Annotations}}"), r#"{"org.example":"yes"}"#);
    let health = inspect(&kiln, "box", "{{json .Config.Healthcheck}}");
    assert!(health.contains(r#""StartPeriod":3000000000"#) && health.contains("200000000"), "{health}");
    kiln.run(["start", "box"]);
    assert_eq!(kiln.run(["exec", "box", "cat", "/sys/class/net/eth0/address"]).text(), "02:42:ac:11:00:99");
    let began = std::time::Instant::now();
    kiln.run(["stop", "box"]);
    assert!(began.elapsed() < std::time::Duration::from_secs(9), "its own timeout, not docker's");
    assert_eq!(inspect(&kiln, "box", "{{.State.ExitCode}}"), "137");
    kiln.try_run(["run", "--rm", "--userns", "keep-id", "busybox", "true"]).code(125).says("--userns");
    // The image's check is not made.
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nHEALTHCHECK --interval=100ms CMD false\n")]);
    kiln.build(&context, "checked", &[]);
    kiln.run(["run", "-d", "--network=none", "--no-healthcheck", "--name", "free", "checked", "sleep", "1000"]);
    kiln.run(["run", "-d", "--network=none", "--name", "ill", "checked", "sleep", "1000"]);
    eventually("it is found ill", || kiln.run(["ps"]).stdout.contains("(unhealthy)"));
    kiln.run(["ps", "-f", "name=free", "--format", "{{.Status}}"]).never_says("health");
    let ill = |filter: &str| kiln.run(["ps", "--format", "{{.Names}}", "-f", filter]).text().to_owned();
    assert_eq!((ill("health=unhealthy").as_str(), ill("health=none").as_str()), ("ill", "free"));
}

#[test]
fn a_privileged_container_may_mount() {
    each(|kiln| {
        let mount = "mount -t tmpfs none /mnt 2>/dev/null && echo mounted || echo refused";
        let script = format!("mkdir -p /mnt; {mount}");
        assert_eq!(shell(kiln, &["--privileged"], &script), "mounted\n");
        assert_eq!(shell(kiln, &[], &script), "refused\n");
    });
}

#[test]
fn what_kiln_has_not_is_refused_with_a_word_on_what_to_do() {
    let kiln = Kiln::with_busybox();
    let refused = |flags: &[&str], words: &str| {
        let line = ["run", "--rm"].iter().chain(flags).chain(&["busybox", "true"]);
        kiln.try_run(line.copied()).code(125).says(words);
    };
    refused(&["--gpus", "all"], "could not select device driver");
    refused(&["--isolation", "hyperv"], "isolation");
    refused(&["--storage-opt", "size=1g"], "no quotas");
    refused(&["--volume-driver", "nfs"], "no volume driver");
    refused(&["--device-cgroup-rule", "c 1:3 r"], "--device");
    refused(&["--cpu-rt-runtime", "1"], "real-time");
    refused(&["-v", "some/where:/x"], "absolute path");
    refused(&["-v", "/tmp:/x:shared"], "unknown option");
    let line = ["run", "--rm", "--network=none", "--isolation=default", "--volume-driver=local", "--oom-kill-disable"];
    kiln.run(line.into_iter().chain(["busybox", "true"])).says("discarded");
    // Flags are docker's 125, arguments its 1.
    kiln.try_run(["run", "--no-such-flag", "busybox"]).code(125);
    kiln.try_run(["ps", "--no-such-flag"]).code(125);
    kiln.try_run(["container", "run", "--no-such-flag", "busybox"]).code(125);
    kiln.try_run(["run"]).code(1).says("kiln run [OPTIONS] IMAGE [COMMAND] [ARG...]");
    kiln.try_run(["no-such-command"]).code(1);
    refused(&["--no-healthcheck", "--health-cmd", "true"], "conflicts with --health-*");
    refused(&["-v", "a b:/x"], "invalid volume name");
    kiln.try_run(["run", "--rm", "-it", "busybox"]).code(1).says("the input device is not a TTY");
    kiln.run(["network", "create", "x"]);
    // An image that is here for another platform is none.
    let other = ["run", "--rm", "--platform", "linux/s390x"];
    kiln.run(["tag", "busybox", "127.0.0.1:1/box"]);
    let says = "Unable to find image '127.0.0.1:1/box";
    kiln.try_run(other.into_iter().chain(["127.0.0.1:1/box", "true"])).code(125).says(says);
    kiln.try_run(other.into_iter().chain(["--pull=never", "busybox", "true"])).code(125).says("linux/s390x");
    let line = ["run", "--rm", "--network=none", "--platform", kiln_platform()].into_iter();
    kiln.run(line.chain(["busybox", "true"]));
    kiln.try_run(["run", "--pull", "never", "nowhere"]).code(125).says("o such image");
    kiln.try_run(["run", "127.0.0.1:1/nowhere"]).code(125).says("Unable to find image '127.0.0.1:1/nowhere");
    kiln.try_run(["inspect", "nothing"]).code(1).says("No such object: nothing");
    kiln.try_run(["stop", "nothing"]).code(1).says("No such container: nothing");
    kiln.try_run(["volume", "inspect", "nothing"]).code(1).says("No such volume: nothing").says("[]");
    kiln.run(["version", "-f", "{{.Client.Version}}"]);
    kiln.run(["version"]).says("Version:");
}

#[test]
fn volumes_may_be_elsewhere_empty_or_an_image() {
    each(|kiln| {
        let directory = kiln.directory();
        let device = format!("device={}", directory.path().display());
        kiln.run(["volume", "create", "-o", "type=none", "-o", "o=bind", "--opt", &device, "there"]);
        assert_eq!(shell(kiln, &["-v", "there:/data"], "ls /data; echo kept > /data/f"), "");
        assert_eq!(fs::read_to_string(directory.path().join("f")).unwrap(), "kept\n");
        kiln.run(["volume", "inspect", "-f", "{{.Options.o}}", "there"]).says("bind");
        kiln.run(["volume", "rm", "there"]);
        assert!(directory.path().join("f").exists(), "what is the user's stays");
        kiln.run(["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "small"]);
        let full = "dd if=/dev/zero of=/data/f bs=1M count=2 2>/dev/null || echo full";
        assert_eq!(shell(kiln, &["-v", "small:/data"], full), "full\n");
        assert_eq!(shell(kiln, &["-v", "small:/data"], "ls /data"), "");
        let memory = "type=volume,src=other,dst=/data,volume-opt=type=tmpfs,volume-opt=o=size=1m,volume-label=a=b";
        assert_eq!(shell(kiln, &["--mount", memory], full), "full\n");
        kiln.run(["volume", "ls", "-q", "-f", "label=a=b"]).says("other");
        kiln.try_run(["volume", "create", "-o", "type=nfs", "-o", "device=:/x", "far"]).code(1).says("o=bind");
        kiln.try_run(["volume", "create", "-o", "what=x", "far"]).code(1).says("what");
        // What the image has is copied, or not.
        assert_eq!(shell(kiln, &["-v", "full:/etc"], "test -n \"$(ls /etc)\" && echo some"), "some\n");
        let names = |options: &[&str]| shell(kiln, options, "ls /bin 2>/dev/null | grep -c sh").trim().to_owned();
        assert_ne!(names(&["-v", "bin:/other", "-v", "copied:/bin"]), "0");
        let none = ["-v", "bare:/usr:nocopy", "--mount", "src=blank,dst=/var,volume-nocopy"];
        assert_eq!(shell(kiln, &none, "ls /usr /var"), "/usr:\n\n/var:\n");
        let image = ["--mount", "type=image,src=busybox,dst=/image"];
        let look = "test -x /image/bin/sh && echo there; touch /image/x 2>/dev/null || echo read-only";
        assert_eq!(shell(kiln, &image, look), "there\nread-only\n");
        let part = ["--mount", "type=image,src=busybox,dst=/image,image-subpath=bin"];
        assert_eq!(shell(kiln, &part, "test -x /image/sh && echo there"), "there\n");
        let line = ["run", "--rm", "--mount", "type=image,src=nowhere,dst=/i", "busybox", "true"];
        kiln.try_run(line).code(125).says("o such image");
    });
}

/// The image that is mounted has its layers for as long as a container has it.
#[test]
fn a_mounted_image_keeps_its_files() {
    let kiln = Kiln::with_busybox();
    kiln.build_text("FROM scratch\nCOPY Dockerfile /seen\n", "data");
    let line = ["create", "--network=none", "--name", "box", "--mount", "type=image,src=data,dst=/image"];
    kiln.run(line.into_iter().chain(["busybox", "ls", "/image"]));
    kiln.run(["rmi", "data"]);
    kiln.run(["image", "prune", "-a", "-f"]);
    kiln.run(["prune", "-a", "-f"]);
    assert_eq!(kiln.run(["start", "-a", "box"]).stdout, "seen\n");
}

/// What the host mounts later shows where that was asked for; needs root.
#[test]
fn later_mounts_of_the_host_come_through_where_they_are_wanted() {
    let kiln = Kiln::with_busybox();
    let directory = kiln.directory();
    let place = directory.path().to_owned();
    let mount =
        |arguments: &[&str]| assert!(std::process::Command::new("mount").args(arguments).status().unwrap().success());
    mount(&["-t", "tmpfs", "none", place.to_str().unwrap()]);
    mount(&["--make-shared", place.to_str().unwrap()]);
    let below = place.join("below");
    fs::create_dir(&below).unwrap();
    let line = ["run", "-d", "--network=none", "--name", "box"];
    let (slave, private) = (format!("{}:/slave:ro,rslave", place.display()), format!("{}:/private", place.display()));
    kiln.run(line.into_iter().chain(["-v", &slave, "-v", &private, "busybox", "sleep", "1000"]));
    mount(&["-t", "tmpfs", "none", below.to_str().unwrap()]);
    fs::write(below.join("file"), "").unwrap();
    let seen = kiln.run(["exec", "box", "sh", "-c", "ls /slave/below; echo -; ls /private/below"]).stdout;
    kiln.run(["rm", "-f", "box"]);
    let unmounted = std::process::Command::new("umount").arg("-R").arg(&place).status().unwrap();
    assert!(unmounted.success());
    assert_eq!(seen, "file\n-\n");
}

/// Proves: docker-export
#[test]
fn a_container_is_exported_without_what_is_mounted_in_it() {
    each(|kiln| {
        let script = "echo made > /made; ln -s made /link; rm -r /home; echo v > /data/v; sleep 1000";
        kiln.run(["run", "-d", "--network=none", "--name", "box", "-v", "/data", "busybox", "sh", "-c", script]);
        eventually("it has written", || kiln.try_run(["exec", "box", "cat", "/data/v"]).stdout == "v\n");
        let list = |archive: &std::path::Path| {
            let listed = std::process::Command::new("tar").arg("tf").arg(archive).output().unwrap();
            String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let directory = kiln.directory();
        let archive = directory.path().join("box.tar");
        kiln.run(["export", "-o", archive.to_str().unwrap(), "box"]);
        let running = list(&archive);
        let has = |name: &str| running.iter().any(|known| known.trim_end_matches('/') == name);
        assert!(has("made") && has("link") && has("bin/busybox") && has("data") && has("proc"), "{running:?}");
        assert!(!has("home") && !has("data/v") && !running.iter().any(|name| name.starts_with("proc/")));
        kiln.run(["stop", "-t", "0", "box"]);
        let output = kiln.command(["container", "export", "box"]).stderr(Stdio::null()).output().unwrap();
        assert!(output.status.success());
        fs::write(&archive, output.stdout).unwrap();
        assert_eq!(list(&archive).iter().filter(|name| name.starts_with("made")).count(), 1);
        kiln.run(["import", archive.to_str().unwrap(), "again"]);
        assert_eq!(kiln.run(["run", "--rm", "--network=none", "again", "cat", "/link"]).stdout, "made\n");
        kiln.try_run(["export", "nothing"]).code(1).says("No such container");
    });
}

#[test]
fn ps_finds_what_dockers_filters_mean() {
    let kiln = Kiln::with_busybox();
    let create = |name: &str, options: &[&str]| {
        let line = ["create", "--name", name].into_iter().chain(options.iter().copied());
        kiln.run(line.chain(["busybox", "true"]));
    };
    create("web", &["-p", "80", "--expose", "9000-9001"]);
    create("web-1", &["-p", "53/udp"]);
    create("my-web", &["-v", "data:/data", "-l", "a=b", "--network", "none"]);
    let found = |filters: &[&str]| {
        let line = ["ps", "-a", "--format", "{{.Names}}"].into_iter();
        let line = line.chain(filters.iter().flat_map(|filter| ["-f", filter]));
        let mut names: Vec<String> = kiln.run(line).stdout.lines().map(str::to_owned).collect();
        names.sort();
        names.join(" ")
    };
    let all = "my-web web web-1";
    for (filters, names) in [
        (&["name=web"][..], all),
        (&["name=^web$"], "web"),
        (&["name=^/web"], "web web-1"),
        (&["publish=80"], "web"),
        (&["publish=53/udp"], "web-1"),
        (&["expose=9000-9005/tcp"], "web"),
        (&["is-task=true"], ""),
        (&["is-task=false"], all),
        (&["volume=data"], "my-web"),
        (&["label=a", "network=none"], "my-web"),
        (&["network=bridge"], "web web-1"),
        (&["before=web-1"], "web"),
        (&["since=web"], "my-web web-1"),
        (&["ancestor=busybox"], all),
        (&["ancestor=nowhere"], ""),
        (&["status=created"], all),
        (&["name=web-1", "name=my"], "my-web web-1"),
    ] {
        assert_eq!(found(filters), names, "{filters:?}");
    }
    for wrong in ["what=1", "status=what", "health=what", "is-task=what", "publish=x"] {
        kiln.try_run(["ps", "-f", wrong]).code(1);
    }
    kiln.run(["create", "--name", "long", "busybox", "sh", "-c", "echo a b"]);
    let command = ["ps", "-a", "--no-trunc", "-f", "name=long", "--format", "{{.Command}}"];
    assert_eq!(kiln.run(command).text(), "\"sh -c 'echo a b'\"");
    // As wide as docker's columns.
    assert!(
        kiln.run(["ps"]).stdout.starts_with("CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n")
    );
    kiln.run(["system", "df", "-v"]).says("VOLUME NAME   LINKS     SIZE\ndata          1").says("UNIQUE SIZE");
}

/// Whether a container stands still while its files are read, and what is kept of `-m` and `-a`.
#[test]
fn commit_holds_the_container_unless_it_is_told_not_to() {
    let kiln = Kiln::with_busybox();
    let write = "dd if=/dev/zero of=/big bs=1M count=150 2>/dev/null; echo ready; while :; do sleep 0.05; done";
    kiln.run(["run", "-d", "--network=none", "--name", "box", "busybox", "sh", "-c", write]);
    eventually("it has written", || kiln.run(["logs", "box"]).stdout == "ready\n");
    let id = inspect(&kiln, "box", "{{.Id}}");
    let state = kiln.root().join("containers").join(id).join("state.json");
    let was_paused = |options: &[&str]| {
        let line = ["commit"].into_iter().chain(options.iter().copied()).chain(["box", "copy"]);
        let mut commit = kiln.command(line).stdout(Stdio::null()).spawn().unwrap();
        let mut paused = false;
        while commit.try_wait().unwrap().is_none() {
            paused |= fs::read_to_string(&state).is_ok_and(|text| text.contains(r#""phase":"paused""#));
        }
        assert!(commit.wait().unwrap().success());
        assert_eq!(inspect(&kiln, "box", "{{.State.Status}}"), "running");
        paused
    };
    assert!(was_paused(&["-m", "held"]));
    assert!(was_paused(&["-p"]));
    assert!(!was_paused(&["--pause=false"]));
    assert!(!was_paused(&["--no-pause"]));
}

/// This machine's.
fn kiln_platform() -> &'static str {
    if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" }
}
