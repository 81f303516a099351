//! Blocks on their way: cut from what is written, compressed for themselves on any core, taken in their order. How far
//! compression runs ahead of whoever takes them is a number of bytes; blocks that would only be stored do not wait in
//! memory where they can be read again, so that a slow network still finds what follows them compressed.

use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Condvar, Mutex, PoisonError};

use super::Compression;
use super::encoder::{Encoded, Encoder, Storer, block_size};
use crate::{Error, Result};

/// More cores than these would only wait for the one that reads, each with its blocks in memory.
const MAX_WORKERS: usize = 8;
/// Blocks that wait besides those that are being compressed, each in its first or its last form.
const WAITING: usize = 6;
/// Empty blocks whose memory is kept.
const SPARE: usize = 3;
/// Blocks of any form that compression is ahead at most.
const AHEAD: usize = 1024;

/// Takes compressed blocks in their order.
pub(super) type Sink<'a> = dyn FnMut(Vec<u8>) -> Result<()> + Send + 'a;

/// Compresses what `fill` writes, on all cores. `file`, where there is one, has the same bytes.
pub(super) fn in_blocks(
    (compression, level): (Compression, i32),
    file: Option<&File>,
    sink: &mut Sink<'_>,
    fill: impl FnOnce(&mut Blocks<'_>) -> Result<()>,
) -> Result<()> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS);
    let size = block_size(compression);
    let room = Room::new((workers + WAITING) * size);
    let (to_workers, jobs) = sync_channel::<Job>(1);
    let (to_writer, results) = sync_channel(AHEAD);
    let jobs = Mutex::new(jobs);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| work(&jobs, &room, (compression, level), file.is_some()));
        }
        let writing = scope.spawn(|| pass_in_order(results, file, &room, sink));
        let mut blocks = Blocks { block: Vec::new(), size, done: 0, room: &room, to_workers, to_writer };
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
type Compressed = io::Result<(Encoded, usize)>;

/// A block, and where its compressed form is awaited.
struct Job {
    block: Vec<u8>,
    done: Sender<Compressed>,
}

/// Cuts what is written into blocks.
pub(super) struct Blocks<'a> {
    block: Vec<u8>,
    size: usize,
    /// Bytes of the blocks before this one.
    done: u64,
    room: &'a Room,
    to_workers: SyncSender<Job>,
    to_writer: SyncSender<(u64, Receiver<Compressed>)>,
}

impl Blocks<'_> {
    fn hand_over(&mut self) -> io::Result<()> {
        let block = std::mem::take(&mut self.block);
        let (done, result) = channel();
        let offset = self.done;
        self.done += block.len() as u64;
        self.to_writer.send((offset, result)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.to_workers.send(Job { block, done }).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        if self.block.is_empty() { Ok(()) } else { self.hand_over().map_err(Error::ArchiveWrite) }
    }
}

impl Write for Blocks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.capacity() == 0 {
            self.room.take(self.size);
            self.block = self.room.block(self.size);
        }
        let count = bytes.len().min(self.size - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == self.size {
            self.hand_over()?;
        }
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses blocks until there are no more.
fn work(jobs: &Mutex<Receiver<Job>>, room: &Room, (compression, level): (Compression, i32), again: bool) {
    let size = block_size(compression);
    let mut encoder = Encoder::new(compression, level);
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { mut block, done }) = job else { return };
        let encoded = match &mut encoder {
            Ok(encoder) => encoder.encode(&mut block, again && room.is_scarce()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        let taken = match &encoded {
            Ok(Encoded::Bytes(bytes)) => bytes.len().min(size),
            Ok(Encoded::Stored { .. }) | Err(_) => 0,
        };
        room.take_back(block);
        room.give(size - taken);
        // Without a writer there is nobody left who wants it.
        let _ = done.send(encoded.map(|encoded| (encoded, taken)));
    }
}

fn pass_in_order(
    results: Receiver<(u64, Receiver<Compressed>)>,
    file: Option<&File>,
    room: &Room,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let passed = pass_all(&results, file, room, sink);
    // The reader must not wait for somebody who has given up.
    drop(results);
    room.give(usize::MAX);
    passed
}

fn pass_all(
    results: &Receiver<(u64, Receiver<Compressed>)>,
    file: Option<&File>,
    room: &Room,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let mut storer = file.map(Storer::new).transpose().map_err(Error::ArchiveRead)?;
    for (offset, result) in results {
        let compressed = result.recv().map_err(|_| Error::ThreadLost("a compressing thread"))?;
        let (encoded, taken) = compressed.map_err(Error::ArchiveWrite)?;
        match (encoded, &mut storer) {
            (Encoded::Bytes(bytes), _) => sink(bytes)?,
            (Encoded::Stored { length, crc }, Some(storer)) => {
                sink(storer.store(offset, length, crc).map_err(Error::ArchiveRead)?)?;
            }
            (Encoded::Stored { .. }, None) => return Err(Error::ThreadLost("the layer's file")),
        }
        room.give(taken);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::layer::encoder::LEVEL;

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

    fn compress(bytes: &[u8], compression: Compression, file: Option<&File>, pause: Duration) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut sink = |block: Vec<u8>| {
            std::thread::sleep(pause);
            out.extend(block);
            Ok(())
        };
        in_blocks((compression, LEVEL), file, &mut sink, |blocks| {
            bytes.chunks(300_001).try_for_each(|piece| blocks.write_all(piece)).map_err(Error::ArchiveWrite)
        })?;
        Ok(out)
    }

    #[test]
    fn the_same_bytes_however_slow_the_sink_and_whether_they_can_be_read_again() {
        let bytes = mixed();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let fast = compress(&bytes, compression, None, Duration::ZERO).unwrap();
            for file in [None, Some(&file)] {
                for pause in [Duration::ZERO, Duration::from_millis(8)] {
                    assert!(compress(&bytes, compression, file, pause).unwrap() == fast);
                }
            }
        }
    }

    #[test]
    fn a_file_with_other_bytes_and_a_sink_that_fails_end_it() {
        let bytes = mixed();
        let mut other = tempfile::tempfile().unwrap();
        other.write_all(&vec![1; bytes.len()]).unwrap();
        let slow = Duration::from_millis(8);
        assert!(matches!(compress(&bytes, Compression::Gzip, Some(&other), slow), Err(Error::ArchiveRead(_))));
        let mut sink = |_| Err(Error::ThreadLost("the test"));
        let failed = in_blocks((Compression::Gzip, LEVEL), None, &mut sink, |blocks| {
            blocks.write_all(&bytes).map_err(Error::ArchiveWrite)
        });
        assert!(matches!(failed, Err(Error::ThreadLost("the test"))));
    }
}
