//! The wildcards of COPY and ADD sources: Go's `filepath.Match`, with `**` as BuildKit's `--exclude` and `--parents` allow.

/// One pattern.
#[derive(Debug, Clone)]
pub struct Pattern {}

impl Pattern {
    /// # Errors
    /// A malformed pattern (an open bracket, a trailing escape).
    pub fn new(pattern: &str) -> Result<Self, String> {
        let _ = pattern;
        todo!()
    }

    /// Whether the text has a wildcard at all.
    pub fn has_wildcards(text: &str) -> bool {
        let _ = text;
        todo!()
    }

    /// Whether the whole path (no leading slash) matches; `*` and `?` do not match `/`.
    pub fn matches(&self, path: &str) -> bool {
        let _ = path;
        todo!()
    }
}
