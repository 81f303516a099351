//! The part of Go's templates that `--format` is used with: fields, a few functions, `range`, `if` and `with`-less
//! pipelines: `{{.Config.Env}}`, `{{json .}}`, `{{index .Labels "a"}}`, `{{range .RepoTags}}{{.}} {{end}}`.

mod action;

use std::fmt::Write;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use action::Pipeline;

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template(Vec<Node>);

#[derive(Debug)]
enum Node {
    Text(String),
    Print(Pipeline),
    Range(Pipeline, Vec<Node>, Vec<Node>),
    If(Pipeline, Vec<Node>, Vec<Node>),
}

/// How a list of nodes ended.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    Template,
    End,
    Else,
}

impl Template {
    /// Parses a template.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut rest = text;
        let (nodes, end) = parse_nodes(&mut rest, 0).with_context(|| format!("template {text:?}"))?;
        match end {
            Stop::Template => Ok(Self(nodes)),
            Stop::End => bail!("template {text:?}: {{{{end}}}} without a beginning"),
            Stop::Else => bail!("template {text:?}: {{{{else}}}} without a beginning"),
        }
    }

    /// Fills it in.
    pub(crate) fn render(&self, data: &Value) -> Result<String> {
        let mut out = String::new();
        render_nodes(&self.0, data, data, &mut out)?;
        Ok(out)
    }
}

/// `\t` and `\n` of a shell's single quotes mean what they say.
pub(crate) fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// Blocks within blocks, at most.
const DEPTH_LIMIT: usize = 64;

fn parse_nodes(rest: &mut &str, depth: usize) -> Result<(Vec<Node>, Stop)> {
    if depth > DEPTH_LIMIT {
        bail!("blocks are nested too deeply");
    }
    let mut nodes = Vec::new();
    loop {
        let Some((text, after)) = rest.split_once("{{") else {
            push_text(&mut nodes, rest);
            *rest = "";
            return Ok((nodes, Stop::Template));
        };
        let (mut action, mut after) = after.split_once("}}").context("{{ without }}")?;
        let mut text = text;
        if let Some(trimmed) = action.strip_prefix("- ") {
            (action, text) = (trimmed, text.trim_end());
        }
        if let Some(trimmed) = action.strip_suffix(" -") {
            (action, after) = (trimmed, after.trim_start());
        }
        push_text(&mut nodes, text);
        *rest = after;
        let action = action.trim();
        match action.split_once(char::is_whitespace).unwrap_or((action, "")) {
            ("end", "") => return Ok((nodes, Stop::End)),
            ("else", "") => return Ok((nodes, Stop::Else)),
            ("range", over) => {
                let (body, otherwise) = parse_block(rest, depth)?;
                nodes.push(Node::Range(Pipeline::parse(over)?, body, otherwise));
            }
            ("if", condition) => {
                let (body, otherwise) = parse_block(rest, depth)?;
                nodes.push(Node::If(Pipeline::parse(condition)?, body, otherwise));
            }
            _ if action.starts_with("/*") => {}
            _ => nodes.push(Node::Print(Pipeline::parse(action)?)),
        }
    }
}

fn parse_block(rest: &mut &str, depth: usize) -> Result<(Vec<Node>, Vec<Node>)> {
    let (body, end) = parse_nodes(rest, depth + 1)?;
    match end {
        Stop::Template => bail!("a block without {{{{end}}}}"),
        Stop::End => Ok((body, Vec::new())),
        Stop::Else => match parse_nodes(rest, depth + 1)? {
            (otherwise, Stop::End) => Ok((body, otherwise)),
            _ => bail!("a block without {{{{end}}}}"),
        },
    }
}

fn push_text(nodes: &mut Vec<Node>, text: &str) {
    if !text.is_empty() {
        nodes.push(Node::Text(text.to_owned()));
    }
}

