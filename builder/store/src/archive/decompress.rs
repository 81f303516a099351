//! Finding out how an archive is compressed, by its first bytes, and undoing it.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use crate::layer::Compression;

/// Bytes asked of the input at a time.
const BUFFER: usize = 128 << 10;
/// The largest window a zstd frame may ask for, as a power of two: 32 MiB. Only `zstd --ultra` and `--long` want more.
const ZSTD_WINDOW: u32 = 25;

/// A stream of the uncompressed bytes; several gzip members or zstd frames follow each other as one.
pub(crate) fn decompress<'a>(input: impl Read + 'a) -> io::Result<(Compression, Box<dyn Read + 'a>)> {
    decompress_buffered(buffered(input))
}

/// What asks of the input a good piece at a time.
pub(crate) fn buffered<R: Read>(input: R) -> BufReader<R> {
    BufReader::with_capacity(BUFFER, input)
}

/// The same of what is in memory, a piece at a time.
pub(crate) fn decompress_buffered<'a>(mut input: impl BufRead + 'a) -> io::Result<(Compression, Box<dyn Read + 'a>)> {
    let mut start = Vec::with_capacity(4);
    input.by_ref().take(4).read_to_end(&mut start)?;
    let compression = detect(&start);
    let input = Cursor::new(start).chain(input);
    Ok((
        compression,
        match compression {
            Compression::None => Box::new(input),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(ZSTD_WINDOW)?;
                Box::new(decoder)
            }
        },
    ))
}

fn detect(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        // A frame, or a skippable frame (RFC 8878, 3.1).
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Compression::Zstd,
        _ => Compression::None,
    }
}
