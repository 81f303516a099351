//! Whether a block is worth compressing, by samples of it: what is compressed or random already takes longer than
//! anything else, for nothing.

use std::io;

use libdeflater::Compressor;

use crate::{Error, Result};

/// How many pieces of a block, and of how many bytes, tell whether it shrinks.
const SAMPLES: usize = 16;
const SAMPLE: usize = 4 << 10;
/// A sample that does not become shorter by this many bytes does not shrink.
const SAVED: usize = SAMPLE / 64;
/// The squares of how often each byte is in a sample, added up: at most this when no code for single bytes saves
/// [`SAVED`]. Random ones have 69,600, plus or minus 400; the entropy of such a sample is at least 7.88 bits a byte.
const FLAT: u32 = 71_000;
/// Three bytes that were there before, as often as they may be in a random sample: each saves less than two.
const REPEATED: usize = 4;
/// Places of a table of where three bytes were last.
const PLACES: usize = 1 << 13;

/// Whether any sample of a block of so many bytes becomes shorter; `read` gets the sample at a place.
pub(super) fn shrinks(
    compressor: &mut Compressor,
    length: usize,
    read: &mut dyn FnMut(usize, &mut [u8]) -> Result<()>,
) -> Result<bool> {
    let step = length / SAMPLES;
    if step < 2 * SAMPLE {
        return Ok(true);
    }
    let (mut sample, mut out) = ([0; SAMPLE], Vec::new());
    for number in 0..SAMPLES {
        // From the middle of each part: at its beginning, the header of a tar would speak for the first of all blocks.
        read(number * step + (step - SAMPLE) / 2, &mut sample)?;
        // Finding nothing takes a compressor longest.
        if is_random(&sample) {
            continue;
        }
        out.resize(compressor.deflate_compress_bound(SAMPLE), 0);
        let length = compressor
            .deflate_compress(&sample, &mut out)
            .map_err(|_| Error::ArchiveWrite(io::ErrorKind::OutOfMemory.into()))?;
        if length < SAMPLE - SAVED {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether there is surely nothing to gain: all bytes are about equally frequent, and nothing comes twice.
fn is_random(sample: &[u8]) -> bool {
    // Four counts for each byte: equal bytes in a row need not wait for each other.
    let mut counts = [[0_u16; 256]; 4];
    for bytes in sample.chunks_exact(4) {
        for (counts, byte) in counts.iter_mut().zip(bytes) {
            counts[usize::from(*byte)] += 1;
        }
    }
    let [a, b, c, d] = &counts;
    let squares = (0..256).map(|byte| u32::from(a[byte] + b[byte] + c[byte] + d[byte]).pow(2));
    squares.sum::<u32>() <= FLAT && repetitions(sample) <= REPEATED
}

/// How often three bytes are there again, as far as a small table tells.
fn repetitions(sample: &[u8]) -> usize {
    let mut last = [0_u32; PLACES];
    let mut found = 0;
    for bytes in sample.windows(3) {
        let three = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 1]);
        let place = &mut last[(three.wrapping_mul(0x9E37_79B1) >> 19) as usize];
        found += usize::from(*place == three);
        *place = three;
    }
    found
}

#[cfg(test)]
mod tests {
    use libdeflater::CompressionLvl;
    use proptest::prelude::*;

    use super::*;

    fn random(length: usize, mut seed: u64) -> Vec<u8> {
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 32) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    /// What a compressor says of a sample.
    fn saves(sample: &[u8]) -> bool {
        let mut compressor = Compressor::new(CompressionLvl::new(super::super::encoder::LEVEL).unwrap());
        let mut out = vec![0; compressor.deflate_compress_bound(sample.len())];
        compressor.deflate_compress(sample, &mut out).unwrap() < SAMPLE - SAVED
    }

    #[test]
    fn random_bytes_are_recognised() {
        for seed in 1..200 {
            assert!(is_random(&random(SAMPLE, seed * 0x1234_5678_9ABC)), "{seed}");
        }
        let text = b"a line of text\n".repeat(300);
        let counting: Vec<u8> = (0..SAMPLE).map(|number| number as u8).collect();
        let twice = random(SAMPLE / 2, 5).repeat(2);
        for sample in [&text[..SAMPLE], &counting, &twice, &[0; SAMPLE]] {
            assert!(!is_random(sample) && saves(sample));
        }
    }

    proptest! {
        /// Bytes of which some are more frequent, or that come again: nothing that shrinks is taken for random.
        #[test]
        fn what_shrinks_is_not_random(
            seed in 1_u64..,
            frequent in 1_usize..60,
            copied in 0_usize..200,
            bits in 1_u32..=8,
        ) {
            let mut sample = random(SAMPLE, seed);
            for place in (0..SAMPLE).step_by(frequent) {
                sample[place] >>= 8 - bits;
            }
            sample.copy_within(0..copied, SAMPLE / 2);
            prop_assert!(!is_random(&sample) || !saves(&sample));
        }
    }

    #[test]
    fn one_sample_that_shrinks_is_enough() {
        let mut compressor = Compressor::new(CompressionLvl::new(super::super::encoder::LEVEL).unwrap());
        let mut shrinks = |block: &[u8]| {
            let mut read = |place: usize, sample: &mut [u8]| {
                sample.copy_from_slice(&block[place..place + sample.len()]);
                Ok(())
            };
            super::shrinks(&mut compressor, block.len(), &mut read).unwrap()
        };
        let mut block = random(1 << 20, 9);
        assert!(!shrinks(&block));
        block[(15 << 16) + (30 << 10)..][..SAMPLE].fill(3);
        assert!(shrinks(&block));
        assert!(shrinks(&random(100, 1)), "too small to tell");
    }
}
