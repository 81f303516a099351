//! Messages between processes of kiln: a socket whose closing is a message too, and the messages of a sandbox.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::process::{Error, Exit};
use crate::root::trace::Trace;

/// Bytes of a message, at most. What may be longer (the spec) travels in a memfd.
const MESSAGE_LIMIT: usize = 64 * 1024;
const FDS_LIMIT: usize = 6;

/// One message; some carry descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// To the supervisor: the spec in a memfd, then standard input, output and error.
    Run,
    /// To the supervisor: the entry in a memfd, a running sandbox's first process, then standard input, output and error.
    Join,
    /// To the supervisor of a joined process: pass this signal on.
    Signal(i32),
    /// From the first process: its namespaces are there, and it waits for [`Message::Go`].
    Namespaces,
    /// To the first process.
    Go,
    /// To the supervisor: try what a sandbox needs, and tell.
    Probe,
    /// From the supervisor: what was found.
    Probed(crate::host::Trial),
    /// From the first process: the master side of its terminal.
    Terminal,
    /// From the first process: it had to create this in the upper directory.
    Trace(Trace),
    /// The command could not be executed.
    Failed(Failure),
    /// From the supervisor: it was; a pidfd, and the terminal if there is one.
    Started,
    /// From the supervisor: it has ended.
    Ended(Exit),
}

/// An [`Error`] that can travel.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Failure {
    NotFound(String),
    NotExecutable(String, i32),
    Setup(String, i32),
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let code = |source: &io::Error| source.raw_os_error().unwrap_or_default();
        match error {
            Error::NotFound(name) => Self::NotFound(name.clone()),
            Error::NotExecutable(name, source) => Self::NotExecutable(name.clone(), code(source)),
            // An error without a number keeps its words.
            Error::Setup { step, source } if code(source) == 0 => Self::Setup(format!("{step}: {source}"), 0),
            Error::Setup { step, source } => Self::Setup(step.clone(), code(source)),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotFound(name) => Self::NotFound(name),
            Failure::NotExecutable(name, code) => Self::NotExecutable(name, io::Error::from_raw_os_error(code)),
            Failure::Setup(step, 0) => Self::Setup { step, source: io::Error::other("the set-up stopped") },
            Failure::Setup(step, code) => Self::Setup { step, source: io::Error::from_raw_os_error(code) },
        }
    }
}

/// One end of a connected socket (SEQPACKET) that carries messages as JSON, and descriptors.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Both ends.
    ///
    /// # Errors
    /// Too many open files.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), Self(other)))
    }

    /// Of a socket that is connected already.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The socket.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Sends one message.
    ///
    /// # Errors
    /// It is too long (64 KiB), the other end is closed (EPIPE), or a non-blocking socket is full (EAGAIN).
    pub fn send<M: Serialize>(&self, message: &M, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_bytes(&serde_json::to_vec(message)?, fds)
    }

    /// Sends one message of bytes.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub fn send_bytes(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if bytes.len() > MESSAGE_LIMIT {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a message that is too long"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_LIMIT))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)
        })?;
        Ok(())
    }

    /// The next message; `None` when the other end is closed.
    ///
    /// # Errors
    /// It is none of `M`; a non-blocking socket has none (EAGAIN).
    pub fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let Some((bytes, fds)) = self.receive_bytes()? else { return Ok(None) };
        Ok(Some((serde_json::from_slice(&bytes)?, fds)))
    }

    /// The bytes of the next message; `None` when the other end is closed.
    ///
    /// # Errors
    /// It is longer than any that may be sent; a non-blocking socket has none (EAGAIN).
    pub fn receive_bytes(&self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MESSAGE_LIMIT];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_LIMIT))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            rustix::net::recvmsg(&self.0, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        });
        let received = match received {
            Ok(received) if received.bytes == 0 => return Ok(None),
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            Ok(received) => received,
            Err(error) => return Err(error.into()),
        };
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        bytes.truncate(received.bytes);
        Ok(Some((bytes, fds)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
