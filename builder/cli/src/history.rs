//! `kiln history`: how an image was made.

use std::io::{self, Write};

use anyhow::Result;
use jiff::Timestamp;
use kiln_image::history::{self, HistoryRow};
use kiln_image::{Image, Platform};
use kiln_store::Store;
use serde_json::{Map, Value};

use crate::images::shown_id;
use crate::{age, size, table};

/// Show the history of an image
#[derive(Debug, clap::Args)]
pub(crate) struct HistoryArgs {
    /// The image: a name, an id, or the beginning of an id
    image: String,
    /// `table`, `json`, or a Go template, after `table` if it is to have headings
    #[arg(long)]
    format: Option<String>,
    /// Sizes and dates for people
    #[arg(short = 'H', long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    human: bool,
    /// Do not shorten ids and instructions
    #[arg(long)]
    no_trunc: bool,
    /// Of a name that stands for several images, that for this platform
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Only show ids
    #[arg(short, long)]
    quiet: bool,
}

/// Characters of an instruction that is shortened.
const SHORT_INSTRUCTION: usize = 45;

const HEADINGS: [table::Column; 6] = [
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

/// Shows the history.
///
/// # Errors
/// There is no such image, or the format is wrong.
pub(crate) fn run(args: &HistoryArgs, store: &Store) -> Result<()> {
    let image = Image::find_for(store, &args.image, args.platform.as_ref())?;
    let rows = history::rows(store, &image)?;
    if args.quiet {
        let mut out = io::stdout().lock();
        for row in &rows {
            writeln!(out, "{}", id(row, args.no_trunc))?;
        }
        return Ok(());
    }
    let now = Timestamp::now();
    let rows: Vec<_> = rows.iter().map(|row| fields(row, args, now)).collect();
    let since = if args.human { "CreatedSince" } else { "CreatedAt" };
    table::print(args.format.as_deref(), &rows, &["ID", since, "CreatedBy", "Size", "Comment"], &HEADINGS)
}

fn id(row: &HistoryRow, full: bool) -> String {
    row.id.map_or_else(|| "<missing>".to_owned(), |id| shown_id(&id, full))
}

fn fields(row: &HistoryRow, args: &HistoryArgs, now: Timestamp) -> Map<String, Value> {
    // One line for each step, whatever its heredocs hold.
    let instruction = row.created_by.replace(['\t', '\n'], " ");
    let fields = [
        ("Comment", row.comment.clone()),
        ("CreatedAt", row.created.clone().unwrap_or_else(|| "N/A".to_owned())),
        ("CreatedBy", if args.no_trunc { instruction } else { shorten(&instruction, SHORT_INSTRUCTION) }),
        ("CreatedSince", age::since(row.created.as_deref(), now)),
        ("ID", id(row, args.no_trunc)),
        ("Size", if args.human { size::human(row.size) } else { row.size.to_string() }),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect()
}

fn shorten(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit - 1).chain(['…']).collect()
}
