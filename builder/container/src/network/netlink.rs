//! Netlink: messages, attributes, and a socket that asks and waits. The kernel's answers are parsed with bounds.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// `NLM_F_REQUEST`
const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`
pub(crate) const ACKNOWLEDGE: u16 = 0x4;
/// `NLM_F_EXCL`
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`
pub(crate) const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`
pub(crate) const APPEND: u16 = 0x800;
/// `NLM_F_ROOT | NLM_F_MATCH`
pub(crate) const DUMP: u16 = 0x300;

const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLA_F_NESTED`
const NESTED: u16 = 0x8000;
const ANSWER_LIMIT: usize = 64 * 1024;
/// The kernel answers at once; this is for one that never does.
const PATIENCE: Duration = Duration::from_secs(20);

/// A message that is being written.
#[derive(Debug, Clone)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// With its fixed part.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        let mut message = Self(bytes);
        message.push(fixed);
        message
    }

    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Adds an attribute.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.push(value);
        self
    }

    /// Adds a number as netfilter wants it.
    pub(crate) fn big(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Adds a text, with the byte that ends it.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Adds an attribute made of others, and of what stands before them.
    pub(crate) fn nested(&mut self, kind: u16, fixed: &[u8], fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.0.len();
        self.attribute(kind | NESTED, fixed);
        fill(self);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Asks for an acknowledgement.
    pub(crate) fn acknowledge(&mut self) {
        let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) | ACKNOWLEDGE;
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
    }

    /// Its bytes, with length and number filled in.
    fn finish(mut self, number: u32) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&number.to_ne_bytes());
        self.0
    }
}

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// What follows the header.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A number of the fixed part.
    pub(crate) fn number(&self, at: usize) -> u32 {
        let bytes = self.body.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_ne_bytes)
    }

    /// The attributes that follow a fixed part of this length.
    pub(crate) fn attributes(&self, fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
        let mut rest = self.body.get(fixed..).unwrap_or_default();
        std::iter::from_fn(move || {
            let length = usize::from(u16::from_ne_bytes(rest.get(0..2)?.try_into().ok()?));
            let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & !NESTED;
            let value = rest.get(4..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((kind, value))
        })
    }
}

/// A socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    last: u32,
}

impl Socket {
    /// For interfaces, addresses and routes.
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(None)
    }

    /// For packet filters.
    pub(crate) fn netfilter() -> io::Result<Self> {
        Self::open(Some(netlink::NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { fd, last: 0 })
    }

    /// Sends a request that is only acknowledged.
    pub(crate) fn request(&mut self, message: Message) -> io::Result<()> {
        self.ask(message).map(drop)
    }

    /// Sends a request and collects what comes before its acknowledgement, or the end of a list.
    pub(crate) fn ask(&mut self, message: Message) -> io::Result<Vec<Answer>> {
        self.send(vec![message])?;
        self.collect()
    }

    /// Sends several messages as one (netfilter's transactions); the last one must ask for an acknowledgement.
    pub(crate) fn transact(&mut self, messages: Vec<Message>, acknowledged: usize) -> io::Result<()> {
        let first = self.last;
        self.send(messages)?;
        let end = self.last;
        self.last = first + u32::try_from(acknowledged).unwrap_or_default() + 1;
        let outcome = self.collect();
        self.last = end;
        outcome.map(drop)
    }

    fn send(&mut self, messages: Vec<Message>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for message in messages {
            self.last += 1;
            bytes.extend(message.finish(self.last));
        }
        rustix::net::send(&self.fd, &bytes, SendFlags::empty())?;
        Ok(())
    }

    fn collect(&mut self) -> io::Result<Vec<Answer>> {
        let mut answers = Vec::new();
        let mut buffer = vec![0; ANSWER_LIMIT];
        let mut failure = None;
        loop {
            let (length, _) =
                rustix::io::retry_on_intr(|| rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::empty()))?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some((kind, number, body)) = next(&mut rest) {
                match kind {
                    ERROR => {
                        let code = body.get(..4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes);
                        if code != 0 && failure.is_none() {
                            failure = Some(io::Error::from_raw_os_error(-code));
                        }
                        // A transaction goes on after an error, to find more of them.
                        if number >= self.last || (code != 0 && number == 0) {
                            return failure.map_or(Ok(answers), Err);
                        }
                    }
                    DONE => return failure.map_or(Ok(answers), Err),
                    _ => answers.push(Answer { body: body.to_vec() }),
                }
            }
        }
    }
}

/// Takes the next message: kind, number, body.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(u16, u32, &'a [u8])> {
    let length = usize::try_from(u32::from_ne_bytes(rest.get(0..4)?.try_into().ok()?)).ok()?;
    let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
    let number = u32::from_ne_bytes(rest.get(8..12)?.try_into().ok()?);
    let body = rest.get(HEADER..length)?;
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, number, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let mut message = Message::new(16, 0, &[1, 2, 3, 4]);
        message.attribute(3, b"abc").nested(18, &[], |inner| {
            inner.attribute(1, &7_u32.to_ne_bytes());
        });
        let bytes = message.finish(9);
        let mut rest = bytes.as_slice();
        let (kind, number, body) = next(&mut rest).unwrap();
        assert_eq!((kind, number, rest.len()), (16, 9, 0));
        let answer = Answer { body: body.to_vec() };
        let attributes: Vec<_> = answer.attributes(4).map(|(kind, value)| (kind, value.to_vec())).collect();
        assert_eq!(attributes[0], (3, b"abc".to_vec()));
        assert_eq!(attributes[1].0, 18);
        assert_eq!(attributes[1].1.len(), 8);
    }

    #[test]
    fn a_torn_answer_is_no_answer() {
        let answer = Answer { body: vec![0, 0, 0, 0, 200, 0, 1, 0, 5] };
        assert_eq!(answer.attributes(4).count(), 0);
        assert_eq!(answer.number(6), 0);
        assert!(next(&mut [1, 0, 0, 0].as_slice()).is_none());
    }
}
