//! `kiln context ls`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use kiln_build::context_listing::{self, Listed};
use kiln_build::locate;
use serde_json::json;

use crate::failure::print;
use crate::size::human;

/// Look at build contexts
#[derive(Debug, clap::Args)]
pub(crate) struct ContextArgs {
    #[command(subcommand)]
    command: ContextCommand,
}

#[derive(Debug, Subcommand)]
enum ContextCommand {
    /// Show what is in a build context, and which pattern ignores the rest
    #[command(visible_alias = "list")]
    Ls(LsArgs),
}

#[derive(Debug, clap::Args)]
struct LsArgs {
    /// The build context
    #[arg(value_name = "PATH", default_value = ".")]
    context: PathBuf,
    /// The Dockerfile, which may have an ignore file of its own
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// `json`: one object per line
    #[arg(long, value_name = "FORMAT", value_parser = ["table", "json"])]
    format: Option<String>,
}

pub(crate) fn run(args: &ContextArgs) -> Result<()> {
    let ContextCommand::Ls(args) = &args.command;
    let dockerfile = args.file.clone().unwrap_or_else(|| args.context.join("Dockerfile"));
    let ignore = locate::ignore_file(None, Some(&dockerfile), &args.context)?;
    let listed = context_listing::list(&args.context, ignore.as_ref())?;
    if args.format.as_deref() == Some("json") {
        return listed.iter().try_for_each(|entry| print(&format!("{}\n", json(entry))));
    }
    let file = ignore.map(|(file, _)| file).unwrap_or_default();
    let (kept, dropped): (Vec<&Listed>, Vec<&Listed>) = listed.iter().partition(|entry| entry.ignored_by.is_none());
    let mut text = String::new();
    for entry in &kept {
        let size = if entry.files == 0 { String::new() } else { human(entry.size) };
        text.push_str(&format!("{size:>10}  {}\n", entry.path));
    }
    for entry in &dropped {
        let (line, pattern) = entry.ignored_by.clone().unwrap_or_default();
        let size = human(entry.size);
        text.push_str(&format!("{size:>10}  {}  (ignored by {file}:{line} {pattern})\n", entry.path));
    }
    text.push_str(&format!("{}, {}\n", total("in the context", &kept), total("ignored", &dropped)));
    print(&text)
}

fn total(what: &str, entries: &[&Listed]) -> String {
    let files: u64 = entries.iter().map(|entry| entry.files).sum();
    let bytes = entries.iter().map(|entry| entry.size).sum();
    format!("{what}: {files} files, {}", human(bytes))
}

fn json(entry: &Listed) -> serde_json::Value {
    let ignored = entry.ignored_by.as_ref();
    json!({
        "path": entry.path,
        "size": entry.size,
        "files": entry.files,
        "ignored": ignored.is_some(),
        "line": ignored.map(|(line, _)| line),
        "pattern": ignored.map(|(_, pattern)| pattern),
    })
}
