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
    Thread { full: SyncSender<Bytes>, empty: Receiver<Vec<u8>>, thread: JoinHandle<Marking> },
    Lost,
}

/// On their way to the thread.
enum Bytes {
    /// A block, whose memory comes back.
    Copied(Vec<u8>),
    /// Somebody else's.
    Lent(Box<dyn AsRef<[u8]> + Send>),
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

    /// As `write_all`, without copying them when they are many. Not for a marking one, whose places are counted in
    /// blocks.
    pub(crate) fn write_lent(&mut self, bytes: impl AsRef<[u8]> + Send + 'static) -> io::Result<()> {
        if bytes.as_ref().len() < BLOCK {
            return self.write_all(bytes.as_ref());
        }
        self.hand_over_block()?;
        self.hand_over(Bytes::Lent(Box::new(bytes)))
    }

    fn hand_over_block(&mut self) -> io::Result<()> {
        let next = match &self.state {
            State::Thread { empty, .. } => empty.try_recv().ok(),
            _ => None,
        };
        let block = std::mem::replace(&mut self.block, next.unwrap_or_else(|| Vec::with_capacity(BLOCK)));
        self.hand_over(Bytes::Copied(block))
    }

    fn hand_over(&mut self, bytes: Bytes) -> io::Result<()> {
        if let State::Inline(_) = self.state {
            let State::Inline(mut hasher) = std::mem::replace(&mut self.state, State::Lost) else { return Ok(()) };
            let (full, blocks) = sync_channel(DEPTH);
            let (back, empty) = sync_channel(DEPTH + 2);
            let thread = std::thread::Builder::new().name("hash".to_owned()).spawn(move || {
                for bytes in blocks {
                    match bytes {
                        Bytes::Copied(mut block) => {
                            hasher.update(&block);
                            block.clear();
                            // Nobody waits for it when the writer is done.
                            let _ = back.try_send(block);
                        }
                        Bytes::Lent(bytes) => hasher.update((*bytes).as_ref()),
                    }
                }
                hasher
            })?;
            self.state = State::Thread { full, empty, thread };
        }
        let State::Thread { full, .. } = &self.state else { return Err(io::ErrorKind::BrokenPipe.into()) };
        full.send(bytes).map_err(|_| io::ErrorKind::BrokenPipe.into())
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
            self.hand_over_block()?;
        }
        let count = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copied_and_lent_bytes_are_hashed_in_their_order() {
        let bytes: Vec<u8> = (0..900_000_u32).flat_map(u32::to_le_bytes).collect();
        for lengths in [[1, 300_000, 7], [BLOCK, BLOCK, BLOCK], [BLOCK - 1, BLOCK + 1, 1], [900_000, 3, 2]] {
            let mut hasher = BackgroundHasher::new(Algorithm::Sha256);
            let (mut rest, mut number) = (&bytes[..], 0);
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(lengths[number % 3].min(rest.len()));
                if number % 2 == 0 { hasher.write_lent(piece.to_vec()) } else { hasher.write_all(piece) }.unwrap();
                (rest, number) = (more, number + 1);
            }
            assert_eq!(hasher.finish().unwrap(), Digest::of(&bytes));
        }
    }
}