fn render_nodes(nodes: &[Node], dot: &Value, root: &Value, out: &mut String) -> Result<()> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(pipeline) => show(&pipeline.evaluate(dot, root)?, out),
            Node::If(condition, body, otherwise) => {
                let chosen = if is_true(&condition.evaluate(dot, root)?) { body } else { otherwise };
                render_nodes(chosen, dot, root, out)?;
            }
            Node::Range(over, body, otherwise) => match over.evaluate(dot, root)? {
                Value::Array(items) if !items.is_empty() => {
                    for item in &items {
                        render_nodes(body, item, root, out)?;
                    }
                }
                Value::Object(fields) if !fields.is_empty() => {
                    for value in sorted(&fields).into_iter().map(|(_, value)| value) {
                        render_nodes(body, value, root, out)?;
                    }
                }
                _ => render_nodes(otherwise, dot, root, out)?,
            },
        }
    }
    Ok(())
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

fn sorted(fields: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut fields: Vec<_> = fields.iter().collect();
    fields.sort_by_key(|(name, _)| *name);
    fields
}

/// A value as Go prints it.
fn show(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<no value>"),
        Value::String(text) => out.push_str(text),
        Value::Array(items) => {
            out.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(' ');
                }
                show(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push_str("map[");
            for (position, (key, value)) in sorted(fields).into_iter().enumerate() {
                if position > 0 {
                    out.push(' ');
                }
                out.push_str(key);
                out.push(':');
                show(value, out);
            }
            out.push(']');
        }
        // Writing to a string does not fail.
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(template: &str) -> Result<String> {
        let data = json!({"Id": "sha256:1", "Size": 5, "RepoTags": ["a:1", "b:2"], "None": null,
            "Layers": [{"Size": 6, "Of": {"Kind": "tar"}}, {"Size": 7}],
            "Config": {"Env": ["A=1"], "Labels": {"k.x": "v", "a": "b"}, "Cmd": null}});
        Template::parse(template)?.render(&data)
    }

    #[test]
    fn what_people_write_is_filled_in() {
        let cases = [
            ("{{.Id}}", "sha256:1"),
            ("{{ .Id }} {{.Size}}", "sha256:1 5"),
            ("{{json .Config.Env}}", r#"["A=1"]"#),
            ("{{.Config.Env}} {{.Config.Labels}}", "[A=1] map[a:b k.x:v]"),
            (r#"{{index .Config.Labels "k.x"}}"#, "v"),
            ("{{index .RepoTags 1}}", "b:2"),
            ("{{range .RepoTags}}<{{.}}>{{end}}", "<a:1><b:2>"),
            ("{{range .Config.Cmd}}x{{else}}none{{end}}", "none"),
            ("{{if .Config.Cmd}}x{{else}}y{{end}}{{if .Size}}z{{end}}", "yz"),
            ("{{len .RepoTags}} {{upper .Id}} {{join .RepoTags \", \"}}", "2 SHA256:1 a:1, b:2"),
            ("{{.RepoTags | json}}", r#"["a:1","b:2"]"#),
            ("a {{- .Size -}} b", "a5b"),
            ("{{json (index .RepoTags 0)}}", "\"a:1\""),
            ("{{(index .Config.Env 0)}} {{len (index .Config.Labels \"a\")}}", "A=1 1"),
            ("{{(index .Layers 1).Size}} {{((index .Layers 0).Of).Kind | upper}}", "7 TAR"),
            ("{{.None}}", "<no value>"),
            ("{{range .RepoTags}}{{$.Size}}{{end}}", "55"),
            ("{{/* note */}}x", "x"),
        ];
        for (template, expected) in cases {
            assert_eq!(render(template).expect(template), expected, "{template}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("{{.Nothing}}", "Nothing"),
            ("{{.Id.More}}", "More"),
            ("{{.Id", "without }}"),
            ("{{end}}", "without a beginning"),
            ("{{range .Id}}", "without {{end}}"),
            ("{{nonsense .Id}}", "nonsense"),
            ("{{index .RepoTags 7}}", "7"),
            ("{{json (.Id}}", "parenthesis"),
            ("{{\"open}}", "quote"),
        ];
        for (template, part) in cases {
            let message = format!("{:#}", render(template).expect_err(template));
            assert!(message.contains(part), "{template}: {message}");
        }
    }
}
