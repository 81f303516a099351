//! Physical lines to logical ones: byte order mark, line ends, parser directives, comments, continuations, heredocs.

mod directives;
mod heredoc;
mod offset_map;

pub(crate) use heredoc::HeredocBody;
pub(crate) use offset_map::OffsetMap;

use crate::ast::Directives;
use crate::diagnostic::Diagnostic;
use crate::lint::Check;
use crate::span::{Span, Spanned};

/// The UTF-8 byte order mark.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The longest logical line in bytes: a thousand times what people write, and a bound for what one costs.
const LONGEST: usize = 1 << 20;

/// Comment lines above an instruction that are kept: beyond them it is a licence, or hostile.
const MOST_COMMENTS: usize = 256;

/// No keyword is longer.
const LONGEST_KEYWORD: usize = 16;

/// One instruction's text, ready for the grammar.
#[derive(Debug)]
pub(crate) struct LogicalLine {
    /// Continuations joined, comments dropped, white space around it trimmed; never empty.
    pub(crate) text: String,
    /// From `text` back to the source.
    pub(crate) map: OffsetMap,
    /// The comment lines directly above.
    pub(crate) comments: Vec<Spanned<String>>,
    /// The here-documents in the order of their markers.
    pub(crate) heredocs: Vec<HeredocBody>,
    /// From the first byte of `text` to the last one of the last heredoc's delimiter.
    pub(crate) span: Span,
}

/// The logical lines of a source, read one at a time.
#[derive(Debug)]
pub(crate) struct LogicalLines<'s> {
    source: &'s [u8],
    position: usize,
    directives: Directives,
}

impl<'s> LogicalLines<'s> {
    /// Reads the parser directives and stops before the first line that is none.
    pub(crate) fn new(source: &'s [u8]) -> Result<Self, Box<Diagnostic>> {
        let mut lines = Self::without_directives(source);
        if source.starts_with(BYTE_ORDER_MARK) {
            lines.position = BYTE_ORDER_MARK.len();
        }
        (lines.directives, lines.position) = directives::read(source, lines.position)?;
        Ok(lines)
    }

    /// Takes the source as it is: `\` escapes, and a directive is a comment.
    pub(crate) fn without_directives(source: &'s [u8]) -> Self {
        let directives = Directives { syntax: None, escape: '\\', check: None };
        Self { source, position: 0, directives }
    }

    pub(crate) fn directives(&self) -> &Directives {
        &self.directives
    }

