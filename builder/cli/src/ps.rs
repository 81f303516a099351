//! `kiln ps`.

use anyhow::Result;
use kiln_container::{Container, Phase, Record};
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

pub(crate) fn run(args: &PsArgs, store: &Store) -> Result<()> {
    let mut rows: Vec<Map<String, Value>> = Vec::new();
    for container in kiln_container::list(store)? {
        if !args.all && !container.state.is_alive() {
            continue;
        }
        if args.quiet {
            print(&format!("{}\n", id(&container.record, args.no_trunc)))?;
            continue;
        }
        if let Value::Object(row) = row(&container, args.no_trunc) {
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

fn row(container: &Container, whole: bool) -> Value {
    let (record, state) = (&container.record, &container.state);
    let command = record.settings.command().join(" ");
    let shown = if whole || command.chars().count() <= 20 {
        command
    } else {
        command.chars().take(19).chain(['…']).collect()
    };
    json!({
        "ID": id(record, whole),
        "Image": record.image_name,
        "Command": format!("\"{shown}\""),
        "CreatedAt": format!("{} ago", since(record.created)),
        "Status": status(state),
        "Names": record.name,
    })
}

/// How long ago a time (nanoseconds since 1970) was.
fn since(time: i64) -> String {
    age::duration(jiff::Timestamp::now().as_second().saturating_sub(time / 1_000_000_000))
}

/// docker's words.
fn status(state: &kiln_container::State) -> String {
    let health = state.health.as_ref().map(|health| match health.status.as_str() {
        "starting" => " (health: starting)".to_owned(),
        status => format!(" ({status})"),
    });
    match state.phase {
        Phase::Created => "Created".to_owned(),
        Phase::Running => format!("Up {}{}", since(state.started), health.unwrap_or_default()),
        Phase::Paused => format!("Up {} (Paused)", since(state.started)),
        Phase::Restarting => format!("Restarting ({}) {} ago", state.status, since(state.finished)),
        Phase::Exited => format!("Exited ({}) {} ago", state.status, since(state.finished)),
    }
}
