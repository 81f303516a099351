//! One block to one gzip member or zstd frame.

use std::io;

use libdeflater::{CompressionLvl, Compressor};

use super::Compression;
use super::noted_tar::{NOTED, Place, crc32};
use super::sampling::shrinks;
use crate::{Error, Result};

/// Bytes of one gzip member.
const GZIP_BLOCK: usize = 1 << 20;
/// Bytes of one zstd frame, which gains more from length.
const ZSTD_BLOCK: usize = 2 << 20;
const _: () = assert!(GZIP_BLOCK == NOTED && ZSTD_BLOCK.is_multiple_of(NOTED));
/// Most of the ratio at a fraction of the time, for both.
pub(super) const LEVEL: i32 = 3;

pub(super) fn block_size(compression: Compression) -> usize {
    if compression == Compression::Zstd { ZSTD_BLOCK } else { GZIP_BLOCK }
}

/// A block's compressed form.
pub(super) enum Encoded<'t> {
    /// Here.
    Bytes(Vec<u8>),
    /// It does not shrink, and its form is made when it is wanted.
    Later(Later<'t>),
}

/// A block of a tar that is only stored.
pub(super) struct Later<'t> {
    place: Place<'t>,
    crc: u32,
}

impl Later<'_> {
    /// Its gzip member. `block` is memory for it.
    ///
    /// # Errors
    /// [`Error::Changed`]
    pub(super) fn store(&self, block: &mut Vec<u8>) -> Result<Vec<u8>> {
        self.place.read(block)?;
        Ok(stored(block, self.crc))
    }
}

pub(super) enum Encoder {
    Plain,
    Gzip(Gzip),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Encoder {
    pub(super) fn new(compression: Compression, level: i32) -> Result<Self> {
        match compression {
            Compression::None => Ok(Self::Plain),
            Compression::Gzip => Gzip::new(level.clamp(0, 9)).map(Self::Gzip),
            Compression::Zstd => zstd::bulk::Compressor::new(level.clamp(1, 22)).map(Self::Zstd),
        }
        .map_err(Error::ArchiveWrite)
    }

    /// One gzip member or zstd frame. Both store blocks that do not shrink.
    pub(super) fn encode(&mut self, block: &[u8]) -> Result<Vec<u8>> {
        let encoded = match self {
            Self::Plain => Ok(block.to_vec()),
            Self::Gzip(gzip) => {
                let shrinks = shrinks(&mut gzip.compressor, block.len(), &mut |place, sample| {
                    sample.copy_from_slice(&block[place..place + sample.len()]);
                    Ok(())
                })?;
                if shrinks { gzip.member(block, crc32(block)) } else { Ok(stored(block, crc32(block))) }
            }
            Self::Zstd(compressor) => compressor.compress(block),
        };
        encoded.map_err(Error::ArchiveWrite)
    }

    /// The same of a block of a tar. `later` leaves one that does not shrink for later. `block` is memory for it.
    ///
    /// # Errors
    /// [`Error::Changed`]
    pub(super) fn encode_place<'t>(
        &mut self,
        place: Place<'t>,
        later: bool,
        block: &mut Vec<u8>,
    ) -> Result<Encoded<'t>> {
        let (Self::Gzip(gzip), &[crc]) = (&mut *self, place.crcs()) else {
            place.read(block)?;
            return self.encode(block).map(Encoded::Bytes);
        };
        let mut sample = |offset: usize, sample: &mut [u8]| place.sample(offset, sample);
        if shrinks(&mut gzip.compressor, place.length(), &mut sample)? {
            place.read(block)?;
            return gzip.member(block, crc).map(Encoded::Bytes).map_err(Error::ArchiveWrite);
        }
        let stored = Later { place, crc };
        if later { Ok(Encoded::Later(stored)) } else { stored.store(block).map(Encoded::Bytes) }
    }
}

