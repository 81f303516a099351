//! Variables, quotes and escapes in words, as the Dockerfile reference's "environment replacement" says.

mod lexer;
mod output;
mod wildcard;

use crate::ast::Word;
use crate::diagnostic::Diagnostic;
use crate::span::Span;
use lexer::{Lexer, Quotes};
use output::Output;

/// Where variables come from.
pub trait Variables {
    /// The value, or `None` when it is not set.
    fn get(&self, name: &str) -> Option<String>;
}

/// No variable is set.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoVariables;

impl Variables for NoVariables {
    fn get(&self, _name: &str) -> Option<String> {
        None
    }
}

/// One word to one string: variables replaced, quotes removed, escapes resolved.
///
/// # Errors
/// A malformed or unsupported `${…}`, an unterminated quote, `${v:?message}` of an unset variable,
/// a result of more than 16 MiB.
pub fn expand(word: &Word, escape: char, variables: &dyn Variables) -> Result<String, Box<Diagnostic>> {
    let mut output = Output::text();
    Lexer::new(word, escape, variables, Quotes::Remove).run(&mut output)?;
    Ok(output.into_text())
}

/// One word to as many as its expansion has when it is split on white space that was not quoted (EXPOSE, VOLUME).
///
/// # Errors
/// As [`expand`].
pub fn expand_split(word: &Word, escape: char, variables: &dyn Variables) -> Result<Vec<String>, Box<Diagnostic>> {
    let mut output = Output::words();
    Lexer::new(word, escape, variables, Quotes::Remove).run(&mut output)?;
    Ok(output.into_words())
}

/// The body of a here-document whose delimiter was not quoted: variables and escapes, but quotes stay.
///
/// # Errors
/// As [`expand`].
pub fn expand_heredoc(body: &Word, escape: char, variables: &dyn Variables) -> Result<String, Box<Diagnostic>> {
    let mut output = Output::text();
    Lexer::new(body, escape, variables, Quotes::Keep).run(&mut output)?;
    Ok(output.into_text())
}

/// A place in a word that stands for a variable's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The variable.
    pub name: String,
    /// `$name` or `${name…}`, whole.
    pub span: Span,
    /// `${name:-…}`, `${name+…}` and the like say themselves what happens when it is not set.
    pub has_default: bool,
}

/// What a word refers to, in order.
///
/// Of a malformed word, what stands before the mistake.
pub fn references(word: &Word, escape: char) -> Vec<Reference> {
    references_with(word, escape, Quotes::Remove)
}

/// The same for the body of a here-document, in which quotes are ordinary characters.
pub fn references_in_heredoc(body: &Word, escape: char) -> Vec<Reference> {
    references_with(body, escape, Quotes::Keep)
}

fn references_with(word: &Word, escape: char, quotes: Quotes) -> Vec<Reference> {
    if !word.raw.contains('$') {
        return Vec::new();
    }
    let mut lexer = Lexer::new(word, escape, &NoVariables, quotes).collecting_references();
    // the mistake is reported when the word is expanded
    let _ = lexer.run(&mut Output::text());
    lexer.into_references()
}

/// Whether a text that may not have variables seems to: a `$` with something after it.
pub(crate) fn has_variable(text: &str) -> bool {
    text.find('$').is_some_and(|at| at + 1 < text.len())
}

#[cfg(test)]
mod tests;
