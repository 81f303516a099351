//! Starting a sandbox and waiting for it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::channel::{Channel, Message};
use crate::mount::{clone_path, failed};
use crate::spec::Spec;
use crate::system_call::{MOUNT_READONLY, add_mount_attributes, send_signal};

/// `argv[0]` of a supervisor.
pub(crate) const SUPERVISOR: &str = "kiln-sandbox";

/// Where the process's standard streams go.
pub enum Stdio {
    /// The caller's own.
    Inherit,
    /// /dev/null.
    Null,
    /// A pipe to or from the caller.
    Pipe,
    /// This descriptor.
    Fd(OwnedFd),
}

/// A running sandbox. Dropping it kills and reaps it.
pub struct Sandbox {
    /// Write end of standard input, when it was [`Stdio::Pipe`].
    pub stdin: Option<OwnedFd>,
    /// Read end of standard output.
    pub stdout: Option<OwnedFd>,
    /// Read end of standard error.
    pub stderr: Option<OwnedFd>,
    /// The master side of the terminal, when the spec asked for one (then the three above are `None`).
    pub terminal: Option<OwnedFd>,
    /// The sandbox's first process.
    process: OwnedFd,
    supervisor: Child,
    channel: Channel,
    exit: Option<Exit>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Exit {
    /// With this status.
    Code(u8),
    /// By this signal.
    Signal(i32),
}

/// Why it could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The command is not in the image: exit status 127.
    #[error("{0}: not found")]
    NotFound(String),
    /// The command cannot be executed: exit status 126.
    #[error("{0}: cannot be executed")]
    NotExecutable(String, #[source] std::io::Error),
    /// A step of the set-up failed: exit status 125.
    #[error("{step}")]
    Setup {
        /// What was being done, to what.
        step: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Sends signals to a sandbox's process, from any thread, while another one waits for it.
#[derive(Debug)]
pub struct Signaller(OwnedFd);

impl Signaller {
    /// For any process.
    ///
    /// # Errors
    /// There is none of this pid.
    pub fn of_process(pid: i32) -> io::Result<Self> {
        let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?))
    }

    /// Becomes readable when it has ended.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Sends a signal to the process. A process that is the first of its namespace ignores what it has no handler
    /// for, but SIGKILL and SIGSTOP.
    ///
    /// # Errors
    /// It has ended (ESRCH); there is no such signal.
    pub fn send(&self, signal: i32) -> io::Result<()> {
        send_signal(self.0.as_fd(), signal)
    }
}

impl Sandbox {
    /// Starts the process; returns once it has been executed (or could not be). May be called from any thread.
    /// The sandbox dies with this process, however this process ends.
    ///
    /// # Errors
    /// The command is not there or not executable, or a step of the set-up failed.
    pub fn spawn(spec: &Spec, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> Result<Self, Error> {
        let start = || failed("start the sandbox");
        let (own_stdin, stdin) = ends(stdin, 0, spec.terminal).map_err(start())?;
        let (own_stdout, stdout) = ends(stdout, 1, spec.terminal).map_err(start())?;
        let (own_stderr, stderr) = ends(stderr, 2, spec.terminal).map_err(start())?;
        let document = document(spec).map_err(start())?;
        let (mut supervisor, channel) = launch().map_err(start())?;
        let fds = [&document, &stdin, &stdout, &stderr].map(AsFd::as_fd);
        let reply = channel.send(&Message::Run, &fds).and_then(|()| {
            // Only the sandbox holds the other ends of the pipes now.
            drop((stdin, stdout, stderr));
            channel.receive()
        });
        let failure = match reply {
            Ok(Some((Message::Started, fds))) => {
                let mut fds = fds.into_iter();
                if let Some(process) = fds.next() {
                    return Ok(Self {
                        stdin: own_stdin,
                        stdout: own_stdout,
                        stderr: own_stderr,
                        terminal: fds.next(),
                        process,
                        supervisor,
                        channel,
                        exit: None,
                    });
                }
                start()(io::Error::from(io::ErrorKind::InvalidData))
            }
            Ok(Some((Message::Failed(failure), _))) => failure.into(),
            Ok(_) => start()(io::Error::other("it ended before the command was started")),
            Err(error) => start()(error),
        };
        drop(channel);
        let _ = supervisor.wait();
        Err(failure)
    }

    /// Sends a signal to the process.
    ///
    /// # Errors
    /// As [`Signaller::send`].
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        send_signal(self.process.as_fd(), signal)
    }

