//! ENV, LABEL and ARG: `key=value` pairs.

use super::{Context, Head, Parsed, Rule, Text, grammar_pairs, try_grammar};
use crate::ast::{ArgDeclaration, Pair, Word};
use crate::diagnostic::{Diagnostic, quoted, shown};
use crate::lint::Check;
use crate::span::Span;

/// A word that may be `key=value`.
struct MaybePair<'l> {
    key: Text<'l>,
    value: Option<Text<'l>>,
}

/// ENV and LABEL: pairs, or a key and the rest of the line.
pub(super) fn pairs(context: &mut Context<'_>, head: &Head<'_>) -> Parsed<Vec<Pair>> {
    head.flags.finish(context, &[])?;
    let parts = split(context, head.arguments)?;
    let Some(first) = parts.first() else {
        return Err(head.missing_argument(context, "a key and a value").with_help(form(head)).boxed());
    };
    if first.value.is_none() {
        let pair = legacy(context, head, first.key)?;
        context.warnings.push(legacy_form(head, &pair));
        return Ok(vec![pair]);
    }
    let mut pairs = Vec::with_capacity(parts.len());
    for (number, part) in parts.iter().enumerate() {
        pairs.push(pair(context, head, part).map_err(|error| meant_as_one(error, &parts, number))?);
    }
    Ok(pairs)
}

fn pair(context: &Context<'_>, head: &Head<'_>, part: &MaybePair<'_>) -> Parsed<Pair> {
    let Some(value) = part.value else {
        return Err(Diagnostic::error(format!("{} has no `=`", quoted(part.key.text)), part.key.span(context))
            .with_label("expected `key=value`")
            .with_help("a value with spaces is written in quotes, or with its spaces escaped")
            .boxed());
    };
    if part.key.is_empty() {
        return Err(without_key(context, head, value));
    }
    Ok(Pair { key: part.key.word(context), value: word_after(context, part.key, value), legacy: false })
}

/// A word without `=` is most often a part of the value before it, which lacks its quotes.
fn meant_as_one(error: Box<Diagnostic>, parts: &[MaybePair<'_>], wrong: usize) -> Box<Diagnostic> {
    let before = wrong.checked_sub(1).and_then(|before| parts.get(before));
    let Some((key, value)) = before.and_then(|part| Some((part.key.text, part.value?.text))) else { return error };
    let words: Vec<&str> =
        parts[wrong..].iter().take_while(|part| part.value.is_none()).map(|part| part.key.text).collect();
    if words.is_empty()
        || value.is_empty()
        || [&[value], words.as_slice()].concat().iter().any(|word| word.contains(['"', '\'', '\\']))
    {
        return error;
    }
    let whole = shown(&format!("{key}=\"{value} {}\"", words.join(" ")));
    error.with_help(format!("a value with spaces is written in quotes: `{whole}`")).boxed()
}

fn legacy(context: &Context<'_>, head: &Head<'_>, first: Text<'_>) -> Parsed<Pair> {
    let parsed = try_grammar(Rule::legacy_pair, head.arguments.text);
    let Some([key, value]) = parsed.as_deref() else {
        return Err(Diagnostic::error(format!("{} has no value", quoted(first.text)), first.span(context))
            .with_label("expected `=` and a value after this")
            .with_help(form(head))
            .boxed());
    };
    let [key, value] = [key, value].map(|pair| Text::of(pair, head.arguments.start).word(context));
    Ok(Pair { key, value, legacy: true })
}

fn legacy_form(head: &Head<'_>, pair: &Pair) -> Diagnostic {
    let name = head.name();
    Diagnostic::finding(
        Check::LegacyKeyValueFormat,
        format!("{name} without `=` is a legacy form"),
        Span::new(pair.key.span.start, pair.value.span.end),
    )
    .with_label("the rest of the line is the value")
    .with_help(format!("write `{name} key=value`, with the value in quotes when it has spaces"))
}

/// `ARG name`, `ARG name=default`, several of them.
pub(super) fn arg(context: &mut Context<'_>, head: &Head<'_>) -> Parsed<Vec<ArgDeclaration>> {
    head.flags.finish(context, &[])?;
    let parts = split(context, head.arguments)?;
    if parts.is_empty() {
        return Err(head
            .missing_argument(context, "a name")
            .with_help("write `ARG name` or `ARG name=default`")
            .boxed());
    }
    let mut declarations = Vec::with_capacity(parts.len());
    for part in &parts {
        if part.key.is_empty() {
            return Err(without_key(context, head, part.value.unwrap_or(part.key)));
        }
        let default = part.value.map(|value| word_after(context, part.key, value));
        declarations.push(ArgDeclaration { name: part.key.word(context), default });
    }
    Ok(declarations)
}

/// A value that may be empty: it then stands right behind the `=`, not at the start of what follows.
fn word_after(context: &Context<'_>, key: Text<'_>, value: Text<'_>) -> Word {
    let mut word = value.word(context);
    if value.is_empty() {
        let behind = context.span(key.end(), key.end() + 1).end;
        word.span = Span::new(behind, behind);
    }
    word
}

fn split<'l>(context: &Context<'_>, text: Text<'l>) -> Parsed<Vec<MaybePair<'l>>> {
    let rule = if context.escape == '`' { Rule::pairs_backtick } else { Rule::pairs_backslash };
    let pairs = grammar_pairs(context, rule, text)?;
    Ok(pairs
        .into_iter()
        .map(|pair| {
            let whole = Text::of(&pair, text.start);
            let mut parts = pair.into_inner().map(|part| Text::of(&part, text.start));
            MaybePair { key: parts.next().unwrap_or(whole), value: parts.next() }
        })
        .collect())
}

fn without_key(context: &Context<'_>, head: &Head<'_>, value: Text<'_>) -> Box<Diagnostic> {
    let equals = context.span(value.start.saturating_sub(1), value.end());
    Diagnostic::error(format!("{} has a value without a name", head.name()), equals)
        .with_label("expected a name before `=`")
        .boxed()
}

fn form(head: &Head<'_>) -> String {
    format!("write `{} key=value`", head.name())
}
