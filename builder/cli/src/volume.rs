//! `kiln volume …`.

use anyhow::{Result, bail};
use clap::Subcommand;
use kiln_container::StoredVolume;
use kiln_store::Store;
use serde_json::{Map, Value, json};

use crate::container::confirm;
use crate::create::label;
use crate::failure::{Shown, print, tell};
use crate::table::{self, Column};
use crate::{inspect, size};

/// Everything about volumes
#[derive(Debug, clap::Args)]
pub(crate) struct VolumeArgs {
    #[command(subcommand)]
    command: VolumeCommand,
}

#[derive(Debug, Subcommand)]
enum VolumeCommand {
    /// Make a volume
    Create {
        /// Its driver: there is only `local`
        #[arg(short, long, default_value = "local")]
        driver: String,
        /// Label: NAME[=VALUE]
        #[arg(long, value_name = "LABEL")]
        label: Vec<String>,
        /// What it is instead of a directory of the store: type=none, o=bind and device=PATH, or type=tmpfs and o=size=…
        #[arg(short, long = "opt", value_name = "NAME=VALUE")]
        option: Vec<String>,
        /// Its name; found by itself when not given
        name: Option<String>,
    },
    /// List volumes
    #[command(visible_alias = "list")]
    Ls {
        /// Only those for which this holds: dangling=true|false, name=TEXT, driver=NAME, label=NAME[=VALUE]
        #[arg(short, long, value_name = "FILTER")]
        filter: Vec<String>,
        /// table, json, or a template
        #[arg(long)]
        format: Option<String>,
        /// Names only
        #[arg(short, long)]
        quiet: bool,
    },
    /// Show everything about volumes
    Inspect {
        /// Their names
        #[arg(required = true, value_name = "VOLUME")]
        volumes: Vec<String>,
        /// `json`, or a Go template
        #[arg(short, long)]
        format: Option<String>,
    },
    /// Remove volumes that no container has
    #[command(visible_alias = "remove")]
    Rm {
        /// Their names
        #[arg(required = true, value_name = "VOLUME")]
        volumes: Vec<String>,
        /// What is not there is removed already
        #[arg(short, long)]
        force: bool,
    },
    /// Remove the anonymous volumes that no container has
    Prune {
        /// Named ones too
        #[arg(short, long)]
        all: bool,
        /// Only those for which this holds: label=NAME[=VALUE]
        #[arg(long, value_name = "FILTER")]
        filter: Vec<String>,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
}

const HEADINGS: [Column; 4] =
    [("Driver", "DRIVER"), ("Name", "VOLUME NAME"), ("Mountpoint", "MOUNTPOINT"), ("Labels", "LABELS")];

/// # Errors
/// A volume is not there, or a container has it.
pub(crate) fn run(args: &VolumeArgs, store: &Store) -> Result<()> {
    match &args.command {
        VolumeCommand::Create { driver, label: labels, option, name } => {
            if driver != "local" {
                bail!("there is no volume driver {driver:?}: expected local");
            }
            let labels = labels.iter().cloned().map(label).collect();
            let options = option.iter().cloned().map(label).collect();
            print(&format!("{}\n", kiln_container::create_volume(store, name.as_deref(), labels, options)?))
        }
        VolumeCommand::Ls { filter, format, quiet } => list(store, filter, format.as_deref(), *quiet),
        VolumeCommand::Inspect { volumes, format } => {
            let (mut found, mut failures) = (Vec::new(), Vec::new());
            for name in volumes {
                match describe_named(store, name) {
                    Ok(described) => found.push(described),
                    Err(error) => failures.push(error.to_string()),
                }
            }
            inspect::print(&found, format.as_deref())?;
            if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n")) }
        }
        VolumeCommand::Rm { volumes, force } => remove(store, volumes, *force),
        VolumeCommand::Prune { all, filter, force } => {
            let what = if *all { "all volumes" } else { "anonymous local volumes" };
            if confirm(*force, &format!("This will remove {what} not used by at least one container."))? {
                let (names, freed) = prune(store, *all, filter)?;
                report(&names, freed)?;
            }
            Ok(())
        }
    }
}

fn list(store: &Store, filters: &[String], format: Option<&str>, quiet: bool) -> Result<()> {
    let mut volumes = kiln_container::list_volumes(store)?;
    for filter in filters {
        let holds = parse_filter(filter)?;
        volumes.retain(|volume| holds(volume));
    }
    if quiet {
        return print(&volumes.iter().map(|volume| format!("{}\n", volume.name)).collect::<String>());
    }
    let labels = |volume: &StoredVolume| {
        volume.labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
    };
    let row = |volume: &StoredVolume| -> Map<String, Value> {
        let fields = [
            ("Driver", "local".to_owned()),
            ("Labels", labels(volume)),
            ("Mountpoint", volume.data.display().to_string()),
            ("Name", volume.name.clone()),
            ("Scope", "local".to_owned()),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect()
    };
    let rows: Vec<_> = volumes.iter().map(row).collect();
    table::print(format, &rows, &["Driver", "Name"], &HEADINGS)
}

/// Whether a volume is meant.
type Filter<'a> = Box<dyn Fn(&StoredVolume) -> bool + 'a>;

fn parse_filter(text: &str) -> Result<Filter<'_>> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    Ok(match key {
        "dangling" => {
            let wanted = !matches!(value, "false" | "0");
            Box::new(move |volume| volume.users.is_empty() == wanted)
        }
        "name" => Box::new(move |volume| volume.name.contains(value)),
        "driver" => Box::new(move |_| value == "local"),
        "label" => Box::new(move |volume| has_label(&volume.labels, value)),
        _ => bail!("filter {text:?}: there are dangling, name, driver and label"),
    })
}

