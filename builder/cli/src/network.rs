//! `kiln network …`.

mod describe;
mod filter;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use kiln_container::network::{self, Connection, NetworkRequest, Subnet, Subnet6};
use kiln_store::Store;

use crate::failure::{print, tell};
use crate::{inspect, table};
use filter::Filter;

/// Everything about networks
#[derive(Debug, clap::Args)]
pub(crate) struct NetworkArgs {
    #[command(subcommand)]
    command: NetworkCommand,
}

#[derive(Debug, Subcommand)]
enum NetworkCommand {
    /// Make a network
    Create(Box<CreateArgs>),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show everything about networks
    Inspect(InspectArgs),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Connect a container to a network
    Connect(ConnectArgs),
    /// Disconnect a container from a network
    Disconnect(DisconnectArgs),
    /// Remove the networks that no container uses
    Prune(PruneArgs),
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// Driver; there is `bridge`
    #[arg(short, long, value_name = "NAME", default_value = "bridge")]
    driver: String,
    /// Addresses, such as 10.1.0.0/24; IPv6 ones besides, such as fd00:1::/64
    #[arg(long, value_name = "SUBNET")]
    subnet: Vec<String>,
    /// The bridge's own address; an IPv6 one besides
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<IpAddr>,
    /// Addresses for containers, when not all
    #[arg(long, value_name = "SUBNET")]
    ip_range: Option<String>,
    /// Addresses that containers must not get: NAME=ADDRESS
    #[arg(long, value_name = "NAME=ADDRESS")]
    aux_address: Vec<String>,
    /// No way out and no way in
    #[arg(long)]
    internal: bool,
    /// Containers may be connected by hand (they always may)
    #[arg(long)]
    attachable: bool,
    /// Label: NAME[=VALUE]
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
    /// Option of the driver: com.docker.network.driver.mtu=N
    #[arg(short, long = "opt", value_name = "NAME=VALUE")]
    option: Vec<String>,
    /// IPv6 addresses, too
    #[arg(long)]
    ipv6: bool,
    /// The network's name
    name: String,
}

#[derive(Debug, clap::Args)]
struct LsArgs {
    /// Only networks for which this holds: driver=, id=, label=NAME[=VALUE], name=, scope=, type=, dangling=
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// `table`, `json`, or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Only show ids
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, clap::Args)]
struct InspectArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
    /// `json`, or a Go template
    #[arg(short, long)]
    format: Option<String>,
    /// docker's word for more; there is no more
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Debug, clap::Args)]
struct RmArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
    /// One that is not there is no error
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
struct ConnectArgs {
    /// Another name on that network
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Address on that network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// IPv6 address on that network
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// The network
    network: String,
    /// The container
    container: String,
}

#[derive(Debug, clap::Args)]
struct DisconnectArgs {
    /// A container that does not run is no error
    #[arg(short, long)]
    force: bool,
    /// The network
    network: String,
    /// The container
    container: String,
}

