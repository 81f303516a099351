//! MAINTAINER, USER, WORKDIR, STOPSIGNAL: the whole rest of the line is one word.

use super::{Context, Head, Parsed};
use crate::ast::Word;

/// The one argument.
pub(super) fn single(context: &mut Context<'_>, head: &Head<'_>, expected: &str) -> Parsed<Word> {
    head.flags.finish(context, &[])?;
    if head.arguments.is_empty() {
        return Err(head.missing_argument(context, expected).boxed());
    }
    Ok(head.arguments.word(context))
}
