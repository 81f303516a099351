//! Users, capabilities, seccomp.

use kiln_sandbox::Exit;
use kiln_sandbox::process::Error;
use kiln_sandbox::spec::Network;
use kiln_sandbox::user_namespace::Identity;

use crate::room::Room;
use crate::{Case, has_ids};

pub(crate) const CASES: &[Case] = &[
    ("capabilities_of_root", capabilities_of_root),
    ("capabilities_of_a_user", capabilities_of_a_user),
    ("users_that_do_not_exist", users_that_do_not_exist),
    ("seccomp_is_on", seccomp_is_on),
    ("privileged", privileged),
    ("new_privileges", new_privileges),
    ("the_environment_is_the_spec", the_environment_is_the_spec),
    ("our_binary_cannot_be_written", our_binary_cannot_be_written),
    ("device_files_do_not_work", device_files_do_not_work),
    ("owners_without_ids", owners_without_ids),
];

const STATUS: &str = "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status";

fn field(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    line.unwrap_or_default().trim().to_owned()
}

fn capabilities_of_root(room: &Room) {
    let spec = room.spec(&["grep", "-E", "^(Cap|Seccomp:|NoNewPrivs|Sig)", "/proc/self/status"]);
    let status = room.run(&spec).expect("started").text().to_owned();
    for (name, value) in [
        ("CapInh", "0000000000000000"),
        ("CapPrm", "00000000a80425fb"),
        ("CapEff", "00000000a80425fb"),
        ("CapBnd", "00000000a80425fb"),
        ("CapAmb", "0000000000000000"),
        ("Seccomp", "2"),
        ("NoNewPrivs", "0"),
        ("SigBlk", "0000000000000000"),
        ("SigIgn", "0000000000000000"),
    ] {
        assert_eq!(field(&status, name), value, "{name}");
    }
    let mut spec = room.spec(&["sh", "-c", STATUS]);
    spec.security.cap_drop = vec!["ALL".to_owned()];
    spec.security.cap_add = vec!["NET_BIND_SERVICE".to_owned()];
    assert_eq!(field(room.run(&spec).expect("started").text(), "CapBnd"), "0000000000000400");
    spec.security.cap_add = vec!["FLY".to_owned()];
    assert!(matches!(room.run(&spec), Err(Error::Setup { step, .. }) if step.contains("FLY")));
}

fn capabilities_of_a_user(room: &Room) {
    if !has_ids(room.identity) {
        return;
    }
    let mut spec =
        room.spec(&["sh", "-c", &format!("id -u; id -g; id -G; {STATUS}; touch /etc/x 2>/dev/null || echo denied")]);
    (spec.uid, spec.gid, spec.groups) = (1000, 2000, vec![2000, 3000]);
    let outcome = room.run(&spec).expect("started");
    let text = outcome.text();
    assert!(text.starts_with("1000\n2000\n2000 3000\n"), "{text}");
    assert!(text.ends_with("denied"), "{text}");
    for (name, value) in
        [("CapPrm", "0000000000000000"), ("CapEff", "0000000000000000"), ("CapBnd", "00000000a80425fb")]
    {
        assert_eq!(field(text, name), value, "{name}");
    }
    spec.args[2] = "pwd; touch x; stat -c '%u %g' .".to_owned();
    spec.cwd = "/home/user".into();
    assert_eq!(room.run(&spec).expect("started").text(), "/home/user\n1000 2000");
}

fn users_that_do_not_exist(room: &Room) {
    let mut spec = room.spec(&["id", "-u"]);
    spec.uid = 1_000_000;
    match room.run(&spec) {
        Ok(outcome) => assert_eq!((room.identity, outcome.text()), (Identity::Root, "1000000")),
        Err(error) => assert!(error.to_string().contains("subordinate ids"), "{error}"),
    }
}

