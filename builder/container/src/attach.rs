//! Between the caller's terminal and a container: bytes, sizes, signals, and the keys that let go.

pub(crate) mod console;
mod detach;
mod raw;

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_sandbox::Channel;
use rustix::termios::{isatty, tcgetwinsize};
use signal_hook::consts::{SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;

pub use detach::DetachKeys;
pub(crate) use raw::RawMode;

use crate::protocol::{Attachment, CHUNK, Event, Packet, Request, Stream};
use crate::record::Container;
use crate::{Error, Record, Result, supervisor};

/// How often a container may be asked to end: the next time it is not asked. As docker's client does, which leaves.
const PATIENCE: u32 = 2;

/// The caller's side of things.
#[derive(Debug, Clone)]
pub struct Terminal {
    /// What lets go of the container.
    pub detach_keys: DetachKeys,
    /// Signals are passed on.
    pub signal_proxy: bool,
    /// Which of standard input, output and error are attached.
    pub streams: [bool; 3],
}

impl Default for Terminal {
    fn default() -> Self {
        Self { detach_keys: DetachKeys::default(), signal_proxy: true, streams: [true; 3] }
    }
}

impl Terminal {
    /// Rows and columns, if this process has a terminal.
    pub fn size(&self) -> Option<(u16, u16)> {
        let size = tcgetwinsize(std::io::stdin()).or_else(|_| tcgetwinsize(std::io::stdout())).ok()?;
        Some((size.ws_row, size.ws_col))
    }
}

/// How following a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The container did, with this status.
    Status(u8),
    /// It runs on.
    Detached,
    /// This process was told to end by this signal; the container runs on.
    Interrupted(i32),
}

/// An attachment to a container.
pub(crate) struct Session {
    name: String,
    tty: bool,
    terminal: Terminal,
    attachment: Attachment,
    /// Signals no longer end this process: they wait for [`Session::follow`].
    signals: Option<Signals>,
}

/// Attaches to a container that runs, and follows it.
///
/// # Errors
/// It does not run.
pub fn attach(container: &Container, input: bool, terminal: &Terminal) -> Result<Ended> {
    let record = &container.record;
    let channel = supervisor::connect(&container.path)?.filter(|_| container.state.is_alive());
    let channel = channel.ok_or_else(|| Error::NotRunning(record.name.clone()))?;
    let attachment = Attachment { input: input && record.settings.interactive, output: true };
    let session = Session::prepare(record, terminal, attachment)?;
    let send = |request| Packet::Request(request).send(&channel, &[]);
    let asked =
        send(Request::Attach(attachment)).and_then(|()| match terminal.size().filter(|_| record.settings.tty) {
            Some((rows, columns)) => send(Request::Resize(rows, columns)),
            None => Ok(()),
        });
    asked.map_err(|error| Error::io("attach to", &record.name, error))?;
    session.started(channel)?.follow()
}

impl Session {
    pub(crate) fn prepare(record: &Record, terminal: &Terminal, attachment: Attachment) -> Result<Self> {
        let all = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT, SIGWINCH];
        let signals = attachment.output.then(|| Signals::new(all)).transpose();
        Ok(Self {
            name: record.name.clone(),
            tty: record.settings.tty,
            terminal: terminal.clone(),
            attachment,
            signals: signals.map_err(|error| Error::io("catch signals for", &record.name, error))?,
        })
    }

    /// Waits until the command has been executed.
    pub(crate) fn started(self, channel: Channel) -> Result<Running> {
        match Packet::receive(&channel) {
            Ok(Some((Packet::Event(Event::Started), _))) => Ok(Running { session: self, channel: Arc::new(channel) }),
            Ok(Some((Packet::Event(Event::Failed(status, text)), _))) => Err(Error::NotStarted { status, text }),
            Err(error) => Err(Error::io("start", self.name, error)),
            Ok(_) => Err(Error::Lost(self.name)),
        }
    }
}

/// A [`Session`] with a command that runs.
pub(crate) struct Running {
    session: Session,
    channel: Arc<Channel>,
}

/// What the other threads tell.
#[derive(Debug, Default)]
struct Shared {
    interrupted: Mutex<Option<i32>>,
}

