//! `kiln system …`, and pruning.

mod verbose;

use anyhow::{Result, bail};
use clap::Subcommand;
use kiln_container::Container;
use kiln_image::index::{StoredIndex, images_in_indexes};
use kiln_image::{Image, Reference, listing};
use kiln_store::Store;
use serde_json::{Map, Value};

use crate::container::confirm;
use crate::failure::print;
use crate::table::{self, Column};
use crate::volume::{self, has_label};
use crate::{info, logs, size};

/// About all of it
#[derive(Debug, clap::Args)]
pub(crate) struct SystemArgs {
    #[command(subcommand)]
    command: SystemCommand,
}

#[derive(Debug, Subcommand)]
enum SystemCommand {
    /// Show how much room things take
    Df {
        /// table, json, or a template
        #[arg(long)]
        format: Option<String>,
        /// Each image, container and volume
        #[arg(short, long)]
        verbose: bool,
    },
    /// Remove what nothing uses: stopped containers, dangling images, and more when asked
    Prune(SystemPruneArgs),
    /// Start what is to run again by its restart policy: for the boot of the machine
    Start,
    /// Show what this machine lets kiln do
    Info(info::InfoArgs),
}

impl SystemArgs {
    /// Whether it starts containers.
    pub(crate) fn starts(&self) -> bool {
        matches!(self.command, SystemCommand::Start)
    }
}

