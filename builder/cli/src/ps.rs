//! `kiln ps`.

mod filter;

use anyhow::Result;
use kiln_container::{Container, MountSource, Phase, Record};
use kiln_store::Store;
use serde_json::{Map, Value};

use crate::failure::print;
use crate::table::{self, Column};
use crate::{age, size};
use filter::Filters;

const HEADINGS: [Column; 15] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("Networks", "NETWORKS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Pid", "PID"),
];

/// Arguments of `ps`.
#[derive(Debug, clap::Args)]
pub(crate) struct PsArgs {
    /// Those that do not run too
    #[arg(short, long)]
    all: bool,
    /// Only those for which this holds: id, name, label, status, exited, ancestor, before, since, volume, network,
    /// publish, expose, health, is-task
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// The newest so many, whether they run or not
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true)]
    last: Option<i64>,
    /// The newest, whether it runs or not
    #[arg(short, long)]
    latest: bool,
    /// How much they wrote, too
    #[arg(short, long)]
    size: bool,
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
    let everything = kiln_container::list(store)?;
    let filters = Filters::parse(store, &everything, &args.filter)?;
    let last = if args.latest { Some(1) } else { args.last.and_then(|last| usize::try_from(last).ok()) };
    let all = args.all || last.is_some() || filters.name_states();
    let shown = everything.iter().filter(|one| all || one.state.is_alive()).filter(|one| filters.hold(one));
    let shown: Vec<&Container> = shown.take(last.unwrap_or(usize::MAX)).collect();
    if args.quiet {
        return print(&shown.iter().map(|one| format!("{}\n", id(&one.record, args.no_trunc))).collect::<String>());
    }
    let rows: Vec<_> = shown.iter().map(|container| row(store, container, args)).collect::<Result<_>>()?;
    let mut default = vec!["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"];
    if args.size {
        default.push("Size");
    }
    table::print(args.format.as_deref(), &rows, &default, &HEADINGS)
}

fn id(record: &Record, whole: bool) -> String {
    record.id.chars().take(if whole { usize::MAX } else { 12 }).collect()
}

fn row(store: &Store, container: &Container, args: &PsArgs) -> Result<Map<String, Value>> {
    let (record, state, settings) = (&container.record, &container.state, &container.record.settings);
    let created = jiff::Timestamp::from_nanosecond(i128::from(record.created)).unwrap_or_default();
    let created = created.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S %z UTC").to_string();
    let labels: Vec<String> = settings.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mounts: Vec<String> = settings.mounts.iter().filter_map(|mount| source(&mount.source)).collect();
    let volumes = settings.mounts.iter().filter(|mount| matches!(mount.source, MountSource::Volume { .. })).count();
    // It costs a walk: only when it is asked for.
    let wants_size = args.size || args.format.as_ref().is_some_and(|format| format.contains(".Size"));
    let fields = [
        ("Command", command(record, args.no_trunc)),
        ("CreatedAt", created),
        ("ID", id(record, args.no_trunc)),
        ("Image", record.image_name.clone()),
        ("Labels", labels.join(",")),
        ("LocalVolumes", volumes.to_string()),
        ("Mounts", mounts.join(",")),
        ("Names", record.name.clone()),
        ("Networks", crate::resources::networks(container)),
        ("Pid", state.pid.to_string()),
        ("Ports", crate::resources::ports(store, container)),
        ("RunningFor", ago(record.created / 1_000_000_000)),
        ("Size", if wants_size { sizes(store, container)? } else { "0B".to_owned() }),
        ("State", state.phase.name().to_owned()),
        ("Status", status(state)),
    ];
    Ok(fields.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect())
}

/// The column COMMAND.
pub(crate) fn command(record: &Record, whole: bool) -> String {
    // As docker's: arguments with a space are quoted, the program is not.
    let quoted = |(at, word): (usize, &String)| {
        if at > 0 && word.contains(' ') { format!("'{word}'") } else { word.clone() }
    };
    let command = record.settings.command().iter().enumerate().map(quoted).collect::<Vec<_>>().join(" ");
    let shown = if whole || command.chars().count() <= 20 {
        command
    } else {
        command.chars().take(19).chain(['…']).collect()
    };
    format!("\"{shown}\"")
}

fn source(source: &MountSource) -> Option<String> {
    match source {
        MountSource::Bind(path) => Some(path.display().to_string()),
        MountSource::Volume { name, .. } => Some(name.clone()),
        MountSource::Image { name, .. } => Some(name.clone()),
        MountSource::Tmpfs { .. } => None,
    }
}

/// What it wrote, and that with its image.
fn sizes(store: &Store, container: &Container) -> Result<String> {
    let own = kiln_container::disk_usage(&container.path.join("upper"));
    let mut whole = own;
    for layer in &container.record.layers {
        whole += store.layer(layer)?.map_or(0, |layer| layer.tar_size);
    }
    Ok(format!("{} (virtual {})", size::human(own), size::human(whole)))
}

/// How long ago a time (nanoseconds since 1970) was.
fn since(time: i64) -> String {
    age::duration(jiff::Timestamp::now().as_second().saturating_sub(time / 1_000_000_000))
}

/// The same of seconds, in the words of a column.
pub(crate) fn ago(seconds: i64) -> String {
    format!("{} ago", since(seconds.saturating_mul(1_000_000_000)))
}

/// docker's words.
pub(crate) fn status(state: &kiln_container::State) -> String {
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
