//! FROM.

use super::flags::value;
use super::words::words;
use super::{Context, Head, Parsed, Text};
use crate::ast::From;
use crate::diagnostic::{Diagnostic, quoted};
use crate::span::{Span, Spanned};

const FORM: &str = "write `FROM <image>` or `FROM <image> AS <name>`";

/// `FROM [--platform=…] image [AS name]`
pub(super) fn from(context: &mut Context<'_>, head: &Head<'_>) -> Parsed<From> {
    head.flags.finish(context, &[value("platform")])?;
    let words = words(context, head.arguments)?;
    let named = match words.as_slice() {
        [] => return Err(head.missing_argument(context, "an image").with_help(FORM).boxed()),
        [_] => None,
        [_, keyword, name] if keyword.text.eq_ignore_ascii_case("as") => {
            Some((keyword.spanned(context), stage_name(context, *name)?))
        }
        [_, keyword] if keyword.text.eq_ignore_ascii_case("as") => {
            return Err(Diagnostic::error("AS without a name", keyword.span(context))
                .with_label("expected the stage's name after this")
                .boxed());
        }
        [_, keyword, rest @ ..] => return Err(unexpected(context, *keyword, rest)),
    };
    let image = words.first().copied().unwrap_or(head.arguments).word(context);
    let (as_keyword, name) = named.unzip();
    Ok(From { platform: head.flags.value("platform"), image, as_keyword, name })
}

fn stage_name(context: &Context<'_>, name: Text<'_>) -> Parsed<Spanned<String>> {
    let lower = name.text.to_lowercase();
    let valid = lower.starts_with(|first: char| first.is_ascii_lowercase())
        && lower.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte));
    if valid {
        return Ok(name.spanned(context));
    }
    Err(Diagnostic::error(format!("invalid stage name {}", quoted(name.text)), name.span(context))
        .with_label("expected a letter, then letters, digits, `-`, `_` or `.`")
        .boxed())
}

fn unexpected(context: &Context<'_>, keyword: Text<'_>, rest: &[Text<'_>]) -> Box<Diagnostic> {
    if keyword.text.eq_ignore_ascii_case("as") {
        let extra = rest.get(1).copied().unwrap_or(keyword);
        let end = rest.last().copied().unwrap_or(keyword).span(context).end;
        return Diagnostic::error(
            "FROM takes nothing after the stage's name",
            Span::new(extra.span(context).start, end),
        )
        .with_label("unexpected")
        .with_help(FORM)
        .boxed();
    }
    Diagnostic::error("FROM takes one image", keyword.span(context))
        .with_label("expected `AS` or the end of the line")
        .with_help(FORM)
        .with_nearest(keyword.text, &["AS"])
        .boxed()
}
