//! `kiln ps` and `kiln rm`.

use anyhow::{Result, bail};
use kiln_container::{Record, State};
use kiln_store::Store;
use serde_json::{Map, Value, json};

use crate::age;
use crate::failure::print;
use crate::table::{self, Column};

const HEADINGS: [Column; 6] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED"),
    ("Status", "STATUS"),
    ("Names", "NAMES"),
];

/// Arguments of `ps`.
#[derive(Debug, clap::Args)]
pub(crate) struct PsArgs {
    /// Those that ended too
    #[arg(short, long)]
    all: bool,
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// table, json, or a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Arguments of `rm`.
#[derive(Debug, clap::Args)]
pub(crate) struct RmArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
    /// Its anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
}

pub(crate) fn run(args: &PsArgs, store: &Store) -> Result<()> {
    let mut rows: Vec<Map<String, Value>> = Vec::new();
    for (record, state) in kiln_container::list(store)? {
        if !args.all && state != State::Running {
            continue;
        }
        if args.quiet {
            print(&format!("{}\n", id(&record, args.no_trunc)))?;
            continue;
        }
        if let Value::Object(row) = row(&record, state, args.no_trunc) {
            rows.push(row);
        }
    }
    if args.quiet {
        return Ok(());
    }
    let default = HEADINGS.map(|(field, _)| field);
    table::print(args.format.as_deref(), &rows, &default, &HEADINGS)
}

fn id(record: &Record, whole: bool) -> String {
    record.id.chars().take(if whole { usize::MAX } else { 12 }).collect()
}

fn row(record: &Record, state: State, whole: bool) -> Value {
    let now = jiff::Timestamp::now().as_second();
    let ago = |time: i64| format!("{} ago", age::duration(now.saturating_sub(time)));
    let command = record.command.join(" ");
    let shown = if whole || command.chars().count() <= 20 {
        command
    } else {
        command.chars().take(19).chain(['…']).collect()
    };
    let status = match state {
        State::Running => format!("Up {}", age::duration(now.saturating_sub(record.created))),
        State::Exited(status, ended) => format!("Exited ({status}) {}", ago(ended)),
        State::Dead => "Dead (kiln was killed)".to_owned(),
    };
    json!({
        "ID": id(record, whole),
        "Image": record.image_name,
        "Command": format!("\"{shown}\""),
        "CreatedAt": ago(record.created),
        "Status": status,
        "Names": record.name,
    })
}

pub(crate) fn remove(args: &RmArgs, store: &Store) -> Result<()> {
    let mut failures = Vec::new();
    for container in &args.containers {
        match kiln_container::remove(store, container, args.volumes) {
            Ok(_) => print(&format!("{container}\n"))?,
            Err(error) => failures.push(error.to_string()),
        }
    }
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n")) }
}
