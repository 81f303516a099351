//! `kiln logs`.

use std::io::Write;

use anyhow::{Context, Result};
use jiff::Timestamp;
use kiln_container::{LogOptions, find};
use kiln_store::Store;

use crate::create::duration;

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// Go on while the container runs
    #[arg(short, long)]
    follow: bool,
    /// From this time on (2026-01-02T03:04:05Z, seconds since 1970), or from so long ago (10m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Up to this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// So many lines from the end, or all
    #[arg(short = 'n', long, value_name = "N", default_value = "all")]
    tail: String,
    /// Begin every line with its time
    #[arg(short, long)]
    timestamps: bool,
    /// Accepted for docker's sake: nothing more is kept
    #[arg(long)]
    details: bool,
    /// Name, id, or beginning of an id
    container: String,
}

pub(crate) fn run(args: &LogsArgs, store: Store) -> Result<()> {
    let container = find(&store, &args.container)?;
    drop(store);
    let options = LogOptions {
        follow: args.follow,
        // As docker's: what is no number is all.
        tail: args.tail.parse().ok(),
        since: args.since.as_deref().map(moment).transpose()?,
        until: args.until.as_deref().map(moment).transpose()?,
        timestamps: args.timestamps,
    };
    let (mut stdout, mut stderr) = (std::io::stdout(), std::io::stderr());
    let mut write = |error: bool, bytes: &[u8]| {
        let written =
            if error { stderr.write_all(bytes) } else { stdout.write_all(bytes).and_then(|()| stdout.flush()) };
        written.is_ok()
    };
    Ok(kiln_container::follow_log(&container, &options, &mut write)?)
}

/// A time, or how long ago.
pub(crate) fn moment(text: &str) -> Result<Timestamp> {
    let wrong = || format!("invalid time {text:?}; expected e.g. 2026-01-02T03:04:05Z, 1767323045 or 10m");
    if let Ok(ago) = duration(text) {
        let now = Timestamp::now().as_nanosecond();
        return Timestamp::from_nanosecond(now - i128::from(ago)).with_context(wrong);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        #[allow(clippy::cast_possible_truncation, reason = "a cast of floats saturates")]
        let nanoseconds = (seconds * 1e9) as i128;
        return Timestamp::from_nanosecond(nanoseconds).with_context(wrong);
    }
    let utc = format!("{text}Z");
    let midnight = format!("{text}T00:00:00Z");
    [text, &utc, &midnight].into_iter().find_map(|text| text.parse().ok()).with_context(wrong)
}
