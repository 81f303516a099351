//! What a container was asked to be connected to.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::etc::Naming;
use super::publish::{Port, Publish};
use super::record::DEFAULT;
use crate::{Error, Result};

/// The networks of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// The host's.
    Host,
    /// Nothing but loopback.
    None,
    /// Another container's, by name or id.
    Container(String),
    /// Bridges, the first being the way out.
    Bridges(Vec<Connection>),
}

/// A wish to be on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Its name, or id.
    pub network: String,
    /// `--ip`
    #[serde(default)]
    pub address: Option<Ipv4Addr>,
    /// `--ip6`
    #[serde(default)]
    pub six: Option<Ipv6Addr>,
    /// `--network-alias`
    #[serde(default)]
    pub aliases: Vec<String>,
    /// `--mac-address`
    #[serde(default)]
    pub mac: Option<String>,
}

impl Default for Mode {
    fn default() -> Self {
        Self::Bridges(vec![Connection { network: DEFAULT.to_owned(), ..Connection::default() }])
    }
}

impl Mode {
    /// Parses the values of `--network`: `host`, `none`, `bridge`, `container:NAME`, or networks, each a name or
    /// `name=NAME,alias=ALIAS,ip=ADDRESS`.
    ///
    /// # Errors
    /// Unknown words; more than one where that makes no sense.
    pub fn parse(values: &[String]) -> Result<Self> {
        let special = |value: &str| match value {
            "host" => Some(Self::Host),
            "none" => Some(Self::None),
            value => value.strip_prefix("container:").map(|name| Self::Container(name.to_owned())),
        };
        match values {
            [] => Ok(Self::default()),
            [only] => match special(only) {
                Some(mode) => Ok(mode),
                None => Ok(Self::Bridges(vec![Connection::parse(only)?])),
            },
            several => {
                if let Some(value) = several.iter().find(|value| special(value).is_some()) {
                    return Err(Error::Invalid(format!("network {value} cannot be combined with another")));
                }
                several.iter().map(|value| Connection::parse(value)).collect::<Result<_>>().map(Self::Bridges)
            }
        }
    }
}

impl Connection {
    fn parse(value: &str) -> Result<Self> {
        let mut wanted = Self::default();
        if !value.contains('=') {
            // podman's words for the default one.
            let is_default = matches!(value, "default" | "private" | "slirp4netns" | "pasta");
            wanted.network = if is_default { DEFAULT } else { value }.to_owned();
            return Ok(wanted);
        }
        for field in value.split(',') {
            let wrong = || Error::Invalid(format!("invalid network {value:?}: {field:?} is not known or wrong"));
            let (key, text) = field.split_once('=').ok_or_else(wrong)?;
            match key {
                "name" => text.clone_into(&mut wanted.network),
                "alias" => wanted.aliases.push(text.to_owned()),
                "ip" => wanted.address = Some(text.parse().map_err(|_| wrong())?),
                "ip6" => wanted.six = Some(text.parse().map_err(|_| wrong())?),
                "mac-address" => {
                    wanted.mac = Some(super::plane::parse_mac(text).map(super::plane::format_mac).ok_or_else(wrong)?);
                }
                _ => return Err(wrong()),
            }
        }
        Ok(wanted)
    }
}

/// All that concerns the network of a container; kept in its record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkOptions {
    /// Where it is.
    pub mode: Mode,
    /// `-p`
    #[serde(default)]
    pub publish: Vec<Publish>,
    /// `-P`: every exposed port at one of the host's that is free.
    #[serde(default)]
    pub publish_all: bool,
    /// The image's `EXPOSE`, and `--expose`.
    #[serde(default)]
    pub exposed: Vec<Port>,
    /// Names and servers.
    #[serde(default)]
    pub naming: Naming,
    /// `--link`
    #[serde(default)]
    pub links: Vec<Link>,
}

/// Another name for a container on the same network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// That container's name or id.
    pub container: String,
    /// What it is called besides.
    pub alias: String,
}

impl Link {
    /// Parses docker's `--link`: `CONTAINER[:ALIAS]`.
    ///
    /// # Errors
    /// One of them is empty, or no name.
    pub fn parse(text: &str) -> Result<Self> {
        let (container, alias) = text.split_once(':').unwrap_or((text, text));
        let (container, alias) = (container.trim_start_matches('/'), alias.trim_start_matches('/'));
        let is_name =
            !alias.is_empty() && alias.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        match !container.is_empty() && is_name {
            true => Ok(Self { container: container.to_owned(), alias: alias.to_owned() }),
            false => Err(Error::Invalid(format!("invalid link {text:?}: expected CONTAINER[:ALIAS]"))),
        }
    }
}

