//! kill -9 while the build cache is written: the next command just works.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use kiln_tests::{Context, Kiln, Registry, killed_at, run};

fn spawn_and_kill(kiln: &Kiln, arguments: &[&str], after: Duration) {
    let mut build = kiln.command(arguments);
    let mut child =
        build.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("kiln starts");
    thread::sleep(after);
    child.kill().expect("it may be killed");
    child.wait().expect("it ended");
}

/// Whatever a killed export left at the place is no cache, or one that is right; and the next export makes it whole.
/// Proves: --cache-to
#[test]
fn an_export_that_was_killed_is_made_again() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    let shared = kiln.directory();
    let dockerfile = "FROM busybox AS s\nRUN head -c 3000000 /dev/urandom > /a\nRUN head -c 3000000 /dev/urandom > /b\n\
        FROM scratch\nCOPY --from=s /a /b /\n";
    let project = |kiln: &Kiln| kiln.context(&[("Dockerfile", dockerfile)]);
    let context = project(&kiln);
    let path = context.path().to_str().expect("text");
    kiln.build(&context, "t", &[]);
    let places = |round: u32| {
        let directory = shared.path().join(format!("cache-{round}")).display().to_string();
        let [document, keys] = ["app", "keys"].map(|name| registry.name(&format!("{name}-{round}")));
        [
            (format!("type=local,dest={directory},mode=max"), format!("type=local,src={directory}")),
            (format!("type=registry,ref={document}:cache,mode=max"), format!("type=registry,ref={document}:cache")),
            (format!("type=keyed,ref={keys},mode=max"), format!("type=keyed,ref={keys}")),
        ]
    };
    let started = Instant::now();
    kiln.build(&context, "t", &["--cache-to", &places(100)[0].0]);
    let whole = started.elapsed();
    for round in 0..4 {
        for (number, (to, from)) in places(round).iter().enumerate() {
            spawn_and_kill(&kiln, &["build", "-t", "t", "--cache-to", to, path], whole * (round + 1) / 5);
            let fresh = Kiln::with_busybox();
            let half = fresh.build(&project(&fresh), "t", &["--cache-from", from]);
            kiln.build(&context, "t", &["--cache-to", to]).never_says("not cached");
            let fresh = Kiln::with_busybox();
            fresh.build(&project(&fresh), "t", &["--cache-from", from]).never_says("not cached").never_says("left out");
            assert_eq!(fresh.image_id("t"), kiln.image_id("t"), "{number}: {half}");
        }
    }
}

/// At every step of keeping a failed RUN: the next build works, and keeps its own.
#[test]
fn keeping_a_failed_step_may_be_killed_at_any_moment() {
    let kiln = Kiln::with_busybox();
    let failing = |number: usize| -> Context {
        let text = format!("FROM busybox\nRUN echo {number} > /left; mkdir /d; exit 3\n");
        kiln.context(&[("Dockerfile", &text)])
    };
    let kept = || fs::read_dir(kiln.root().join("failed")).map_or(0, Iterator::count);
    let whole = kiln.context(&[("Dockerfile", "FROM busybox\nRUN echo fine > /fine\n")]);
    let mut killed = 0;
    for call in ["mkdir", "rename", "openat", "unlinkat,unlink,rmdir", "flock"] {
        // Of files there are many; the last ones are those of the failure.
        let calls = if call == "openat" { (1..200).step_by(17).collect::<Vec<_>>() } else { (1..25).collect() };
        for number in calls {
            // One that failed before stands there, too.
            kiln.try_build(&failing(number + 1000), "t", &[]).code(1);
            let context = failing(number);
            let build = kiln.command(["build", "-t", "t", context.path().to_str().expect("text")]);
            let ended = run(killed_at(&build, call, number));
            let look = kiln.try_run(["debug", "cat", "/left"]).no_panic();
            assert!(look.stdout.is_empty() || look.stdout.trim().parse::<usize>().is_ok(), "{look}");
            if ended.output().contains("exit code: 3") {
                assert_eq!(look.stdout, format!("{number}\n"), "{ended}");
                break;
            }
            // The sandbox may be what was killed.
            killed += usize::from(ended.status.code() != Some(1));
        }
        kiln.build(&whole, "t", &["--no-cache"]);
        assert_eq!(kept(), 0, "after a build that did not fail nothing is kept");
        kiln.try_build(&failing(7), "t", &[]).code(1).says("kiln debug");
        assert_eq!((kept(), kiln.run(["debug", "cat", "/left"]).stdout), (1, "7\n".to_owned()));
    }
    assert!(killed > 10, "{killed}");
    kiln.run(["prune", "-af"]);
    let left = fs::read_dir(kiln.root().join("tmp")).expect("tmp").count();
    assert!(left <= 2, "{left} directories of processes that were killed");
}