    /// Sends signals while this sandbox is being waited for.
    ///
    /// # Errors
    /// Too many open files.
    pub fn signaller(&self) -> io::Result<Signaller> {
        Ok(Signaller(self.process.try_clone()?))
    }

    /// Becomes readable when the sandbox has ended, so that [`Sandbox::wait`] will not block (for long).
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Waits for the end. Everything the process started is gone then.
    ///
    /// # Errors
    /// The supervisor was killed, and the sandbox with it.
    pub fn wait(&mut self) -> io::Result<Exit> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let message = self.channel.receive();
        let _ = self.supervisor.wait();
        match message? {
            Some((Message::Ended(exit), _)) => {
                self.exit = Some(exit);
                Ok(exit)
            }
            _ => Err(io::Error::other("the sandbox's supervisor was killed")),
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.exit.is_none() {
            let _ = self.signal(libc::SIGKILL);
            let _ = self.wait();
        }
    }
}

/// The caller's end of a stream, if there is one, and the sandbox's.
fn ends(stdio: Stdio, number: usize, terminal: bool) -> io::Result<(Option<OwnedFd>, OwnedFd)> {
    match stdio {
        Stdio::Fd(fd) => Ok((None, fd)),
        Stdio::Null => Ok((None, crate::child::null()?)),
        Stdio::Pipe if terminal => Ok((None, crate::child::null()?)),
        Stdio::Pipe => {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            Ok(if number == 0 { (Some(write), read) } else { (Some(read), write) })
        }
        Stdio::Inherit => {
            let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
            let own = [input.as_fd(), output.as_fd(), error.as_fd()];
            let own = own.get(number).ok_or(io::ErrorKind::InvalidInput)?;
            Ok((None, own.try_clone_to_owned()?))
        }
    }
}

/// JSON of any length in memory, for [`crate::supervisor::read_document`].
///
/// # Errors
/// There is no memory for it.
pub fn document(content: &impl serde::Serialize) -> io::Result<OwnedFd> {
    let fd = memfd_create("kiln-spec", MemfdFlags::CLOEXEC)?;
    let bytes = serde_json::to_vec(content)?;
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        // At an offset, so that the reader starts at 0.
        written += rustix::io::pwrite(&fd, rest, u64::try_from(written).unwrap_or_default())?;
    }
    Ok(fd)
}

/// Starts a supervisor. Its standard input is the socket: the only descriptor it gets, whatever other threads do.
pub(crate) fn launch() -> io::Result<(Child, Channel)> {
    let (channel, theirs) = Channel::pair()?;
    Ok((start_again(SUPERVISOR, theirs)?, channel))
}

/// Starts this very binary under another name (`argv[0]`), with a socket as its standard input and nothing else.
///
/// # Errors
/// Too many processes or open files.
pub fn start_again(name: &str, socket: Channel) -> io::Result<Child> {
    Command::new(executable())
        .arg0(name)
        .env_clear()
        .stdin(socket.into_fd())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
}

/// This binary, by way of a read-only mount that is in no namespace: nothing in a sandbox that finds its way to
/// `/proc/<pid>/exe` can write to it.
fn executable() -> PathBuf {
    static MOUNT: OnceLock<Option<OwnedFd>> = OnceLock::new();
    let own = Path::new("/proc/self/exe");
    let mount = MOUNT.get_or_init(|| {
        let mount = clone_path(own).ok()?;
        add_mount_attributes(&mount, MOUNT_READONLY, true).ok()?;
        Some(mount)
    });
    match mount {
        Some(mount) => PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd())),
        // Without the right to mount there is nothing to protect it from either.
        None => own.to_owned(),
    }
}