impl NetworkOptions {
    /// `-p`, and what `-P` adds.
    pub(crate) fn published(&self) -> Vec<Publish> {
        let mut all = self.publish.clone();
        if self.publish_all {
            for port in &self.exposed {
                if !all.iter().any(|publish| publish.port == *port) {
                    all.push(Publish { address: None, host: None, port: *port });
                }
            }
        }
        all
    }

    /// Applies `--ip6` to the first network.
    ///
    /// # Errors
    /// There is none it could be for; it is no address.
    pub fn place_six(&mut self, address: Option<&str>) -> Result<()> {
        let Some(text) = address else { return Ok(()) };
        let address = text.parse().map_err(|_| Error::Invalid(format!("invalid IPv6 address {text:?}")))?;
        match &mut self.mode {
            Mode::Bridges(connections) => {
                connections.iter_mut().take(1).for_each(|first| first.six = Some(address));
                Ok(())
            }
            _ => Err(Error::Invalid("--ip6 needs a network of the container's own".to_owned())),
        }
    }

    /// Applies `--ip`, `--network-alias` and `--mac-address` to the first network.
    ///
    /// # Errors
    /// There is none they could be for; the address has no meaning.
    pub fn place(&mut self, address: Option<&str>, aliases: &[String], mac: Option<&str>) -> Result<()> {
        if address.is_none() && aliases.is_empty() && mac.is_none() {
            return Ok(());
        }
        let Mode::Bridges(connections) = &mut self.mode else {
            return Err(Error::Invalid(
                "--ip, --network-alias and --mac-address need a network of the container's own".to_owned(),
            ));
        };
        let Some(first) = connections.first_mut() else { return Ok(()) };
        if first.network == DEFAULT && (address.is_some() || !aliases.is_empty()) {
            let what = if address.is_some() { "user specified IP address" } else { "network-scoped alias" };
            return Err(Error::Invalid(format!("{what} is supported only for containers in user defined networks")));
        }
        if let Some(address) = address {
            let wrong = |_| Error::Invalid(format!("invalid IPv4 address {address:?}"));
            first.address = Some(address.parse().map_err(wrong)?);
        }
        first.aliases.extend(aliases.iter().cloned());
        if let Some(mac) = mac {
            let parsed = super::plane::parse_mac(mac);
            let parsed = parsed.ok_or_else(|| Error::Invalid(format!("invalid MAC address {mac:?}")))?;
            first.mac = Some(super::plane::format_mac(parsed));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[&str]) -> Result<Mode> {
        Mode::parse(&values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn modes() {
        assert_eq!(parse(&[]).unwrap(), Mode::default());
        assert_eq!(parse(&["bridge"]).unwrap(), Mode::default());
        assert_eq!(parse(&["container:web"]).unwrap(), Mode::Container("web".to_owned()));
        assert!(parse(&["host", "net"]).is_err() && parse(&["name=a,what=b"]).is_err());
        let Mode::Bridges(both) = parse(&["one", "name=two,alias=x,alias=y,ip=10.1.1.1"]).unwrap() else { panic!() };
        assert_eq!((both[0].network.as_str(), both[1].aliases.len()), ("one", 2));
        assert_eq!(both[1].address, Some(Ipv4Addr::new(10, 1, 1, 1)));
    }

    #[test]
    fn all_exposed_ports_but_those_published_already() {
        let port = |text: &str| text.parse::<Port>().unwrap();
        let options = NetworkOptions {
            publish: Publish::parse("8080:80").unwrap(),
            publish_all: true,
            exposed: vec![port("80"), port("53/udp")],
            ..NetworkOptions::default()
        };
        let ports: Vec<String> = options.published().iter().map(|publish| publish.port.to_string()).collect();
        assert_eq!(ports, ["80/tcp", "53/udp"]);
        let mut options = NetworkOptions::default();
        assert!(options.place(Some("10.1.1.1"), &[], None).is_err());
        assert!(options.place(None, &[], Some("02:42:00:00:00:01")).is_ok());
        assert!(options.place(None, &[], Some("03:42:00:00:00:01")).is_err(), "a group's");
    }
}
