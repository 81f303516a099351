//! One message about one place of a Dockerfile, rendered with its excerpt.

mod excerpt;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::lint::Check;
use crate::position::LineIndex;
use crate::span::Span;
use excerpt::Excerpt;

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
    /// The check that found it, when it is one that can be skipped.
    pub check: Option<Check>,
}

impl Diagnostic {
    /// An error about `span`.
    pub fn error(message: impl Into<String>, span: Span) -> Self {
        Self { severity: Severity::Error, message: message.into(), span, label: None, help: None, check: None }
    }

    /// A warning about `span`.
    pub fn warning(message: impl Into<String>, span: Span) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message, span) }
    }

    /// What a check found at `span`.
    pub fn finding(check: Check, message: impl Into<String>, span: Span) -> Self {
        Self { check: Some(check), ..Self::warning(message, span) }
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

    /// Puts "did you mean" in the place of the help when a candidate is near to `word`.
    #[must_use]
    pub fn with_nearest(self, word: &str, candidates: &[&str]) -> Self {
        match nearest(word, candidates) {
            Some(candidate) => self.with_help(format!("did you mean `{candidate}`?")),
            None => self,
        }
    }

    /// As the parser's errors travel.
    pub(crate) fn boxed(self) -> Box<Self> {
        Box::new(self)
    }

    /// The message, `file:line:column`, the excerpt with carets, and the help, as the compiler of Rust shows them.
    pub fn render(&self, file: &str, source: &[u8], color: bool) -> String {
        let excerpt = Excerpt::of(source, self.span);
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let annotation = AnnotationKind::Primary.span(excerpt.highlight.clone()).label(self.label.as_deref());
        let snippet =
            Snippet::source(excerpt.text.as_str()).path(file).line_start(excerpt.first_line).annotation(annotation);
        let mut title = level.primary_title(self.message.as_str());
        if let Some(check) = self.check {
            title = title.id(check.name());
        }
        let mut report = title.element(snippet);
        if let Some(help) = &self.help {
            report = report.element(Level::HELP.message(help.as_str()));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[report])
    }

    /// Line and column (both from 1, the column in characters) of a byte offset.
    pub fn line_column(source: &[u8], offset: usize) -> (usize, usize) {
        let end = offset.min(source.len());
        let before = source.get(..end).unwrap_or_default();
        LineIndex::new(before).position(end)
    }
}

/// The message alone: a place needs the source (see [`Diagnostic::render`]).
impl std::fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}

/// The nearest of `candidates` to `word`, when it is near enough to be what was meant.
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    // the distance is quadratic: nothing this long is a mistyped keyword
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let lower = word.to_lowercase();
    candidates
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A word of the source for a message, in backticks.
pub(crate) fn quoted(word: &str) -> String {
    format!("`{}`", shown(word))
}

/// Text of the source for a message: control characters escaped, cut when it is long.
pub(crate) fn shown(word: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown = String::new();
    for (count, character) in word.chars().enumerate() {
        if count == LONGEST {
            shown.push('…');
            break;
        }
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYWORDS: [&str; 4] = ["FROM", "COPY", "RUN", "ENTRYPOINT"];

    #[test]
    fn nearest_finds_what_was_meant() {
        for (word, expected) in [
            ("COPPY", Some("COPY")),
            ("form", Some("FROM")),
            ("RNU", Some("RUN")),
            ("ENTRIPOINT", Some("ENTRYPOINT")),
            ("banana", None),
            ("", None),
            ("xx", None),
        ] {
            assert_eq!(nearest(word, &KEYWORDS), expected, "{word}");
        }
    }

    #[test]
    fn line_column_counts_characters() {
        let source = "\u{FEFF}é: x\r\nab".as_bytes();
        assert_eq!(Diagnostic::line_column(source, 3), (1, 1));
        assert_eq!(Diagnostic::line_column(source, 5), (1, 2));
        assert_eq!(Diagnostic::line_column(source, source.len() - 1), (2, 2));
        assert_eq!(Diagnostic::line_column(source, usize::MAX), (2, 3));
    }

    #[test]
    fn render_survives_any_span() {
        let source = b"FROM x\r\n\xFF\xFE RUN \x1b[31m\n\n";
        for start in 0..source.len() + 3 {
            for end in start..source.len() + 3 {
                let rendered = Diagnostic::error("m", Span { start, end }).with_label("l").render("f", source, false);
                assert!(rendered.contains("--> f:"), "{rendered}");
                assert!(!rendered.contains('\x1b'));
            }
        }
    }

    #[test]
    fn render_of_a_long_line_is_cut_and_keeps_the_column() {
        let mut source = vec![b'x'; 1 << 20];
        source.extend(b" here ");
        source.extend(vec![b'y'; 1 << 20]);
        let span = Span::new((1 << 20) + 1, (1 << 20) + 5);
        let rendered = Diagnostic::error("m", span).render("f", &source, false);
        assert!(rendered.contains("f:1:1048578"), "{rendered}");
        assert!(rendered.contains("here") && rendered.len() < 4096);
    }
}
