//! What people read when something is wrong.

use kiln_tests::{Kiln, Outcome};

fn build(dockerfile: &str) -> Outcome {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", dockerfile)]);
    kiln.try_build(&context, "t", &[]).failure()
}

/// The error shows the file, the line, the text and a caret below it.
fn shows(outcome: Outcome, line: usize, excerpt: &str) -> Outcome {
    let outcome = outcome.says(&format!("Dockerfile:{line}")).says(excerpt);
    assert!(outcome.stderr.lines().any(|line| line.contains('^')), "no caret:\n{outcome}");
    outcome
}

/// Proves: D1.1-16, D1.1-13
#[test]
fn a_misspelled_instruction_gets_a_suggestion() {
    shows(build("FROM busybox\n\nCOPPY a b\n"), 3, "COPPY a b").says("COPY");
}

/// Proves: D1.1-17
#[test]
fn a_misspelled_flag_gets_a_suggestion() {
    shows(build("FROM busybox\nCOPY --chwon=1:1 a b\n"), 2, "--chwon").says("--chown");
}

#[test]
fn instructions_that_are_not_complete_are_refused() {
    shows(build("FROM busybox\nCOPY onlyone\n"), 2, "COPY onlyone");
    shows(build("FROM busybox\nENV\n"), 2, "ENV");
    shows(build("FROM busybox\nRUN <<EOF\necho never ends\n"), 2, "EOF");
    shows(build("FROM busybox\nLABEL a=\"unterminated\n"), 2, "unterminated");
    shows(build("RUN true\n"), 1, "RUN true").says("FROM");
}

/// Proves: D1.1-19
#[test]
fn a_dockerfile_without_instructions_is_refused() {
    build("").says("Dockerfile");
    build("# only a comment\n\n").says("Dockerfile");
}

/// Proves: D1.8-3, D1.13-19
#[test]
fn a_failing_step_shows_its_output_its_place_and_its_status() {
    let outcome = build("FROM busybox\nRUN echo first\nRUN echo about to fail && exit 42\nRUN echo never\n");
    shows(outcome, 3, "exit 42").says("about to fail").says("42").never_says("never\n#");
}

/// Proves: D1.8-3, D1.13-19
#[test]
fn all_that_a_failing_step_wrote_is_kept_and_what_it_lacks_is_said() {
    let kiln = Kiln::with_busybox();
    let build = |dockerfile: &str| {
        let context = kiln.context(&[("Dockerfile", dockerfile)]);
        kiln.try_build(&context, "t", &["--quiet"]).failure()
    };
    let outcome = build("FROM busybox\nRUN seq 1000 1100; echo failed >&2; exit 7\n").says("exit code: 7").says("1100");
    assert!(!outcome.stderr.contains("\n1000\n"), "only the end is shown:\n{outcome}");
    let path = outcome.stderr.lines().find_map(|line| line.strip_prefix("All of its output: ")).expect("a log");
    let log = std::fs::read_to_string(path).expect("the log can be read");
    assert!(log.contains("1000\n") && log.contains("1100\n") && log.contains("failed\n"), "{log}");
    build("FROM busybox\nRUN no-such-command\n").says("help: a command is not in the image");
    build("FROM busybox\nRUN printf '#!/bin/true\\n' >/x && /x\n").says("may not be executed");
    build("FROM busybox\nRUN [\"/no/such\"]\n").says("the image has no /no/such");
    build("FROM scratch\nRUN echo\n").says("take a base image with a shell");
    build("FROM busybox AS builder\nFROM busybox\nCOPY --from=127.0.0.1:1/builder /a /b\n").says("cannot be had");
    for round in 0..22 {
        build(&format!("FROM busybox\nRUN echo {round}; false\n"));
    }
    let logs = std::fs::read_dir(kiln.root().join("logs")).expect("the logs").count();
    assert!((1..=20).contains(&logs), "{logs} logs");
}

#[test]
fn an_image_that_is_not_there_is_named() {
    // Loopback refuses at once: nothing leaves the machine.
    shows(build("FROM 127.0.0.1:1/no/such:image\nRUN true\n"), 1, "127.0.0.1:1/no/such:image");
}

#[test]
fn an_unknown_user_is_an_error_of_the_step() {
    build("FROM busybox\nUSER nobody-knows\nRUN true\n").says("nobody-knows").says("make the user in a step above");
    build("FROM busybox\nUSER www-dat\nRUN true\n").says("did you mean `www-data`?");
    build("FROM busybox\nCOPY --chown=operator:stuff Dockerfile /x\n").says("did you mean `staff`?");
    build("FROM busybox\nCOPY --link --chown=operator Dockerfile /x\n").says("give numbers");
    shows(build("FROM busybox\nCOPY Dockerfile /bin/busybox/\n"), 2, "expected a directory")
        .says("is a file of the image");
    build("FROM busybox\nCOPY --chown=nobody-knows Dockerfile /x\n").says("nobody-knows");
}

#[test]
fn garbage_is_an_error_and_never_a_panic() {
    let kiln = Kiln::with_busybox();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let seed = b"FROM busybox\nRUN --mount=type=bind,x echo <<EOF $A ${B:-c} \\\n [\"a\"]\nCOPY --chown=$ a b\nEOF\n";
    for round in 0..60 {
        let bytes: Vec<u8> = if round % 2 == 0 {
            (0..next() % 600).map(|_| (next() >> 32) as u8).collect()
        } else {
            let mut bytes = seed.to_vec();
            for _ in 0..=next() % 12 {
                let at = (next() as usize) % bytes.len();
                bytes[at] = (next() >> 32) as u8;
            }
            // Whatever it became, nothing of it shall run.
            bytes.splice(0..12, *b"FROM scratch");
            bytes
        };
        let context = kiln.directory();
        context.write("Dockerfile", &bytes);
        // `try_build` fails the test on a panic or a signal; a Dockerfile that is accidentally right may build.
        kiln.try_build(&context, "garbage", &["--network=none"]);
    }
}

#[test]
fn wrong_command_lines_are_explained() {
    let kiln = Kiln::new();
    kiln.try_run(["biuld", "."]).failure().says("build");
    kiln.try_run(["build"]).failure();
    kiln.try_run(["build", "/no/such/context"]).failure().says("/no/such/context");
    kiln.try_run(["inspect", "no-such-image"]).failure().says("no-such-image");
    kiln.try_run(["rmi", "no-such-image"]).failure().says("no-such-image");
    kiln.try_run(["tag", "no-such-image", "x"]).failure().says("no-such-image");
    kiln.try_run(["tag", "x", "UPPER/case"]).failure();
}
