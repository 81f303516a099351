//! `.dockerignore`: every pattern is anchored at the context's root, the last match wins.

use crate::pattern::Pattern;

/// The patterns of one file.
#[derive(Debug, Clone, Default)]
pub struct IgnorePatterns {
    rules: Vec<Rule>,
}

/// One line.
#[derive(Debug, Clone)]
struct Rule {
    pattern: Pattern,
    /// Written with `!`: what matches is not ignored.
    exception: bool,
    /// Where it stands, from 1, and as it is written.
    source: (usize, String),
}

/// What is wrong with a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: invalid pattern `{pattern}`: {reason}")]
pub struct InvalidPattern {
    /// The line, from 1.
    pub line: usize,
    /// The pattern as written.
    pub pattern: String,
    /// Why.
    pub reason: String,
}

impl IgnorePatterns {
    /// Parses the text of an ignore file.
    ///
    /// # Errors
    /// The first malformed pattern.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        // a comment starts in the first column: elsewhere `#` is a character of a name
        let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
        Self::from_lines(lines.map(|(index, line)| (index + 1, line)))
    }

    /// Patterns from elsewhere, such as those of `--exclude`; `line` in the error is the number of the pattern.
    ///
    /// # Errors
    /// The first malformed pattern.
    pub fn new<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Self, InvalidPattern> {
        Self::from_lines(patterns.into_iter().enumerate().map(|(index, pattern)| (index + 1, pattern)))
    }

    fn from_lines<'p>(lines: impl Iterator<Item = (usize, &'p str)>) -> Result<Self, InvalidPattern> {
        let mut rules = Vec::new();
        for (line, text) in lines {
            let rule =
                Rule::parse(text).map_err(|reason| InvalidPattern { line, pattern: text.trim().to_owned(), reason })?;
            rules.extend(rule.map(|rule| Rule { source: (line, rule.source.1), ..rule }));
        }
        Ok(Self { rules })
    }

    /// No pattern at all: nothing is ignored.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether something is brought back with `!`.
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.exception)
    }

    /// Whether the path (relative to the context, `/` between names, no leading slash) is ignored;
    /// a match of a parent directory counts for everything below it.
    pub fn is_ignored(&self, path: &str) -> bool {
        self.deciding(path).is_some_and(|rule| !rule.exception)
    }

    /// The line, from 1, and the pattern that ignores the path; `None` when it is not ignored.
    pub fn ignored_by(&self, path: &str) -> Option<(usize, &str)> {
        let rule = self.deciding(path).filter(|rule| !rule.exception)?;
        Some((rule.source.0, &rule.source.1))
    }

    /// From the end: the last rule that matches decides.
    fn deciding(&self, path: &str) -> Option<&Rule> {
        self.rules.iter().rev().find(|rule| rule.pattern.matches_path_or_parent(path))
    }

    /// Whether an ignored directory must still be walked because an exception may name something below it.
    pub fn may_reinclude_below(&self, directory: &str) -> bool {
        self.rules.iter().any(|rule| rule.exception && rule.pattern.may_match_below(directory))
    }
}

impl Rule {
    /// One line; `None` when nothing is on it.
    fn parse(line: &str) -> Result<Option<Self>, String> {
        let line = line.trim();
        let (exception, text) = match line.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, line),
        };
        if line.is_empty() {
            return Ok(None);
        }
        if text.is_empty() {
            return Err("an exception needs a pattern after its `!`".to_owned());
        }
        let cleaned = clean(text);
        let relative = if cleaned.len() > 1 { cleaned.strip_prefix('/').unwrap_or(&cleaned) } else { &cleaned };
        Ok(Some(Self { pattern: Pattern::new(relative)?, exception, source: (0, line.to_owned()) }))
    }
}

/// The path without empty and `.` names, and without `..` where a name before it takes it up (Go's `path.Clean`).
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." if names.last().is_some_and(|last| *last != "..") => {
                names.pop();
            }
            ".." if rooted => {}
            _ => names.push(name),
        }
    }
    let joined = names.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests;
