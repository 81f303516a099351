//! Lists of words: the exec form's strings, EXPOSE, VOLUME.

use super::{Context, Head, Parsed, Rule, Text, grammar_pairs, try_grammar};
use crate::ast::Word;
use crate::diagnostic::Diagnostic;

/// The strings of a JSON array, or `None` when the text is anything else.
pub(super) fn exec_form(context: &Context<'_>, text: Text<'_>) -> Option<Vec<Word>> {
    if !text.text.starts_with('[') {
        return None;
    }
    let strings = try_grammar(Rule::exec_form, text.text)?;
    let mut words = Vec::with_capacity(strings.len());
    for string in strings {
        let json = string.into_inner().next()?;
        let span = Text::of(&json, text.start).span(context);
        words.push(Word { raw: serde_json::from_str(json.as_str()).ok()?, span });
    }
    Some(words)
}

/// Words between white space.
pub(super) fn words<'l>(context: &Context<'_>, text: Text<'l>) -> Parsed<Vec<Text<'l>>> {
    Ok(grammar_pairs(context, Rule::words, text)?.iter().map(|pair| Text::of(pair, text.start)).collect())
}

/// `EXPOSE port …`
pub(super) fn expose(context: &mut Context<'_>, head: &Head<'_>) -> Parsed<Vec<Word>> {
    head.flags.finish(context, &[])?;
    let words = words(context, head.arguments)?;
    if words.is_empty() {
        return Err(head
            .missing_argument(context, "a port")
            .with_help("such as `EXPOSE 80` or `EXPOSE 53/udp`")
            .boxed());
    }
    Ok(words.iter().map(|word| word.word(context)).collect())
}

/// `VOLUME path …` or `VOLUME ["path", …]`
pub(super) fn volume(context: &mut Context<'_>, head: &Head<'_>) -> Parsed<Vec<Word>> {
    head.flags.finish(context, &[])?;
    let paths = match exec_form(context, head.arguments) {
        Some(paths) => paths,
        None => words(context, head.arguments)?.iter().map(|word| word.word(context)).collect(),
    };
    if let Some(empty) = paths.iter().find(|path| path.raw.trim().is_empty()) {
        return Err(Diagnostic::error("a volume's path is empty", empty.span).with_label("expected a path").boxed());
    }
    if paths.is_empty() {
        return Err(head.missing_argument(context, "a path").boxed());
    }
    Ok(paths)
}
