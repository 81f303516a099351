//! `kiln du`: what the build cache takes.

use anyhow::Result;
use kiln_build::cache::prune::Selection;
use kiln_build::cache::usage::{self, Entry};
use kiln_store::Store;
use serde_json::{Map, Value, json};

use crate::age;
use crate::failure::print;
use crate::size::human;
use crate::table::{self, Column};

/// Arguments of `du`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct DuArgs {
    /// Only some: until=24h, id=ID, type=regular|exec.cachemount, description~=TEXT, shared, private
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Everything about each entry
    #[arg(long)]
    verbose: bool,
    /// table, json, or a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const HEADINGS: [Column; 11] = [
    ("ID", "ID"),
    ("Reclaimable", "RECLAIMABLE"),
    ("Size", "SIZE"),
    ("LastUsed", "LAST ACCESSED"),
    ("Description", "DESCRIPTION"),
    ("Type", "TYPE"),
    ("UsageCount", "USAGE COUNT"),
    ("CreatedAt", "CREATED"),
    ("InUse", "IN USE"),
    ("Shared", "SHARED"),
    ("Bytes", "BYTES"),
];
/// Of an id, in a table.
const SHORT: usize = 25;

pub(crate) fn run(args: &DuArgs, store: &Store) -> Result<()> {
    let mut selection = Selection { all: true, ..Selection::default() };
    super::filter(&mut selection, &args.filters)?;
    let now = jiff::Timestamp::now().as_second();
    let mut entries = usage::list(store, &super::kept_layers(store)?)?;
    entries.retain(|entry| selection.wants(entry, now));
    entries.reverse();
    match args.format.as_deref() {
        None | Some("table") if args.verbose => return verbose(&entries, now),
        None | Some("table") => {}
        Some(format) => {
            let rows: Vec<_> = entries.iter().map(|entry| row(entry, now, usize::MAX)).collect();
            return table::print(Some(format), &rows, &[], &HEADINGS);
        }
    }
    let rows: Vec<_> = entries.iter().map(|entry| row(entry, now, SHORT)).collect();
    table::print(None, &rows, &["ID", "Reclaimable", "Size", "LastUsed", "Description"], &HEADINGS)?;
    totals(&entries)
}

fn totals(entries: &[Entry]) -> Result<()> {
    let sum = |keep: &dyn Fn(&Entry) -> bool| entries.iter().filter(|entry| keep(entry)).map(|entry| entry.size).sum();
    let shared: u64 = sum(&|entry| entry.shared);
    let total: u64 = sum(&|_| true);
    let reclaimable: u64 = sum(&reclaimable);
    print(&format!(
        "Shared:\t\t{}\nPrivate:\t{}\nReclaimable:\t{}\nTotal:\t\t{}\n",
        human(shared),
        human(total - shared),
        human(reclaimable),
        human(total)
    ))
}

fn reclaimable(entry: &Entry) -> bool {
    !entry.in_use && !entry.shared
}

fn row(entry: &Entry, now: i64, id_length: usize) -> Map<String, Value> {
    let ago = |time: i64| format!("{} ago", age::duration(now.saturating_sub(time)));
    let fields = json!({
        "ID": entry.id.chars().take(id_length).collect::<String>(),
        "Reclaimable": reclaimable(entry).to_string(),
        "Size": human(entry.size),
        "Bytes": entry.size.to_string(),
        "LastUsed": ago(entry.last_used),
        "Description": entry.description,
        "Type": entry.kind.name(),
        "UsageCount": entry.uses.to_string(),
        "CreatedAt": jiff::Timestamp::from_second(entry.created).unwrap_or_default().to_string(),
        "InUse": entry.in_use.to_string(),
        "Shared": entry.shared.to_string(),
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn verbose(entries: &[Entry], now: i64) -> Result<()> {
    for entry in entries {
        let row = row(entry, now, usize::MAX);
        let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut lines = String::new();
        for (label, field) in [
            ("ID", "ID"),
            ("Created at", "CreatedAt"),
            ("Reclaimable", "Reclaimable"),
            ("Shared", "Shared"),
            ("In use", "InUse"),
            ("Size", "Size"),
            ("Description", "Description"),
            ("Usage count", "UsageCount"),
            ("Last used", "LastUsed"),
            ("Type", "Type"),
        ] {
            lines.push_str(&format!("{:<15}{}\n", format!("{label}:"), text(field)));
        }
        print(&(lines + "\n"))?;
    }
    totals(entries)
}
