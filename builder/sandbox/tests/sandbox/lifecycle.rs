//! Starting, ending, and being ended.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use kiln_sandbox::process::{Error, Stdio};
use kiln_sandbox::{Exit, Sandbox};

use crate::Case;
use crate::room::{Room, read};

pub(crate) const CASES: &[Case] = &[
    ("exit_codes_and_signals", exit_codes_and_signals),
    ("commands_that_cannot_be_executed", commands_that_cannot_be_executed),
    ("a_signal_reaches_the_process", a_signal_reaches_the_process),
    ("wait_leaves_nothing_behind", wait_leaves_nothing_behind),
    ("drop_kills", drop_kills),
    ("the_end_of_the_caller_is_the_end", the_end_of_the_caller_is_the_end),
    ("threads_that_end_do_not_matter", threads_that_end_do_not_matter),
    ("streams", streams),
    ("a_terminal", a_terminal),
    ("the_working_directory", the_working_directory),
    ("limits", limits),
];

fn exit_codes_and_signals(room: &Room) {
    assert_eq!(room.shell("exit 0").exit, Exit::Code(0));
    assert_eq!(room.shell("exit 7").exit, Exit::Code(7));
    assert_eq!(room.shell("exit 255").exit, Exit::Code(255));
    // The first process of a namespace cannot signal itself to death: its child does it the usual way.
    assert_eq!(room.shell("sh -c 'kill -TERM $$'; exit $?").exit, Exit::Code(143));
    let mut sandbox =
        Sandbox::spawn(&room.spec(&["sleep", "100"]), Stdio::Null, Stdio::Null, Stdio::Null).expect("started");
    sandbox.signal(9).expect("sent");
    assert_eq!(sandbox.wait().expect("ended"), Exit::Signal(9));
    assert_eq!(sandbox.wait().expect("again"), Exit::Signal(9));
}

fn commands_that_cannot_be_executed(room: &Room) {
    std::fs::write(room.base("bin/data"), "\u{1}\u{2}\u{3}").expect("written");
    std::fs::write(room.base("bin/script"), "#!/no/such/interpreter\n").expect("written");
    for (name, mode) in [("data", 0o755), ("script", 0o755)] {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(room.base("bin").join(name), permissions).expect("chmod");
    }
    std::fs::write(room.base("bin/plain"), "#!/bin/sh\n").expect("written");
    let error = |args: &[&str]| room.run(&room.spec(args)).map(|outcome| outcome.exit).expect_err("an error");
    assert!(matches!(error(&["nothing"]), Error::NotFound(name) if name == "nothing"));
    assert!(matches!(error(&["/nothing"]), Error::NotFound(_)));
    assert!(matches!(error(&["/bin/sh/x"]), Error::NotFound(_)));
    assert!(matches!(error(&[]), Error::NotFound(_)));
    assert!(matches!(error(&["script"]), Error::NotFound(text) if text.contains("interpreter")));
    assert!(matches!(error(&["data"]), Error::NotExecutable(..)));
    assert!(matches!(error(&["plain"]), Error::NotExecutable(..)));
    assert!(matches!(error(&["/etc"]), Error::NotExecutable(..)));
    assert!(matches!(error(&["sh\0"]), Error::Setup { .. }));
    assert_eq!(room.written(), [] as [&str; 0]);
    let mut missing = room.spec(&["true"]);
    missing.root.lower.push(room.path("no-such-layer"));
    let text = room.run(&missing).map(|outcome| outcome.exit).expect_err("an error").to_string();
    assert!(text.contains("no-such-layer"), "{text}");
}

