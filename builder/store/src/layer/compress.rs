//! From a layer to a blob: fixed blocks, each compressed for itself on any core, written in their order. The blob
//! depends on the layer alone, not on the machine or the number of its cores.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};

use libdeflater::{CompressionLvl, Compressor};

use super::sampling::shrinks;
use super::{Compression, LayerBlob};
use crate::digest::{Algorithm, Hasher};
use crate::{DiffId, Error, Result, Store};

/// Bytes of one gzip member.
const GZIP_BLOCK: usize = 1 << 20;
/// Bytes of one zstd frame, which gains more from length.
const ZSTD_BLOCK: usize = 2 << 20;
/// Most of the ratio at a fraction of the time, for both.
pub(super) const LEVEL: i32 = 3;
/// More cores than these would only wait for the one that reads, each with its blocks in memory.
const MAX_WORKERS: usize = 8;

impl Store {
    /// Compresses the layer into a blob (in parallel, same bytes on every machine), or returns the one that is here.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`] and [`Error::Changed`] when the layer is no longer what it was.
    pub fn compress(&self, diff_id: &DiffId, compression: Compression) -> Result<LayerBlob> {
        match self.layer_blob(diff_id, compression)? {
            Some(blob) => Ok(blob),
            None => {
                let blob = self.compress_at(diff_id, compression, LEVEL)?;
                self.remember_form(diff_id, blob.clone(), compression, false)?;
                Ok(blob)
            }
        }
    }

    /// Compresses the layer into bytes that go to `sink` alone, a block at a time: what an upload sends as they are
    /// made. What they were is remembered ([`Store::remembered_blob`]), but they are not kept: whoever needs them here
    /// makes them again. They are not known to be the layer's before this returns.
    ///
    /// # Errors
    /// As [`Store::compress`].
    pub fn compress_to(
        &self,
        diff_id: &DiffId,
        compression: Compression,
        sink: &mut (dyn FnMut(Vec<u8>) + Send),
    ) -> Result<LayerBlob> {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut size = 0;
        self.compress_blocks(diff_id, (compression, LEVEL), &mut |block| {
            hasher.update(&block);
            size += block.len() as u64;
            sink(block);
            Ok(())
        })?;
        let blob = LayerBlob { digest: hasher.finish(), size, media_type: compression.media_type().to_owned() };
        self.remember_form(diff_id, blob.clone(), compression, false)?;
        Ok(blob)
    }

    /// Compresses the layer into a blob at another level than the usual one: 0 to 9 of gzip, 1 to 22 of zstd; others
    /// mean the nearest of these. The blob is not remembered as a form of the layer.
    ///
    /// # Errors
    /// As [`Store::compress`].
    pub fn compress_at(&self, diff_id: &DiffId, compression: Compression, level: i32) -> Result<LayerBlob> {
        let mut writer = self.blobs().writer(Algorithm::Sha256)?;
        self.compress_blocks(diff_id, (compression, level), &mut |block| {
            writer.write_all(&block).map_err(Error::ArchiveWrite)
        })?;
        let (digest, size) = writer.commit(None, false)?;
        Ok(LayerBlob { digest, size, media_type: compression.media_type().to_owned() })
    }

    fn compress_blocks(&self, diff_id: &DiffId, how: (Compression, i32), sink: &mut Sink<'_>) -> Result<()> {
        let mut check = self.check_tar(diff_id)?;
        in_blocks(how, sink, |blocks| self.write_tar(diff_id, &mut Both(&mut check, blocks)).map(drop))?;
        check.finish(diff_id)
    }
}

/// Compresses what can be read: the same bytes that [`Store::compress`] makes of a layer's tar.
///
/// # Errors
/// The input cannot be read, or the output written.
pub fn compress_stream(input: &mut dyn Read, compression: Compression, output: &mut (dyn Write + Send)) -> Result<()> {
    let mut sink = |block: Vec<u8>| output.write_all(&block).map_err(Error::ArchiveWrite);
    in_blocks((compression, LEVEL), &mut sink, |blocks| super::unpack::copy(input, blocks).map(drop))
}

/// Takes compressed blocks in their order.
pub(super) type Sink<'a> = dyn FnMut(Vec<u8>) -> Result<()> + Send + 'a;

