//! Heredocs: their markers in a logical line, and the bodies below it.

use std::borrow::Cow;

use pest::Parser;
use pest::iterators::Pair;

use super::{OffsetMap, PhysicalLine};
use crate::diagnostic::{Diagnostic, quoted};
use crate::instruction::{Grammar, Rule};
use crate::span::Span;

/// `<<EOF` in a logical line.
#[derive(Debug)]
pub(crate) struct Marker {
    /// The range in the logical line, descriptor included.
    pub(crate) start: usize,
    /// One past its last byte.
    pub(crate) end: usize,
    /// The delimiter without quotes.
    pub(crate) name: String,
    /// The delimiter was not quoted.
    pub(crate) expand: bool,
    /// `<<-`.
    pub(crate) strip_tabs: bool,
    /// Before `<<`.
    pub(crate) fd: u32,
}

/// A marker and the lines that belong to it.
#[derive(Debug)]
pub(crate) struct HeredocBody {
    pub(crate) marker: Marker,
    /// The lines as they stand in the source.
    pub(crate) raw: String,
    /// Where they stand.
    pub(crate) span: Span,
    /// The end of the delimiter below them.
    pub(crate) end: usize,
    /// The start of the line after the delimiter.
    pub(crate) next: usize,
    /// The first bytes that were not UTF-8.
    pub(crate) invalid: Option<Span>,
}

/// The markers of a line whose instruction can have heredocs: RUN, COPY, ADD, and ONBUILD with one of them.
pub(super) fn markers(text: &str) -> Vec<Marker> {
    if !text.contains("<<") || !takes_heredocs(text) {
        return Vec::new();
    }
    let Ok(mut pairs) = Grammar::parse(Rule::heredoc_markers, text) else { return Vec::new() };
    let Some(line) = pairs.next() else { return Vec::new() };
    line.into_inner()
        .filter(|pair| pair.as_rule() == Rule::heredoc)
        .filter(|pair| !is_shift(text, pair))
        .filter_map(marker)
        .collect()
}

fn takes_heredocs(text: &str) -> bool {
    let mut words = text.split_ascii_whitespace();
    let is = |word: Option<&str>, names: &[&str]| {
        word.is_some_and(|word| names.iter().any(|name| word.eq_ignore_ascii_case(name)))
    };
    let mut first = words.next();
    if is(first, &["ONBUILD"]) {
        first = words.next();
    }
    is(first, &["RUN", "COPY", "ADD"])
}

/// `$((1 << 2))` is arithmetic: a delimiter after white space counts only outside of double parentheses.
fn is_shift(text: &str, pair: &Pair<'_, Rule>) -> bool {
    let marker = pair.as_str();
    let spaced =
        marker.split_once("<<").is_some_and(|(_, rest)| rest.trim_start_matches('-').starts_with(char::is_whitespace));
    let before = text.get(..pair.as_span().start()).unwrap_or_default();
    spaced && before.rfind("((").is_some_and(|open| !before[open..].contains("))"))
}

fn marker(pair: Pair<'_, Rule>) -> Option<Marker> {
    let span = pair.as_span();
    let (mut fd, mut strip_tabs, mut name) = (0, false, "");
    for part in pair.into_inner() {
        match part.as_rule() {
            // more digits than a descriptor can have: some number that is open in no process
            Rule::heredoc_fd if !part.as_str().is_empty() => fd = part.as_str().parse().unwrap_or(u32::MAX),
            Rule::heredoc_strip => strip_tabs = part.as_str() == "-",
            Rule::heredoc_name => name = part.as_str(),
            _ => {}
        }
    }
    let (name, expand) = unquote(name);
    (!name.is_empty()).then(|| Marker { start: span.start(), end: span.end(), name, expand, strip_tabs, fd })
}

/// The delimiter without quotes and escapes, and whether it had no quotes.
fn unquote(delimiter: &str) -> (String, bool) {
    let mut name = String::new();
    let mut quote = None;
    let mut unquoted = true;
    let mut characters = delimiter.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\'' | '"', None) => {
                quote = Some(character);
                unquoted = false;
            }
            (_, Some(open)) if character == open => quote = None,
            ('\\', None) => name.extend(characters.next()),
            ('\\', Some('"')) if matches!(characters.peek(), Some('"' | '$' | '\\')) => name.extend(characters.next()),
            _ => name.push(character),
        }
    }
    (name, unquoted)
}

/// Reads the lines from `start` to the marker's delimiter.
pub(super) fn read_body(
    source: &[u8],
    start: usize,
    marker: Marker,
    map: &OffsetMap,
) -> Result<HeredocBody, Box<Diagnostic>> {
    let mut position = start;
    while let Some(physical) = PhysicalLine::at(source, position) {
        position = physical.next;
        let mut content = physical.content(source);
        if marker.strip_tabs {
            let tabs = content.iter().take_while(|byte| **byte == b'\t').count();
            content = &content[tabs..];
        }
        if content == marker.name.as_bytes() {
            let (raw, invalid) = decode(source, start, physical.start);
            let span = Span::new(start, physical.start);
            return Ok(HeredocBody { marker, raw, span, end: physical.end, next: physical.next, invalid });
        }
    }
    Err(unterminated(&marker, map))
}

fn decode(source: &[u8], start: usize, end: usize) -> (String, Option<Span>) {
    let bytes = source.get(start..end).unwrap_or_default();
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) => (text.to_owned(), None),
        Cow::Owned(text) => {
            let valid = bytes.utf8_chunks().next().map_or(0, |chunk| chunk.valid().len());
            (text, Some(Span::new(start + valid, start + valid + 1)))
        }
    }
}

fn unterminated(marker: &Marker, map: &OffsetMap) -> Box<Diagnostic> {
    let name = quoted(&marker.name);
    let help = if marker.strip_tabs {
        format!("end it with a line that is {name}, after tabs at most")
    } else {
        format!("end it with a line that is {name} and nothing else")
    };
    Diagnostic::error("unterminated heredoc", map.span(marker.start, marker.end))
        .with_label(format!("no line {name} follows"))
        .with_help(help)
        .boxed()
}