impl Running {
    /// Passes everything on until the container ends or is let go.
    pub(crate) fn follow(mut self) -> Result<Ended> {
        let shared = Arc::new(Shared::default());
        let (ready, wait_ready) = sync_channel(1);
        let raw = if self.session.attachment.input && self.session.tty { RawMode::enter() } else { None };
        if self.session.attachment.input {
            let (channel, keys) = (Arc::clone(&self.channel), self.session.terminal.detach_keys.clone());
            let keys = self.session.tty.then_some(keys);
            // It ends with the process: a read of our input cannot be called off.
            std::thread::spawn(move || send_input(&channel, keys, &wait_ready));
        }
        if let Some(signals) = self.session.signals.take() {
            let (channel, shared) = (Arc::clone(&self.channel), Arc::clone(&shared));
            let (tty, proxy) = (self.session.tty, self.session.terminal.signal_proxy);
            std::thread::spawn(move || forward(signals, &channel, tty, proxy, &shared));
        }
        let ended = self.receive(&ready, &shared);
        drop(raw);
        ended
    }

    fn receive(&self, ready: &SyncSender<()>, shared: &Shared) -> Result<Ended> {
        let (mut stdout, mut stderr) = (std::io::stdout(), std::io::stderr());
        let [_, shows_output, shows_errors] = self.session.terminal.streams;
        loop {
            match Packet::receive(&self.channel) {
                Ok(Some((Packet::Output(Stream::Stdout, _), _))) if !shows_output => {}
                Ok(Some((Packet::Output(Stream::Stderr, _), _))) if !shows_errors => {}
                // A reader that went away is no reason to stop the container.
                Ok(Some((Packet::Output(Stream::Stdout, bytes), _))) => {
                    let _ = stdout.write_all(&bytes).and_then(|()| stdout.flush());
                }
                Ok(Some((Packet::Output(Stream::Stderr, bytes), _))) => {
                    let _ = stderr.write_all(&bytes);
                }
                Ok(Some((Packet::Event(Event::Ended(status)), _))) => return Ok(Ended::Status(status)),
                Ok(Some((Packet::Event(Event::Ready), _))) => drop(ready.try_send(())),
                Ok(Some((Packet::Event(Event::Detached), _))) => {
                    let interrupted = *shared.interrupted.lock().unwrap_or_else(PoisonError::into_inner);
                    return Ok(interrupted.map_or(Ended::Detached, Ended::Interrupted));
                }
                Ok(Some(_)) => {}
                Ok(None) => return Err(Error::Lost(self.session.name.clone())),
                Err(error) => return Err(Error::io("follow", &self.session.name, error)),
            }
        }
    }
}

/// One chunk at a time, so that signals never wait behind input that nobody reads.
fn send_input(channel: &Channel, keys: Option<DetachKeys>, ready: &Receiver<()>) {
    let mut keys = keys.map(DetachKeys::watch);
    let mut buffer = vec![0; CHUNK];
    let send = |request| Packet::Request(request).send(channel, &[]);
    loop {
        let length = match std::io::stdin().read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let (bytes, leave) = match &mut keys {
            Some(keys) => keys.pass(&buffer[..length]),
            None => (buffer[..length].to_vec(), false),
        };
        if !bytes.is_empty() && (Packet::Input(bytes).send(channel, &[]).is_err() || ready.recv().is_err()) {
            return;
        }
        if leave {
            let _ = send(Request::Detach);
            return;
        }
    }
    let _ = send(Request::CloseInput);
}

fn forward(mut signals: Signals, channel: &Channel, tty: bool, proxy: bool, shared: &Shared) {
    let mut asked = 0;
    let send = |request| Packet::Request(request).send(channel, &[]);
    for signal in signals.forever() {
        if signal == SIGWINCH {
            if let Some((rows, columns)) = Terminal::default().size().filter(|_| tty) {
                let _ = send(Request::Resize(rows, columns));
            }
            continue;
        }
        let ends_us = matches!(signal, SIGINT | SIGTERM | SIGHUP | SIGQUIT);
        let is_ours = isatty(std::io::stdin()) && tty;
        if ends_us && (is_ours || !proxy) {
            *shared.interrupted.lock().unwrap_or_else(PoisonError::into_inner) = Some(signal);
            let _ = send(Request::Detach);
            continue;
        }
        asked += u32::from(matches!(signal, SIGINT | SIGTERM));
        // The first process of a pid namespace ignores what it has no handler for: the user would never get away.
        let signal = if asked > PATIENCE { SIGKILL } else { signal };
        // It may have ended a moment ago.
        if proxy {
            let _ = send(Request::Signal(signal));
        }
    }
}
