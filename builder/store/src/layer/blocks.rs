//! Blocks on their way: cut from what is written, compressed for themselves on any core, taken in their order. How far
//! compression runs ahead of whoever takes them is a number of bytes; blocks of a tar that would only be stored are read
//! when they are taken, so that a slow network still finds what follows them compressed.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Condvar, Mutex, PoisonError};

use super::Compression;
use super::encoder::{Encoded, Encoder, block_size};
use super::noted_tar::{NotedTar, Place};
use crate::{Error, Result};

/// More cores than these would only wait for the one that reads, each with its blocks in memory.
const MAX_WORKERS: usize = 8;
/// Blocks that wait besides those that are being compressed, each in its first or its last form.
const WAITING: usize = 6;
/// Empty blocks whose memory is kept.
const SPARE: usize = 3;
/// Blocks of any form that compression is ahead at most.
const AHEAD: usize = 1024;

/// How much later than others of its session a thread comes that yields (nice(2)): a third of their time.
const YIELDING: i32 = 5;

/// How blocks are compressed.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    pub(super) compression: Compression,
    pub(super) level: i32,
    /// Whoever takes the blocks comes first, and whoever he passes them to, perhaps on this machine.
    pub(super) yields: bool,
}

impl From<(Compression, i32)> for How {
    fn from((compression, level): (Compression, i32)) -> Self {
        Self { compression, level, yields: false }
    }
}

/// Takes compressed blocks in their order.
pub(super) type Sink<'a> = dyn FnMut(Vec<u8>) -> Result<()> + Send + 'a;

/// Compresses what `fill` writes, or takes of a tar, on all cores.
pub(super) fn in_blocks<'t>(
    how: impl Into<How>,
    sink: &mut Sink<'_>,
    fill: impl FnOnce(&mut Blocks<'_, 't>) -> Result<()>,
) -> Result<()> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS);
    let how = how.into();
    let size = block_size(how.compression);
    let room = Room::new((workers + WAITING) * size);
    let (to_workers, jobs) = sync_channel::<Job<'t>>(1);
    let (to_writer, results) = sync_channel(AHEAD);
    let jobs = Mutex::new(jobs);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| work(&jobs, &room, how));
        }
        let writing = scope.spawn(|| pass_in_order(results, &room, sink));
        let mut blocks = Blocks { block: Vec::new(), size, room: &room, to_workers, to_writer };
        let read = fill(&mut blocks).and_then(|()| blocks.finish());
        // What stopped the sink comes first: the reader then only noticed that nobody listens.
        writing.join().map_err(|_| Error::ThreadLost("the writing thread"))??;
        read
    })
}

/// Bytes that may still be taken, and the memory of blocks that are done.
struct Room {
    left: Mutex<usize>,
    most: usize,
    given: Condvar,
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Room {
    fn new(most: usize) -> Self {
        Self { left: Mutex::new(most), most, given: Condvar::new(), spare: Mutex::default() }
    }

    fn take(&self, bytes: usize) {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = self.given.wait_while(left, |left| *left < bytes).unwrap_or_else(PoisonError::into_inner);
        *left -= bytes;
    }

    fn give(&self, bytes: usize) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.saturating_add(bytes);
        self.given.notify_one();
    }

    /// An empty block.
    fn block(&self, size: usize) -> Vec<u8> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| Vec::with_capacity(size))
    }

    /// Keeps a block's memory for the next one.
    fn take_back(&self, mut block: Vec<u8>) {
        block.clear();
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if block.capacity() > 0 && spare.len() < SPARE {
            spare.push(block);
        }
    }

    /// Whoever takes the blocks is slower than compression.
    fn is_scarce(&self) -> bool {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) < self.most / 2
    }
}

/// A compressed block, and the room that it takes.
type Compressed<'t> = Result<(Encoded<'t>, usize)>;

/// A block.
enum Block<'t> {
    Bytes(Vec<u8>),
    /// Of a tar.
    Place(Place<'t>),
}

/// A block, and where its compressed form is awaited.
struct Job<'t> {
    block: Block<'t>,
    done: Sender<Compressed<'t>>,
}

/// Cuts what is written into blocks.
pub(super) struct Blocks<'a, 't> {
    block: Vec<u8>,
    size: usize,
    room: &'a Room,
    to_workers: SyncSender<Job<'t>>,
    to_writer: SyncSender<Receiver<Compressed<'t>>>,
}

impl<'t> Blocks<'_, 't> {
    /// All of a tar, which whoever compresses it reads.
    ///
    /// # Errors
    /// [`Error::Changed`], as far as it is noticed here.
    pub(super) fn take(&mut self, tar: &'t NotedTar) -> Result<()> {
        for place in tar.places(self.size) {
            self.room.take(self.size);
            self.hand_over(Block::Place(place)).map_err(Error::ArchiveWrite)?;
        }
        self.write_all(&tar.read_rest(self.size)?).map_err(Error::ArchiveWrite)
    }

    fn hand_over(&mut self, block: Block<'t>) -> io::Result<()> {
        let (done, result) = channel();
        self.to_writer.send(result).map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.to_workers.send(Job { block, done }).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(())
    }

    fn hand_over_bytes(&mut self) -> io::Result<()> {
        let block = std::mem::take(&mut self.block);
        self.hand_over(Block::Bytes(block))
    }

    fn finish(mut self) -> Result<()> {
        if self.block.is_empty() { Ok(()) } else { self.hand_over_bytes().map_err(Error::ArchiveWrite) }
    }
}

