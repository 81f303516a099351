//! From an archive to a layer.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::fs::CWD;

use super::{Compression, Layer, LayerBlob, Staging};
use crate::archive::decompress::{buffered, decompress, decompress_buffered};
use crate::archive::extract::{Extracted, extract};
use crate::archive::writer::Treatment;
use crate::digest::{Algorithm, Hasher};
use crate::{DiffId, Digest, Error, Result, Store, directory};

/// Bytes that go from thread to thread at once.
const BLOCK: usize = 256 << 10;
/// Blocks that wait for a thread.
const DEPTH: usize = 4;

/// A layer that has its diffID, but is not in its place yet; gone when dropped.
pub struct Unpacked {
    staging: Staging,
    layer: Layer,
    compression: Compression,
}

impl Store {
    /// Unpacks a layer tar (plain, gzip, zstd, by content), verifying `expected` when given. Hostile input cannot
    /// leave the directory. A layer that is here already is returned without reading anything.
    ///
    /// The bytes as they come are kept, as [`Store::unpack_blob`] does, only when the directory alone cannot give
    /// them back. Devices that this process may not make are left out with a warning.
    pub fn unpack(&self, tar: &mut dyn Read, expected: Option<&DiffId>) -> Result<Layer> {
        if let Some(expected) = expected
            && let Some(layer) = self.layer(expected)?
        {
            return Ok(layer);
        }
        let staging = self.stage()?;
        let mut copy = self.blobs().writer(Algorithm::Sha256)?;
        let input = buffered(Tee { input: tar, copy: &mut copy });
        let (layer, compression) = self.unpack_into(&staging, input, expected)?;
        let algorithm = layer.diff_id.algorithm();
        let reproducible = self.hash_directory(staging.upper(), algorithm, Treatment::Read)? == layer;
        if !reproducible {
            let (digest, size) = copy.commit(None, false)?;
            let blob = LayerBlob { digest, size, media_type: compression.media_type().to_owned() };
            self.remember_form(&layer.diff_id, blob, compression, true)?;
        }
        self.place(staging.upper(), layer, reproducible)
    }

    /// Unpacks a blob of the store and remembers it as the layer's compressed form.
    pub fn unpack_blob(&self, blob: &LayerBlob, expected: Option<&DiffId>) -> Result<Layer> {
        let Some(expected) = expected else { return self.unpack_fresh(blob, None) };
        let Some(layer) = self.layer(expected)? else { return self.unpack_fresh(blob, Some(expected)) };
        // The layer is here; that this blob is a form of it must still be seen, not believed.
        if !self.blob_rows(expected)?.iter().any(|row| row.blob.digest == blob.digest) {
            let file = self.blobs().get(&blob.digest)?.ok_or(Error::BlobMissing(blob.digest))?;
            let (compression, mut stream) = decompress(file).map_err(Error::ArchiveRead)?;
            let mut hasher = Hasher::new(expected.algorithm());
            copy(&mut stream, &mut hasher)?;
            check(blob.digest, expected, &hasher.finish())?;
            self.remember_form(expected, blob.clone(), compression, true)?;
        }
        Ok(layer)
    }

    fn unpack_fresh(&self, blob: &LayerBlob, expected: Option<&DiffId>) -> Result<Layer> {
        let file = self.blobs().get(&blob.digest)?.ok_or(Error::BlobMissing(blob.digest))?;
        self.keep(&self.unpack_stream(buffered(file), expected)?, blob)
    }

    /// Unpacks a layer tar beside its place, while the blob that it is in may still be on its way.
    pub fn unpack_stream(&self, input: impl BufRead, expected: Option<&DiffId>) -> Result<Unpacked> {
        let staging = self.stage()?;
        let (layer, compression) = self.unpack_into(&staging, input, expected)?;
        Ok(Unpacked { staging, layer, compression })
    }

    /// Puts an unpacked layer in its place, as what is in this blob of the store.
    pub fn keep(&self, unpacked: &Unpacked, blob: &LayerBlob) -> Result<Layer> {
        let Unpacked { staging, layer, compression } = unpacked;
        // First: a layer of another's bytes without its blob could never leave again.
        self.remember_form(&layer.diff_id, blob.clone(), *compression, true)?;
        self.place(staging.upper(), *layer, false)
    }

    /// A flattened root file system tar is unpacked as one layer whose diffID is that of our own deterministic tar.
    pub fn import_tar(&self, tar: &mut dyn Read) -> Result<Layer> {
        let staging = self.stage()?;
        self.unpack_into(&staging, buffered(tar), None)?;
        self.commit(staging, None)
    }

