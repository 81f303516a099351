//! One message about one place of a Dockerfile, rendered with its excerpt.

use crate::span::Span;

/// How bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The build cannot go on.
    Error,
    /// Legal and doubtful.
    Warning,
}

/// A message that points at the source.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// What is wrong, one line.
    pub message: String,
    /// The very words it is about.
    pub span: Span,
    /// What stands at the caret, e.g. "expected a port".
    pub label: Option<String>,
    /// What to do about it, e.g. "did you mean `COPY`?".
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error about `span`.
    pub fn error(message: impl Into<String>, span: Span) -> Self {
        Self { severity: Severity::Error, message: message.into(), span, label: None, help: None }
    }

    /// A warning about `span`.
    pub fn warning(message: impl Into<String>, span: Span) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message, span) }
    }

    /// Adds the text at the caret.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The message, `file:line:column`, the excerpt with carets, and the help, as the compiler of Rust shows them.
    pub fn render(&self, file: &str, source: &[u8], color: bool) -> String {
        let _ = (file, source, color);
        todo!()
    }

    /// Line and column (both from 1) of a byte offset.
    pub fn line_column(source: &[u8], offset: usize) -> (usize, usize) {
        let _ = (source, offset);
        todo!()
    }
}

/// The nearest of `candidates` to `word`, when it is near enough to be what was meant.
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let _ = (word, candidates);
    todo!()
}