/// `NAME[=VALUE]`.
pub(crate) fn has_label(labels: &std::collections::BTreeMap<String, String>, text: &str) -> bool {
    match text.split_once('=') {
        Some((name, wanted)) => labels.get(name).is_some_and(|value| value == wanted),
        None => labels.contains_key(text),
    }
}

pub(crate) fn describe_named(store: &Store, name: &str) -> Result<Value> {
    Ok(describe(&kiln_container::find_volume(store, name)?))
}

fn describe(volume: &StoredVolume) -> Value {
    let created = jiff::Timestamp::from_nanosecond(i128::from(volume.created)).unwrap_or_default();
    json!({
        "CreatedAt": created.to_string(),
        "Driver": "local",
        "Labels": volume.labels,
        "Mountpoint": volume.data,
        "Name": volume.name,
        "Options": volume.options,
        "Scope": "local",
    })
}

fn remove(store: &Store, volumes: &[String], force: bool) -> Result<()> {
    let mut failed = false;
    for name in volumes {
        match kiln_container::remove_volume(store, name) {
            Ok(()) => print(&format!("{name}\n"))?,
            Err(_) if force && kiln_container::find_volume(store, name).is_err() => print(&format!("{name}\n"))?,
            Err(error) => {
                failed = true;
                tell(&format!("kiln: {:#}\n", anyhow::Error::from(error)));
            }
        }
    }
    if failed { Err(Shown(1).into()) } else { Ok(()) }
}

/// Removes unused volumes; their names and bytes.
pub(crate) fn prune(store: &Store, all: bool, filters: &[String]) -> Result<(Vec<String>, u64)> {
    let mut volumes = kiln_container::list_volumes(store)?;
    volumes.retain(|volume| volume.users.is_empty() && (all || volume.anonymous));
    for filter in filters {
        let holds = parse_filter(filter)?;
        volumes.retain(|volume| holds(volume));
    }
    let (mut names, mut freed) = (Vec::new(), 0);
    for volume in volumes {
        let bytes = kiln_container::disk_usage(&volume.data);
        // Somebody may have come to use it.
        if kiln_container::remove_volume(store, &volume.name).is_ok() {
            freed += bytes;
            names.push(volume.name);
        }
    }
    Ok((names, freed))
}

fn report(names: &[String], freed: u64) -> Result<()> {
    if !names.is_empty() {
        print(&format!("Deleted Volumes:\n{}\n\n", names.join("\n")))?;
    }
    print(&format!("Total reclaimed space: {}\n", size::human(freed)))
}
