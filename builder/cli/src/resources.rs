//! `kiln pause`, `unpause`, `port` and `stats`.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use kiln_container::network::{self, Binding, Mode, Port};
use kiln_container::{Container, Sample};
use kiln_store::Store;
use serde_json::{Map, Value};

use crate::failure::print;
use crate::{size, table};

/// Arguments of `pause` and `unpause`.
#[derive(Debug, clap::Args)]
pub(crate) struct ContainerNames {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Arguments of `port`.
#[derive(Debug, clap::Args)]
pub(crate) struct PortArgs {
    /// Name, id, or beginning of an id
    container: String,
    /// Only this port of the container: PORT[/PROTOCOL]
    port: Option<String>,
}

/// Arguments of `stats`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatsArgs {
    /// Names, ids, or beginnings of ids; all that run when none is given
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
    /// Those that do not run too
    #[arg(short, long)]
    all: bool,
    /// `table`, `json`, or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only once
    #[arg(long)]
    no_stream: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
}

pub(crate) fn pause(args: &ContainerNames, store: &Store, frozen: bool) -> Result<()> {
    let mut failures = Vec::new();
    for name in &args.containers {
        match kiln_container::find(store, name).and_then(|container| kiln_container::pause(&container, frozen)) {
            Ok(()) => print(&format!("{name}\n"))?,
            Err(error) => failures.push(error.to_string()),
        }
    }
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n")) }
}

/// `0.0.0.0:8081`, `[::]:8081`.
fn place(binding: &Binding) -> String {
    std::net::SocketAddr::new(binding.address, binding.host).to_string()
}

pub(crate) fn port(args: &PortArgs, store: &Store) -> Result<()> {
    let container = kiln_container::find(store, &args.container)?;
    let connected = network::connected(store.root(), &container.record.id)?.unwrap_or_default();
    let Some(wanted) = &args.port else {
        let lines = connected.bindings.iter().map(|binding| format!("{} -> {}\n", binding.port, place(binding)));
        return print(&lines.collect::<String>());
    };
    let wanted: Port = wanted.parse()?;
    let found = connected.bindings.iter().filter(|binding| binding.port == wanted);
    let lines: String = found.map(|binding| place(binding) + "\n").collect();
    if lines.is_empty() {
        bail!("No public port '{wanted}' published for {}", args.container);
    }
    print(&lines)
}

/// The column PORTS of `ps`: neighbouring ports together, exposed ones that are not published without an arrow.
pub(crate) fn ports(store: &Store, container: &Container) -> String {
    let connected = network::connected(store.root(), &container.record.id).ok().flatten();
    let Some(connected) = connected else { return String::new() };
    let mut bindings = connected.bindings;
    bindings.sort_by_key(|binding| (binding.address, binding.port.protocol, binding.port.number, binding.host));
    let mut shown: Vec<String> = Vec::new();
    let mut rest = bindings.as_slice();
    while let Some(first) = rest.first() {
        let follows = |(number, binding): &(usize, &Binding)| {
            let step = u16::try_from(*number).unwrap_or(u16::MAX);
            (binding.address, binding.port.protocol) == (first.address, first.port.protocol)
                && binding.port.number == first.port.number.saturating_add(step)
                && binding.host == first.host.saturating_add(step)
        };
        let count = rest.iter().enumerate().take_while(follows).count().max(1);
        let last = &rest[count - 1];
        let range = |first: u16, last: u16| if first == last { first.to_string() } else { format!("{first}-{last}") };
        let address = if first.address.is_ipv6() { format!("[{}]", first.address) } else { first.address.to_string() };
        let (host, own) = (range(first.host, last.host), range(first.port.number, last.port.number));
        shown.push(format!("{address}:{host}->{own}/{}", first.port.protocol));
        rest = &rest[count..];
    }
    let exposed = container.record.settings.network.exposed.iter();
    let unpublished = exposed.filter(|port| !bindings.iter().any(|binding| binding.port == **port));
    shown.extend(unpublished.map(ToString::to_string));
    shown.join(", ")
}

/// The column NETWORKS of `ps`.
pub(crate) fn networks(container: &Container) -> String {
    match &container.record.settings.network.mode {
        Mode::Host => "host".to_owned(),
        Mode::None => "none".to_owned(),
        Mode::Container(_) => String::new(),
        Mode::Bridges(all) => all.iter().map(|one| one.network.as_str()).collect::<Vec<_>>().join(","),
    }
}

const HEADINGS: [table::Column; 9] = [
    ("ID", "CONTAINER ID"),
    ("Container", "CONTAINER"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];
const DEFAULT: [&str; 8] = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"];

pub(crate) fn stats(args: &StatsArgs, store: &Store) -> Result<()> {
    loop {
        let containers = chosen(args, store)?;
        let before: Vec<Sample> = containers.iter().map(Sample::take).collect();
        let began = Instant::now();
        std::thread::sleep(Duration::from_secs(1));
        let rows = containers
            .iter()
            .zip(before)
            .map(|(container, before)| row(args, container, before, Sample::take(container), began.elapsed()));
        let rows: Vec<_> = rows.collect();
        if !args.no_stream && args.format.as_deref().is_none_or(|format| format.starts_with("table")) {
            // Clears the screen.
            print("\x1b[2J\x1b[H")?;
        }
        table::print(args.format.as_deref(), &rows, &DEFAULT, &HEADINGS)?;
        if args.no_stream {
            return Ok(());
        }
    }
}

fn chosen(args: &StatsArgs, store: &Store) -> Result<Vec<Container>> {
    if !args.containers.is_empty() {
        return args.containers.iter().map(|name| Ok(kiln_container::find(store, name)?)).collect();
    }
    let mut all = kiln_container::list(store)?;
    all.retain(|container| args.all || container.state.is_alive());
    Ok(all)
}

fn row(args: &StatsArgs, container: &Container, before: Sample, now: Sample, elapsed: Duration) -> Map<String, Value> {
    let record = &container.record;
    let id = if args.no_trunc { record.id.clone() } else { record.short_id().to_owned() };
    let limit = now.usage.memory_limit.unwrap_or_else(machine_memory);
    #[allow(clippy::cast_precision_loss, reason = "two decimals are shown")]
    let share = |part: u64, whole: u128| if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 };
    let cpu = share(now.usage.cpu.saturating_sub(before.usage.cpu), elapsed.as_nanos());
    let fields = [
        ("BlockIO", format!("{} / {}", size::human(now.usage.read), size::human(now.usage.written))),
        ("CPUPerc", format!("{cpu:.2}%")),
        ("Container", id.clone()),
        ("ID", id),
        ("MemPerc", format!("{:.2}%", share(now.usage.memory, limit.into()))),
        ("MemUsage", format!("{} / {}", size::binary(now.usage.memory), size::binary(limit))),
        ("Name", record.name.clone()),
        ("NetIO", format!("{} / {}", size::human(now.received), size::human(now.sent))),
        ("PIDs", now.usage.pids.to_string()),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect()
}

fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default().saturating_mul(1024)
}
