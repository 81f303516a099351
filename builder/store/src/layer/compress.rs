//! From a layer to a blob: fixed blocks, each compressed for itself on any core, written in their order. The blob
//! depends on the layer alone, not on the machine or the number of its cores.

use std::io::{self, Read, Write};

use super::blocks::{Blocks, How, Sink, in_blocks};
use super::encoder::LEVEL;
use super::{Compression, LayerBlob};
use crate::archive::decompress::decompress;
use crate::digest::{Algorithm, Hasher};
use crate::hashing::BackgroundHasher;
use crate::{DiffId, Error, Result, Store};

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
        self.compress_blocks(diff_id, How { compression, level: LEVEL, yields: true }, &mut |block| {
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
        self.compress_blocks(diff_id, (compression, level).into(), &mut |block| {
            writer.write_lent(block).map_err(Error::ArchiveWrite)
        })?;
        let (digest, size) = writer.commit(None, false)?;
        Ok(LayerBlob { digest, size, media_type: compression.media_type().to_owned() })
    }

    fn compress_blocks(&self, diff_id: &DiffId, how: How, sink: &mut Sink<'_>) -> Result<()> {
        if let Some(tar) = &self.noted_tar(diff_id)? {
            return in_blocks(how, sink, |blocks| blocks.take(tar));
        }
        let mut hasher = BackgroundHasher::new(diff_id.algorithm());
        let write = |blocks: &mut Blocks<'_, '_>| self.write_tar(diff_id, &mut Both(&mut hasher, blocks)).map(drop);
        in_blocks(how, sink, write)?;
        let actual = hasher.finish()?;
        if actual != *diff_id {
            return Err(Error::mismatch("the layer's directory", diff_id, &actual));
        }
        Ok(())
    }
}

/// Compresses what can be read: the same bytes that [`Store::compress`] makes of a layer's tar.
///
/// # Errors
/// The input cannot be read, or the output written.
pub fn compress_stream(input: &mut dyn Read, compression: Compression, output: &mut (dyn Write + Send)) -> Result<()> {
    stream((compression, LEVEL), input, output)
}

/// The same of what is a layer's blob already, however that is compressed; at another level than the usual one the bytes
/// are those of [`Store::compress_at`].
///
/// # Errors
/// The input cannot be read or is damaged, or the output cannot be written.
pub fn recompress_stream(
    input: &mut dyn Read,
    compression: Compression,
    level: Option<i32>,
    output: &mut (dyn Write + Send),
) -> Result<()> {
    let (_, mut tar) = decompress(input).map_err(Error::ArchiveRead)?;
    stream((compression, level.unwrap_or(LEVEL)), &mut tar, output)
}

fn stream(how: (Compression, i32), tar: &mut dyn Read, output: &mut (dyn Write + Send)) -> Result<()> {
    let mut sink = |block: Vec<u8>| output.write_all(&block).map_err(Error::ArchiveWrite);
    in_blocks(how, &mut sink, |blocks| super::unpack::copy(tar, blocks).map(drop))
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