fn a_signal_reaches_the_process(room: &Room) {
    let script = "trap 'echo term; exit 3' TERM; trap 'echo usr1' USR1; echo ready; while :; do sleep 0.01; done";
    let mut sandbox =
        Sandbox::spawn(&room.spec(&["sh", "-c", script]), Stdio::Null, Stdio::Pipe, Stdio::Null).expect("started");
    let mut stdout = std::io::BufReader::new(std::fs::File::from(sandbox.stdout.take().expect("a pipe")));
    let mut line = String::new();
    let mut next = || {
        line.clear();
        std::io::BufRead::read_line(&mut stdout, &mut line).expect("a line");
        line.trim_end().to_owned()
    };
    assert_eq!(next(), "ready");
    let signaller = sandbox.signaller().expect("a signaller");
    signaller.send(10).expect("sent");
    assert_eq!(next(), "usr1");
    let sender = std::thread::spawn(move || signaller.send(15));
    assert_eq!(sandbox.wait().expect("ended"), Exit::Code(3));
    sender.join().expect("joined").expect("sent");
    assert!(sandbox.signal(15).is_err());
}

fn wait_leaves_nothing_behind(room: &Room) {
    let outcome = room.shell("(sleep 100; echo late) >/dev/null 2>&1 & echo $!");
    assert_eq!(outcome.exit, Exit::Code(0));
    assert_eq!(holders(&room.path("base")), 0);
}

/// Processes that have their root or executable below a directory of the room, by its unique name.
fn holders(base: &Path) -> usize {
    let marker = base.join("bin/busybox");
    let wanted = std::fs::metadata(&marker).map(|file| std::os::unix::fs::MetadataExt::ino(&file)).expect("busybox");
    let runs_it = |entry: &std::fs::DirEntry| {
        let executable = std::fs::metadata(entry.path().join("exe"));
        executable.is_ok_and(|file| std::os::unix::fs::MetadataExt::ino(&file) == wanted)
    };
    std::fs::read_dir("/proc").expect("/proc").flatten().filter(runs_it).count()
}

fn drop_kills(room: &Room) {
    let sandbox =
        Sandbox::spawn(&room.spec(&["sleep", "100"]), Stdio::Null, Stdio::Null, Stdio::Null).expect("started");
    assert_eq!(holders(&room.path("base")), 1);
    let start = Instant::now();
    drop(sandbox);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(holders(&room.path("base")), 0);
}

/// `role=…`: this binary in another part, started by a test.
pub(crate) fn play(role: &str, arguments: &[String]) -> ExitCode {
    assert_eq!(role, "caller");
    let document = std::fs::read(arguments.first().expect("a spec")).expect("a spec");
    let spec: kiln_sandbox::Spec = serde_json::from_slice(&document).expect("a spec");
    let mut sandbox = Sandbox::spawn(&spec, Stdio::Null, Stdio::Inherit, Stdio::Inherit).expect("started");
    let _ = std::io::stdout().write_all(b"started\n");
    let _ = sandbox.wait();
    ExitCode::SUCCESS
}

fn the_end_of_the_caller_is_the_end(room: &Room) {
    let spec = room.spec(&["sh", "-c", "sleep 100 & sleep 100 & trap '' TERM HUP INT; sleep 100"]);
    let file: PathBuf = room.path("spec.json");
    std::fs::write(&file, serde_json::to_vec(&spec).expect("json")).expect("written");
    let mut caller = Command::new("/proc/self/exe");
    let mut caller =
        caller.arg("role=caller").arg(&file).stdout(std::process::Stdio::piped()).spawn().expect("started");
    let mut stdout = std::io::BufReader::new(caller.stdout.take().expect("a pipe"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stdout, &mut line).expect("a line");
    assert_eq!(line, "started\n");
    let deadline = Instant::now() + Duration::from_secs(5);
    while holders(&room.path("base")) < 3 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(holders(&room.path("base")), 3);
    caller.kill().expect("killed");
    assert_eq!(caller.wait().expect("reaped").signal(), Some(9));
    while holders(&room.path("base")) > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(holders(&room.path("base")), 0);
}

fn threads_that_end_do_not_matter(room: &Room) {
    let spec = room.spec(&["sh", "-c", "sleep 0.2; echo done"]);
    let mut sandbox = std::thread::spawn(move || Sandbox::spawn(&spec, Stdio::Null, Stdio::Pipe, Stdio::Null))
        .join()
        .expect("joined")
        .expect("started");
    assert_eq!(read(sandbox.stdout.take()), "done\n");
    assert_eq!(sandbox.wait().expect("ended"), Exit::Code(0));
}

fn streams(room: &Room) {
    let spec = room.spec(&["sh", "-c", "cat; echo error >&2"]);
    let mut sandbox = Sandbox::spawn(&spec, Stdio::Pipe, Stdio::Pipe, Stdio::Pipe).expect("started");
    let mut stdin = std::fs::File::from(sandbox.stdin.take().expect("a pipe"));
    stdin.write_all(b"hello").expect("written");
    drop(stdin);
    assert_eq!(read(sandbox.stdout.take()), "hello");
    assert_eq!(read(sandbox.stderr.take()), "error\n");
    assert_eq!(sandbox.wait().expect("ended"), Exit::Code(0));
    assert_eq!(room.shell("readlink /proc/self/fd/0; ls /proc/self/fd | wc -l").text(), "/dev/null\n4");
    // What is open in the caller, even if it would survive an exec, stays there.
    let leak = std::fs::File::open("/etc/passwd").expect("opened");
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).expect("set");
    assert_eq!(room.shell("ls /proc/self/fd | wc -l").text(), "4");
}

