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
    Gzip { packing: Gzip, storing: Gzip },
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Encoder {
    pub(super) fn new(compression: Compression, level: i32) -> io::Result<Self> {
        match compression {
            Compression::None => Ok(Self::Plain),
            Compression::Gzip => Ok(Self::Gzip { packing: Gzip::new(level.clamp(0, 9))?, storing: Gzip::new(0)? }),
            Compression::Zstd => zstd::bulk::Compressor::new(level.clamp(1, 22)).map(Self::Zstd),
        }
    }

    /// One gzip member or zstd frame. Both store blocks that do not shrink; if `again`, gzip leaves that for later.
    /// What is left of the block is of no use but for its memory.
    pub(super) fn encode(&mut self, block: &mut Vec<u8>, again: bool) -> io::Result<Encoded> {
        let bytes = match self {
            Self::Plain => std::mem::take(block),
            Self::Gzip { packing, storing } => match (shrinks(&mut packing.compressor, block)?, again) {
                (true, _) => packing.member(block)?,
                (false, false) => storing.member(block)?,
                (false, true) => return Ok(Encoded::Stored { length: block.len(), crc: crc(block) }),
            },
            Self::Zstd(compressor) => compressor.compress(block)?,
        };
        Ok(Encoded::Bytes(bytes))
    }
}

/// Makes gzip members.
pub(super) struct Gzip {
    compressor: Compressor,
    /// Room for the longest member, so that each takes no more than it needs.
    out: Vec<u8>,
}

impl Gzip {
    fn new(level: i32) -> io::Result<Self> {
        let level = CompressionLvl::new(level).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(Self { compressor: Compressor::new(level), out: Vec::new() })
    }

    fn member(&mut self, block: &[u8]) -> io::Result<Vec<u8>> {
        let bound = self.compressor.gzip_compress_bound(block.len());
        if self.out.len() < bound {
            self.out.resize(bound, 0);
        }
        let length = self.compressor.gzip_compress(block, &mut self.out).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(self.out[..length].to_vec())
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Stores blocks that were left for later.
pub(super) struct Storer<'a> {
    file: &'a File,
    storing: Gzip,
    block: Vec<u8>,
}

impl<'a> Storer<'a> {
    /// `file` has the blocks.
    pub(super) fn new(file: &'a File) -> io::Result<Self> {
        Ok(Self { file, storing: Gzip::new(0)?, block: Vec::new() })
    }

    /// The gzip member that an [`Encoder`] would have made of these bytes.
    pub(super) fn store(&mut self, offset: u64, length: usize, expected: u32) -> io::Result<Vec<u8>> {
        self.block.resize(length, 0);
        self.file.read_exact_at(&mut self.block, offset)?;
        if crc(&self.block) != expected {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the layer changed while it was read"));
        }
        self.storing.member(&self.block)
    }
}