#[derive(Debug, clap::Args)]
struct PruneArgs {
    /// Only networks for which this holds: until=TIME, label=NAME[=VALUE], label!=NAME[=VALUE]
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Whether the command sets up interfaces, for which an ordinary user's containers share namespaces.
pub(crate) fn touches_interfaces(args: &NetworkArgs) -> bool {
    !matches!(args.command, NetworkCommand::Ls(_) | NetworkCommand::Inspect(_))
}

pub(crate) fn run(args: &NetworkArgs, store: &Store) -> Result<()> {
    match &args.command {
        NetworkCommand::Create(args) => create(args, store),
        NetworkCommand::Ls(args) => list(args, store),
        NetworkCommand::Inspect(args) => show(args, store),
        NetworkCommand::Rm(args) => remove(args, store),
        NetworkCommand::Connect(args) => connect(args, store),
        NetworkCommand::Disconnect(args) => disconnect(args, store),
        NetworkCommand::Prune(args) => prune(args, store),
    }
}

fn create(args: &CreateArgs, store: &Store) -> Result<()> {
    let (sixes, fours): (Vec<&String>, Vec<&String>) = args.subnet.iter().partition(|text| text.contains(':'));
    let (gateways6, gateways): (Vec<&IpAddr>, Vec<&IpAddr>) = args.gateway.iter().partition(|one| one.is_ipv6());
    if [fours.len(), sixes.len(), gateways.len(), gateways6.len()].iter().any(|count| *count > 1) {
        bail!("bridge driver doesn't support multiple subnets");
    }
    let pairs = |texts: &[String]| -> BTreeMap<String, String> {
        let pair =
            |text: &String| text.split_once('=').map_or((text.clone(), String::new()), |(a, b)| (a.into(), b.into()));
        texts.iter().map(pair).collect()
    };
    let reserved = pairs(&args.aux_address).into_iter().map(|(name, address)| {
        let address = address.parse().with_context(|| format!("--aux-address {name}={address}"))?;
        Ok((name, address))
    });
    let four = |address: &&IpAddr| if let IpAddr::V4(four) = **address { Some(four) } else { None };
    let six = |address: &&IpAddr| if let IpAddr::V6(six) = **address { Some(six) } else { None };
    let request = NetworkRequest {
        name: args.name.clone(),
        driver: Some(args.driver.clone()),
        subnet: fours.first().map(|text| text.parse::<Subnet>()).transpose()?,
        gateway: gateways.first().and_then(four),
        ipv6: args.ipv6,
        subnet6: sixes.first().map(|text| text.parse::<Subnet6>()).transpose()?,
        gateway6: gateways6.first().and_then(six),
        range: args.ip_range.as_deref().map(str::parse::<Subnet>).transpose()?,
        reserved: reserved.collect::<Result<_>>()?,
        internal: args.internal,
        attachable: args.attachable,
        labels: pairs(&args.label),
        options: pairs(&args.option),
    };
    let id = network::create(store.root(), request)?;
    print(&format!("{id}\n"))
}

const HEADINGS: [table::Column; 8] = [
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
];

fn list(args: &LsArgs, store: &Store) -> Result<()> {
    let filters = args.filter.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>>>()?;
    let mut shown = Vec::new();
    for network in network::list(store.root())? {
        if filter::keeps(&filters, store, &network)? {
            shown.push(network);
        }
    }
    if args.quiet {
        let ids = shown.iter().map(|network| describe::id(network, args.no_trunc) + "\n");
        return print(&ids.collect::<String>());
    }
    let rows: Vec<_> = shown.iter().map(|network| describe::row(network, args.no_trunc)).collect();
    table::print(args.format.as_deref(), &rows, &["ID", "Name", "Driver", "Scope"], &HEADINGS)
}

fn show(args: &InspectArgs, store: &Store) -> Result<()> {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in &args.networks {
        match describe_named(store, name) {
            Ok(described) => found.push(described),
            Err(error) => failures.push(error.to_string()),
        }
    }
    inspect::print(&found, args.format.as_deref())?;
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n")) }
}

pub(crate) fn describe_named(store: &Store, name: &str) -> Result<serde_json::Value> {
    let network = network::find(store.root(), name)?;
    Ok(describe::whole(&network, &network::users(store.root(), &network)?))
}

fn remove(args: &RmArgs, store: &Store) -> Result<()> {
    let mut failures = Vec::new();
    for name in &args.networks {
        match network::remove(store.root(), name) {
            Ok(_) => print(&format!("{name}\n"))?,
            Err(kiln_container::Error::UnknownNetwork(_)) if args.force => {}
            Err(error) => failures.push(error.to_string()),
        }
    }
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n")) }
}

fn connect(args: &ConnectArgs, store: &Store) -> Result<()> {
    let container = kiln_container::find(store, &args.container)?;
    let wanted = Connection {
        network: args.network.clone(),
        address: args.ip,
        six: args.ip6,
        aliases: args.alias.clone(),
        mac: None,
    };
    Ok(kiln_container::connect(store, &container, &wanted)?)
}

fn disconnect(args: &DisconnectArgs, store: &Store) -> Result<()> {
    match kiln_container::find(store, &args.container) {
        Ok(container) => Ok(kiln_container::disconnect(store, &container, &args.network)?),
        Err(kiln_container::Error::Unknown(_)) if args.force => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn prune(args: &PruneArgs, store: &Store) -> Result<()> {
    let filters = args.filter.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>>>()?;
    if !args.force {
        tell(
            "WARNING! This will remove all custom networks not used by at least one container.\n\
              Are you sure you want to continue? [y/N] ",
        );
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !answer.trim().eq_ignore_ascii_case("y") {
            return Ok(());
        }
    }
    let wanted = kiln_container::networks_in_use(store)?;
    let removed = network::prune(store.root(), &|network| {
        wanted.contains(&network.name)
            || wanted.contains(&network.id)
            || !filter::keeps(&filters, store, network).unwrap_or(false)
    })?;
    if removed.is_empty() {
        return Ok(());
    }
    print(&format!("Deleted Networks:\n{}\n\n", removed.join("\n")))
}
