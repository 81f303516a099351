//! `--call=targets` and `--call=outline`.

use std::process::ExitCode;

use kiln_build::plan::outline::{Wanted, outline as read_outline, targets as read_targets};
use kiln_build::{Error, Request};
use kiln_grammar::Dockerfile;
use kiln_grammar::position::LineIndex;
use serde_json::{Map, Value, json};

use super::Format;
use super::json::{data, location, pretty};
use crate::failure::print;
use crate::table::align;

fn parse(request: &Request) -> Result<Dockerfile, Error> {
    kiln_grammar::parse(&request.dockerfile).map_err(Error::Dockerfile)
}

pub(super) fn targets(format: Format, request: &Request) -> anyhow::Result<ExitCode> {
    let dockerfile = match parse(request) {
        Ok(dockerfile) => dockerfile,
        Err(error) => return super::super::fail(&error, request),
    };
    let targets = read_targets(&dockerfile);
    let text = if format == Format::Json {
        let lines = LineIndex::new(&request.dockerfile);
        let list: Vec<Value> = targets
            .iter()
            .map(|target| {
                let mut row = Map::new();
                row.extend(target.name.clone().map(|name| ("name".to_owned(), name.into())));
                row.extend(target.default.then(|| ("default".to_owned(), true.into())));
                row.extend(target.description.clone().map(|text| ("description".to_owned(), text.into())));
                row.insert("base".to_owned(), target.base.clone().into());
                row.extend(target.platform.clone().map(|text| ("platform".to_owned(), text.into())));
                row.insert("location".to_owned(), location(&lines, target.span));
                row.into()
            })
            .collect();
        pretty(&json!({"targets": list, "sources": [data(request)]}))
    } else {
        let rows = targets.iter().filter_map(|target| {
            let name = match (&target.name, target.default) {
                (Some(name), true) => format!("{name} (default)"),
                (Some(name), false) => name.clone(),
                (None, true) => "(default)".to_owned(),
                (None, false) => return None,
            };
            Some(vec![name, target.description.clone().unwrap_or_default()])
        });
        columns(&["TARGET", "DESCRIPTION"], &rows.collect::<Vec<_>>())
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn outline(format: Format, request: &Request) -> anyhow::Result<ExitCode> {
    let outline = match parse(request).and_then(|dockerfile| read_outline(&dockerfile, request)) {
        Ok(outline) => outline,
        Err(error) => return super::super::fail(&error, request),
    };
    if format == Format::Json {
        let lines = LineIndex::new(&request.dockerfile);
        let wanted = |list: &[Wanted]| -> Vec<Value> {
            let row = |wanted: &Wanted| json!({"name": wanted.id, "required": wanted.required, "location": location(&lines, wanted.span)});
            list.iter().map(row).collect()
        };
        let args: Vec<Value> = outline
            .args
            .iter()
            .map(|arg| {
                json!({
                    "name": arg.name,
                    "description": arg.description.clone().unwrap_or_default(),
                    "value": arg.value.clone().unwrap_or_default(),
                    "location": location(&lines, arg.span),
                })
            })
            .collect();
        let caches: Vec<Value> = outline
            .caches
            .iter()
            .map(|cache| json!({"ID": cache.id, "location": location(&lines, cache.span)}))
            .collect();
        print(&pretty(&json!({
            "name": outline.name.clone().unwrap_or_default(),
            "description": outline.description.clone().unwrap_or_default(),
            "args": args,
            "secrets": wanted(&outline.secrets),
            "ssh": wanted(&outline.agents),
            "cache": caches,
            "sources": [data(request)],
        })))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    if let Some(name) = &outline.name {
        text.push_str(&format!("TARGET:      {name}\n"));
    }
    if let Some(description) = &outline.description {
        text.push_str(&format!("DESCRIPTION: {description}\n"));
    }
    let args = outline.args.iter().map(|arg| {
        vec![arg.name.clone(), arg.value.clone().unwrap_or_default(), arg.description.clone().unwrap_or_default()]
    });
    let wanted = |list: &[Wanted]| -> Vec<Vec<String>> {
        list.iter()
            .map(|wanted| vec![wanted.id.clone(), if wanted.required { "true" } else { "" }.to_owned()])
            .collect()
    };
    let caches = outline.caches.iter().map(|cache| vec![cache.id.clone()]);
    let tables = [
        columns(&["BUILD ARG", "VALUE", "DESCRIPTION"], &args.collect::<Vec<_>>()),
        columns(&["SECRET", "REQUIRED"], &wanted(&outline.secrets)),
        columns(&["SSH", "REQUIRED"], &wanted(&outline.agents)),
        columns(&["CACHE MOUNT"], &caches.collect::<Vec<_>>()),
    ];
    for table in tables.iter().filter(|table| table.lines().count() > 1) {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(table);
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Rows under their heads.
fn columns(heads: &[&str], rows: &[Vec<String>]) -> String {
    let lines: Vec<String> = std::iter::once(heads.join("\t")).chain(rows.iter().map(|row| row.join("\t"))).collect();
    align(&lines, 0).lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
