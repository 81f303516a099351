//! Several kilns on one store, and kilns that are killed in the middle.

use std::{
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use kiln_tests::{Kiln, run};

const DOCKERFILE: &str = "FROM busybox AS one\nCOPY files /files\nRUN cat /files/* > /all && cat /proc/sys/kernel/random/uuid > /time\n\
    FROM busybox AS two\nRUN mkdir -p /d/e && rm -r /home && cat /proc/sys/kernel/random/uuid > /d/e/f\n\
    FROM busybox\nCOPY --from=one /all /time /in/\nCOPY --from=two /d /d\nRUN cat /in/all > /out\n";

#[test]
fn two_builds_at_once_give_two_right_images() {
    let kiln = Kiln::with_busybox();
    let contexts: Vec<_> = (0..4)
        .map(|number| {
            let context = kiln.context(&[("Dockerfile", DOCKERFILE)]);
            // Two of the four are the same build.
            context.write("files/n", format!("{}\n", number / 2));
            context
        })
        .collect();
    thread::scope(|scope| {
        for (number, context) in contexts.iter().enumerate() {
            let kiln = &kiln;
            scope.spawn(move || kiln.build(context, &format!("t{number}"), &[]));
        }
    });
    for number in 0..4 {
        assert_eq!(kiln.output(&format!("t{number}"), &["cat", "/out"]), format!("{}\n", number / 2));
    }
}

#[test]
fn everything_at_once_on_one_store() {
    let kiln = Kiln::with_busybox();
    thread::scope(|scope| {
        for number in 0..4 {
            let kiln = &kiln;
            scope.spawn(move || {
                for round in 0..4 {
                    let name = format!("n{number}:{round}");
                    kiln.build_text(
                        &format!("FROM busybox\nRUN echo {number} {round} > /x\nCMD [\"cat\", \"/x\"]\n"),
                        &name,
                    );
                    assert_eq!(kiln.run(["run", "--rm", &name]).stdout, format!("{number} {round}\n"));
                    kiln.run(["images"]);
                    kiln.run(["tag", &name, &format!("shared:{round}")]);
                    kiln.run(["rmi", &name]);
                }
            });
        }
    });
    kiln.run(["run", "--rm", "shared:0"]);
}

#[test]
fn a_build_killed_at_any_moment_harms_nothing() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", DOCKERFILE)]);
    for number in 0..200 {
        context.write(&format!("files/{number}"), format!("{number}\n").repeat(200));
    }
    let path = context.path().to_str().unwrap().to_owned();
    let started = Instant::now();
    kiln.build(&context, "whole", &[]);
    let whole = started.elapsed();
    for round in 0..20_u32 {
        context.write("files/round", format!("{round}\n"));
        let mut child = kiln
            .command(["build", "--progress=plain", "-t", "killed", &path])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(whole * round / 18 + Duration::from_millis(1));
        child.kill().unwrap();
        child.wait().unwrap();
        kiln.run(["images"]);
        kiln.run(["run", "--rm", "busybox", "true"]);
    }
    let last = kiln.build(&context, "whole", &[]);
    let sum = "cat /in/all | wc -l; cat /files 2>/dev/null; ls -d /home /d/e";
    let listed = kiln.try_run(["run", "--rm", "whole", "sh", "-c", sum]);
    assert!(listed.stdout.starts_with("40001"), "{last}\n{listed}");
    let saved = kiln.saved("whole");
    assert!(saved.filesystem().unwrap().get("out").is_some());
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(kiln.root().to_str().unwrap()), "mounts stay behind:\n{mounts}");
}

#[test]
fn a_killed_pull_import_or_load_leaves_no_half_image() {
    let kiln = Kiln::with_busybox();
    kiln.build_text("FROM busybox\nRUN head -c 20000000 /dev/urandom > /big\n", "big:1");
    let directory = kiln.directory();
    let archive = directory.path().join("big.tar");
    kiln.run(["save", "-o", archive.to_str().unwrap(), "big:1"]);
    let other = Kiln::new();
    for round in 0..8 {
        let mut child = other
            .command(["load", "-i", archive.to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(5 + 12 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let there = run(other.command(["inspect", "big:1"])).status.success();
        if there {
            other.run(["run", "--rm", "big:1", "sha256sum", "/big"]);
            other.run(["rmi", "big:1"]);
        }
    }
    other.run(["load", "-i", archive.to_str().unwrap()]);
    let sums = [&kiln, &other].map(|kiln| kiln.run(["run", "--rm", "big:1", "sha256sum", "/big"]).stdout);
    assert_eq!(sums[0], sums[1]);
}
