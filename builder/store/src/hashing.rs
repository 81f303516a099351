//! Hashing on a thread of its own, beside the one that reads.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::digest::{Algorithm, Hasher};
use crate::{Digest, Error, Result};

/// Small enough to stay in the processor's cache, large enough that handing over costs nothing.
const BLOCK: usize = 256 << 10;
/// Blocks between the two threads.
const DEPTH: usize = 4;

/// How often a state is kept, where it is: at multiples of this many bytes.
pub(crate) const MARK: u64 = 1 << 20;

/// What was known after so many bytes.
pub(crate) struct Mark {
    /// The number of bytes.
    pub(crate) place: u64,
    /// All of them were hashed.
    pub(crate) hasher: Hasher,
    /// The CRC-32 of those since the mark before.
    pub(crate) crc: u32,
}

/// A hasher that keeps what it knew on the way.
struct Marking {
    hasher: Hasher,
    marks: Option<Box<Marks>>,
}

#[derive(Default)]
struct Marks {
    done: u64,
    crc: libdeflater::Crc,
    marks: Vec<Mark>,
}

impl Marking {
    fn update(&mut self, block: &[u8]) {
        self.hasher.update(block);
        let Some(Marks { done, crc, marks }) = self.marks.as_deref_mut() else { return };
        *done += block.len() as u64;
        crc.update(block);
        if done.is_multiple_of(MARK) {
            marks.push(Mark { place: *done, hasher: self.hasher.clone(), crc: std::mem::take(crc).sum() });
        }
    }
}

/// An `io::Write` whose bytes are hashed on another thread; the thread is started when the first block is full, so
/// small input never pays for it.
pub(crate) struct BackgroundHasher {
    block: Vec<u8>,
    state: State,
}

enum State {
    Inline(Marking),
    Thread { full: SyncSender<Vec<u8>>, empty: Receiver<Vec<u8>>, thread: JoinHandle<Marking> },
    Lost,
}

impl BackgroundHasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        Self::from(Hasher::new(algorithm))
    }

    /// One that keeps its states for [`BackgroundHasher::finish_with_marks`].
    pub(crate) fn marking(algorithm: Algorithm) -> Self {
        let marking = Marking { hasher: Hasher::new(algorithm), marks: Some(Box::default()) };
        Self { block: Vec::with_capacity(BLOCK), state: State::Inline(marking) }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        if let State::Inline(_) = self.state {
            let State::Inline(mut hasher) = std::mem::replace(&mut self.state, State::Lost) else { return Ok(()) };
            let (full, blocks) = sync_channel::<Vec<u8>>(DEPTH);
            let (back, empty) = sync_channel(DEPTH + 2);
            let thread = std::thread::Builder::new().name("hash".to_owned()).spawn(move || {
                for mut block in blocks {
                    hasher.update(&block);
                    block.clear();
                    // Nobody waits for it when the writer is done.
                    let _ = back.try_send(block);
                }
                hasher
            })?;
            self.state = State::Thread { full, empty, thread };
        }
        let State::Thread { full, empty, .. } = &self.state else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let next = empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BLOCK));
        full.send(std::mem::replace(&mut self.block, next)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// The digest of all that was written.
    pub(crate) fn finish(self) -> Result<Digest> {
        Ok(self.finish_with_marks()?.0)
    }

    /// And what was known on the way.
    pub(crate) fn finish_with_marks(self) -> Result<(Digest, Vec<Mark>)> {
        let mut hasher = match self.state {
            State::Inline(hasher) => hasher,
            State::Thread { full, thread, .. } => {
                drop(full);
                thread.join().map_err(|_| Error::ThreadLost("the hashing thread"))?
            }
            State::Lost => return Err(Error::ThreadLost("the hashing thread")),
        };
        hasher.update(&self.block);
        Ok((hasher.hasher.finish(), hasher.marks.map_or_else(Vec::new, |marks| marks.marks)))
    }
}

impl From<Hasher> for BackgroundHasher {
    /// Goes on with what was hashed before.
    fn from(hasher: Hasher) -> Self {
        let marking = Marking { hasher, marks: None };
        Self { block: Vec::with_capacity(BLOCK), state: State::Inline(marking) }
    }
}

impl Write for BackgroundHasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.len() == BLOCK {
            self.hand_over()?;
        }
        let count = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