/// Arguments of `system prune`.
#[derive(Debug, clap::Args)]
pub(crate) struct SystemPruneArgs {
    /// All images that no container has, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Anonymous volumes too
    #[arg(long)]
    volumes: bool,
    /// Only what is older (until=24h) or has a label (label=NAME[=VALUE])
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Arguments of `container prune`.
#[derive(Debug, clap::Args)]
pub(crate) struct PruneArgs {
    /// Only those that are older (until=24h) or have a label (label=NAME[=VALUE])
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Arguments of `image prune`.
#[derive(Debug, clap::Args)]
pub(crate) struct ImagePruneArgs {
    /// All that no container has, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Only those that are older (until=24h) or have a label (label=NAME[=VALUE])
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(args: &SystemArgs, store: &Store) -> Result<()> {
    match &args.command {
        SystemCommand::Df { verbose: true, .. } => verbose::show(store),
        SystemCommand::Df { format, .. } => show_usage(store, format.as_deref()),
        SystemCommand::Prune(args) => prune(args, store),
        SystemCommand::Start => crate::lifecycle::start_all(store),
        SystemCommand::Info(args) => info::run(args).map(drop),
    }
}

const HEADINGS: [Column; 5] =
    [("Type", "TYPE"), ("TotalCount", "TOTAL"), ("Active", "ACTIVE"), ("Size", "SIZE"), ("Reclaimable", "RECLAIMABLE")];

fn show_usage(store: &Store, format: Option<&str>) -> Result<()> {
    let containers = kiln_container::list(store)?;
    let (images, cache) = image_usage(store, &containers)?;
    let bytes = |container: &Container| kiln_container::disk_usage(&container.path.join("upper"));
    let sizes: Vec<(bool, u64)> =
        containers.iter().map(|container| (container.state.is_alive(), bytes(container))).collect();
    let volumes = kiln_container::list_volumes(store)?;
    let volumes: Vec<(bool, u64)> =
        volumes.iter().map(|volume| (!volume.users.is_empty(), kiln_container::disk_usage(&volume.data))).collect();
    let rows = [
        row("Images", images.0, images.1, images.2, images.3),
        summary("Containers", &sizes),
        summary("Local Volumes", &volumes),
        row("Build Cache", 0, 0, cache, cache),
    ];
    table::print(format, &rows, &HEADINGS.map(|(field, _)| field), &HEADINGS)
}

fn summary(kind: &str, sizes: &[(bool, u64)]) -> Map<String, Value> {
    let total: u64 = sizes.iter().map(|(_, bytes)| bytes).sum();
    let free: u64 = sizes.iter().filter(|(active, _)| !active).map(|(_, bytes)| bytes).sum();
    row(kind, sizes.len(), sizes.iter().filter(|(active, _)| *active).count(), total, free)
}

fn row(kind: &str, count: usize, active: usize, total: u64, free: u64) -> Map<String, Value> {
    let percent = (free.saturating_mul(100)).checked_div(total);
    let reclaimable = match percent {
        Some(percent) => format!("{} ({percent}%)", size::human(free)),
        None => size::human(free),
    };
    let fields = [
        ("Type", kind.to_owned()),
        ("TotalCount", count.to_string()),
        ("Active", active.to_string()),
        ("Size", size::human(total)),
        ("Reclaimable", reclaimable),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect()
}

/// Number of images, of those in use, bytes, and bytes of those that are not; and bytes of layers in no image. A layer
/// of several images counts once.
fn image_usage(store: &Store, containers: &[Container]) -> Result<((usize, usize, u64, u64), u64)> {
    let images = store.images()?;
    let used = |image: &kiln_store::metadata::ImageRecord| {
        containers.iter().any(|container| container.record.image == image.id)
    };
    let bytes = |layers: std::collections::BTreeSet<kiln_store::DiffId>| -> Result<u64> {
        let sizes = layers.iter().map(|layer| Ok(store.layer(layer)?.map_or(0, |layer| layer.tar_size)));
        sizes.sum::<Result<u64>>()
    };
    let all = images.iter().flat_map(|image| image.layers.iter().copied()).collect();
    let kept = images.iter().filter(|image| used(image)).flat_map(|image| image.layers.iter().copied()).collect();
    let (total, kept) = (bytes(all)?, bytes(kept)?);
    let active = images.iter().filter(|image| used(image)).count();
    let on_disk = std::fs::read_dir(store.root().join("layers")).map_or(0, Iterator::count);
    let cache =
        if on_disk == 0 { 0 } else { kiln_container::disk_usage(&store.root().join("layers")).saturating_sub(total) };
    Ok(((images.len(), active, total, total.saturating_sub(kept)), cache))
}

/// `until=` and `label=`.
struct Filters<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Filters<'a> {
    fn parse(texts: &'a [String]) -> Result<Self> {
        let mut filters = Vec::new();
        for text in texts {
            match text.split_once('=') {
                Some((key @ ("until" | "label" | "label!"), value)) => filters.push((key, value)),
                _ => bail!("filter {text:?}: there are until and label"),
            }
        }
        Ok(Self(filters))
    }

    /// `created`: seconds since 1970.
    fn hold(&self, created: i64, labels: &std::collections::BTreeMap<String, String>) -> Result<bool> {
        for (key, value) in &self.0 {
            let holds = match *key {
                "until" => created < logs::moment(value)?.as_second(),
                "label" => has_label(labels, value),
                _ => !has_label(labels, value),
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

pub(crate) fn prune_containers(args: &PruneArgs, store: &Store) -> Result<()> {
    if confirm(args.force, "This will remove all stopped containers.")? {
        let freed = remove_containers(store, &Filters::parse(&args.filter)?)?;
        print(&format!("Total reclaimed space: {}\n", size::human(freed)))?;
    }
    Ok(())
}

fn remove_containers(store: &Store, filters: &Filters<'_>) -> Result<u64> {
    let (mut ids, mut freed) = (String::new(), 0);
    for container in kiln_container::list(store)? {
        let record = &container.record;
        if container.state.is_alive() || !filters.hold(record.created / 1_000_000_000, &record.settings.labels)? {
            continue;
        }
        let bytes = kiln_container::disk_usage(&container.path.join("upper"));
        // Somebody may have started it.
        if kiln_container::remove(&container, false, false).is_ok() {
            freed += bytes;
            ids.push_str(&format!("{}\n", record.id));
        }
    }
    if !ids.is_empty() {
        print(&format!("Deleted Containers:\n{ids}\n"))?;
    }
    Ok(freed)
}

pub(crate) fn prune_images(args: &ImagePruneArgs, store: &Store) -> Result<()> {
    let warning = if args.all {
        "This will remove all images without at least one container associated to them."
    } else {
        "This will remove all dangling images."
    };
    if confirm(args.force, warning)? {
        let freed = remove_images(store, args.all, &Filters::parse(&args.filter)?)?;
        print(&format!("Total reclaimed space: {}\n", size::human(freed)))?;
    }
    Ok(())
}

fn remove_images(store: &Store, all: bool, filters: &Filters<'_>) -> Result<u64> {
    let containers = kiln_container::list(store)?;
    let (mut text, mut freed) = (String::new(), 0);
    let is_used = |image: &Image| containers.iter().any(|container| container.record.image == image.id);
    if all {
        for name in unused_indexes(store, &is_used)? {
            text.push_str(&format!("untagged: {}\n", name.familiar()));
        }
    }
    let members = images_in_indexes(store)?;
    for record in store.images()? {
        let Some(image) = Image::open(store, &record.id)? else { continue };
        let names = image.names(store)?;
        if is_used(&image) || members.contains(&image.id) || (!all && !names.is_empty()) {
            continue;
        }
        let created = image.config.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let created = created.map_or(0, jiff::Timestamp::as_second);
        if !filters.hold(created, &image.config.config.labels.clone().unwrap_or_default())? {
            continue;
        }
        let bytes = listing::size(store, &image)?;
        for name in &names {
            store.remove_reference(&name.tagged_name())?;
            text.push_str(&format!("untagged: {}\n", name.familiar()));
        }
        store.remove_image(&image.id)?;
        text.push_str(&format!("deleted: {}\n", image.id));
        freed += bytes;
    }
    if !text.is_empty() {
        print(&format!("Deleted Images:\n{text}\n"))?;
    }
    let collected = store.collect_garbage(&crate::cache::kept_layers(store)?.into_iter().collect::<Vec<_>>())?;
    Ok(collected.unwrap_or(freed))
}

/// Takes the names of indexes away of which no container uses an image: the images are without a name then.
fn unused_indexes(store: &Store, is_used: &dyn Fn(&Image) -> bool) -> Result<Vec<Reference>> {
    let mut gone = Vec::new();
    for (name, _) in store.references()? {
        let Ok(name) = Reference::parse(&name) else { continue };
        if let Some(index) = StoredIndex::open(store, &name)?
            && !index.images(store)?.iter().any(is_used)
        {
            store.remove_reference(&name.tagged_name())?;
            gone.push(name);
        }
    }
    Ok(gone)
}

fn prune(args: &SystemPruneArgs, store: &Store) -> Result<()> {
    let mut warning = "This will remove:\n  - all stopped containers\n".to_owned();
    if args.volumes {
        warning.push_str("  - all anonymous volumes not used by at least one container\n");
    }
    warning.push_str(if args.all {
        "  - all images without at least one container associated to them\n"
    } else {
        "  - all dangling images\n"
    });
    if !confirm(args.force, &warning)? {
        return Ok(());
    }
    let filters = Filters::parse(&args.filter)?;
    let mut freed = remove_containers(store, &filters)?;
    if args.volumes {
        let (names, bytes) = volume::prune(store, false, &[])?;
        if !names.is_empty() {
            print(&format!("Deleted Volumes:\n{}\n\n", names.join("\n")))?;
        }
        freed += bytes;
    }
    freed += remove_images(store, args.all, &filters)?;
    print(&format!("Total reclaimed space: {}\n", size::human(freed)))
}
