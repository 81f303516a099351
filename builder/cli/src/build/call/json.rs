//! The JSON that readers of BuildKit's subrequests know; lines count from 1 there, characters from 0.

use base64::Engine;
use kiln_build::Request;
use kiln_build::check::Report;
use kiln_grammar::Span;
use kiln_grammar::position::LineIndex;
use serde_json::{Value, json};

use super::check::diagnostic_of;

/// The report of a check.
pub(super) fn report(report: &Report, request: &Request) -> String {
    let lines = LineIndex::new(&request.dockerfile);
    let warnings: Vec<Value> = report
        .findings
        .iter()
        .filter_map(|finding| {
            let check = finding.check?;
            let mut warning = json!({"ruleName": check.name(), "description": check.rule().description});
            if !check.url().is_empty() {
                warning["url"] = check.url().into();
            }
            warning["detail"] = finding.message.clone().into();
            warning["location"] = location(&lines, finding.span);
            if let Some(help) = &finding.help {
                warning["help"] = help.clone().into();
            }
            Some(warning)
        })
        .collect();
    let mut value = json!({"warnings": warnings, "sources": [source(request)]});
    if let Some(error) = &report.error {
        let mut build_error = json!({"message": kiln_build::error::chain(error)});
        if let Some(diagnostic) = diagnostic_of(error) {
            build_error["location"] = location(&lines, diagnostic.span);
        }
        value["buildError"] = build_error;
    }
    pretty(&value)
}

/// The place of a span.
pub(super) fn location(lines: &LineIndex<'_>, span: Span) -> Value {
    let at = |offset| {
        let (line, column) = lines.position(offset);
        json!({"line": line, "character": column - 1})
    };
    json!({"ranges": [{"start": at(span.start), "end": at(span.end.max(span.start))}]})
}

/// The Dockerfile, for readers that show its lines.
fn source(request: &Request) -> Value {
    json!({
        "filename": request.dockerfile_name,
        "language": "Dockerfile",
        "data": data(request),
    })
}

/// The Dockerfile in base64.
pub(super) fn data(request: &Request) -> String {
    base64::engine::general_purpose::STANDARD.encode(&request.dockerfile)
}

/// For people who look at it, too.
pub(super) fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
