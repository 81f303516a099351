//! SARIF 2.1.0, which code hosts and editors read.

use kiln_build::Request;
use kiln_build::check::Report;
use kiln_grammar::lint::{Level, RULES};
use kiln_grammar::position::LineIndex;
use kiln_grammar::{Diagnostic, Span};
use serde_json::{Value, json};

use super::check::diagnostic_of;
use super::json::pretty;

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";
/// The id of what no check is about.
const BUILD_ERROR: &str = "BuildError";

pub(super) fn report(report: &Report, request: &Request) -> String {
    let lines = LineIndex::new(&request.dockerfile);
    let mut results: Vec<Value> = report
        .findings
        .iter()
        .filter_map(|finding| {
            let check = finding.check?;
            let index = RULES.iter().position(|rule| rule.check == check)?;
            let mut result = result(check.name(), "warning", finding, request, &lines);
            result["ruleIndex"] = index.into();
            Some(result)
        })
        .collect();
    if let Some(error) = &report.error {
        let diagnostic =
            diagnostic_of(error).unwrap_or_else(|| Diagnostic::error(kiln_build::error::chain(error), Span::default()));
        results.push(result(BUILD_ERROR, "error", &diagnostic, request, &lines));
    }
    let rules: Vec<Value> = RULES
        .iter()
        .map(|rule| {
            let enabled = rule.level == Level::Warning;
            let mut row = json!({
                "id": rule.name,
                "shortDescription": {"text": rule.description},
                "defaultConfiguration": {"level": "warning", "enabled": enabled},
            });
            if !rule.check.url().is_empty() {
                row["helpUri"] = rule.check.url().into();
            }
            row
        })
        .collect();
    pretty(&json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "kiln", "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    }))
}

fn result(id: &str, level: &str, diagnostic: &Diagnostic, request: &Request, lines: &LineIndex<'_>) -> Value {
    let (line, column) = lines.position(diagnostic.span.start);
    let (end_line, end_column) = lines.position(diagnostic.span.end.max(diagnostic.span.start));
    let text = match &diagnostic.help {
        Some(help) => format!("{}; {help}", diagnostic.message),
        None => diagnostic.message.clone(),
    };
    json!({
        "ruleId": id,
        "level": level,
        "message": {"text": text},
        "locations": [{
            "physicalLocation": {
                "artifactLocation": {"uri": request.dockerfile_name},
                "region": {
                    "startLine": line,
                    "startColumn": column,
                    "endLine": end_line,
                    "endColumn": end_column,
                },
            },
        }],
    })
}
