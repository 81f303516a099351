//! Somebody at the supervisor's socket.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use kiln_sandbox::Channel;

use crate::protocol::{Attachment, Event, Packet};

/// One connection. Nothing is lost on one that is slow: whoever writes waits for it.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) channel: Channel,
    pub(crate) attachment: Attachment,
    /// Wants to know when the container has ended for good.
    pub(crate) waits: bool,
    pending: VecDeque<Vec<u8>>,
    pub(crate) gone: bool,
}

impl Client {
    pub(crate) fn new(channel: Channel, attachment: Attachment) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(channel.as_fd(), true)?;
        Ok(Self { channel, attachment, waits: false, pending: VecDeque::new(), gone: false })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// It has not taken everything yet.
    pub(crate) fn is_behind(&self) -> bool {
        !self.pending.is_empty() && !self.gone
    }

    pub(crate) fn tell(&mut self, event: Event) {
        self.send(&Packet::Event(event));
    }

    pub(crate) fn send(&mut self, packet: &Packet) {
        if let Ok(bytes) = packet.encode() {
            self.pending.push_back(bytes);
            self.flush();
        }
    }

    /// As far as it takes it now.
    pub(crate) fn flush(&mut self) {
        while let Some(bytes) = self.pending.front() {
            match self.channel.send_bytes(bytes, &[]) {
                Ok(()) => drop(self.pending.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
    }
}