fn a_terminal(room: &Room) {
    let mut spec = room.spec(&[
        "sh",
        "-c",
        "tty; stat -c %F /dev/console; test -t 0 && test -t 2 && echo yes; read x; echo got $x",
    ]);
    spec.terminal = true;
    let mut sandbox = Sandbox::spawn(&spec, Stdio::Null, Stdio::Null, Stdio::Null).expect("started");
    let terminal = sandbox.terminal.take().expect("a terminal");
    assert!(sandbox.stdin.is_none() && sandbox.stdout.is_none() && sandbox.stderr.is_none());
    rustix::io::write(&terminal, b"word\n").expect("written");
    let text = read(Some(terminal.try_clone().expect("cloned"))).replace("\r\n", "\n");
    assert_eq!(sandbox.wait().expect("ended"), Exit::Code(0));
    for line in ["/dev/pts/0", "character special file", "yes", "got word"] {
        assert!(text.lines().any(|found| found == line), "{line:?} in {text:?}");
    }
    // Control-C is the terminal's to turn into a signal.
    let mut spec = room.spec(&["sh", "-c", "trap 'exit 9' INT; echo ready; while :; do sleep 0.01; done"]);
    spec.terminal = true;
    let mut sandbox = Sandbox::spawn(&spec, Stdio::Null, Stdio::Null, Stdio::Null).expect("started");
    let terminal = sandbox.terminal.take().expect("a terminal");
    let mut buffer = [0; 64];
    assert!(rustix::io::read(&terminal, &mut buffer).expect("ready") > 0);
    rustix::io::write(&terminal, &[3]).expect("written");
    assert_eq!(sandbox.wait().expect("ended"), Exit::Code(9));
}

fn the_working_directory(room: &Room) {
    let mut spec = room.spec(&["pwd"]);
    spec.cwd = PathBuf::from("/srv/made/for it");
    assert_eq!(room.run(&spec).expect("started").text(), "/srv/made/for it");
    assert_eq!(room.written(), ["d srv", "d srv/made", "d srv/made/for it"]);
    spec.cwd = PathBuf::from("/bin/sh");
    assert!(matches!(room.run(&spec), Err(Error::Setup { .. })));
    // A descriptor of the set-up is no way out.
    spec.cwd = PathBuf::from("/proc/self/fd/3");
    assert!(matches!(room.run(&spec), Err(Error::Setup { .. })));
    std::os::unix::fs::symlink("../../../tmp", room.base("link")).expect("symlink");
    spec.cwd = PathBuf::from("/link/../link");
    assert_eq!(room.run(&spec).expect("started").text(), "/tmp");
}

fn limits(room: &Room) {
    let mut spec = room.spec(&["sh", "-c", "ulimit -n; ulimit -Hn"]);
    spec.rlimits.insert("nofile".to_owned(), (100, 200));
    assert_eq!(room.run(&spec).expect("started").text(), "100\n200");
    // More than this process may have: as much as it may.
    spec.rlimits.insert("nofile".to_owned(), (1 << 40, 1 << 40));
    assert!(room.run(&spec).expect("started").text().lines().count() == 2);
}
