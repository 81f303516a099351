//! Layer archives: tar as POSIX.1-2001 (ustar with PAX records) and the OCI image specification's "Image Layer
//! Filesystem Changeset" have it.
//!
//! Written by [`writer`], a pure function of a directory; read by [`reader`], whose memory no archive can make grow;
//! unpacked by [`extract`], which no archive can lead out of its directory.

pub(crate) mod decompress;
pub(crate) mod extract;
pub(crate) mod header;
pub(crate) mod reader;
pub(crate) mod writer;

/// Bytes of a header, and what everything is padded to.
pub(crate) const BLOCK: usize = 512;

/// Marks a removed file of a lower layer.
pub(crate) const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// What aufs kept for itself; only [`OPAQUE`] means something to others.
pub(crate) const WHITEOUT_META_PREFIX: &[u8] = b".wh..wh.";
/// Marks a directory whose lower content is hidden.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";

/// The bytes that fill the last block of `size`.
pub(crate) fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}
