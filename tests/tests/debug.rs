//! Looking around where a RUN failed.

use kiln_tests::{Account, Context, Kiln, OnTerminal, Outcome};

/// Fails, after it has left something behind.
const FAILS: &str = "FROM busybox\nENV PLACE=here\nRUN echo 'somebody:x:7:7::/:/bin/sh' >> /etc/passwd\nWORKDIR /work\n\
    RUN echo below > /below; chown somebody /work\nUSER somebody\nRUN echo left > left; exit 3\n";

fn failing(kiln: &Kiln, dockerfile: &str, options: &[&str]) -> (Context, Outcome) {
    let context = kiln.context(&[("Dockerfile", dockerfile), ("file", "from the context\n")]);
    let outcome = kiln.try_build(&context, "t", options).failure();
    (context, outcome)
}

fn kept(kiln: &Kiln) -> usize {
    std::fs::read_dir(kiln.root().join("failed")).map_or(0, Iterator::count)
}

fn looks_around(kiln: &Kiln) {
    let (_context, outcome) = failing(kiln, FAILS, &[]);
    outcome.says("exit code: 3").says("kiln debug");
    let look = kiln.run(["debug", "sh", "-c", "echo $PLACE; id -u; pwd; cat left /below; ls -ln left"]);
    assert!(look.stdout.starts_with("here\n7\n/work\nleft\nbelow\n"), "{look}");
    assert!(look.stdout.contains(" 7 ") && look.stdout.ends_with(" left\n"), "{look}");
    kiln.run(["debug", "sh", "-c", "echo more >> left"]);
    assert_eq!(kiln.run(["debug", "cat", "left"]).stdout, "left\nmore\n", "what was done there stays");
    kiln.try_run(["debug", "sh", "-c", "exit 9"]).code(9);
    kiln.try_run(["debug", "no-such-command"]).code(127);
}

/// Proves: --debug
#[test]
fn a_failed_step_can_be_looked_into() {
    looks_around(&Kiln::with_busybox());
}

#[test]
fn a_failed_step_can_be_looked_into_without_root() {
    looks_around(&Kiln::of(Account::with_subuids()).import_busybox());
}

#[test]
fn it_has_the_mounts_of_the_step_and_no_secret_is_written_down() {
    let kiln = Kiln::with_busybox().with_env("WORD", "very secret word");
    let dockerfile = "FROM busybox AS other\nRUN echo from a stage > /f\nFROM busybox\n\
        RUN --mount=type=bind,source=file,target=/file --mount=from=other,source=/f,target=/f,rw \
        --mount=type=cache,target=/cache --mount=type=tmpfs,target=/memory \
        --mount=type=secret,id=word,env=WORD --mount=type=secret,id=word,target=/word \
        echo kept > /cache/kept; false\n";
    failing(&kiln, dockerfile, &["--secret", "id=word,env=WORD"]);
    let record = kiln.root().join("failed");
    let record = std::fs::read_dir(record).expect("kept").next().expect("one").expect("an entry").path();
    let record = std::fs::read_to_string(record.join("record.json")).expect("a record");
    assert!(!record.contains("secret word"), "{record}");
    let script = "cat /file /f /cache/kept /word; echo; echo $WORD; echo x > /f; mount | grep -c /memory";
    let look = kiln.run(["debug", "sh", "-c", script]);
    assert_eq!(look.stdout, "from the context\nfrom a stage\nkept\nvery secret word\nvery secret word\n1\n", "{look}");
    let kiln = kiln.with_env("OTHER", "x");
    let mut command = kiln.command(["debug", "cat", "/file"]);
    command.env_remove("WORD");
    kiln_tests::run(command).success().says("not as it was: secret word").says("from the context");
}

#[test]
fn it_is_there_until_the_next_build() {
    let kiln = Kiln::with_busybox();
    kiln.try_run(["debug", "true"]).failure().says("no step is kept");
    let (context, _) = failing(&kiln, FAILS, &[]);
    failing(&kiln, "FROM busybox\nRUN echo second; false\n", &[]);
    assert_eq!(kept(&kiln), 1, "one is kept");
    kiln.run(["debug", "test", "!", "-e", "/below"]);
    context.write("Dockerfile", "FROM busybox\nRUN true\n");
    kiln.build(&context, "t", &[]);
    assert_eq!(kept(&kiln), 0);
    kiln.try_run(["debug", "true"]).failure().says("no step is kept");
}

#[test]
fn its_layers_stay_and_pruning_takes_it_as_any_other_entry() {
    let kiln = Kiln::with_busybox();
    failing(&kiln, FAILS, &[]);
    kiln.run(["du"]).says("failed: [").says("RUN echo left");
    kiln.run(["prune", "--all", "--force", "--filter", "type=regular"]);
    kiln.run(["rmi", "--force", "busybox"]);
    kiln.run(["debug", "cat", "/below", "left"]);
    kiln.run(["prune", "--force", "--filter", "type=internal"]);
    assert_eq!(kept(&kiln), 0);
}

#[test]
fn what_somebody_looks_into_is_neither_pruned_nor_opened_twice() {
    let kiln = Kiln::with_busybox();
    let (context, _) = failing(&kiln, FAILS, &[]);
    let mut shell = OnTerminal::start(kiln.command(["debug"]));
    shell.types("echo I am $((40 + 2))");
    shell.sees("I am 42");
    kiln.try_run(["debug", "true"]).code(125).says("another shell is open");
    kiln.run(["prune", "--all", "--force"]);
    context.write("Dockerfile", "FROM busybox\nRUN true\n");
    kiln.build(&context, "t", &[]);
    shell.types("cat left; exit 4");
    shell.sees("left\r\n");
    assert_eq!(shell.ends().code(), Some(4));
    kiln.build(&context, "t", &[]);
    assert_eq!(kept(&kiln), 0);
}

/// Proves: --debug
#[test]
fn a_build_on_a_terminal_opens_the_shell_at_once() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", FAILS)]);
    let path = context.path().to_str().expect("text").to_owned();
    let mut build = OnTerminal::start(kiln.command(["build", "--debug", &path]));
    build.sees("exit code: 3");
    build.sees("It executed:");
    build.types("echo $PLACE-$(id -u)-$(cat left); tty");
    build.sees("here-7-left");
    build.sees("/dev/");
    build.types("exit");
    assert_eq!(build.ends().code(), Some(1), "the build has failed all the same");
    // Where nobody sits, nothing waits.
    kiln.try_build(&context, "t", &["--debug"]).code(1);
}

#[test]
fn a_step_without_a_shell_can_be_looked_into_with_a_program_it_has() {
    let kiln = Kiln::with_busybox();
    let dockerfile = "FROM scratch\nCOPY --from=busybox /bin/busybox /busybox\nRUN [\"/busybox\", \"false\"]\n";
    failing(&kiln, dockerfile, &[]);
    kiln.try_run(["debug"]).code(127).says("/bin/sh: not found");
    kiln.run(["debug", "/busybox", "ls", "/"]).says("busybox");
}
