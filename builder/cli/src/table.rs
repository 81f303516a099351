//! Rows as people and scripts want them: aligned columns, JSON lines, or a template for each row.

use std::io::{self, Write};

use anyhow::Result;
use serde_json::{Map, Value};

use crate::template::{self, Template};

/// Spaces between two columns.
const GAP: usize = 3;
/// How wide a column is at least, with its gap: docker's, by which scripts cut.
pub(crate) const LEAST: usize = 10;

/// A column: the field of the row, and the heading.
pub(crate) type Column = (&'static str, &'static str);

/// Prints rows (objects whose values are texts). `format` is `table`, `json`, `table TEMPLATE`, a template, or
/// nothing, which is a table of `default`. `headings` has every field that a template may name.
pub(crate) fn print(
    format: Option<&str>,
    rows: &[Map<String, Value>],
    default: &[&str],
    headings: &[Column],
) -> Result<()> {
    let mut out = io::stdout().lock();
    let format = format.map(template::unescape).unwrap_or_default();
    let default: Vec<String> = default.iter().map(|field| format!("{{{{.{field}}}}}")).collect();
    let default = default.join("\t");
    match format.strip_prefix("table").filter(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace)) {
        _ if format == "json" => {
            for row in rows {
                writeln!(out, "{}", serde_json::to_string(row)?)?;
            }
        }
        None if !format.is_empty() => {
            let template = Template::parse(&format)?;
            for row in rows {
                writeln!(out, "{}", template.render(&Value::Object(row.clone()))?)?;
            }
        }
        columns => {
            let columns = columns.map(str::trim).filter(|columns| !columns.is_empty()).unwrap_or(&default);
            let template = Template::parse(columns)?;
            let heading = headings.iter().map(|(field, heading)| ((*field).to_owned(), Value::from(*heading)));
            let mut lines = vec![template.render(&Value::Object(heading.collect()))?];
            for row in rows {
                lines.push(template.render(&Value::Object(row.clone()))?);
            }
            write!(out, "{}", align(&lines, LEAST))?;
        }
    }
    out.flush()?;
    Ok(())
}

/// Turns tabs into columns, each as wide as its widest cell, and `least` at least.
pub(crate) fn align(lines: &[String], least: usize) -> String {
    let rows: Vec<Vec<&str>> = lines.iter().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        for (position, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if position + 1 < row.len() {
                let width = (widths[position] + GAP).max(least);
                text.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::align;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let lines = ["A\tBB\tC", "aaaa\tb\tc"].map(str::to_owned);
        assert_eq!(align(&lines, 0), "A      BB   C\naaaa   b    c\n");
        assert_eq!(align(&lines, 10), "A         BB        C\naaaa      b         c\n");
    }
}