/// Compresses what `fill` writes, on all cores.
pub(super) fn in_blocks(
    (compression, level): (Compression, i32),
    sink: &mut Sink<'_>,
    fill: impl FnOnce(&mut Blocks) -> Result<()>,
) -> Result<()> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS);
    let (to_workers, jobs) = sync_channel::<Job>(1);
    let (to_writer, results) = sync_channel(workers);
    let jobs = Mutex::new(jobs);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| work(&jobs, compression, level));
        }
        let writing = scope.spawn(move || pass_in_order(&results, sink));
        let block = Vec::with_capacity(block_size(compression));
        let mut blocks = Blocks { block, size: block_size(compression), to_workers, to_writer };
        let read = fill(&mut blocks).and_then(|()| blocks.finish());
        // What stopped the sink comes first: the reader then only noticed that nobody listens.
        writing.join().map_err(|_| Error::ThreadLost("the writing thread"))??;
        read
    })
}

pub(super) fn block_size(compression: Compression) -> usize {
    if compression == Compression::Zstd { ZSTD_BLOCK } else { GZIP_BLOCK }
}

type Compressed = io::Result<Vec<u8>>;

/// A block, and where its compressed form is awaited.
struct Job {
    block: Vec<u8>,
    done: Sender<Compressed>,
}

/// Cuts what is written into blocks.
pub(super) struct Blocks {
    block: Vec<u8>,
    size: usize,
    to_workers: SyncSender<Job>,
    to_writer: SyncSender<Receiver<Compressed>>,
}

impl Blocks {
    fn hand_over(&mut self) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(self.size));
        let (done, result) = channel();
        // The writer's queue is the bound on how far compression may run ahead.
        self.to_writer.send(result).map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.to_workers.send(Job { block, done }).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        if self.block.is_empty() { Ok(()) } else { self.hand_over().map_err(Error::ArchiveWrite) }
    }
}

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
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
fn work(jobs: &Mutex<Receiver<Job>>, compression: Compression, level: i32) {
    let mut encoder = Encoder::new(compression, level);
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { block, done }) = job else { return };
        let compressed = match &mut encoder {
            Ok(encoder) => encoder.encode(block),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        // Without a writer there is nobody left who wants it.
        let _ = done.send(compressed);
    }
}

enum Encoder {
    Plain,
    Gzip { packing: Compressor, storing: Compressor },
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Encoder {
    fn new(compression: Compression, level: i32) -> io::Result<Self> {
        let at = |level| CompressionLvl::new(level).map(Compressor::new).map_err(|_| io::ErrorKind::InvalidInput);
        match compression {
            Compression::None => Ok(Self::Plain),
            Compression::Gzip => Ok(Self::Gzip { packing: at(level.clamp(0, 9))?, storing: at(0)? }),
            Compression::Zstd => zstd::bulk::Compressor::new(level.clamp(1, 22)).map(Self::Zstd),
        }
    }

    /// One gzip member or zstd frame. Both store blocks that do not shrink.
    fn encode(&mut self, block: Vec<u8>) -> Compressed {
        match self {
            Self::Plain => Ok(block),
            Self::Gzip { packing, storing } => {
                let compressor = if shrinks(packing, &block)? { packing } else { storing };
                let mut out = vec![0; compressor.gzip_compress_bound(block.len())];
                let length = compressor.gzip_compress(&block, &mut out).map_err(|_| io::ErrorKind::OutOfMemory)?;
                out.truncate(length);
                Ok(out)
            }
            Self::Zstd(compressor) => compressor.compress(&block),
        }
    }
}

fn pass_in_order(results: &Receiver<Receiver<Compressed>>, sink: &mut Sink<'_>) -> Result<()> {
    for result in results {
        let compressed = result.recv().map_err(|_| Error::ThreadLost("a compressing thread"))?;
        sink(compressed.map_err(Error::ArchiveWrite)?)?;
    }
    Ok(())
}

/// Writes to two.
pub(super) struct Both<'a, A: ?Sized, B: ?Sized>(pub(super) &'a mut A, pub(super) &'a mut B);

impl<A: Write + ?Sized, B: Write + ?Sized> Write for Both<'_, A, B> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(bytes)?;
        self.1.write_all(bytes)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
