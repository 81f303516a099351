//! The comma list: fields as Go's `encoding/csv` splits them.

use crate::ast::Word;
use crate::diagnostic::Diagnostic;
use crate::span::Span;

/// `key` or `key=value`.
#[derive(Debug, Clone)]
pub(super) struct Field {
    /// Lower case.
    pub(super) key: Word,
    /// What stands after the `=`, unexpanded.
    pub(super) value: Option<Word>,
    /// Both.
    pub(super) span: Span,
}

/// Splits at commas. A field that starts with `"` goes to the closing one, and `""` in it is one `"`.
pub(super) fn split(list: &Word) -> Result<Vec<Field>, Box<Diagnostic>> {
    let text = list.raw.as_str();
    if text.is_empty() {
        return Err(Diagnostic::error("--mount needs a value", list.span)
            .with_label("expected `type=…,target=…`")
            .boxed());
    }
    let mut fields = Vec::new();
    let mut start = 0;
    loop {
        let rest = text.get(start..).unwrap_or_default();
        let (field, length) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(list, start, quoted)?,
            None => plain_field(list, start, rest)?,
        };
        fields.push(field);
        match text.get(start + length..) {
            Some(behind) if behind.starts_with(',') => start += length + 1,
            Some("") | None => return Ok(fields),
            Some(_) => {
                return Err(Diagnostic::error(
                    "text after a closing quote in --mount",
                    part(list, start + length, text.len()),
                )
                .with_label("expected `,` or the end of the list")
                .boxed());
            }
        }
    }
}

fn plain_field(list: &Word, start: usize, rest: &str) -> Result<(Field, usize), Box<Diagnostic>> {
    let text = rest.split(',').next().unwrap_or_default();
    if let Some(at) = text.find('"') {
        return Err(Diagnostic::error(
            "a quote inside of a --mount option",
            part(list, start + at, start + text.len()),
        )
        .with_label("a quoted option is quoted from its start")
        .with_help("such as `--mount='type=bind,\"source=a,b\",target=/c'`")
        .boxed());
    }
    let equals = text.find('=');
    let end = start + text.len();
    let key_end = start + equals.unwrap_or(text.len());
    let key = Word {
        raw: rest.get(..key_end - start).unwrap_or_default().to_ascii_lowercase(),
        span: part(list, start, key_end),
    };
    let value = equals
        .map(|at| Word { raw: text.get(at + 1..).unwrap_or_default().to_owned(), span: part(list, key_end + 1, end) });
    Ok((Field { key, value, span: part(list, start, end) }, text.len()))
}

/// `rest` is what follows the opening quote; the length counts both quotes.
fn quoted_field(list: &Word, start: usize, rest: &str) -> Result<(Field, usize), Box<Diagnostic>> {
    let mut text = String::new();
    let mut characters = rest.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        if character != '"' {
            text.push(character);
        } else if characters.next_if(|(_, next)| *next == '"').is_some() {
            text.push('"');
        } else {
            let length = at + 2;
            let span = part(list, start, start + length);
            let (key, value) = match text.split_once('=') {
                Some((key, value)) => (key, Some(Word { raw: value.to_owned(), span })),
                None => (text.as_str(), None),
            };
            return Ok((Field { key: Word { raw: key.to_ascii_lowercase(), span }, value, span }, length));
        }
    }
    Err(Diagnostic::error("unterminated quote in --mount", part(list, start, list.raw.len()))
        .with_label("expected a closing \"")
        .boxed())
}

/// A part of the list in the source: the whole list when it is not written there in one piece.
fn part(list: &Word, start: usize, end: usize) -> Span {
    if list.span.len() != list.raw.len() {
        return list.span;
    }
    Span::new(list.span.start + start, list.span.start + end)
}
