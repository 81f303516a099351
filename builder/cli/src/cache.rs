//! The build cache's own commands: `du`, `prune`, `builder …`.

pub(crate) mod du;
pub(crate) mod prune;

use std::collections::HashSet;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use kiln_build::cache::prune::Selection;
use kiln_store::{DiffId, Store};

/// Commands about the build cache
#[derive(Debug, clap::Args)]
pub(crate) struct BuilderArgs {
    #[command(subcommand)]
    command: BuilderCommand,
}

#[derive(Debug, Subcommand)]
enum BuilderCommand {
    /// Show what the build cache takes
    Du(du::DuArgs),
    /// Remove build cache
    Prune(prune::PruneArgs),
}

/// Does what the command of the same name does.
///
/// # Errors
/// That command's.
pub(crate) fn run(args: &BuilderArgs, store: &Store) -> Result<()> {
    match &args.command {
        BuilderCommand::Du(args) => du::run(args, store),
        BuilderCommand::Prune(args) => prune::run(args, store),
    }
}

/// The layers that containers and the step that failed last need.
pub(crate) fn kept_layers(store: &Store) -> Result<HashSet<DiffId>> {
    let failed = kiln_build::failed_step::layers(store)?;
    Ok(kiln_container::layers_in_use(store)?.into_iter().chain(failed).collect())
}

/// Adds `NAME=VALUE` filters to what is selected.
fn filter(selection: &mut Selection, filters: &[String]) -> Result<()> {
    for text in filters {
        let (name, value) = text.split_once('=').unwrap_or((text, "true"));
        let yes = || match value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => bail!("filter {text:?}: {name} is true or false"),
        };
        match name {
            "until" | "unused-for" => selection.unused_for = Some(seconds(value)?),
            "id" => selection.ids.push(value.trim_end_matches('=').trim_start_matches("sha256:").to_owned()),
            "type" => selection.kinds.push(value.trim_start_matches('=').to_owned()),
            "description" => selection.descriptions.push(value.trim_start_matches('~').to_owned()),
            "shared" => selection.shared = Some(yes()?),
            "private" => selection.shared = Some(!yes()?),
            _ => bail!("filter {text:?}: there are until, unused-for, id, type, description, shared and private"),
        }
    }
    Ok(())
}

/// A span of time (`24h`, `1h30m`, `7d`), or the time since a date, in seconds.
fn seconds(text: &str) -> Result<i64> {
    if let Ok(span) = text.parse::<jiff::Span>() {
        let day = jiff::SpanRelativeTo::days_are_24_hours();
        return span.total((jiff::Unit::Second, day)).map(|total| total as i64).map_err(Into::into);
    }
    let now = jiff::Timestamp::now().as_second();
    let zone = jiff::tz::TimeZone::system();
    let time = match text.parse::<jiff::Timestamp>() {
        Ok(time) => time,
        Err(_) => match text.parse::<jiff::civil::DateTime>() {
            Ok(date) => date.to_zoned(zone)?.timestamp(),
            Err(_) => {
                let seconds = text.parse();
                jiff::Timestamp::from_second(
                    seconds.with_context(|| format!("{text:?} is neither a span of time (24h) nor a date"))?,
                )?
            }
        },
    };
    Ok(now.saturating_sub(time.as_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_dates() {
        for (text, expected) in [("24h", 86_400), ("1h30m", 5_400), ("7d", 604_800), ("10s", 10), ("0s", 0)] {
            assert_eq!(seconds(text).unwrap(), expected, "{text}");
        }
        let year = 31_000_000;
        for text in ["2020-01-01", "2020-01-01T00:00:00", "2020-01-01T00:00:00Z", "1577836800"] {
            assert!(seconds(text).unwrap() > year, "{text}");
        }
        for text in ["", "soon", "5 apples"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
