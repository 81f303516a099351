//! The flags between keyword and arguments: `--name`, `--name=value`.

use pest::iterators::Pair;

use super::{Context, Parsed, Rule, Text};
use crate::ast::Word;
use crate::diagnostic::{Diagnostic, quoted};

/// A flag that an instruction knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) form: Form,
}

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A value, once.
    Value,
    /// A value, any number of times.
    Values,
    /// Nothing, `true` or `false`.
    Bool,
}

/// A flag with a value, given once.
pub(super) const fn value(name: &'static str) -> Known {
    Known { name, form: Form::Value }
}

/// A flag with a value, given any number of times.
pub(super) const fn values(name: &'static str) -> Known {
    Known { name, form: Form::Values }
}

/// A switch.
pub(super) const fn switch(name: &'static str) -> Known {
    Known { name, form: Form::Bool }
}

/// The flags of one instruction, as written.
#[derive(Debug, Default)]
pub(super) struct Flags<'l> {
    given: Vec<Flag<'l>>,
}

#[derive(Debug)]
struct Flag<'l> {
    whole: Text<'l>,
    name: Text<'l>,
    /// Without quotes and their escapes; `None` without `=`.
    value: Option<Word>,
}

impl<'l> Flags<'l> {
    pub(super) fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// Adds a flag of the grammar.
    pub(super) fn add(&mut self, context: &Context<'_>, pair: Pair<'l, Rule>, base: usize) -> Parsed<()> {
        let whole = Text::of(&pair, base);
        let mut name = Text { text: "", start: whole.start };
        let mut value = None;
        for part in pair.into_inner() {
            let text = Text::of(&part, base);
            match part.as_rule() {
                Rule::flag_name => name = text,
                _ => value = Some(Word { raw: unquote(context, text)?, span: text.span(context) }),
            }
        }
        self.given.push(Flag { whole, name, value });
        Ok(())
    }

    /// Checks every flag against those that the instruction knows.
    pub(super) fn finish(&self, context: &Context<'_>, known: &[Known]) -> Parsed<()> {
        for (index, flag) in self.given.iter().enumerate() {
            let Some(form) = known.iter().find(|known| known.name == flag.name.text).map(|known| known.form) else {
                return Err(unknown(context, flag, known));
            };
            let repeated = self.given[..index].iter().any(|earlier| earlier.name.text == flag.name.text);
            if repeated && form != Form::Values {
                let message = format!("--{} is given twice", flag.name.text);
                return Err(Diagnostic::error(message, flag.whole.span(context))
                    .with_label("second one")
                    .with_help("keep only one of them")
                    .boxed());
            }
            match form {
                Form::Bool => {
                    switch_value(context, flag)?;
                }
                Form::Value | Form::Values if flag.value.is_none() => return Err(without_value(context, flag)),
                Form::Value | Form::Values => {}
            }
        }
        Ok(())
    }

    /// The value of a flag; an empty one counts as not given.
    pub(super) fn value(&self, name: &str) -> Option<Word> {
        let flag = self.given.iter().find(|flag| flag.name.text == name)?;
        flag.value.clone().filter(|value| !value.raw.is_empty())
    }

    /// The values of a flag that may be repeated.
    pub(super) fn values(&self, name: &str) -> Vec<Word> {
        self.given.iter().filter(|flag| flag.name.text == name).filter_map(|flag| flag.value.clone()).collect()
    }

    /// A switch; `None` when it was not given.
    pub(super) fn switch(&self, context: &Context<'_>, name: &str) -> Parsed<Option<bool>> {
        let flag = self.given.iter().find(|flag| flag.name.text == name);
        flag.map(|flag| switch_value(context, flag)).transpose()
    }
}

fn switch_value(context: &Context<'_>, flag: &Flag<'_>) -> Parsed<bool> {
    let Some(value) = &flag.value else { return Ok(true) };
    match value.raw.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => {
            let message = format!("--{} is true or false, not {}", flag.name.text, quoted(&value.raw));
            let span = if value.raw.is_empty() { flag.whole.span(context) } else { value.span };
            Err(Diagnostic::error(message, span)
                .with_label("expected `true` or `false`")
                .with_help(format!("write `--{0}` or `--{0}=false`", flag.name.text))
                .boxed())
        }
    }
}

fn without_value(context: &Context<'_>, flag: &Flag<'_>) -> Box<Diagnostic> {
    let name = flag.name.text;
    Diagnostic::error(format!("--{name} needs a value"), flag.whole.span(context))
        .with_label("expected `=` and a value after this")
        .with_help(format!("write `--{name}=<value>`, without a space"))
        .boxed()
}

fn unknown(context: &Context<'_>, flag: &Flag<'_>, known: &[Known]) -> Box<Diagnostic> {
    let name = flag.name;
    let word = Text { text: flag.whole.text.get(..name.text.len() + 2).unwrap_or_default(), start: flag.whole.start };
    let all: Vec<String> = known.iter().map(|known| format!("--{}", known.name)).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let diagnostic = Diagnostic::error(format!("unknown flag {}", quoted(word.text)), word.span(context))
        .with_label("no such flag of this instruction");
    let help = if all.is_empty() {
        "this instruction has no flags; `--` before its arguments makes the rest arguments".to_owned()
    } else if name.text == "from" {
        "COPY takes it: `COPY --from=…`".to_owned()
    } else {
        format!("its flags are {}", all.join(", "))
    };
    diagnostic.with_help(help).with_nearest(word.text, &all).boxed()
}

/// Quotes go, and `\` makes the next character an ordinary one, whatever the escape directive says.
fn unquote(context: &Context<'_>, text: Text<'_>) -> Parsed<String> {
    let mut value = String::with_capacity(text.text.len());
    let mut open = None;
    let mut characters = text.text.char_indices();
    while let Some((at, character)) = characters.next() {
        match (character, open) {
            ('\\', _) => value.extend(characters.next().map(|(_, next)| next)),
            ('\'' | '"', None) => open = Some((at, character)),
            (_, Some((_, quote))) if character == quote => open = None,
            _ => value.push(character),
        }
    }
    match open {
        None => Ok(value),
        Some((at, quote)) => {
            let rest = Text { text: text.text.get(at..).unwrap_or_default(), start: text.start + at };
            Err(Diagnostic::error("unterminated quote in a flag", rest.span(context))
                .with_label(format!("expected a closing {quote}"))
                .boxed())
        }
    }
}
