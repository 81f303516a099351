//! COPY and ADD.

use super::command::heredoc;
use super::flags::{Known, switch, value, values};
use super::words::{exec_form, words};
use super::{Context, Head, Parsed, Text};
use crate::ast::{Transfer, TransferSource, Word};
use crate::diagnostic::Diagnostic;
use crate::expand::has_variable;

const COPY_FLAGS: [Known; 6] =
    [value("from"), value("chown"), value("chmod"), switch("link"), switch("parents"), values("exclude")];

const ADD_FLAGS: [Known; 7] = [
    value("chown"),
    value("chmod"),
    switch("link"),
    values("exclude"),
    value("checksum"),
    switch("keep-git-dir"),
    switch("unpack"),
];

/// `COPY [flags] source … destination`
pub(super) fn copy(context: &mut Context<'_>, head: &Head<'_>) -> Parsed<Transfer> {
    head.flags.finish(context, &COPY_FLAGS)?;
    let transfer = transfer(context, head)?;
    match &transfer.from {
        Some(from) if has_variable(&from.raw) => Err(Diagnostic::error("--from does not expand variables", from.span)
            .with_label("expected a stage, an image or a named context")
            .with_help("give it a name that is known: `FROM ${IMAGE} AS source`, then `COPY --from=source`")
            .boxed()),
        _ => Ok(transfer),
    }
}

/// `ADD [flags] source … destination`
pub(super) fn add(context: &mut Context<'_>, head: &Head<'_>) -> Parsed<Transfer> {
    head.flags.finish(context, &ADD_FLAGS)?;
    transfer(context, head)
}

fn transfer(context: &mut Context<'_>, head: &Head<'_>) -> Parsed<Transfer> {
    let (sources, destination) = sources_and_destination(context, head)?;
    let flags = &head.flags;
    Ok(Transfer {
        from: flags.value("from"),
        chown: flags.value("chown"),
        chmod: flags.value("chmod"),
        link: flags.switch(context, "link")?.unwrap_or(false),
        parents: flags.switch(context, "parents")?.unwrap_or(false),
        exclude: flags.values("exclude"),
        checksum: flags.value("checksum"),
        keep_git_dir: flags.switch(context, "keep-git-dir")?,
        unpack: flags.switch(context, "unpack")?,
        sources,
        destination,
    })
}

fn sources_and_destination(context: &Context<'_>, head: &Head<'_>) -> Parsed<(Vec<TransferSource>, Word)> {
    let mut items = match exec_form(context, head.arguments) {
        Some(paths) => paths.into_iter().map(TransferSource::Path).collect(),
        None => words_and_heredocs(context, head.arguments)?,
    };
    let destination = items.pop();
    if items.is_empty() {
        let expected = if destination.is_none() { "a source and a destination" } else { "a destination" };
        return Err(match destination {
            Some(TransferSource::Path(only)) => {
                Diagnostic::error(format!("{} needs {expected}", head.name()), only.span)
                    .with_label("expected a destination after this")
            }
            _ => head.missing_argument(context, expected),
        }
        .with_help(format!("write `{} <source>… <destination>`", head.name()))
        .boxed());
    }
    match destination {
        Some(TransferSource::Path(destination)) => Ok((items, destination)),
        _ => Err(heredoc_destination(context, head)),
    }
}

fn heredoc_destination(context: &Context<'_>, head: &Head<'_>) -> Box<Diagnostic> {
    let span = match context.line.heredocs.last() {
        Some(last) => context.span(last.marker.start, last.marker.end),
        None => head.arguments.span(context),
    };
    Diagnostic::error("a heredoc cannot be the destination", span).with_label("expected a path").boxed()
}

/// The words in order, each heredoc's marker as one item.
fn words_and_heredocs(context: &Context<'_>, arguments: Text<'_>) -> Parsed<Vec<TransferSource>> {
    let mut items = Vec::new();
    let mut bodies = context.line.heredocs.iter().peekable();
    let mut taken = 0;
    for word in words(context, arguments)? {
        if word.start < taken {
            // the rest of a marker with white space in it
            continue;
        }
        match bodies.next_if(|body| body.marker.start <= word.start) {
            Some(body) => {
                taken = body.marker.end;
                items.push(TransferSource::Heredoc(heredoc(body)));
            }
            None => items.push(TransferSource::Path(word.word(context))),
        }
    }
    Ok(items)
}
