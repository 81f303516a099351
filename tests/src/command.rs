//! Running programs with a time limit, keeping what they wrote, and saying it all when an expectation breaks.

use std::{
    ffi::OsStr,
    fmt,
    io::{Read, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Longer than any step of a test takes on a slow machine; reached only by something that hangs.
const TIME_LIMIT: Duration = Duration::from_secs(900);

/// A program that is killed when it makes one of these system calls for that time, counted from 1.
pub fn killed_at(killed: &Command, calls: &str, number: usize) -> Command {
    let mut traced = command("strace", ["-f", "-qqq", "-o", "/dev/null"]);
    traced.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:signal=KILL:when={number}")]);
    traced.arg(killed.get_program()).args(killed.get_args());
    traced.envs(killed.get_envs().filter_map(|(name, value)| Some((name, value?))));
    traced
}

/// What a program did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The command line.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
    /// Standard output as it came.
    pub bytes: Vec<u8>,
    /// How long it ran.
    pub took: Duration,
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, status, stdout, stderr, took, .. } = self;
        write!(out, "$ {command}\n({status}, {took:?})\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n---")
    }
}

impl Outcome {
    /// It ended with status 0.
    #[track_caller]
    pub fn success(self) -> Self {
        self.code(0)
    }

    /// It ended with this status.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "expected exit status {code}:\n{self}");
        self
    }

    /// It ended with a status that is not 0: not by a signal, and not by a panic.
    #[track_caller]
    pub fn failure(self) -> Self {
        assert!(self.status.code().is_some_and(|code| code != 0), "expected a failure:\n{self}");
        self.no_panic()
    }

    /// It neither panicked nor was killed.
    #[track_caller]
    pub fn no_panic(self) -> Self {
        assert_eq!(self.status.signal(), None, "killed by a signal:\n{self}");
        assert!(!self.stderr.contains("panicked at"), "it panicked:\n{self}");
        self
    }

    /// Both streams, standard output first.
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// One of its streams contains the text.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.output().contains(text), "expected to read {text:?}:\n{self}");
        self
    }

    /// None of its streams contains the text.
    #[track_caller]
    pub fn never_says(self, text: &str) -> Self {
        assert!(!self.output().contains(text), "did not expect to read {text:?}:\n{self}");
        self
    }

    /// Its standard output without surrounding white space.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }
}

/// A command with these arguments.
pub fn command<I, S>(program: impl AsRef<OsStr>, arguments: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Runs it without input.
#[track_caller]
pub fn run(command: Command) -> Outcome {
    run_with_input(command, &[])
}

/// Runs it with this input; after [`TIME_LIMIT`] it is killed and the test fails.
#[track_caller]
pub fn run_with_input(mut command: Command, input: &[u8]) -> Outcome {
    let line = command_line(&command);
    let started = Instant::now();
    command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {line}: {error}"));
    let writer = child.stdin.take().map(|mut stdin| {
        let input = input.to_vec();
        // A program that stops reading early is not the writer's trouble.
        thread::spawn(move || drop(stdin.write_all(&input)))
    });
    let stdout = collect(child.stdout.take().expect("stdout is piped"));
    let stderr = collect(child.stderr.take().expect("stderr is piped"));
    let status = wait(&mut child, started, &line);
    if let Some(writer) = writer {
        writer.join().expect("the writing thread ends");
    }
    let bytes = stdout.join().expect("the reading thread ends");
    let errors = stderr.join().expect("the reading thread ends");
    Outcome {
        command: line,
        status,
        stdout: String::from_utf8_lossy(&bytes).into_owned(),
        stderr: String::from_utf8_lossy(&errors).into_owned(),
        bytes,
        took: started.elapsed(),
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(stream.read_to_end(&mut bytes));
        bytes
    })
}

#[track_caller]
fn wait(child: &mut Child, started: Instant, line: &str) -> ExitStatus {
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status;
        }
        if started.elapsed() > TIME_LIMIT {
            drop(child.kill());
            panic!("still running after {TIME_LIMIT:?}: {line}");
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

fn command_line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