impl Write for Blocks<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.capacity() == 0 {
            self.room.take(self.size);
            self.block = self.room.block(self.size);
        }
        let count = bytes.len().min(self.size - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == self.size {
            self.hand_over_bytes()?;
        }
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses blocks until there are no more.
fn work(jobs: &Mutex<Receiver<Job<'_>>>, room: &Room, how: How) {
    if how.yields {
        // Of this thread alone, which ends here. Without it, it is as fast as the others.
        let _ = rustix::process::nice(YIELDING);
    }
    let size = block_size(how.compression);
    let mut encoder = None;
    // Of blocks that are read here.
    let mut memory = Vec::new();
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { block, done }) = job else { return };
        let mut encode = || {
            let encoder = match &mut encoder {
                Some(encoder) => encoder,
                none => none.insert(Encoder::new(how.compression, how.level)?),
            };
            match &block {
                Block::Bytes(bytes) => encoder.encode(bytes).map(Encoded::Bytes),
                Block::Place(place) => encoder.encode_place(*place, room.is_scarce(), &mut memory),
            }
        };
        let encoded = encode();
        let taken = match &encoded {
            Ok(Encoded::Bytes(bytes)) => bytes.len().min(size),
            Ok(Encoded::Later(_)) | Err(_) => 0,
        };
        if let Block::Bytes(bytes) = block {
            room.take_back(bytes);
        }
        room.give(size - taken);
        // Without a writer there is nobody left who wants it.
        let _ = done.send(encoded.map(|encoded| (encoded, taken)));
    }
}

fn pass_in_order(results: Receiver<Receiver<Compressed<'_>>>, room: &Room, sink: &mut Sink<'_>) -> Result<()> {
    let passed = pass_all(&results, room, sink);
    // The reader must not wait for somebody who has given up.
    drop(results);
    room.give(usize::MAX);
    passed
}

fn pass_all(results: &Receiver<Receiver<Compressed<'_>>>, room: &Room, sink: &mut Sink<'_>) -> Result<()> {
    let mut memory = Vec::new();
    for result in results {
        let (encoded, taken) = result.recv().map_err(|_| Error::ThreadLost("a compressing thread"))??;
        sink(match encoded {
            Encoded::Bytes(bytes) => bytes,
            Encoded::Later(later) => later.store(&mut memory)?,
        })?;
        room.give(taken);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::layer::encoder::LEVEL;
    use crate::layer::noted_tar::tests::noted;

    /// Bytes of which every other run of blocks is random, the rest text; neither ends where a block does.
    fn mixed() -> Vec<u8> {
        let mut seed = 88_172_645_463_325_252_u64;
        let mut bytes = Vec::new();
        for run in 0..4 {
            if run % 2 == 0 {
                bytes.extend((0..1_500_000).flat_map(|_| {
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    seed.to_le_bytes()
                }));
            } else {
                bytes.extend(b"text that shrinks\n".repeat(500_000));
            }
        }
        bytes
    }

    fn compress(bytes: &[u8], compression: Compression, tar: Option<&NotedTar>, pause: Duration) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut sink = |block: Vec<u8>| {
            std::thread::sleep(pause);
            out.extend(block);
            Ok(())
        };
        in_blocks((compression, LEVEL), &mut sink, |blocks| match tar {
            Some(tar) => blocks.take(tar),
            None => bytes.chunks(300_001).try_for_each(|piece| blocks.write_all(piece)).map_err(Error::ArchiveWrite),
        })?;
        Ok(out)
    }

    #[test]
    fn the_same_bytes_however_slow_the_sink_and_whether_they_are_of_a_tar() {
        let bytes = mixed();
        let tar = noted(&bytes, &bytes);
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let fast = compress(&bytes, compression, None, Duration::ZERO).unwrap();
            for tar in [None, Some(&tar)] {
                for pause in [Duration::ZERO, Duration::from_millis(8)] {
                    assert!(compress(&bytes, compression, tar, pause).unwrap() == fast);
                }
            }
        }
    }

    #[test]
    fn a_tar_with_other_bytes_and_a_sink_that_fails_end_it() {
        let bytes = mixed();
        for place in [5, 20 << 20, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            let tar = noted(&bytes, &changed);
            for pause in [Duration::ZERO, Duration::from_millis(8)] {
                let compressed = compress(&bytes, Compression::Gzip, Some(&tar), pause);
                assert!(matches!(compressed, Err(Error::Changed(_))));
            }
        }
        let mut sink = |_| Err(Error::ThreadLost("the test"));
        let failed = in_blocks((Compression::Gzip, LEVEL), &mut sink, |blocks| {
            blocks.write_all(&bytes).map_err(Error::ArchiveWrite)
        });
        assert!(matches!(failed, Err(Error::ThreadLost("the test"))));
    }
}
