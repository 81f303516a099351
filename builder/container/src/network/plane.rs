//! Where a store's bridges are: in the host's network namespace for root; in one that an ordinary user's containers
//! share otherwise.

use std::net::Ipv4Addr;

use kiln_sandbox::network_namespace::NetworkNamespace;
use kiln_sandbox::user_namespace::{Identity, SharedNamespaces};
use rustix::fs::FlockOperation;

use super::interface::{Cable, Interfaces};
use super::record::{Addresses, Endpoint, Network, Networks};
use super::{filter, subnet};
use crate::{Error, Result};

/// The namespace with the bridges.
#[derive(Debug)]
pub(crate) struct Plane {
    namespace: NetworkNamespace,
    /// Held as long as a container is plugged in: without one the shared namespaces end.
    _shared: Option<SharedNamespaces>,
    is_hosts: bool,
}

impl Plane {
    pub(crate) fn open(networks: &Networks) -> Result<Self> {
        let network = |action: &str| {
            let action = action.to_owned();
            move |source| Error::Network { action, source }
        };
        if matches!(Identity::current(), Ok(Identity::Root)) {
            let namespace = NetworkNamespace::current().map_err(network("open the host's network"))?;
            return Ok(Self { namespace, _shared: None, is_hosts: true });
        }
        let shared = SharedNamespaces::open(networks.path())?;
        let namespace = shared.network().map_err(network("open the network that this user's containers share"))?;
        Ok(Self { namespace, _shared: Some(shared), is_hosts: false })
    }

    /// Whether containers are reached from the host's own namespace.
    pub(crate) fn is_hosts(&self) -> bool {
        self.is_hosts
    }

    /// Does something among the bridges, alone: not even another store does so at the same time.
    fn within<T: Send>(&self, work: impl FnOnce(&mut Interfaces) -> std::io::Result<T> + Send) -> std::io::Result<T> {
        self.namespace.within(|| {
            let _alone = rustix::fs::flock(&self.namespace, FlockOperation::LockExclusive);
            let outcome = Interfaces::open().and_then(|mut interfaces| work(&mut interfaces));
            let _ = rustix::fs::flock(&self.namespace, FlockOperation::Unlock);
            outcome
        })?
    }

    /// Subnets that are in use in this namespace and, for a rootless one, on the host.
    fn routes(&self) -> std::io::Result<Vec<subnet::Subnet>> {
        let mut routes = self.within(Interfaces::routes)?;
        if !self.is_hosts {
            routes.extend(Interfaces::open()?.routes()?);
        }
        Ok(routes)
    }

    /// A subnet that nobody has.
    pub(crate) fn free_subnet(&self, networks: &[Network]) -> Result<subnet::Subnet> {
        let routes = self.routes().map_err(|source| Error::Network { action: "list the routes".to_owned(), source })?;
        let taken = networks.iter().filter_map(|network| network.addresses.as_ref()).map(|known| known.subnet);
        let taken: Vec<_> = taken.chain(routes).collect();
        subnet::pool()
            .find(|subnet| !taken.iter().any(|other| other.overlaps(*subnet)))
            .ok_or_else(|| Error::Invalid("no subnet is free: remove networks, or give one with --subnet".to_owned()))
    }

