//! Namespaces.

use std::collections::HashSet;

use kiln_sandbox::Sandbox;
use kiln_sandbox::process::Stdio;
use kiln_sandbox::spec::Network;

use crate::Case;
use crate::room::Room;

pub(crate) const CASES: &[Case] = &[
    ("namespaces", namespaces),
    ("the_host_name", the_host_name),
    ("no_network", no_network),
    ("many_at_once", many_at_once),
];

fn own(name: &str) -> String {
    std::fs::read_link(format!("/proc/self/ns/{name}")).expect("a namespace").display().to_string()
}

fn namespaces(room: &Room) {
    let names = ["mnt", "pid", "ipc", "uts", "cgroup", "net", "user"];
    let script = names.map(|name| format!("readlink /proc/self/ns/{name}")).join(";");
    let outcome = room.shell(&script);
    let inside: Vec<&str> = outcome.text().lines().collect();
    for (number, name) in names.iter().enumerate() {
        let shared = matches!(*name, "net" | "user");
        assert_eq!(inside[number] == own(name), shared, "{name}");
    }
    assert_eq!(room.shell("echo $$; ls -d /proc/[0-9]* | wc -l").text(), "1\n3");
    // A session of its own, without the caller's terminal.
    assert_eq!(room.shell("busybox cut -d' ' -f 6 /proc/self/stat; echo x > /dev/tty || echo none").text(), "1\nnone");
}

fn the_host_name(room: &Room) {
    assert_eq!(room.shell("hostname").text(), "room");
}

fn no_network(room: &Room) {
    let mut spec =
        room.spec(&["sh", "-c", "ls /sys/class/net; busybox cat /proc/net/dev | grep -c :; busybox ip addr show lo"]);
    spec.network = Network::None;
    let outcome = room.run(&spec).expect("started");
    let text = outcome.text();
    assert!(text.starts_with("lo\n1\n"), "{text}");
    assert!(text.contains("127.0.0.1") && text.contains("UP"), "{text}");
}

/// Several threads start sandboxes at the same time: no one's pipes end up in another's.
fn many_at_once(room: &Room) {
    let results: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                scope.spawn(move || {
                    let mut seen = Vec::new();
                    for number in 0..5 {
                        let mut spec = room.spec(&["sh", "-c", "echo $NAME; ls /proc/self/fd | wc -l"]);
                        spec.env.push(format!("NAME={thread}-{number}"));
                        for path in [&mut spec.root.upper, &mut spec.root.work, &mut spec.root.stubs] {
                            path.push(format!("{thread}-{number}"));
                            std::fs::create_dir_all(&path).expect("mkdir");
                        }
                        let mut sandbox =
                            Sandbox::spawn(&spec, Stdio::Null, Stdio::Pipe, Stdio::Null).expect("started");
                        seen.push(crate::room::read(sandbox.stdout.take()));
                    }
                    seen
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("joined")).collect()
    });
    assert!(results.iter().all(|text| text.ends_with("\n4\n")), "{results:?}");
    assert_eq!(results.iter().collect::<HashSet<_>>().len(), 20);
}
