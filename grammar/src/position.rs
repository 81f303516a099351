//! Lines and columns of a source, for many places of it.

use crate::logical::BYTE_ORDER_MARK;

/// Where the lines of a source begin.
#[derive(Debug)]
pub struct LineIndex<'s> {
    source: &'s [u8],
    starts: Vec<usize>,
}

impl<'s> LineIndex<'s> {
    /// Looks for the lines once.
    pub fn new(source: &'s [u8]) -> Self {
        let newlines = source.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let starts = std::iter::once(0).chain(newlines.map(|(at, _)| at + 1)).collect();
        Self { source, starts }
    }

    /// Line and column (both from 1, the column in characters) of a byte offset.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let offset = offset.min(self.source.len());
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let mut before = self.source.get(start..offset).unwrap_or_default();
        if start == 0 {
            before = before.strip_prefix(BYTE_ORDER_MARK).unwrap_or(before);
        }
        (line, String::from_utf8_lossy(before).chars().count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters() {
        let source = "\u{FEFF}é: x\r\nab\n".as_bytes();
        let lines = LineIndex::new(source);
        for (offset, expected) in [(0, (1, 1)), (3, (1, 1)), (5, (1, 2)), (10, (2, 1)), (11, (2, 2)), (99, (3, 1))] {
            assert_eq!(lines.position(offset), expected, "{offset}");
        }
        assert_eq!(LineIndex::new(b"").position(0), (1, 1));
    }
}
