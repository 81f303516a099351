//! Variables, quotes and escapes in words, as the Dockerfile reference's "environment replacement" says.

use crate::ast::Word;
use crate::diagnostic::Diagnostic;

/// Where variables come from.
pub trait Variables {
    /// The value, or `None` when it is not set.
    fn get(&self, name: &str) -> Option<String>;
}

/// One word to one string: variables replaced, quotes removed, escapes resolved.
///
/// # Errors
/// A malformed or unsupported `${…}`, an unterminated quote, `${v:?message}` of an unset variable.
pub fn expand(word: &Word, escape: char, variables: &dyn Variables) -> Result<String, Box<Diagnostic>> {
    let _ = (word, escape, variables);
    todo!()
}

/// One word to as many as its expansion has when it is split on white space that was not quoted (EXPOSE, VOLUME).
///
/// # Errors
/// As [`expand`].
pub fn expand_split(word: &Word, escape: char, variables: &dyn Variables) -> Result<Vec<String>, Box<Diagnostic>> {
    let _ = (word, escape, variables);
    todo!()
}

/// The body of a here-document whose delimiter was not quoted: variables and escapes, but quotes stay.
///
/// # Errors
/// As [`expand`].
pub fn expand_heredoc(body: &Word, escape: char, variables: &dyn Variables) -> Result<String, Box<Diagnostic>> {
    let _ = (body, escape, variables);
    todo!()
}

/// The names that a word refers to, in order: for lint and for cache keys.
pub fn names(word: &Word, escape: char) -> Vec<String> {
    let _ = (word, escape);
    todo!()
}
