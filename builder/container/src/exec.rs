//! Another command in a container that runs.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use kiln_sandbox::join::Joined;
use kiln_sandbox::{Channel, Exit};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};
use signal_hook::consts::SIGWINCH;
use signal_hook::iterator::Signals;

use crate::attach::{DetachKeys, Ended, RawMode, Terminal};
use crate::protocol::{Command, Packet, Request};
use crate::record::Container;
use crate::state::Phase;
use crate::stop::{answer, supervisor_of};
use crate::{Error, Result};

/// What `exec` was asked for.
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    /// The argument vector.
    pub args: Vec<String>,
    /// `NAME=value`, over the container's environment.
    pub env: Vec<String>,
    /// The container's when not given.
    pub user: Option<String>,
    /// The container's when not given.
    pub workdir: Option<String>,
    /// Do not wait for it.
    pub detach: bool,
    /// Keep standard input open.
    pub interactive: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// All capabilities.
    pub privileged: bool,
}

/// Executes a command, and follows it unless the options say otherwise.
///
/// # Errors
/// The container does not run, or the command could not be executed.
pub fn exec(container: &Container, options: &ExecOptions, terminal: &Terminal) -> Result<Ended> {
    let record = &container.record;
    let not_running = || Error::NotRunning(record.name.clone());
    if container.state.phase == Phase::Paused {
        return Err(Error::Invalid(format!("container {} is paused: unpause it first", record.name)));
    }
    if let Some(directory) = options.workdir.as_deref().filter(|directory| !directory.starts_with('/')) {
        return Err(Error::Invalid(format!("the working directory {directory:?} is not an absolute path")));
    }
    let supervisor = supervisor_of(container)?.ok_or_else(not_running)?;
    let io = |error| Error::io("execute a command in", &record.name, error);
    let streams = Streams::new(options).map_err(io)?;
    let (channel, theirs) = Channel::pair().map_err(io)?;
    let request = Request::Execute(Box::new(Command {
        args: options.args.clone(),
        env: options.env.clone(),
        user: options.user.clone(),
        workdir: options.workdir.clone(),
        terminal: options.tty,
        terminal_size: terminal.size().filter(|_| options.tty),
        privileged: options.privileged,
        program: None,
    }));
    let theirs = theirs.into_fd();
    let [stdin, stdout, stderr] = &streams.inner;
    let fds = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), theirs.as_fd()];
    Packet::Request(request).send(&supervisor, &fds).map_err(io)?;
    drop(theirs);
    answer(container, &supervisor)?;
    let joined = Joined::follow(channel)?;
    let Streams { inner, outer } = streams;
    drop(inner);
    if options.detach {
        return Ok(Ended::Detached);
    }
    match joined.terminal.as_ref().map(OwnedFd::try_clone).transpose().map_err(io)? {
        Some(master) => with_terminal(&joined, master, options.interactive, &terminal.detach_keys),
        None => with_pipes(&joined, outer),
    }
    .map_err(io)
}

/// The command's ends of its streams, and ours.
struct Streams {
    inner: [OwnedFd; 3],
    outer: [Option<OwnedFd>; 3],
}

impl Streams {
    fn new(options: &ExecOptions) -> std::io::Result<Self> {
        let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
        let piped = !options.tty && !options.detach;
        let (stdin, input) = if piped && options.interactive {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            (read, Some(write))
        } else {
            (null()?, None)
        };
        if !piped {
            return Ok(Self { inner: [stdin, null()?, null()?], outer: [None, None, None] });
        }
        let ((output, stdout), (errors, stderr)) = (pipe_with(PipeFlags::CLOEXEC)?, pipe_with(PipeFlags::CLOEXEC)?);
        Ok(Self { inner: [stdin, stdout, stderr], outer: [input, Some(output), Some(errors)] })
    }
}

fn ended(exit: Exit) -> Ended {
    Ended::Status(match exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128_u8.saturating_add(u8::try_from(signal).unwrap_or(127)),
    })
}

fn with_pipes(joined: &Joined, [input, output, errors]: [Option<OwnedFd>; 3]) -> std::io::Result<Ended> {
    if let Some(input) = input {
        // It ends with the process: a read of our input cannot be called off.
        std::thread::spawn(move || copy(&mut std::io::stdin(), &mut File::from(input)));
    }
    // What the command left running may hold its streams: only what is there when it ends is waited for.
    let copying = |from: Option<OwnedFd>, error: bool| {
        let (done, end) = pipe_with(PipeFlags::CLOEXEC)?;
        let thread = std::thread::spawn(move || {
            let Some(from) = from else { return };
            if error {
                drain(&from, &done, &mut std::io::stderr());
            } else {
                drain(&from, &done, &mut std::io::stdout());
            }
        });
        Ok::<_, std::io::Error>((thread, end))
    };
    let (output, errors) = (copying(output, false)?, copying(errors, true)?);
    let exit = joined.wait()?;
    for (thread, end) in [output, errors] {
        drop(end);
        let _ = thread.join();
    }
    Ok(ended(exit))
}

/// Copies until the stream ends; or, once `done` has hung up, until there is nothing in it.
fn drain(from: &OwnedFd, done: &OwnedFd, to: &mut dyn Write) {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let mut polled = [PollFd::new(from, PollFlags::IN), PollFd::new(done, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| poll(&mut polled, None)).is_err() {
            return;
        }
        if polled[0].revents().is_empty() {
            return;
        }
        match rustix::io::read(from, &mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                if to.write_all(&buffer[..length]).and_then(|()| to.flush()).is_err() {
                    return;
                }
            }
        }
    }
}

fn with_terminal(joined: &Joined, master: OwnedFd, input: bool, keys: &DetachKeys) -> std::io::Result<Ended> {
    let raw = if input { RawMode::enter() } else { None };
    let (left, leave) = pipe_with(PipeFlags::CLOEXEC)?;
    if input {
        let (mut to, mut keys) = (File::from(master.try_clone()?), keys.clone().watch());
        std::thread::spawn(move || {
            let _leave = leave;
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = std::io::stdin().read(&mut buffer) {
                let (bytes, detached) = keys.pass(&buffer[..length]);
                if to.write_all(&bytes).is_err() {
                    break;
                }
                if detached {
                    return;
                }
            }
            // Nobody lets go by closing standard input.
            std::thread::park();
        });
    } else {
        std::mem::forget(leave);
    }
    let mut signals = Signals::new([SIGWINCH])?;
    let sizes = master.try_clone()?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if let Some((ws_row, ws_col)) = Terminal::default().size() {
                let _ = tcsetwinsize(&sizes, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 });
            }
        }
    });
    let copying = std::thread::spawn(move || copy(&mut File::from(master), &mut std::io::stdout()));
    use rustix::event::{PollFd, PollFlags, poll};
    let mut polled = [PollFd::from_borrowed_fd(joined.ended(), PollFlags::IN), PollFd::new(&left, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut polled, None))?;
    if polled[0].revents().is_empty() {
        drop(raw);
        return Ok(Ended::Detached);
    }
    let exit = joined.wait()?;
    // The kernel ends the read when the last process of the terminal is gone; one that was left behind is not waited for.
    let patience = std::time::Instant::now() + std::time::Duration::from_millis(500);
    while !copying.is_finished() && std::time::Instant::now() < patience {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    drop(raw);
    Ok(ended(exit))
}

/// Until either side ends; a terminal says EIO when nobody holds its other side.
fn copy(from: &mut dyn Read, to: &mut dyn Write) {
    let mut buffer = [0; 32 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                if to.write_all(&buffer[..length]).and_then(|()| to.flush()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
