//! `--check`.

use std::io::IsTerminal;
use std::process::ExitCode;

use kiln_build::check::{Report, check};
use kiln_build::{Error, Request};
use kiln_grammar::Diagnostic;
use kiln_store::Store;

use super::{Format, json, sarif};
use crate::failure::print;

/// Findings that are shown whole to a person.
const MOST_SHOWN: usize = 200;

pub(super) fn run(format: Format, store: &Store, request: &Request) -> anyhow::Result<ExitCode> {
    let report = check(store, request);
    let text = match format {
        Format::Text => text(&report, request),
        Format::Json => json::report(&report, request),
        Format::Sarif => sarif::report(&report, request),
    };
    print(&text)?;
    let clean = report.findings.is_empty() && report.error.is_none();
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(report: &Report, request: &Request) -> String {
    let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let render = |diagnostic: &Diagnostic| {
        format!("{}\n", diagnostic.render(&request.dockerfile_name, &request.dockerfile, color).trim_end())
    };
    let mut text = String::new();
    for diagnostic in report.notes.iter().chain(&report.findings).take(MOST_SHOWN) {
        text.push_str(&render(diagnostic));
        if let Some(url) = diagnostic.check.map(|check| check.url()).filter(|url| !url.is_empty()) {
            text.push_str(&format!("  = see: {url}\n"));
        }
        text.push('\n');
    }
    let shown = report.notes.len() + report.findings.len();
    if shown > MOST_SHOWN {
        text.push_str(&format!("… and {} more: --call=check,format=json has all of them\n\n", shown - MOST_SHOWN));
    }
    if let Some(error) = &report.error {
        text.push_str(&match diagnostic_of(error) {
            Some(diagnostic) => format!("{}\n", render(&diagnostic)),
            None => format!("error: {}\n\n", kiln_build::error::chain(error)),
        });
    }
    text.push_str(&match report.findings.len() {
        0 if report.error.is_some() => "Check complete, the Dockerfile cannot be built.\n".to_owned(),
        0 => "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    });
    text
}

/// The place that an error is about.
pub(super) fn diagnostic_of(error: &Error) -> Option<Diagnostic> {
    match error {
        Error::Dockerfile(diagnostic) => Some((**diagnostic).clone()),
        _ => None,
    }
}
