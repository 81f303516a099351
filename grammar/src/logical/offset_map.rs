//! From an offset of a logical line back to the source.

use crate::span::Span;

/// The pieces of the source that a logical line was put together from, in order.
#[derive(Debug, Default)]
pub(crate) struct OffsetMap {
    pieces: Vec<Piece>,
    /// Bytes cut from the front of the logical line.
    dropped: usize,
}

/// A run of bytes; `source_len` differs from the logical length only where invalid UTF-8 was replaced.
#[derive(Debug)]
struct Piece {
    logical: usize,
    source: usize,
    source_len: usize,
    replaced: bool,
}

impl OffsetMap {
    /// Appends bytes of the source to `text`, invalid UTF-8 replaced.
    pub(crate) fn append(&mut self, text: &mut String, bytes: &[u8], source: usize) {
        let mut at = source;
        for chunk in bytes.utf8_chunks() {
            self.push(text, chunk.valid(), at, chunk.valid().len(), false);
            at += chunk.valid().len();
            if !chunk.invalid().is_empty() {
                self.push(text, "\u{FFFD}", at, chunk.invalid().len(), true);
                at += chunk.invalid().len();
            }
        }
    }

    fn push(&mut self, text: &mut String, piece: &str, source: usize, source_len: usize, replaced: bool) {
        if !piece.is_empty() {
            self.pieces.push(Piece { logical: text.len(), source, source_len, replaced });
            text.push_str(piece);
        }
    }

    /// Tells that the first bytes of the logical line were cut off.
    pub(crate) fn drop_front(&mut self, bytes: usize) {
        self.dropped += bytes;
    }

    /// The source's range for a range of the logical line.
    pub(crate) fn span(&self, start: usize, end: usize) -> Span {
        let first = self.offset(start);
        if end <= start {
            return Span::new(first, first);
        }
        let (piece, within) = self.locate(end - 1);
        let last = piece.map_or(0, |piece| {
            piece.source + if piece.replaced { piece.source_len } else { (within + 1).min(piece.source_len) }
        });
        Span::new(first, last)
    }

    /// The source's offset for an offset of the logical line.
    fn offset(&self, logical: usize) -> usize {
        let (piece, within) = self.locate(logical);
        piece.map_or(0, |piece| piece.source + if piece.replaced { 0 } else { within.min(piece.source_len) })
    }

    fn locate(&self, logical: usize) -> (Option<&Piece>, usize) {
        let logical = logical + self.dropped;
        let after = self.pieces.partition_point(|piece| piece.logical <= logical);
        let piece = self.pieces.get(after.saturating_sub(1));
        (piece, piece.map_or(0, |piece| logical.saturating_sub(piece.logical)))
    }

    /// The first bytes that were not UTF-8.
    pub(crate) fn first_invalid(&self) -> Option<Span> {
        let piece = self.pieces.iter().find(|piece| piece.replaced)?;
        Some(Span::new(piece.source, piece.source + piece.source_len))
    }
}
