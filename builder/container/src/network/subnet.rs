//! IPv4 subnets and the addresses in them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// An IPv4 subnet: an address whose host part is 0, and the length of its prefix (1 to 30 when parsed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    base: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// The subnet that an address is in; `None` for a prefix longer than an address.
    pub(crate) fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let base = address.to_bits() & mask(prefix)?;
        Some(Self { base: Ipv4Addr::from_bits(base), prefix })
    }

    /// Bits of the network part.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Its first address, which is nobody's.
    pub(crate) fn base(self) -> Ipv4Addr {
        self.base
    }

    /// Its last address, which is everybody's.
    pub(crate) fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits() | !mask(self.prefix).unwrap_or_default())
    }

    /// The network part as a mask.
    pub(crate) fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask(self.prefix).unwrap_or_default())
    }

    /// Whether an address is in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask().to_bits() == self.base.to_bits()
    }

    /// Whether the two have an address in common.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }

    /// The addresses that hosts may have, in order.
    pub(crate) fn hosts(self) -> impl Iterator<Item = Ipv4Addr> {
        (self.base.to_bits().saturating_add(1)..self.last().to_bits()).map(Ipv4Addr::from_bits)
    }
}

fn mask(prefix: u8) -> Option<u32> {
    (prefix <= 32).then(|| u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or_default())
}

impl FromStr for Subnet {
    type Err = Error;

    /// `10.1.0.0/16`; bits of the host part are dropped, as docker's network does.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::Invalid(format!("invalid subnet {text:?}: expected an IPv4 one such as 10.1.0.0/24"));
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        Self::new(address, prefix).filter(|subnet| (1..=30).contains(&subnet.prefix)).ok_or_else(wrong)
    }
}

impl TryFrom<String> for Subnet {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.base, self.prefix)
    }
}

/// Where networks that were given no subnet get one from: 10.128.0.0/10 in pieces of 4,096 addresses, which neither
/// docker nor podman hands out.
pub(crate) fn pool() -> impl Iterator<Item = Subnet> {
    let first = u32::from_be_bytes([10, 128, 0, 0]);
    (0..1024_u32).filter_map(move |piece| Subnet::new(Ipv4Addr::from_bits(first + (piece << 12)), 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_are_parsed_and_printed() {
        assert_eq!(subnet("10.1.2.3/16").to_string(), "10.1.0.0/16");
        assert_eq!(subnet("10.1.0.0/30").last(), Ipv4Addr::new(10, 1, 0, 3));
        for wrong in ["", "10.1.0.0", "10.1.0.0/0", "10.1.0.0/31", "10.1.0.0/33", "10.1/16", "fd00::/64"] {
            assert!(wrong.parse::<Subnet>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn membership_and_overlap() {
        let small = subnet("10.1.4.0/22");
        assert!(small.contains(Ipv4Addr::new(10, 1, 7, 255)) && !small.contains(Ipv4Addr::new(10, 1, 8, 0)));
        assert!(small.overlaps(subnet("10.1.0.0/16")) && subnet("10.1.0.0/16").overlaps(small));
        assert!(!small.overlaps(subnet("10.1.8.0/22")));
        assert_eq!(subnet("10.1.0.0/30").hosts().count(), 2);
        assert_eq!((pool().count(), pool().next()), (1024, Some(subnet("10.128.0.0/20"))));
    }
}