    /// Makes the bridge of a network, when it is not there: it goes with its last container. May give the network
    /// another subnet, when its own was not asked for and somebody took it meanwhile. The caller holds the lock.
    pub(crate) fn raise(&self, networks: &Networks, network: &mut Network) -> Result<()> {
        let name = network.bridge();
        let failed = |action: &'static str| {
            let action = format!("{action} {name} of network {}", network.name);
            move |source| Error::Network { action, source }
        };
        let exists = self.within(|interfaces| Ok(interfaces.find(&name)?.is_some()));
        if exists.map_err(failed("look for the bridge"))? {
            return Ok(());
        }
        let Some(mut addresses) = network.addresses.clone() else { return Ok(()) };
        let routes = self.routes().map_err(failed("look for routes beside the bridge"))?;
        if let Some(other) = routes.iter().find(|route| route.overlaps(addresses.subnet)) {
            if addresses.chosen {
                return Err(Error::Invalid(format!(
                    "network {} has the subnet {}, and this machine has a route to {other}: make it anew with another \
                     --subnet",
                    network.name, addresses.subnet
                )));
            }
            addresses = Addresses::of(self.free_subnet(&networks.all()?)?);
            network.addresses = Some(addresses.clone());
            networks.save(network)?;
        }
        let made = self.within(|interfaces| {
            let six = network.six.as_ref();
            filter::set(&name, (addresses.subnet, six.map(|six| six.subnet)), network.internal)?;
            let bridge = interfaces.add_bridge(&name, mac(addresses.gateway), network.mtu())?;
            interfaces.add_address(bridge, addresses.gateway, addresses.subnet)?;
            if let Some(six) = six {
                interfaces.add_address_six(bridge, six.gateway, six.subnet.prefix())?;
            }
            if !network.internal {
                filter::pass_through_iptables(&name)?;
                forward_packets();
            }
            Ok(())
        });
        made.map_err(failed("make the bridge")).inspect_err(|_| self.lower(network))
    }

    /// Takes the bridge of a network away with its rules. The caller holds the lock.
    pub(crate) fn lower(&self, network: &Network) {
        let name = network.bridge();
        // What is not there needs no removal; what stays is taken up by the next container.
        let _ = self.within(|interfaces| {
            interfaces.remove(&name)?;
            filter::remove(&name, network.six.is_some())?;
            filter::forget_iptables(&name)
        });
    }

    /// Plugs a container's namespace in.
    pub(crate) fn plug(&self, network: &Network, endpoint: &Endpoint, container: &NetworkNamespace) -> Result<()> {
        let bridge = network.bridge();
        let failed = || {
            let action = format!("plug container {} into network {}", endpoint.name, network.name);
            |source| Error::Network { action, source }
        };
        let plugged = self.within(|interfaces| {
            let bridge = interfaces.find(&bridge)?.ok_or(std::io::ErrorKind::NotFound)?;
            let cable = Cable {
                outside: &endpoint.outside,
                bridge,
                inside: &endpoint.interface,
                mac: parse_mac(&endpoint.mac).unwrap_or_else(|| mac(endpoint.address)),
                mtu: network.mtu(),
            };
            interfaces.add_cable(&cable, container)
        });
        plugged.map_err(failed())?;
        let configured = container.within(|| {
            let mut interfaces = Interfaces::open()?;
            let index = interfaces.find(&endpoint.interface)?.ok_or(std::io::ErrorKind::NotFound)?;
            let subnet =
                subnet::Subnet::new(endpoint.address, endpoint.prefix).ok_or(std::io::ErrorKind::InvalidData)?;
            interfaces.raise(index)?;
            interfaces.add_address(index, endpoint.address, subnet)?;
            if let Some(six) = &endpoint.six {
                interfaces.add_address_six(index, six.address, six.prefix)?;
                six.gateway.map_or(Ok(()), |gateway| interfaces.add_default_route_six(gateway))?;
            }
            match endpoint.gateway {
                // The first network's is the way out.
                Some(gateway) if interfaces.default_gateway()?.is_none() => interfaces.add_default_route(gateway),
                _ => Ok(()),
            }
        });
        configured.and_then(|outcome| outcome).map_err(failed())
    }

    /// Pulls a container's plug.
    pub(crate) fn unplug(&self, endpoint: &Endpoint) -> Result<()> {
        self.within(|interfaces| interfaces.remove(&endpoint.outside)).map_err(|source| Error::Network {
            action: format!("unplug container {} from network {}", endpoint.name, endpoint.network_name),
            source,
        })
    }

    /// Where the host is, seen from a container.
    pub(crate) fn host_address(&self, endpoint: &Endpoint) -> Option<Ipv4Addr> {
        if self.is_hosts {
            return endpoint.gateway;
        }
        // pasta and slirp4netns lead to the host by the way out.
        self.within(Interfaces::default_gateway).ok().flatten()
    }
}

/// Packets go from bridges to the world. Failing is for who wonders why they do not: inside a container /proc/sys
/// cannot be written.
fn forward_packets() {
    let path = "/proc/sys/net/ipv4/ip_forward";
    if std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "1") {
        return;
    }
    if let Err(error) = std::fs::write(path, "1") {
        tracing::warn!("containers cannot reach other machines: {path}: {error}");
    }
}

/// The hardware address that goes with an address, so that neighbours need not forget the one before.
pub(crate) fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// As it is written.
pub(crate) fn format_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// `02:42:0a:80:00:02`; one of a group is nobody's.
pub(crate) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect::<Option<Vec<u8>>>()?;
    <[u8; 6]>::try_from(bytes).ok().filter(|mac| mac[0] & 1 == 0)
}
