//! Real sandboxes, as root and then as an ordinary user with and without subordinate ids. The root file system is
//! busybox (Debian's busybox-static).
#![allow(clippy::expect_used, clippy::print_stdout, reason = "clippy does not know a test binary with its own main")]

mod files;
mod isolation;
mod lifecycle;
mod mounts;
mod room;
mod security;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use kiln_sandbox::user_namespace::{self, Identity};
use room::Room;

type Case = (&'static str, fn(&Room));

/// Name, user id, and whether the user has subordinate ids.
const USERS: [(&str, &str); 2] = [("kiln-test", "with subordinate ids"), ("kiln-plain", "without subordinate ids")];

fn main() -> ExitCode {
    kiln_sandbox::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(role) = arguments.first().and_then(|role| role.strip_prefix("role=")) {
        return lifecycle::play(role, arguments.get(1..).unwrap_or_default());
    }
    // What a test runner asks of a test binary.
    if arguments.iter().any(|argument| argument == "--list") {
        if !arguments.iter().any(|argument| argument == "--ignored") {
            println!("sandbox: test");
        }
        return ExitCode::SUCCESS;
    }
    let root = rustix::process::geteuid().is_root();
    let mut success = run_all(&arguments);
    if !arguments.iter().any(|argument| argument == OLD_KERNEL) {
        success &= run_on_old_kernel(&arguments);
        for (user, kind) in USERS.iter().filter(|_| root) {
            success &= run_as(user, kind, &arguments);
        }
    }
    if success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

const OLD_KERNEL: &str = "--old-kernel";

/// Once more as on a kernel that does not know the newer way to mount an overlay: `setarch` makes it say that its
/// version is 2.6.
fn run_on_old_kernel(filters: &[String]) -> bool {
    println!("as on an older kernel:");
    let mut command = Command::new("setarch");
    let own = std::env::current_exe().expect("a path");
    command.arg("--uname-2.6").arg(own).arg(OLD_KERNEL).args(filters);
    command.status().expect("setarch").success()
}

fn run_all(filters: &[String]) -> bool {
    let identity = user_namespace::enter().expect("a user namespace");
    let cases = [files::CASES, isolation::CASES, lifecycle::CASES, mounts::CASES, security::CASES].concat();
    let wanted = |name: &str| filters.iter().all(|filter| filter.starts_with('-') || name.contains(filter.as_str()));
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, case) in cases.into_iter().filter(|(name, _)| wanted(name)) {
        let room = Room::new(identity);
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&room))) {
            Ok(()) => passed += 1,
            Err(_) => failed.push(name),
        }
    }
    println!("{identity:?}: {passed} passed, {} failed {failed:?}", failed.len());
    failed.is_empty()
}

/// The same tests as another user, which is made when it is missing.
fn run_as(user: &str, kind: &str, filters: &[String]) -> bool {
    let id = |option: &str| {
        let output = Command::new("id").args([option, user]).output().expect("id");
        String::from_utf8_lossy(&output.stdout).trim().parse::<u32>().ok()
    };
    if id("-u").is_none() {
        assert!(Command::new("useradd").args(["--create-home", user]).status().expect("useradd").success());
    }
    set_subordinate_ids(user);
    // The build directory may be one that only root can enter.
    let place = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let binary = place.path().join("sandbox-test");
    std::fs::copy("/proc/self/exe", &binary).expect("copy");
    println!("as {user}, {kind}:");
    let (uid, gid) = (id("-u").expect("a user"), id("-g").expect("a group"));
    let mut command = Command::new(&binary);
    command.args(filters).env("USER", user).env("TMPDIR", "/tmp").current_dir("/").gid(gid).uid(uid);
    command.status().expect("run").success()
}

fn set_subordinate_ids(user: &str) {
    let wanted = user != "kiln-plain";
    for (file, option) in [("/etc/subuid", "-subuids"), ("/etc/subgid", "-subgids")] {
        let text = std::fs::read_to_string(Path::new(file)).unwrap_or_default();
        let has = text.lines().find_map(|line| line.strip_prefix(user)?.strip_prefix(':').map(str::to_owned));
        let (action, range) = match (wanted, has) {
            (true, None) => ("--add", "100000-165535".to_owned()),
            (false, Some(range)) => {
                let (first, count) = range.split_once(':').expect("a range");
                let first: u64 = first.parse().expect("a number");
                ("--del", format!("{first}-{}", first + count.parse::<u64>().expect("a number") - 1))
            }
            _ => continue,
        };
        let status = Command::new("usermod").args([&format!("{action}{option}"), &range, user]).status();
        assert!(status.expect("usermod").success());
    }
}

/// Whether ids other than root exist.
fn has_ids(identity: Identity) -> bool {
    identity != Identity::Single
}
