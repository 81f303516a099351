//! One run of the container's command, and its streams.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use kiln_sandbox::process::Error;
use kiln_sandbox::{First, Spec};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::runtime::Process;
use crate::protocol::{CHUNK, Stream};
use crate::record::Record;
use crate::runtime::Runtime;

fn own(spec: &Spec, streams: [OwnedFd; 3]) -> Result<(Process, Option<OwnedFd>), Option<Error>> {
    let mut first = First::start(spec, streams, None, None)?.ok_or(None)?;
    let terminal = first.terminal.take();
    Ok((Process::Own(first), terminal))
}

/// A terminal for a runtime, which makes another one for the container and passes all on.
fn terminal(size: Option<(u16, u16)>) -> rustix::io::Result<(OwnedFd, [OwnedFd; 3])> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    if let Some((ws_row, ws_col)) = size {
        tcsetwinsize(&master, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 })?;
    }
    let copy = || rustix::io::fcntl_dupfd_cloexec(&slave, 3);
    let streams = [copy()?, copy()?, copy()?];
    Ok((master, streams))
}

/// The command that runs.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) first: Process,
    /// Write end of its standard input (or its terminal).
    stdin: Option<OwnedFd>,
    /// Read ends; a terminal is standard output.
    outputs: [Option<OwnedFd>; 2],
    input: VecDeque<u8>,
    closing: bool,
}

impl Run {
    /// Starts it.
    pub(crate) fn start(spec: &Spec, record: &Record, home: &Path) -> Result<Self, Error> {
        let interactive = record.settings.interactive;
        let failed = |source: Errno| Error::Setup { step: "make the streams".to_owned(), source: source.into() };
        let null = || {
            let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
            rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty())
        };
        let (streams, mut ends) = if spec.terminal {
            ([null(), null(), null()].map(|file| file.map_err(failed)), [None, None, None])
        } else {
            let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(failed);
            let (stdin, input) = if interactive {
                let (read, write) = pipe()?;
                (Ok(read), Some(write))
            } else {
                (null().map_err(failed), None)
            };
            let ((output, stdout), (errors, stderr)) = (pipe()?, pipe()?);
            ([stdin, Ok(stdout), Ok(stderr)], [input, Some(output), Some(errors)])
        };
        let [stdin, stdout, stderr] = streams;
        let streams = [stdin?, stdout?, stderr?];
        let (first, terminal) = match Runtime::of(record, home) {
            None => own(spec, streams).map_err(|error| error.unwrap_or_else(|| failed(Errno::CANCELED)))?,
            Some(runtime) => {
                let (streams, terminal) = if spec.terminal {
                    let (master, streams) = terminal(spec.terminal_size).map_err(failed)?;
                    (streams, Some(master))
                } else {
                    (streams, None)
                };
                (Process::Foreign(runtime.start(spec, record, home, streams)?), terminal)
            }
        };
        if let Some(terminal) = terminal {
            ends[1] = Some(
                terminal
                    .try_clone()
                    .map_err(|error| Error::Setup { step: "share the terminal".to_owned(), source: error })?,
            );
            ends[0] = Some(terminal);
        }
        for end in ends.iter().flatten() {
            rustix::io::ioctl_fionbio(end, true).map_err(failed)?;
        }
        let [stdin, stdout, stderr] = ends;
        Ok(Self { first, stdin, outputs: [stdout, stderr], input: VecDeque::new(), closing: false })
    }

    /// What output may be read from.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.outputs.iter().flatten().map(AsFd::as_fd)
    }

    /// What waits to be written to, when something does.
    pub(crate) fn input(&self) -> Option<BorrowedFd<'_>> {
        self.stdin.as_ref().filter(|_| !self.input.is_empty()).map(AsFd::as_fd)
    }

    /// All output that is there now, piece by piece; one piece of each stream when not `all`.
    pub(crate) fn read(&mut self, all: bool, take: &mut dyn FnMut(Stream, Vec<u8>)) {
        for (output, stream) in self.outputs.iter_mut().zip([Stream::Stdout, Stream::Stderr]) {
            while let Some(file) = output {
                let mut bytes = vec![0; CHUNK];
                match rustix::io::read(&*file, &mut bytes) {
                    Ok(0) => *output = None,
                    Ok(length) => {
                        bytes.truncate(length);
                        take(stream, bytes);
                        if !all {
                            break;
                        }
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    // A terminal that nobody holds any more says EIO.
                    Err(_) => *output = None,
                }
            }
        }
    }

    /// Takes input in; whether all of it has been passed on already.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> bool {
        self.input.extend(bytes);
        self.flush()
    }

    /// Passes input on; whether none is left.
    pub(crate) fn flush(&mut self) -> bool {
        while let Some(stdin) = self.stdin.as_ref().filter(|_| !self.input.is_empty()) {
            match rustix::io::write(stdin, self.input.as_slices().0) {
                Ok(length) => drop(self.input.drain(..length)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                Err(_) => self.stdin = None,
            }
        }
        if self.stdin.is_none() {
            self.input.clear();
        }
        if self.closing && self.input.is_empty() {
            self.stdin = None;
        }
        true
    }

    /// No more input comes. A terminal stays open: whoever reads it may be told by a character.
    pub(crate) fn close_input(&mut self) {
        if !self.is_terminal() {
            self.closing = true;
            self.flush();
        }
    }

    fn is_terminal(&self) -> bool {
        self.stdin.as_ref().is_some_and(rustix::termios::isatty)
    }

    pub(crate) fn resize(&self, (ws_row, ws_col): (u16, u16)) {
        if let Some(terminal) = &self.stdin {
            let _ = tcsetwinsize(terminal, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 });
            self.first.resized();
        }
    }
}
