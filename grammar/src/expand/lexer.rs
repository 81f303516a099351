//! The word lexer: quotes, escapes, `$name` and `${name…}`.

use std::iter::Peekable;
use std::str::CharIndices;

use super::output::Output;
use super::wildcard::Wildcard;
use super::{Reference, Variables};
use crate::ast::Word;
use crate::diagnostic::{Diagnostic, quoted, shown};
use crate::span::Span;

/// `${a:-${b:-…}}` deeper than this is refused.
const DEEPEST: usize = 64;

/// The longest result in bytes, so that `ENV a=$a$a` line after line cannot eat the memory.
const LONGEST: usize = 16 << 20;

/// What quotes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quotes {
    /// Syntax.
    Remove,
    /// Ordinary characters.
    Keep,
}

/// Whether escape characters stay in the result, for a pattern that has its own use of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escapes {
    Resolve,
    Keep,
}

type Lexed<T> = Result<T, Box<Diagnostic>>;

/// One pass over one word.
pub(super) struct Lexer<'a> {
    word: &'a Word,
    characters: Peekable<CharIndices<'a>>,
    escape: char,
    variables: &'a dyn Variables,
    quotes: Quotes,
    depth: usize,
    produced: usize,
    references: Option<Vec<Reference>>,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(word: &'a Word, escape: char, variables: &'a dyn Variables, quotes: Quotes) -> Self {
        let characters = word.raw.char_indices().peekable();
        Self { word, characters, escape, variables, quotes, depth: 0, produced: 0, references: None }
    }

    /// Only the references are wanted: no variable is set, and that is no error.
    pub(super) fn collecting_references(mut self) -> Self {
        self.references = Some(Vec::new());
        self
    }

    pub(super) fn into_references(self) -> Vec<Reference> {
        self.references.unwrap_or_default()
    }

    pub(super) fn run(&mut self, output: &mut Output) -> Lexed<()> {
        self.read(None, Escapes::Resolve, output)
    }

    fn peek(&mut self) -> Option<char> {
        self.characters.peek().map(|(_, character)| *character)
    }

    fn next(&mut self) -> Option<char> {
        self.characters.next().map(|(_, character)| character)
    }

    fn offset(&mut self) -> usize {
        self.characters.peek().map_or(self.word.raw.len(), |(at, _)| *at)
    }

    /// Reads up to `stop`, which is taken, or to the end of the word when there is none.
    fn read(&mut self, stop: Option<char>, escapes: Escapes, output: &mut Output) -> Lexed<()> {
        while let Some(character) = self.peek() {
            if stop == Some(character) {
                self.next();
                return Ok(());
            }
            match character {
                '$' => output.push_expanded(&self.dollar()?),
                '\'' if self.quotes == Quotes::Remove => output.push_quoted(&self.single_quoted()?),
                '"' if self.quotes == Quotes::Remove => output.push_quoted(&self.double_quoted(escapes)?),
                _ if character == self.escape => self.escaped(escapes, output),
                _ => {
                    self.next();
                    output.push(character);
                }
            }
            self.check_length(output)?;
        }
        match stop {
            None => Ok(()),
            Some(stop) => Err(self
                .error_from(self.word.raw.len(), format!("missing `{stop}` in `${{…}}`"))
                .with_label(format!("expected `{stop}`"))
                .boxed()),
        }
    }

    fn escaped(&mut self, escapes: Escapes, output: &mut Output) {
        if let Some(escape) = self.next().filter(|_| escapes == Escapes::Keep) {
            output.push_raw(escape);
        }
        if let Some(character) = self.next() {
            output.push_raw(character);
        }
    }

    fn single_quoted(&mut self) -> Lexed<String> {
        let start = self.offset();
        self.next();
        let mut text = String::new();
        while let Some(character) = self.next() {
            if character == '\'' {
                return Ok(text);
            }
            text.push(character);
        }
        Err(self.open_quote(start, '\''))
    }

    fn double_quoted(&mut self, escapes: Escapes) -> Lexed<String> {
        let start = self.offset();
        self.next();
        let mut output = Output::text();
        while let Some(character) = self.peek() {
            match character {
                '"' => {
                    self.next();
                    return Ok(output.into_text());
                }
                '$' => {
                    let value = self.dollar()?;
                    output.push_expanded(&value);
                }
                _ if character == self.escape => self.escaped_in_double_quotes(escapes, &mut output),
                _ => {
                    self.next();
                    output.push(character);
                }
            }
            self.check_length(&output)?;
        }
        Err(self.open_quote(start, '"'))
    }

    /// Only the quote, the dollar and the escape character itself can be escaped here.
    fn escaped_in_double_quotes(&mut self, escapes: Escapes, output: &mut Output) {
        self.next();
        let escape = self.escape;
        match self.peek() {
            Some(character) if matches!(character, '"' | '$') || character == escape => {
                self.next();
                if escapes == Escapes::Keep {
                    output.push(escape);
                }
                output.push(character);
            }
            Some(_) => {
                if escapes == Escapes::Keep {
                    output.push(escape);
                }
                output.push(escape);
            }
            None => {}
        }
    }

    /// `$name`, `${…}`, or a dollar that stands for itself.
    fn dollar(&mut self) -> Lexed<String> {
        let start = self.offset();
        self.next();
        if self.peek() == Some('{') {
            self.next();
            if self.depth == DEEPEST {
                return Err(self
                    .error_from(start, format!("`${{…}}` is nested more than {DEEPEST} times"))
                    .with_label("too deep")
                    .boxed());
            }
            let reference = self.references.as_ref().map(Vec::len);
            self.depth += 1;
            let value = self.braces(start);
            self.depth -= 1;
            self.end_reference(reference, start);
            return value;
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        Ok(self.lookup(&name, start, false).unwrap_or_default())
    }

    /// The braces are closed: the reference that was opened is all of them.
    fn end_reference(&mut self, index: Option<usize>, start: usize) {
        let end = self.offset();
        let span = self.span(start, end);
        let opened = index.and_then(|index| self.references.as_mut()?.get_mut(index));
        if let Some(reference) = opened {
            reference.span = span;
        }
    }

    /// The inside of `${…}`, whose dollar stands at `start`.
    fn braces(&mut self, start: usize) -> Lexed<String> {
        if matches!(self.peek(), Some('{' | '}' | ':')) {
            return Err(self.bad_substitution(start, "expected a variable's name"));
        }
        let name = self.name();
        let has_default = self.has_default();
        let value = self.lookup(&name, start, has_default);
        match self.next() {
            Some('}') if !name.is_empty() => Ok(value.unwrap_or_default()),
            Some('/') => self.replace(&value.unwrap_or_default()),
            Some(':') => {
                let operator = self.next();
                self.with_word(start, &name, value, Operator { empty_is_unset: true, character: operator })
            }
            operator @ Some(_) => {
                self.with_word(start, &name, value, Operator { empty_is_unset: false, character: operator })
            }
            None => Err(self.missing_brace(start)),
        }
    }

    /// `${name` and an operator were read: a word follows.
    fn with_word(&mut self, start: usize, name: &str, value: Option<String>, operator: Operator) -> Lexed<String> {
        let character = match operator.character {
            Some(character @ ('-' | '+' | '?' | '#' | '%')) if !name.is_empty() => character,
            None => return Err(self.missing_brace(start)),
            Some(_) => return Err(self.bad_substitution(start, "expected one of `:-` `:+` `:?` `#` `%` `/` or `}`")),
        };
        let is_pattern = matches!(character, '#' | '%');
        let word = self.word_up_to(start, '}', if is_pattern { Escapes::Keep } else { Escapes::Resolve })?;
        let present = value.filter(|value| !(operator.empty_is_unset && value.is_empty() && !is_pattern));
        match character {
            '-' => Ok(present.unwrap_or(word)),
            '+' => Ok(present.map(|_| word).unwrap_or_default()),
            '?' => present.map_or_else(|| self.required(start, name, &word), Ok),
            _ => self.trimmed(start, &present.unwrap_or_default(), character, &word),
        }
    }

    fn required(&mut self, start: usize, name: &str, message: &str) -> Lexed<String> {
        if self.references.is_some() {
            return Ok(String::new());
        }
        let message = if message.is_empty() { "is not set, and must be" } else { message };
        Err(self
            .error_from(start, format!("{}: {}", shown(name), shown(message)))
            .with_label("this variable is required")
            .with_help(format!("give it a value, for example by `--build-arg {}=…` when it is an ARG", shown(name)))
            .boxed())
    }

    fn trimmed(&mut self, start: usize, value: &str, side: char, pattern: &str) -> Lexed<String> {
        let longest = pattern.strip_prefix(side);
        let wildcard = self.wildcard(start, longest.unwrap_or(pattern))?;
        let rest = if side == '#' {
            wildcard.without_prefix(value, longest.is_some())
        } else {
            wildcard.without_suffix(value, longest.is_some())
        };
        Ok(rest.to_owned())
    }

    /// `${name/pattern/replacement}` after its first slash.
    fn replace(&mut self, value: &str) -> Lexed<String> {
        let start = self.offset();
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.word_up_to(start, '/', Escapes::Keep)?;
        let replacement = self.word_up_to(start, '}', Escapes::Keep)?;
        let wildcard = self.wildcard(start, &pattern)?;
        match wildcard.replace(value, &replacement, all, LONGEST) {
            Some(replaced) => Ok(replaced),
            None => Err(self.too_long()),
        }
    }

    fn wildcard(&mut self, start: usize, pattern: &str) -> Lexed<Wildcard> {
        Wildcard::new(pattern, self.escape).map_err(|reason| {
            self.error_from(start, format!("invalid pattern {}", quoted(pattern)))
                .with_label(reason)
                .with_help("in a pattern only `*`, `?`, `/`, `}` and the backslash can be escaped")
                .boxed()
        })
    }

    fn word_up_to(&mut self, start: usize, stop: char, escapes: Escapes) -> Lexed<String> {
        let mut output = Output::text();
        match self.read(Some(stop), escapes, &mut output) {
            Ok(()) => Ok(output.into_text()),
            // an error deeper inside was about its own place
            Err(error) if self.peek().is_some() => Err(error),
            Err(error) => Err(self.at_opening(start, *error)),
        }
    }

    /// What is missing at the end of a word is shown at the place that asks for it.
    fn at_opening(&mut self, start: usize, error: Diagnostic) -> Box<Diagnostic> {
        let end = self.span(self.word.raw.len(), self.word.raw.len());
        if error.span == end { Diagnostic { span: self.rest(start), ..error }.boxed() } else { error.boxed() }
    }

    /// A name, a number, or one of the shell's special parameters.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(first) if first.is_numeric() => {
                while let Some(digit) = self.peek().filter(|character| character.is_numeric()) {
                    name.push(digit);
                    self.next();
                }
            }
            Some(special @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                name.push(special);
                self.next();
            }
            _ => {
                while let Some(character) = self.peek().filter(|next| next.is_alphanumeric() || *next == '_') {
                    name.push(character);
                    self.next();
                }
            }
        }
        name
    }

    /// Whether an operator follows that says what to do when the variable is not set.
    fn has_default(&mut self) -> bool {
        let start = self.offset();
        let rest = self.word.raw.get(start..).unwrap_or_default();
        rest.strip_prefix(':').unwrap_or(rest).starts_with(['-', '+', '?'])
    }

    fn lookup(&mut self, name: &str, start: usize, has_default: bool) -> Option<String> {
        let end = self.offset();
        let span = self.span(start, end);
        if let Some(references) = &mut self.references {
            if !name.is_empty() {
                references.push(Reference { name: name.to_owned(), span, has_default });
            }
            return None;
        }
        self.variables.get(name)
    }

    /// Everything that is put out counts, at every depth: work is bounded, too.
    fn check_length(&mut self, output: &Output) -> Lexed<()> {
        self.produced = self.produced.max(output.len());
        if self.produced > LONGEST { Err(self.too_long()) } else { Ok(()) }
    }

    fn too_long(&mut self) -> Box<Diagnostic> {
        Diagnostic::error("the value is too long after its variables were replaced", self.word.span)
            .with_label("more than 16 MiB")
            .boxed()
    }

    fn open_quote(&mut self, start: usize, quote: char) -> Box<Diagnostic> {
        self.error_from(start, "unterminated quote").with_label(format!("expected a closing {quote}")).boxed()
    }

    fn missing_brace(&mut self, start: usize) -> Box<Diagnostic> {
        self.error_from(start, "missing `}` in `${…}`").with_label("expected `}`").boxed()
    }

    fn bad_substitution(&mut self, start: usize, expected: &str) -> Box<Diagnostic> {
        let end = self.offset();
        let form = self.word.raw.get(start..end).unwrap_or_default();
        Diagnostic::error(format!("unsupported substitution {}", quoted(form)), self.span(start, end))
            .with_label(expected)
            .boxed()
    }

    fn error_from(&self, start: usize, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(message, self.rest(start))
    }

    /// From an offset of the word to its end.
    fn rest(&self, start: usize) -> Span {
        self.span(start, self.word.raw.len())
    }

    /// A part of the word in the source: the whole word when it is not written there in one piece.
    fn span(&self, start: usize, end: usize) -> Span {
        let span = self.word.span;
        if span.len() != self.word.raw.len() {
            return span;
        }
        Span::new(span.start + start, span.start + end)
    }
}

/// What follows a name in `${…}`.
#[derive(Debug, Clone, Copy)]
struct Operator {
    /// It was written with a colon.
    empty_is_unset: bool,
    character: Option<char>,
}
