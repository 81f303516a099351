//! HEALTHCHECK.

use std::time::Duration;

use super::command::{command, one_of};
use super::flags::{Known, value};
use super::{Context, Head, Parsed, Rule, Text, duration, grammar_pairs};
use crate::ast::HealthCheck;
use crate::diagnostic::{Diagnostic, quoted};

const FLAGS: [Known; 5] =
    [value("interval"), value("timeout"), value("start-period"), value("start-interval"), value("retries")];

/// What docker takes as the shortest time between two checks.
const SHORTEST: Duration = Duration::from_millis(1);

/// `HEALTHCHECK [flags] CMD command` or `HEALTHCHECK NONE`
pub(super) fn healthcheck(context: &mut Context<'_>, head: &Head<'_>) -> Parsed<HealthCheck> {
    if head.arguments.is_empty() {
        head.flags.finish(context, &FLAGS)?;
        return Err(head.missing_argument(context, "`CMD` or `NONE`").boxed());
    }
    let pairs = grammar_pairs(context, Rule::healthcheck, head.arguments)?;
    let mut parts = pairs.iter().map(|pair| Text::of(pair, head.arguments.start));
    let kind = parts.next().unwrap_or(head.arguments);
    let rest = parts.next().unwrap_or(Text { text: "", start: head.arguments.end() });
    match kind.text.to_ascii_uppercase().as_str() {
        "NONE" => none(context, head, rest),
        "CMD" => test(context, head, kind, rest),
        _ => {
            let choices = ["CMD", "NONE"];
            Err(Diagnostic::error(format!("unknown health check type {}", quoted(kind.text)), kind.span(context))
                .with_label(format!("expected {}", one_of(&choices)))
                .with_help("write `HEALTHCHECK CMD <command>`")
                .with_nearest(kind.text, &choices)
                .boxed())
        }
    }
}

fn none(context: &mut Context<'_>, head: &Head<'_>, rest: Text<'_>) -> Parsed<HealthCheck> {
    if !rest.is_empty() {
        return Err(Diagnostic::error("HEALTHCHECK NONE takes no arguments", rest.span(context))
            .with_label("unexpected")
            .with_help("write `HEALTHCHECK NONE` to have none, or `HEALTHCHECK CMD` and the command")
            .boxed());
    }
    if !head.flags.is_empty() {
        let warning = Diagnostic::warning("HEALTHCHECK NONE ignores its flags", head.keyword.span(context));
        context.warnings.push(warning);
    }
    Ok(HealthCheck::None)
}

fn test(context: &mut Context<'_>, head: &Head<'_>, kind: Text<'_>, rest: Text<'_>) -> Parsed<HealthCheck> {
    head.flags.finish(context, &FLAGS)?;
    if rest.is_empty() {
        return Err(Diagnostic::error("HEALTHCHECK CMD needs a command", kind.span(context))
            .with_label("expected a command after this")
            .boxed());
    }
    let command = command(context, head, rest);
    if matches!(&command, crate::ast::Command::Exec(arguments) if arguments.is_empty()) {
        return Err(Diagnostic::error("HEALTHCHECK CMD needs a command", rest.span(context))
            .with_label("this array is empty")
            .boxed());
    }
    Ok(HealthCheck::Test {
        interval: interval(head, "interval")?,
        timeout: interval(head, "timeout")?,
        start_period: interval(head, "start-period")?,
        start_interval: interval(head, "start-interval")?,
        retries: retries(head)?,
        command,
    })
}

/// Zero means what the base image says, as if the flag were not there.
fn interval(head: &Head<'_>, name: &str) -> Parsed<Option<Duration>> {
    let Some(word) = head.flags.value(name) else { return Ok(None) };
    let duration = duration::parse(&word.raw).map_err(|reason| {
        Diagnostic::error(format!("invalid duration {} for --{name}", quoted(&word.raw)), word.span)
            .with_label(reason)
            .with_help("a duration is numbers with units, such as `30s`, `1m30s` or `500ms`")
            .boxed()
    })?;
    match duration {
        Some(duration) if duration.is_zero() => Ok(None),
        Some(duration) if duration >= SHORTEST => Ok(Some(duration)),
        _ => Err(Diagnostic::error(format!("--{name} cannot be less than 1ms"), word.span)
            .with_label("expected at least `1ms`, or `0` for the default")
            .boxed()),
    }
}

fn retries(head: &Head<'_>) -> Parsed<Option<u32>> {
    let Some(word) = head.flags.value("retries") else { return Ok(None) };
    match word.raw.parse::<i32>().map(u32::try_from) {
        Ok(Ok(0)) => Ok(None),
        Ok(Ok(retries)) => Ok(Some(retries)),
        Ok(Err(_)) => {
            Err(Diagnostic::error("--retries cannot be negative", word.span).with_label("expected 0 or more").boxed())
        }
        Err(_) => Err(Diagnostic::error(format!("invalid number {} for --retries", quoted(&word.raw)), word.span)
            .with_label("expected a whole number")
            .boxed()),
    }
}
