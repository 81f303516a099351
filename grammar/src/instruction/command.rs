//! RUN, CMD, ENTRYPOINT, SHELL: commands in shell or exec form.

use super::flags::{Known, value, values};
use super::words::exec_form;
use super::{Context, Head, Parsed, Text};
use crate::ast::{Command, Heredoc, Run, Word};
use crate::diagnostic::{Diagnostic, quoted};
use crate::logical::HeredocBody;

const RUN_FLAGS: [Known; 4] = [values("mount"), value("network"), value("security"), values("device")];

/// `RUN [flags] command`
pub(super) fn run(context: &mut Context<'_>, head: &Head<'_>) -> Parsed<Run> {
    head.flags.finish(context, &RUN_FLAGS)?;
    let network = head.flags.value("network");
    check_choice(network.as_ref(), "network mode", &["default", "none", "host"])?;
    let security = head.flags.value("security");
    check_choice(security.as_ref(), "security mode", &["sandbox", "insecure"])?;
    Ok(Run {
        mounts: head.flags.values("mount"),
        network,
        security,
        devices: head.flags.values("device"),
        command: command(context, head, head.arguments),
        heredocs: context.line.heredocs.iter().map(heredoc).collect(),
    })
}

fn check_choice(word: Option<&Word>, what: &str, choices: &[&str]) -> Parsed<()> {
    match word {
        // a variable is known only when the step is planned
        Some(word) if !word.raw.contains('$') && !choices.contains(&word.raw.as_str()) => {
            Err(Diagnostic::error(format!("unknown {what} {}", quoted(&word.raw)), word.span)
                .with_label(format!("expected {}", one_of(choices)))
                .with_nearest(&word.raw, choices)
                .boxed())
        }
        _ => Ok(()),
    }
}

/// "`a`, `b` or `c`"
pub(crate) fn one_of(choices: &[&str]) -> String {
    let mut text = String::new();
    for (index, choice) in choices.iter().enumerate() {
        text.push_str(match index {
            0 => "",
            _ if index + 1 == choices.len() => " or ",
            _ => ", ",
        });
        text.push('`');
        text.push_str(choice);
        text.push('`');
    }
    text
}

/// `CMD` and `ENTRYPOINT`.
pub(super) fn command_only(context: &mut Context<'_>, head: &Head<'_>) -> Parsed<Command> {
    head.flags.finish(context, &[])?;
    Ok(command(context, head, head.arguments))
}

/// `SHELL ["executable", "parameter", …]`
pub(super) fn shell(context: &mut Context<'_>, head: &Head<'_>) -> Parsed<Vec<String>> {
    head.flags.finish(context, &[])?;
    if head.arguments.is_empty() {
        return Err(head.missing_argument(context, "a JSON array of strings").boxed());
    }
    let help = "write it as `SHELL [\"/bin/sh\", \"-c\"]`";
    match exec_form(context, head.arguments) {
        Some(words) if words.is_empty() => {
            Err(Diagnostic::error("SHELL needs at least one string", head.arguments.span(context))
                .with_label("this array is empty")
                .with_help(help)
                .boxed())
        }
        Some(words) => Ok(words.into_iter().map(|word| word.raw).collect()),
        None => Err(Diagnostic::error("SHELL takes a JSON array of strings", head.arguments.span(context))
            .with_label("expected a JSON array of strings")
            .with_help(help)
            .boxed()),
    }
}

/// A command in exec form when it is a JSON array of strings, else in shell form.
pub(super) fn command(context: &mut Context<'_>, head: &Head<'_>, arguments: Text<'_>) -> Command {
    if let Some(words) = exec_form(context, arguments) {
        return Command::Exec(words.into_iter().map(|word| word.raw).collect());
    }
    if arguments.is_empty() && context.line.heredocs.is_empty() {
        let message = format!("{} has no command", head.name());
        let warning =
            Diagnostic::warning(message, head.keyword.span(context)).with_label("expected a command after this");
        context.warnings.push(warning);
    } else if looks_like_exec_form(arguments.text) {
        let message = "this is not a JSON array of strings: the shell gets it as it is";
        let warning = Diagnostic::warning(message, arguments.span(context))
            .with_label("taken as a shell command")
            .with_help("exec form is `[\"executable\", \"argument\"]`, every string in double quotes");
        context.warnings.push(warning);
    }
    Command::Shell(arguments.spanned(context))
}

/// `[ -f x ] && …` is a shell's test; `['a', 'b']` is a mistake.
fn looks_like_exec_form(text: &str) -> bool {
    let inside = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inside.is_some_and(|inside| inside.trim_start().starts_with(['"', '\'', '“']))
}

/// A body as the syntax tree has it.
pub(super) fn heredoc(body: &HeredocBody) -> Heredoc {
    let marker = &body.marker;
    let text = if marker.strip_tabs { strip_tabs(&body.raw) } else { body.raw.clone() };
    Heredoc {
        name: marker.name.clone(),
        expand: marker.expand,
        strip_tabs: marker.strip_tabs,
        fd: marker.fd,
        body: text,
        span: body.span,
    }
}

fn strip_tabs(body: &str) -> String {
    body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}
