//! IPv6 beside IPv4: a network that was made with it has a subnet of it, and its containers have addresses there.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::record::{Endpoint, Network};
use crate::{Error, Result};

/// How many addresses are looked through for a free one.
const SEARCHED: u128 = 1 << 16;

/// An IPv6 subnet: an address whose host part is 0, and the length of its prefix (1 to 126).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet6 {
    base: Ipv6Addr,
    prefix: u8,
}

impl Subnet6 {
    fn new(address: Ipv6Addr, prefix: u8) -> Option<Self> {
        let prefix = Some(prefix).filter(|prefix| (1..=126).contains(prefix))?;
        Some(Self { base: Ipv6Addr::from_bits(address.to_bits() & mask(prefix)), prefix })
    }

    /// One of nobody's ("unique local"), by a network's id.
    pub(crate) fn of_network(id: &str) -> Self {
        let digits = u128::from_str_radix(id.get(..10).unwrap_or_default(), 16).unwrap_or_default();
        Self { base: Ipv6Addr::from_bits(0xfd << 120 | digits << 80), prefix: 64 }
    }

    /// Bits of the network part.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Its first address.
    pub(crate) fn base(self) -> Ipv6Addr {
        self.base
    }

    /// The network part as a mask.
    pub(crate) fn mask(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(mask(self.prefix))
    }

    /// Whether an address is in it.
    pub fn contains(self, address: Ipv6Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.base.to_bits()
    }

    /// Whether the two have an address in common.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }

    /// The first addresses that hosts may have, in order.
    fn hosts(self) -> impl Iterator<Item = Ipv6Addr> {
        let room = !mask(self.prefix);
        (1..room.min(SEARCHED)).map(move |host| Ipv6Addr::from_bits(self.base.to_bits() | host))
    }
}

fn mask(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or_default()
}

impl FromStr for Subnet6 {
    type Err = Error;

    /// `fd00:1::/64`; bits of the host part are dropped.
    fn from_str(text: &str) -> Result<Self> {
        let parsed = text.split_once('/').and_then(|(address, prefix)| {
            let (address, prefix) = (address.parse().ok()?, prefix.parse().ok()?);
            Self::new(address, prefix)
        });
        parsed.ok_or_else(|| Error::Invalid(format!("invalid subnet {text:?}: expected one such as fd00:1::/64")))
    }
}

impl TryFrom<String> for Subnet6 {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Subnet6> for String {
    fn from(subnet: Subnet6) -> Self {
        subnet.to_string()
    }
}

impl fmt::Display for Subnet6 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.base, self.prefix)
    }
}

/// What a network hands out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses6 {
    /// All of them.
    pub subnet: Subnet6,
    /// The bridge's own.
    pub gateway: Ipv6Addr,
}

/// A container's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place6 {
    /// Its address.
    pub address: Ipv6Addr,
    /// Bits of the subnet.
    pub prefix: u8,
    /// Where the rest of the world is; none on an internal network.
    pub gateway: Option<Ipv6Addr>,
}

/// Those of a new network of this id: as they were asked for, or of nobody's.
///
/// # Errors
/// They do not fit each other, or overlap with another network's.
pub(super) fn addresses(
    id: &str,
    subnet: Option<Subnet6>,
    gateway: Option<Ipv6Addr>,
    all: &[Network],
) -> Result<Addresses6> {
    if subnet.is_none() && gateway.is_some() {
        return Err(Error::Invalid("--gateway needs a --subnet".to_owned()));
    }
    let subnet = subnet.unwrap_or_else(|| Subnet6::of_network(id));
    let known = all.iter().filter_map(|network| Some((network, network.six.as_ref()?)));
    if let Some((network, known)) = known.into_iter().find(|(_, known)| known.subnet.overlaps(subnet)) {
        return Err(Error::Invalid(format!(
            "pool overlaps with other one on this address space: {subnet} with {} of network {}",
            known.subnet, network.name
        )));
    }
    let gateway = gateway.or_else(|| subnet.hosts().next()).unwrap_or(subnet.base);
    match subnet.contains(gateway) {
        true => Ok(Addresses6 { subnet, gateway }),
        false => Err(Error::Invalid(format!("the gateway {gateway} is not in the subnet {subnet}"))),
    }
}

/// A place on a network that has IPv6, with an address that is free, or the one that was asked for.
///
/// # Errors
/// That one is somebody's, or the network has none.
pub(super) fn place(
    network: &Network,
    wanted: Option<Ipv6Addr>,
    present: &[Endpoint],
    container: &str,
) -> Result<Option<Place6>> {
    let Some(Addresses6 { subnet, gateway }) = &network.six else {
        return match wanted {
            Some(_) => Err(Error::Invalid(format!("network {} was made without --ipv6", network.name))),
            None => Ok(None),
        };
    };
    let is_free = |address: &Ipv6Addr| {
        let is_theirs = |endpoint: &Endpoint| {
            endpoint.container != container && endpoint.six.as_ref().is_some_and(|place| place.address == *address)
        };
        address != gateway && !present.iter().any(is_theirs)
    };
    let address = match wanted {
        Some(address) if !subnet.contains(address) => {
            return Err(Error::Invalid(format!("{address} is not in the subnet {subnet} of {}", network.name)));
        }
        Some(address) if !is_free(&address) => {
            return Err(Error::Invalid(format!("address {address} is already in use on network {}", network.name)));
        }
        Some(address) => address,
        None => subnet
            .hosts()
            .find(is_free)
            .ok_or_else(|| Error::Invalid(format!("no IPv6 address of network {} is free", network.name)))?,
    };
    Ok(Some(Place6 { address, prefix: subnet.prefix, gateway: (!network.internal).then_some(*gateway) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets() {
        let subnet: Subnet6 = "fd00:1::7/64".parse().unwrap();
        assert_eq!(subnet.to_string(), "fd00:1::/64");
        assert!(subnet.contains("fd00:1::ffff".parse().unwrap()) && !subnet.contains("fd00:2::1".parse().unwrap()));
        assert!(subnet.overlaps("fd00::/16".parse().unwrap()) && !subnet.overlaps("fd00:2::/64".parse().unwrap()));
        assert_eq!(subnet.hosts().next().unwrap().to_string(), "fd00:1::1");
        let own = Subnet6::of_network("0123456789abcdef");
        assert_eq!(own.to_string(), "fd01:2345:6789::/64");
        for wrong in ["fd00::", "fd00::/0", "fd00::/127", "10.0.0.0/8", "x/64"] {
            assert!(wrong.parse::<Subnet6>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_fit_their_subnet() {
        let subnet: Subnet6 = "fd00:1::/64".parse().unwrap();
        let own = addresses("ab", Some(subnet), None, &[]).unwrap();
        assert_eq!(own.gateway.to_string(), "fd00:1::1");
        assert!(addresses("ab", Some(subnet), Some("fd00:2::1".parse().unwrap()), &[]).is_err());
        assert!(addresses("ab", None, Some("fd00:2::1".parse().unwrap()), &[]).is_err());
    }
}
