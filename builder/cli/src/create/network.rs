//! The options of a container that concern networks and ports.

use anyhow::{Context, Result};
use kiln_container::network::{ExtraHost, Link, Mode, Naming, NetworkOptions, Port, Publish};

/// Networks, ports, names.
#[derive(Debug, clap::Args)]
pub(crate) struct NetworkArgs {
    /// Network: bridge (the default), host, none, container:NAME, or one made by `network create`
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    network: Vec<String>,
    /// Another name of the container on its network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
    /// Address on its network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// IPv6 address on its network
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<String>,
    /// Hardware address
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<String>,
    /// Publish a port: [[IP:][HOST]:]PORT[/udp]; ranges too
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<String>,
    /// Publish all exposed ports at free ones of the host
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Say that the container listens on a port
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    expose: Vec<String>,
    /// Another name in /etc/hosts: NAME:ADDRESS, or NAME:host-gateway for the host
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// Another name for a container on the same network: CONTAINER[:ALIAS]
    #[arg(long, value_name = "LINK")]
    link: Vec<String>,
    /// Name servers instead of the host's
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// Search domains instead of the host's
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Options of the resolver instead of the host's
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
}

impl NetworkArgs {
    /// What they mean; ports are left out where the container has none of its own.
    pub(super) fn options(&self) -> Result<NetworkOptions> {
        let servers =
            self.dns.iter().map(|text| text.parse().with_context(|| format!("--dns {text:?} is no IP address")));
        let mut options = NetworkOptions {
            mode: Mode::parse(&self.network)?,
            publish: parse_all(&self.publish, Publish::parse)?,
            publish_all: self.publish_all,
            exposed: parse_all(&self.expose, Port::parse_range)?,
            links: self.link.iter().map(|text| Link::parse(text)).collect::<Result<_, _>>()?,
            naming: Naming {
                servers: servers.collect::<Result<_>>()?,
                search: self.dns_search.clone(),
                options: self.dns_option.clone(),
                hosts: self.add_host.iter().map(|text| ExtraHost::parse(text)).collect::<Result<_, _>>()?,
            },
        };
        options.place_six(self.ip6.as_deref())?;
        options.place(self.ip.as_deref(), &self.network_alias, self.mac_address.as_deref())?;
        if options.mode == Mode::Host && (!options.publish.is_empty() || options.publish_all) {
            crate::failure::tell("WARNING: Published ports are discarded when using host network mode\n");
        }
        Ok(options)
    }

    /// Whether the container may be on a bridge, for which an ordinary user's containers share namespaces.
    pub(crate) fn uses_bridges(&self) -> bool {
        !matches!(Mode::parse(&self.network), Ok(Mode::Host | Mode::None))
    }
}

fn parse_all<T>(texts: &[String], parse: impl Fn(&str) -> kiln_container::Result<Vec<T>>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    for text in texts {
        all.extend(parse(text)?);
    }
    Ok(all)
}
