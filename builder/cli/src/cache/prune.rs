//! `kiln prune`, `kiln builder prune`.

use std::io::{BufRead, IsTerminal};

use anyhow::{Result, bail};
use kiln_build::cache::prune::{self, Selection};
use kiln_store::Store;

use crate::failure::{print, tell};
use crate::size::human;

/// Arguments of `prune`.
#[derive(Debug, clap::Args)]
pub(crate) struct PruneArgs {
    /// Also what images share: their steps run again at the next build
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only some: until=24h, id=ID, type=regular|exec.cachemount, description~=TEXT, shared, private
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Remove the least recently used until no more than this is left
    #[arg(long, visible_aliases = ["max-used-space", "reserved-space"], value_name = "SIZE")]
    keep_storage: Option<String>,
    /// Only what was not used for so long
    #[arg(long, value_name = "TIME")]
    keep_duration: Option<String>,
}

pub(crate) fn run(args: &PruneArgs, store: &Store) -> Result<()> {
    let mut selection = Selection { all: args.all, ..Selection::default() };
    super::filter(&mut selection, &args.filters)?;
    selection.keep_storage = args.keep_storage.as_deref().map(crate::build::bytes).transpose()?;
    if let Some(time) = &args.keep_duration {
        selection.unused_for = Some(super::seconds(time)?);
    }
    if !args.force && !confirmed(args.all)? {
        return Ok(());
    }
    let report = prune::prune(store, &selection, &super::kept_layers(store)?)?;
    let mut text = String::new();
    if !report.removed.is_empty() {
        text.push_str("Deleted build cache objects:\n");
        report.removed.iter().for_each(|entry| text.push_str(&format!("{}\n", entry.id)));
        text.push('\n');
    }
    // What no record leads to any more; another kiln that is at work keeps it until the next time.
    let swept = store.collect_garbage(&super::kept_layers(store)?.into_iter().collect::<Vec<_>>())?.unwrap_or(0);
    text.push_str(&format!("Total reclaimed space: {}\n", human(report.freed + swept)));
    print(&text)
}

fn confirmed(all: bool) -> Result<bool> {
    let what = if all { "all build cache" } else { "all build cache that no image shares" };
    if !std::io::stdin().is_terminal() {
        bail!("this will remove {what}: say --force where nobody can be asked");
    }
    tell(&format!("WARNING! This will remove {what}. Are you sure you want to continue? [y/N] "));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
