//! Compressed bytes of a layer made into others, without the layer being here.

use std::io::{Read, Write};

use super::Compression;
use super::blocks::in_blocks;
use super::encoder::LEVEL;
use crate::archive::decompress::decompress;
use crate::{Error, Result};

/// Compresses anew what can be read, however it was compressed: to the same bytes that [`crate::Store::compress`] makes of
/// the layer, or, at another level than the usual one, to those of [`crate::Store::compress_at`].
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
    let mut sink = |block: Vec<u8>| output.write_all(&block).map_err(Error::ArchiveWrite);
    let how = (compression, level.unwrap_or(LEVEL));
    in_blocks(how, None, &mut sink, |blocks| super::unpack::copy(&mut tar, blocks).map(drop))
}