    /// The next logical line, or `None` at the end.
    pub(crate) fn next_line(&mut self, warnings: &mut Vec<Diagnostic>) -> Result<Option<LogicalLine>, Box<Diagnostic>> {
        let mut comments = Vec::new();
        while let Some(physical) = PhysicalLine::at(self.source, self.position) {
            let content = physical.content(self.source);
            let indent = leading_blanks(content);
            let trimmed = &content[indent..];
            if trimmed.is_empty() {
                comments.clear();
                self.position = physical.next;
            } else if let Some(text) = trimmed.strip_prefix(b"#") {
                match comment_text(text, physical.start + indent + 1) {
                    Some(comment) if comments.len() < MOST_COMMENTS => comments.push(comment),
                    Some(_) => {}
                    None => comments.clear(),
                }
                self.position = physical.next;
            } else if let Some(mut line) = self.join(physical.start + indent, warnings)? {
                line.comments = comments;
                self.read_heredocs(&mut line, warnings)?;
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    /// Joins the physical lines from `start` on; `None` when nothing but escape characters was there.
    fn join(&mut self, start: usize, warnings: &mut Vec<Diagnostic>) -> Result<Option<LogicalLine>, Box<Diagnostic>> {
        let mut text = String::new();
        let mut map = OffsetMap::default();
        let mut next = start;
        let mut empty_line = None;
        let mut continued = true;
        while continued {
            let Some(physical) = PhysicalLine::at(self.source, next) else { break };
            next = physical.next;
            let content = physical.content(self.source);
            if physical.start != start {
                let trimmed = &content[leading_blanks(content)..];
                if trimmed.is_empty() {
                    empty_line.get_or_insert(physical.start);
                    continue;
                }
                if trimmed.starts_with(b"#") {
                    continue;
                }
            }
            let kept = before_continuation(content, self.directives.escape);
            continued = kept.is_some();
            if text.len() + content.len() > LONGEST {
                return Err(too_long(self.source, start));
            }
            map.append(&mut text, kept.unwrap_or(content), physical.start);
        }
        self.position = next;
        trim(&mut text, &mut map);
        if text.is_empty() {
            return Ok(None);
        }
        let span = map.span(0, text.len());
        if let Some(offset) = empty_line {
            warnings.push(empty_continuation(Span::new(offset, offset)));
        }
        if let Some(invalid) = map.first_invalid() {
            warnings.push(invalid_utf8(invalid));
        }
        Ok(Some(LogicalLine { text, map, comments: Vec::new(), heredocs: Vec::new(), span }))
    }

    fn read_heredocs(&mut self, line: &mut LogicalLine, warnings: &mut Vec<Diagnostic>) -> Result<(), Box<Diagnostic>> {
        for marker in heredoc::markers(&line.text) {
            let body = heredoc::read_body(self.source, self.position, marker, &line.map)?;
            if let Some(invalid) = body.invalid {
                warnings.push(invalid_utf8(invalid));
            }
            self.position = body.next;
            line.span.end = body.end;
            line.heredocs.push(body);
        }
        Ok(())
    }
}

/// One line of the source.
#[derive(Debug, Clone, Copy)]
struct PhysicalLine {
    start: usize,
    /// Before the line's end (`\n`, and any `\r` before it).
    end: usize,
    /// Where the next line starts.
    next: usize,
}

impl PhysicalLine {
    fn at(source: &[u8], start: usize) -> Option<Self> {
        let rest = source.get(start..).filter(|rest| !rest.is_empty())?;
        let length = rest.iter().position(|byte| *byte == b'\n');
        let next = start + length.map_or(rest.len(), |length| length + 1);
        let mut end = start + length.unwrap_or(rest.len());
        while end > start && source[end - 1] == b'\r' {
            end -= 1;
        }
        Some(Self { start, end, next })
    }

    fn content<'s>(&self, source: &'s [u8]) -> &'s [u8] {
        source.get(self.start..self.end).unwrap_or_default()
    }
}

/// What stands before the escape character that ends the line, if one does.
///
/// An escape character before it means an escaped one, and no continuation.
fn before_continuation(content: &[u8], escape: char) -> Option<&[u8]> {
    let end = content.iter().rposition(|byte| *byte != b' ' && *byte != b'\t')?;
    let before = &content[..end];
    let is_escape = |byte: &u8| char::from(*byte) == escape;
    (is_escape(&content[end]) && !before.last().is_some_and(is_escape)).then_some(before)
}

/// The bytes of white space that a line starts with.
fn leading_blanks(content: &[u8]) -> usize {
    let ascii = content.iter().position(|byte| !matches!(byte, b' ' | b'\t' | 0x0B | 0x0C | b'\r'));
    let Some(ascii) = ascii else { return content.len() };
    if content[ascii].is_ascii() {
        return ascii;
    }
    // rare: white space of Unicode, of at most three bytes each
    let mut at = ascii;
    while let Some(width) = unicode_blank(&content[at..]) {
        at += width;
    }
    at
}

fn unicode_blank(content: &[u8]) -> Option<usize> {
    (1..=3.min(content.len()))
        .find(|width| std::str::from_utf8(&content[..*width]).is_ok_and(|text| text.chars().all(char::is_whitespace)))
}

/// A comment's words; an empty comment parts what is above from what is below.
fn comment_text(bytes: &[u8], start: usize) -> Option<Spanned<String>> {
    let end = bytes.len() - bytes.iter().rev().take_while(|byte| byte.is_ascii_whitespace()).count();
    let begin = leading_blanks(bytes.get(..end)?);
    let value = String::from_utf8_lossy(bytes.get(begin..end)?).into_owned();
    (!value.is_empty()).then(|| Spanned { value, span: Span::new(start + begin, start + end) })
}

fn trim(text: &mut String, map: &mut OffsetMap) {
    text.truncate(text.trim_end().len());
    let leading = text.len() - text.trim_start().len();
    if leading > 0 {
        text.drain(..leading);
        map.drop_front(leading);
    }
}

fn too_long(source: &[u8], start: usize) -> Box<Diagnostic> {
    let rest = source.get(start..).unwrap_or_default();
    let keyword = rest.iter().take(LONGEST_KEYWORD).position(u8::is_ascii_whitespace).unwrap_or(1);
    Diagnostic::error("an instruction is longer than 1 MiB", Span::new(start, start + keyword))
        .with_label("this one")
        .with_help("put long data into a file or a heredoc")
        .boxed()
}

fn empty_continuation(span: Span) -> Diagnostic {
    Diagnostic::finding(Check::NoEmptyContinuation, "an empty line continues an instruction", span)
        .with_label("this line is skipped, and the instruction goes on")
        .with_help("remove the empty line, or the escape character at the end of the line before it")
}

fn invalid_utf8(span: Span) -> Diagnostic {
    Diagnostic::warning("bytes that are not UTF-8 were replaced by U+FFFD", span)
        .with_label("not UTF-8")
        .with_help("save the Dockerfile as UTF-8")
}

#[cfg(test)]
mod tests;
