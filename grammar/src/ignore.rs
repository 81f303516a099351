//! `.dockerignore`: every pattern is anchored at the context's root, the last match wins.

/// The patterns of one file.
#[derive(Debug, Clone, Default)]
pub struct IgnorePatterns {}

/// What is wrong with a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        let _ = text;
        todo!()
    }

    /// No pattern at all: nothing is ignored.
    pub fn is_empty(&self) -> bool {
        todo!()
    }

    /// Whether the path (relative to the context, `/` between names, no leading slash) is ignored;
    /// a match of a parent directory counts for everything below it.
    pub fn is_ignored(&self, path: &str) -> bool {
        let _ = path;
        todo!()
    }

    /// Whether an ignored directory must still be walked because an exception may name something below it.
    pub fn may_reinclude_below(&self, directory: &str) -> bool {
        let _ = directory;
        todo!()
    }
}