fn seccomp_is_on(room: &Room) {
    let no = |script: &str, complaint: &str| {
        let outcome = room.shell(script);
        assert_ne!(outcome.exit, Exit::Code(0), "{script}");
        assert!(outcome.stderr.contains(complaint), "{script}: {}", outcome.stderr);
    };
    no("unshare -U true", "Operation not permitted");
    no("unshare -m true", "Operation not permitted");
    no("mount -t tmpfs none /tmp", "ermi");
    no("hostname other", "ermi");
    // With the capability the rule opens; the namespace is the sandbox's own.
    let mut spec = room.spec(&["sh", "-c", "hostname other && hostname"]);
    spec.security.cap_add = vec!["SYS_ADMIN".to_owned()];
    assert_eq!(room.run(&spec).expect("started").text(), "other");
    spec.security.cap_add.clear();
    spec.security.seccomp = false;
    spec.args[2] = STATUS.to_owned();
    assert_eq!(field(room.run(&spec).expect("started").text(), "Seccomp"), "0");
}

fn privileged(room: &Room) {
    let mut spec = room.spec(&["sh", "-c", &format!("{STATUS}; mount -t tmpfs none /tmp && echo mounted")]);
    spec.security.privileged = true;
    spec.network = Network::None;
    let outcome = room.run(&spec).expect("started");
    let text = outcome.text();
    assert_eq!(field(text, "Seccomp"), "0");
    assert!(text.ends_with("mounted"), "{text}");
}

fn new_privileges(room: &Room) {
    let mut spec = room.spec(&["sh", "-c", STATUS]);
    spec.security.no_new_privileges = true;
    assert_eq!(field(room.run(&spec).expect("started").text(), "NoNewPrivs"), "1");
}

fn the_environment_is_the_spec(room: &Room) {
    let mut spec = room.spec(&["env"]);
    spec.env = vec!["PATH=/bin".to_owned(), "A=b=c".to_owned(), "EMPTY=".to_owned(), "Ü=\n".to_owned()];
    assert_eq!(room.run(&spec).expect("started").stdout, "PATH=/bin\nA=b=c\nEMPTY=\nÜ=\n\n");
}

/// CVE-2019-5736: a command that is `/proc/self/exe` is this binary, and the sandbox must not be able to change it.
fn our_binary_cannot_be_written(room: &Room) {
    let before = std::fs::metadata("/proc/self/exe").and_then(|file| file.modified()).expect("there");
    std::os::unix::fs::symlink("/proc/self/exe", room.base("bin/self")).expect("symlink");
    let _ = room.run(&room.spec(&["self", "--list"]));
    let after = std::fs::metadata("/proc/self/exe").and_then(|file| file.modified()).expect("there");
    assert_eq!(before, after);
}

/// Root may make any, and layers have them; the host's disk is not to be had by one.
fn device_files_do_not_work(room: &Room) {
    let mut spec = room.spec(&["sh", "-c", ""]);
    let source = room.path("source");
    std::fs::create_dir(&source).expect("mkdir");
    let bind = kiln_sandbox::spec::Mount::Bind { source, target: "/bound".into(), readonly: false };
    spec.mounts = vec![bind, kiln_sandbox::spec::Mount::Tmpfs { target: "/memory".into(), size: None, mode: 0o755 }];
    let places = "/ /tmp/ /dev/ /dev/shm/ /bound/ /memory/";
    let made = if room.identity == Identity::Root { "made" } else { "not made" };
    spec.args[2] = format!(
        "for place in {places}; do mknod ${{place}}node c 1 5 2>/dev/null && echo made || echo not made; \
         busybox head -c 1 ${{place}}node 2>/dev/null && echo works; done; busybox head -c 1 /dev/zero | wc -c"
    );
    let outcome = room.run(&spec).expect("started");
    assert_eq!(outcome.text(), format!("{made}\n").repeat(6) + "1");
    if room.identity == Identity::Root {
        assert_eq!(room.written(), ["c node", "c tmp/node", "d tmp"]);
    }
}

/// With one id files cannot be given away: it is not done, and does not fail.
fn owners_without_ids(room: &Room) {
    let outcome = room.shell("touch /x && chown 5:6 /x && stat -c '%u %g' /x");
    let expected = if has_ids(room.identity) { "5 6" } else { "0 0" };
    assert_eq!(outcome.text(), expected);
}
