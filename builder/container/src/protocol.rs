//! What a supervisor and whoever deals with its container say to each other: a byte that tells what it is, and then
//! bytes of a stream or JSON.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use kiln_sandbox::cgroup::{Limits, Usage};
use kiln_sandbox::{Channel, Spec};
use serde::{Deserialize, Serialize};

use crate::{Record, RestartPolicy};

/// Bytes of a stream in one message, at most.
pub(crate) const CHUNK: usize = 32 * 1024;

/// What a new supervisor gets in a memfd.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The container's directory.
    pub(crate) path: std::path::PathBuf,
    pub(crate) record: Record,
    pub(crate) spec: Spec,
}

/// One message.
#[derive(Debug)]
pub(crate) enum Packet {
    /// From the supervisor.
    Output(Stream, Vec<u8>),
    /// To it.
    Input(Vec<u8>),
    Request(Request),
    Event(Event),
}

/// Where output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// To a supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// The first message that one gets: the [`Job`] and the container's lock.
    Launch(Attachment),
    /// See and be seen.
    Attach(Attachment),
    /// There is no more input.
    CloseInput,
    /// Rows and columns of the terminal.
    Resize(u16, u16),
    /// For the first process.
    Signal(i32),
    /// Ends the container for good: a signal, seconds until it is killed (never, when negative).
    Stop(i32, i64),
    /// Tell when it has ended for good.
    Wait,
    /// No more output, please.
    Detach,
    /// A command in the container: standard input, output, error, and the channel for its
    /// [`kiln_sandbox::join::Joined`].
    Execute(Box<Command>),
    /// Its processes.
    List,
    /// What all processes use, as [`Event::Measured`].
    Measure,
    /// Stop all its processes where they are, or let them go on.
    Freeze(bool),
    /// Other limits and another restart policy from now on.
    Update(Box<Limits>, RestartPolicy),
}

/// What a client wants of the streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attachment {
    pub(crate) input: bool,
    pub(crate) output: bool,
}

/// `exec`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Command {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    /// The container's own when not given.
    pub(crate) user: Option<String>,
    pub(crate) workdir: Option<String>,
    pub(crate) terminal: bool,
    pub(crate) terminal_size: Option<(u16, u16)>,
    pub(crate) privileged: bool,
    /// One of kiln's own programs.
    pub(crate) program: Option<String>,
}

/// From a supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The command was executed.
    Started,
    /// It could not be: docker's exit status and why; or another request could not be met.
    Failed(u8, String),
    /// The last input went on its way: more is welcome.
    Ready,
    /// It ended with this status.
    Ended(u8),
    /// As asked.
    Detached,
    /// An answer.
    Listed(Vec<crate::top::Process>),
    /// Another.
    Measured(Usage),
    /// A request was met.
    Done,
}

const OUTPUT: u8 = 1;
const ERROR: u8 = 2;
const INPUT: u8 = 0;
const REQUEST: u8 = b'?';
const EVENT: u8 = b'!';

impl Packet {
    pub(crate) fn encode(&self) -> io::Result<Vec<u8>> {
        let with = |tag: u8, bytes: &[u8]| [&[tag], bytes].concat();
        Ok(match self {
            Self::Output(Stream::Stdout, bytes) => with(OUTPUT, bytes),
            Self::Output(Stream::Stderr, bytes) => with(ERROR, bytes),
            Self::Input(bytes) => with(INPUT, bytes),
            Self::Request(request) => with(REQUEST, &serde_json::to_vec(request)?),
            Self::Event(event) => with(EVENT, &serde_json::to_vec(event)?),
        })
    }

    pub(crate) fn send(&self, channel: &Channel, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        channel.send_bytes(&self.encode()?, fds)
    }

    /// `None` when the other end is closed.
    pub(crate) fn receive(channel: &Channel) -> io::Result<Option<(Self, Vec<OwnedFd>)>> {
        let Some((mut bytes, fds)) = channel.receive_bytes()? else { return Ok(None) };
        let tag = bytes.remove(0);
        let packet = match tag {
            OUTPUT => Self::Output(Stream::Stdout, bytes),
            ERROR => Self::Output(Stream::Stderr, bytes),
            INPUT => Self::Input(bytes),
            REQUEST => Self::Request(serde_json::from_slice(&bytes)?),
            EVENT => Self::Event(serde_json::from_slice(&bytes)?),
            _ => return Err(io::Error::from(io::ErrorKind::InvalidData)),
        };
        Ok(Some((packet, fds)))
    }
}