    /// Three threads: this one reads and decompresses, one hashes, one writes files.
    pub(super) fn unpack_into(
        &self,
        staging: &Staging,
        input: impl BufRead,
        expected: Option<&DiffId>,
    ) -> Result<(Layer, Compression)> {
        let path = staging.upper();
        let root = directory::open(CWD, path).map_err(Error::io("open", path))?;
        let privilege = self.privilege();
        let algorithm = expected.map_or(Algorithm::Sha256, Digest::algorithm);
        let (compression, mut stream) = decompress_buffered(input).map_err(Error::ArchiveRead)?;
        let (to_hash, hash_blocks) = sync_channel(DEPTH);
        let (to_extract, extract_blocks) = sync_channel(DEPTH);
        let (read, digest, extracted) = std::thread::scope(|scope| {
            let hashing = scope.spawn(move || hash(hash_blocks, algorithm));
            let extracting = scope.spawn(move || extract(BlockReader::new(extract_blocks), root, privilege));
            let read = distribute(&mut stream, &to_hash, &to_extract);
            drop((to_hash, to_extract));
            (read, hashing.join(), extracting.join())
        });
        // What stopped the extractor comes first: the reader then only noticed that nobody listens.
        let Extracted { entries, skipped_devices } =
            match (extracted.map_err(|_| Error::ThreadLost("the extracting thread"))?, &read) {
                (Err(Error::ArchiveRead(_)), Err(_)) => Extracted::default(),
                (extracted, _) => extracted?,
            };
        let tar_size = read?;
        let diff_id = digest.map_err(|_| Error::ThreadLost("the hashing thread"))?;
        if let Some(expected) = expected {
            check("layer", expected, &diff_id)?;
        }
        if skipped_devices > 0 {
            tracing::warn!(%diff_id, skipped_devices, "this process may not make devices: left out of the layer");
        }
        Ok((Layer { diff_id, tar_size, empty: entries == 0 }, compression))
    }
}

pub(super) fn check(what: impl std::fmt::Display, expected: &Digest, actual: &Digest) -> Result<()> {
    if expected == actual {
        return Ok(());
    }
    Err(Error::mismatch(format!("the content of {what}"), expected, actual))
}

/// Copies in large pieces; returns the number of bytes.
pub(super) fn copy(from: &mut dyn Read, to: &mut dyn Write) -> Result<u64> {
    let mut buffer = vec![0; BLOCK];
    let mut size = 0;
    loop {
        let count = fill(from, &mut buffer).map_err(Error::ArchiveRead)?;
        if count == 0 {
            return Ok(size);
        }
        to.write_all(&buffer[..count]).map_err(Error::ArchiveWrite)?;
        size += count as u64;
    }
}

/// Reads until the buffer is full or the input ends.
fn fill(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

type Block = Arc<Vec<u8>>;

/// Gives every block to both threads; ends when the input does, or when one of them has.
fn distribute(stream: &mut dyn Read, to_hash: &SyncSender<Block>, to_extract: &SyncSender<Block>) -> Result<u64> {
    let mut size = 0;
    let mut given = VecDeque::new();
    loop {
        let mut block = take_back(&mut given);
        let space = Arc::get_mut(&mut block).ok_or(Error::ThreadLost("a block's reader"))?;
        space.resize(BLOCK, 0);
        let count = fill(stream, space).map_err(Error::ArchiveRead)?;
        if count == 0 {
            return Ok(size);
        }
        space.truncate(count);
        size += count as u64;
        given.push_back(Arc::clone(&block));
        if to_hash.send(Arc::clone(&block)).is_err() || to_extract.send(block).is_err() {
            return Err(Error::ArchiveRead(io::ErrorKind::BrokenPipe.into()));
        }
    }
}

/// The oldest block if both threads are done with it, or else a new one.
fn take_back(given: &mut VecDeque<Block>) -> Block {
    match given.front_mut().map(Arc::get_mut) {
        Some(Some(_)) => given.pop_front().unwrap_or_default(),
        _ => Block::default(),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the channel closes when this ends")]
fn hash(blocks: Receiver<Block>, algorithm: Algorithm) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    for block in &blocks {
        hasher.update(&block);
    }
    hasher.finish()
}

/// Blocks of another thread as a stream.
struct BlockReader {
    blocks: Receiver<Block>,
    block: Block,
    position: usize,
}

impl BlockReader {
    fn new(blocks: Receiver<Block>) -> Self {
        Self { blocks, block: Block::default(), position: 0 }
    }
}

impl BufRead for BlockReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.block.len() {
            // Given back before the next one is waited for.
            (self.block, self.position) = (Block::default(), 0);
            self.block = self.blocks.recv().unwrap_or_default();
        }
        Ok(&self.block[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

impl Read for BlockReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// Keeps a copy of what is read.
struct Tee<'a, W> {
    input: &'a mut dyn Read,
    copy: &'a mut W,
}

impl<W: Write> Read for Tee<'_, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.copy.write_all(&buffer[..count])?;
        Ok(count)
    }
}