/// What a gzip member begins with (RFC 1952, 2.3): deflate; no name, no time, and nothing else that could differ.
const HEADER: [u8; 10] = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255];
/// Its CRC and its length.
const TRAILER: usize = 8;
/// Its flag for a compressor that took the least time, and for one that took the most.
const FASTEST: u8 = 4;
const SLOWEST: u8 = 2;
/// Bytes of a deflate block that is not compressed, and of what is before them (RFC 1951, 3.2.4).
const STORED: usize = u16::MAX as usize;
const STORED_HEADER: usize = 5;

fn header(flag: u8) -> [u8; 10] {
    let mut header = HEADER;
    header[8] = flag;
    header
}

fn end(block: &[u8], crc: u32) -> impl Iterator<Item = u8> {
    // The length is one modulo 2^32.
    #[allow(clippy::cast_possible_truncation, reason = "as the format wants it")]
    let length = block.len() as u32;
    crc.to_le_bytes().into_iter().chain(length.to_le_bytes())
}

/// A gzip member of the bytes as they are.
fn stored(block: &[u8], crc: u32) -> Vec<u8> {
    let count = block.len().div_ceil(STORED).max(1);
    let mut out = Vec::with_capacity(HEADER.len() + count * STORED_HEADER + block.len() + TRAILER);
    out.extend(header(FASTEST));
    for number in 0..count {
        let piece = &block[number * STORED..block.len().min((number + 1) * STORED)];
        let length = u16::try_from(piece.len()).unwrap_or(u16::MAX);
        out.push(u8::from(number + 1 == count));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend_from_slice(piece);
    }
    out.extend(end(block, crc));
    out
}

/// Makes gzip members.
pub(super) struct Gzip {
    compressor: Compressor,
    flag: u8,
    /// Room for the longest, so that each takes no more than it needs.
    out: Vec<u8>,
}

impl Gzip {
    fn new(level: i32) -> io::Result<Self> {
        let flag = match level {
            ..2 => FASTEST,
            2..8 => 0,
            8.. => SLOWEST,
        };
        let level = CompressionLvl::new(level).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(Self { compressor: Compressor::new(level), flag, out: Vec::new() })
    }

    /// `crc` is the block's.
    fn member(&mut self, block: &[u8], crc: u32) -> io::Result<Vec<u8>> {
        let bound = self.compressor.deflate_compress_bound(block.len());
        if self.out.len() < bound {
            self.out.resize(bound, 0);
        }
        let length = self.compressor.deflate_compress(block, &mut self.out).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut member = Vec::with_capacity(HEADER.len() + length + TRAILER);
        member.extend(header(self.flag));
        member.extend_from_slice(&self.out[..length]);
        member.extend(end(block, crc));
        Ok(member)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Blobs that were made before must be made again.
    #[test]
    fn members_are_those_of_libdeflate() {
        let text = b"a line of text\n".repeat(20_000);
        let noise: Vec<u8> =
            (0..300_000_u64).map(|number| (number.wrapping_mul(number * 0x9E37_79B9) >> 13) as u8).collect();
        for bytes in [&text[..], &noise, &text[..STORED], &text[..STORED + 1], b"x", b""] {
            for level in 0..=9 {
                let mut whole = Compressor::new(CompressionLvl::new(level).unwrap());
                let mut expected = vec![0; whole.gzip_compress_bound(bytes.len())];
                let length = whole.gzip_compress(bytes, &mut expected).unwrap();
                let member = Gzip::new(level).unwrap().member(bytes, crc32(bytes)).unwrap();
                assert!(member == expected[..length], "level {level}, {} bytes", bytes.len());
                if level == 0 {
                    assert!(stored(bytes, crc32(bytes)) == member, "{} bytes", bytes.len());
                }
                let mut back = Vec::new();
                flate2::read::GzDecoder::new(&member[..]).read_to_end(&mut back).unwrap();
                assert!(back == bytes);
            }
        }
    }
}
