//! The parser directives at the head of the file: `# syntax=`, `# escape=`, `# check=`.

use super::PhysicalLine;
use crate::ast::Directives;
use crate::diagnostic::{Diagnostic, quoted};
use crate::span::{Span, Spanned};

/// Reads them from `start` on, and tells where the next line starts. A directive after any other line is a comment.
pub(super) fn read(source: &[u8], start: usize) -> Result<(Directives, usize), Box<Diagnostic>> {
    let mut directives = Directives { syntax: None, escape: '\\', check: None };
    let mut escape_seen = false;
    let mut position = start;
    while let Some(physical) = PhysicalLine::at(source, position) {
        let content = physical.content(source);
        if physical.start == start && content.starts_with(b"#!") {
            position = physical.next;
            continue;
        }
        let Some(directive) = Directive::of(content, physical.start) else { break };
        let seen = match directive.key.as_str() {
            "syntax" => {
                let image = directive.value.split_whitespace().next().unwrap_or_default().to_owned();
                directives.syntax.replace(Spanned { value: image, span: directive.value_span }).is_some()
            }
            "check" => {
                let value = Spanned { value: directive.value.clone(), span: directive.value_span };
                directives.check.replace(value).is_some()
            }
            "escape" => {
                directives.escape = directive.escape()?;
                std::mem::replace(&mut escape_seen, true)
            }
            _ => break,
        };
        if seen {
            return Err(directive.duplicate());
        }
        position = physical.next;
    }
    Ok((directives, position))
}

/// `# key = value`.
struct Directive {
    /// Lower case.
    key: String,
    key_span: Span,
    value: String,
    value_span: Span,
}

impl Directive {
    fn of(content: &[u8], start: usize) -> Option<Self> {
        let text = std::str::from_utf8(content).ok()?;
        let (before, value) = text.trim_start().strip_prefix('#')?.split_once('=')?;
        let (key, value) = (before.trim(), value.trim());
        let is_word = key.starts_with(|first: char| first.is_ascii_alphabetic())
            && key.chars().all(|character| character.is_ascii_alphanumeric());
        if !is_word || value.is_empty() {
            return None;
        }
        // both are slices of `text`, so their distance from its start is their offset
        let offset = |part: &str| start + (part.as_ptr() as usize - text.as_ptr() as usize);
        Some(Self {
            key: key.to_ascii_lowercase(),
            key_span: Span::new(offset(key), offset(key) + key.len()),
            value: value.to_owned(),
            value_span: Span::new(offset(value), offset(value) + value.len()),
        })
    }

    fn escape(&self) -> Result<char, Box<Diagnostic>> {
        match self.value.as_str() {
            "\\" => Ok('\\'),
            "`" => Ok('`'),
            other => Err(Diagnostic::error(format!("invalid escape character {}", quoted(other)), self.value_span)
                .with_label("expected a backslash or a backtick")
                .boxed()),
        }
    }

    fn duplicate(&self) -> Box<Diagnostic> {
        Diagnostic::error(format!("the {} directive is given twice", self.key), self.key_span)
            .with_label("second one")
            .with_help("keep only one of them")
            .boxed()
    }
}
