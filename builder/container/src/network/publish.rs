//! `-p` and `EXPOSE`: which of a container's ports are reached by which of the host's.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of a container: `80/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Port {
    /// 1 to 65535.
    pub number: u16,
    /// What it speaks.
    pub protocol: Protocol,
}

impl fmt::Display for Port {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.number, self.protocol)
    }
}

impl From<Port> for String {
    fn from(port: Port) -> Self {
        port.to_string()
    }
}

impl TryFrom<String> for Port {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Port {
    type Err = Error;

    /// `80` or `80/udp`.
    fn from_str(text: &str) -> Result<Self> {
        let (ports, protocol) = with_protocol(text)?;
        match range(ports) {
            Some(range) if range.start() == range.end() => Ok(Self { number: *range.start(), protocol }),
            _ => Err(Error::Invalid(format!("invalid port {text:?}"))),
        }
    }
}

impl Port {
    /// What `EXPOSE` and `--expose` take: `80`, `8000-8010/udp`.
    ///
    /// # Errors
    /// Text that is no port and no range.
    pub fn parse_range(text: &str) -> Result<Vec<Self>> {
        let (ports, protocol) = with_protocol(text)?;
        let range = range(ports).ok_or_else(|| Error::Invalid(format!("invalid port or range {text:?}")))?;
        Ok(range.map(|number| Self { number, protocol }).collect())
    }
}

/// One port that is to be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// Of the host; every one when not given.
    pub address: Option<IpAddr>,
    /// First and last port of the host, of which one is taken; any free one when not given.
    pub host: Option<(u16, u16)>,
    /// Of the container.
    pub port: Port,
}

impl Publish {
    /// Parses docker's `-p`: `[[IP:][HOST[-LAST]]:]PORT[-LAST][/PROTOCOL]`.
    ///
    /// # Errors
    /// Text that is none; says what is expected.
    pub fn parse(text: &str) -> Result<Vec<Self>> {
        let wrong = |why: &str| Error::Invalid(format!("invalid published port {text:?}: {why}"));
        let (rest, protocol) = with_protocol(text)?;
        let (rest, inside) = rest.rsplit_once(':').map_or((None, rest), |(rest, inside)| (Some(rest), inside));
        let inside = range(inside).ok_or_else(|| wrong("expected the container's port, or a range of ports"))?;
        let (address, outside) = match rest {
            None => (None, ""),
            Some(rest) => match rest.rsplit_once(':') {
                None => (None, rest),
                Some((address, outside)) => (Some(address), outside),
            },
        };
        let address = match address.filter(|address| !address.is_empty()) {
            None => None,
            Some(address) => {
                let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
                Some(bare.parse().map_err(|_| wrong("expected an IP address before the host's port"))?)
            }
        };
        if outside.is_empty() {
            let any = |number| Self { address, host: None, port: Port { number, protocol } };
            return Ok(inside.map(any).collect());
        }
        let outside = range(outside).ok_or_else(|| wrong("expected the host's port, or a range of ports"))?;
        if inside.len() == 1 && outside.len() > 1 {
            let host = Some((*outside.start(), *outside.end()));
            return Ok(vec![Self { address, host, port: Port { number: *inside.start(), protocol } }]);
        }
        if inside.len() != outside.len() {
            return Err(wrong("the two ranges are not of the same length"));
        }
        let pairs = inside.zip(outside);
        Ok(pairs
            .map(|(number, host)| Self { address, host: Some((host, host)), port: Port { number, protocol } })
            .collect())
    }

    /// The addresses to listen at.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        match self.address {
            Some(address) => vec![address],
            None => vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
        }
    }
}

/// A port of the host that leads to one of a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Binding {
    /// The container's.
    pub port: Port,
    /// The host's address.
    pub address: IpAddr,
    /// The host's port.
    pub host: u16,
}

fn with_protocol(text: &str) -> Result<(&str, Protocol)> {
    match text.split_once('/') {
        None | Some((_, "tcp")) => Ok((text.split('/').next().unwrap_or_default(), Protocol::Tcp)),
        Some((ports, "udp")) => Ok((ports, Protocol::Udp)),
        Some((_, other)) => {
            Err(Error::Invalid(format!("invalid port {text:?}: protocol {other:?}; expected tcp or udp")))
        }
    }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = number(first)?..=number(last)?;
    (!range.is_empty()).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `address host-host>port/protocol`
    fn parsed(text: &str) -> Vec<String> {
        let all = Publish::parse(text).unwrap();
        all.iter()
            .map(|one| {
                let address = one.address.map(|address| format!("{address} ")).unwrap_or_default();
                let host = one.host.map(|(first, last)| format!("{first}-{last}")).unwrap_or_default();
                format!("{address}{host}>{}", one.port)
            })
            .collect()
    }

    #[test]
    fn everything_that_docker_takes() {
        assert_eq!(parsed("80"), [">80/tcp"]);
        assert_eq!(parsed("8081:80"), ["8081-8081>80/tcp"]);
        assert_eq!(parsed("8081:80/udp"), ["8081-8081>80/udp"]);
        assert_eq!(parsed("127.0.0.1:8081:80"), ["127.0.0.1 8081-8081>80/tcp"]);
        assert_eq!(parsed("127.0.0.1::80"), ["127.0.0.1 >80/tcp"]);
        assert_eq!(parsed("[::1]:8081:80"), ["::1 8081-8081>80/tcp"]);
        assert_eq!(parsed("8081-8082:80-81"), ["8081-8081>80/tcp", "8082-8082>81/tcp"]);
        assert_eq!(parsed("8081-8090:80"), ["8081-8090>80/tcp"]);
        assert_eq!(parsed("80-81"), [">80/tcp", ">81/tcp"]);
        for wrong in ["", "0", "x", "1:2:3", "80/icmp", "8081-8082:80-85", "65536", "90-80", "a.b:1:2", "1:"] {
            assert!(Publish::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Port::parse_range("8000-8002/udp").unwrap().len(), 3);
        assert!("80-81".parse::<Port>().is_err());
    }
}
