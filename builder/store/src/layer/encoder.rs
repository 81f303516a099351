//! One block to one gzip member or zstd frame.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use libdeflater::{CompressionLvl, Compressor, Crc};

use super::Compression;
use super::sampling::shrinks;

/// Bytes of one gzip member.
const GZIP_BLOCK: usize = 1 << 20;
/// Bytes of one zstd frame, which gains more from length.
const ZSTD_BLOCK: usize = 2 << 20;
/// Most of the ratio at a fraction of the time, for both.
pub(super) const LEVEL: i32 = 3;

pub(super) fn block_size(compression: Compression) -> usize {
    if compression == Compression::Zstd { ZSTD_BLOCK } else { GZIP_BLOCK }
}

/// A block's compressed form.
pub(super) enum Encoded {
    /// Here.
    Bytes(Vec<u8>),
    /// It does not shrink, and can be read again.
    Stored { length: usize, crc: u32 },
}

pub(super) enum Encoder {
    Plain,
    Gzip { packing: Compressor, storing: Compressor },
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Encoder {
    pub(super) fn new(compression: Compression, level: i32) -> io::Result<Self> {
        match compression {
            Compression::None => Ok(Self::Plain),
            Compression::Gzip => Ok(Self::Gzip { packing: gzip(level.clamp(0, 9))?, storing: gzip(0)? }),
            Compression::Zstd => zstd::bulk::Compressor::new(level.clamp(1, 22)).map(Self::Zstd),
        }
    }

    /// One gzip member or zstd frame. Both store blocks that do not shrink; if `again`, gzip leaves that for later.
    pub(super) fn encode(&mut self, block: Vec<u8>, again: bool) -> io::Result<Encoded> {
        let bytes = match self {
            Self::Plain => block,
            Self::Gzip { packing, storing } => match (shrinks(packing, &block)?, again) {
                (true, _) => member(packing, &block)?,
                (false, false) => member(storing, &block)?,
                (false, true) => return Ok(Encoded::Stored { length: block.len(), crc: crc(&block) }),
            },
            Self::Zstd(compressor) => compressor.compress(&block)?,
        };
        Ok(Encoded::Bytes(bytes))
    }
}

fn gzip(level: i32) -> io::Result<Compressor> {
    CompressionLvl::new(level).map(Compressor::new).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn member(compressor: &mut Compressor, block: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = vec![0; compressor.gzip_compress_bound(block.len())];
    let length = compressor.gzip_compress(block, &mut out).map_err(|_| io::ErrorKind::OutOfMemory)?;
    out.truncate(length);
    Ok(out)
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Stores blocks that were left for later.
pub(super) struct Storer<'a> {
    file: &'a File,
    storing: Compressor,
    block: Vec<u8>,
}

impl<'a> Storer<'a> {
    /// `file` has the blocks.
    pub(super) fn new(file: &'a File) -> io::Result<Self> {
        Ok(Self { file, storing: gzip(0)?, block: Vec::new() })
    }

    /// The gzip member that an [`Encoder`] would have made of these bytes.
    pub(super) fn store(&mut self, offset: u64, length: usize, expected: u32) -> io::Result<Vec<u8>> {
        self.block.resize(length, 0);
        self.file.read_exact_at(&mut self.block, offset)?;
        if crc(&self.block) != expected {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the layer changed while it was read"));
        }
        member(&mut self.storing, &self.block)
    }
}
