//! The lines of the source around a span, small enough to render whatever the source's size.

use std::ops::Range;

use crate::logical::BYTE_ORDER_MARK;
use crate::span::Span;

/// A span that covers more lines than this is shown by its first ones.
const MOST_LINES: usize = 8;

/// Whole lines of the source, as text.
pub(super) struct Excerpt {
    pub(super) text: String,
    /// The number of its first line, from 1.
    pub(super) first_line: usize,
    /// The span, in `text`.
    pub(super) highlight: Range<usize>,
}

impl Excerpt {
    pub(super) fn of(source: &[u8], span: Span) -> Self {
        let start = span.start.min(source.len());
        let end = span.end.clamp(start, source.len());
        let line_start = line_start(source, start);
        let lines_end = lines_end(source, start, end);
        let end = end.min(lines_end);
        let first_line = source[..line_start].iter().filter(|byte| **byte == b'\n').count() + 1;
        let text_start = match source.strip_prefix(BYTE_ORDER_MARK) {
            Some(_) if line_start == 0 => BYTE_ORDER_MARK.len().min(start),
            _ => line_start,
        };
        let mut text = String::new();
        append(&mut text, &source[text_start..start]);
        let from = text.len();
        append(&mut text, &source[start..end]);
        let to = text.len();
        append(&mut text, &source[end..lines_end]);
        Self { text, first_line, highlight: from..to }
    }
}

fn line_start(source: &[u8], offset: usize) -> usize {
    source[..offset].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1)
}

/// The end of the span's last line, or of the last line that is shown.
fn lines_end(source: &[u8], start: usize, end: usize) -> usize {
    let mut at = start;
    for _ in 0..MOST_LINES {
        at += source[at..].iter().position(|byte| *byte == b'\n').unwrap_or(source.len() - at);
        if at >= end || at == source.len() {
            break;
        }
        at += 1;
    }
    if at > start && source.get(at - 1) == Some(&b'\r') { at - 1 } else { at }
}

/// Control characters would move the carets, so each becomes a space of the same width.
fn append(text: &mut String, bytes: &[u8]) {
    for character in String::from_utf8_lossy(bytes).chars() {
        let harmless = !character.is_control() || matches!(character, '\n' | '\t');
        text.push(if harmless { character } else { ' ' });
    }
}
