//! Interfaces, addresses and routes, of the network namespace of the calling thread.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};

use kiln_sandbox::network_namespace::NetworkNamespace;

use super::netlink::{ACKNOWLEDGE, CREATE, DUMP, EXCLUSIVE, Message, Socket};
use super::subnet::Subnet;

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;

const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const LINK_MASTER: u16 = 10;
const LINK_INFO: u16 = 18;
const LINK_NAMESPACE: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const PEER: u16 = 1;

const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const BROADCAST: u16 = 4;
const ROUTE_DESTINATION: u16 = 1;
const ROUTE_GATEWAY: u16 = 5;
const MAIN_TABLE: u8 = 254;

const UP: u32 = 1;
/// `struct ifinfomsg`
const LINK_PART: usize = 16;
/// `struct rtmsg`
const ROUTE_PART: usize = 12;
const INET: u8 = 2;
const INET6: u8 = 10;

/// The end of a cable that a container gets.
#[derive(Debug)]
pub(crate) struct Cable<'a> {
    /// Its name outside.
    pub(crate) outside: &'a str,
    /// The interface that it is plugged into.
    pub(crate) bridge: u32,
    /// Its name inside.
    pub(crate) inside: &'a str,
    /// Its hardware address inside.
    pub(crate) mac: [u8; 6],
    /// Bytes of a packet, at most; the kernel's default when not given.
    pub(crate) mtu: Option<u32>,
}

/// What requests are made with.
pub(crate) struct Interfaces(Socket);

impl Interfaces {
    pub(crate) fn open() -> io::Result<Self> {
        Socket::route().map(Self)
    }

    /// The number of the interface with this name.
    pub(crate) fn find(&mut self, name: &str) -> io::Result<Option<u32>> {
        let mut message = Message::new(GET_LINK, ACKNOWLEDGE, &link(0, 0));
        message.text(LINK_NAME, name);
        match self.0.ask(message) {
            Ok(answers) => Ok(answers.first().map(|answer| answer.number(4))),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a bridge, which is up; returns its number.
    pub(crate) fn add_bridge(&mut self, name: &str, mac: [u8; 6], mtu: Option<u32>) -> io::Result<u32> {
        let mut message = Message::new(NEW_LINK, ACKNOWLEDGE | CREATE | EXCLUSIVE, &link(0, UP));
        message.text(LINK_NAME, name).attribute(LINK_ADDRESS, &mac);
        if let Some(mtu) = mtu {
            message.attribute(LINK_MTU, &mtu.to_ne_bytes());
        }
        message.nested(LINK_INFO, &[], |info| {
            info.text(INFO_KIND, "bridge");
        });
        self.0.request(message)?;
        self.find(name)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Makes a pair of interfaces: one plugged into the bridge, which is up, and one in the other namespace.
    pub(crate) fn add_cable(&mut self, cable: &Cable<'_>, namespace: &NetworkNamespace) -> io::Result<()> {
        let mut message = Message::new(NEW_LINK, ACKNOWLEDGE | CREATE | EXCLUSIVE, &link(0, UP));
        message.text(LINK_NAME, cable.outside).attribute(LINK_MASTER, &cable.bridge.to_ne_bytes());
        let mtu = |message: &mut Message| {
            if let Some(mtu) = cable.mtu {
                message.attribute(LINK_MTU, &mtu.to_ne_bytes());
            }
        };
        mtu(&mut message);
        message.nested(LINK_INFO, &[], |info| {
            info.text(INFO_KIND, "veth").nested(INFO_DATA, &[], |data| {
                // It cannot be up before it is connected.
                data.nested(PEER, &link(0, 0), |peer| {
                    peer.text(LINK_NAME, cable.inside).attribute(LINK_ADDRESS, &cable.mac);
                    mtu(peer);
                    let namespace = namespace.as_fd().as_raw_fd();
                    peer.attribute(LINK_NAMESPACE, &namespace.to_ne_bytes());
                });
            });
        });
        self.0.request(message)
    }

    /// Brings an interface up.
    pub(crate) fn raise(&mut self, interface: u32) -> io::Result<()> {
        self.0.request(Message::new(NEW_LINK, ACKNOWLEDGE, &link(interface, UP)))
    }

    /// Takes an interface away; none of that name is fine.
    pub(crate) fn remove(&mut self, name: &str) -> io::Result<()> {
        let Some(index) = self.find(name)? else { return Ok(()) };
        self.0.request(Message::new(DELETE_LINK, ACKNOWLEDGE, &link(index, 0)))
    }

    /// Gives an interface an address.
    pub(crate) fn add_address(&mut self, interface: u32, address: Ipv4Addr, subnet: Subnet) -> io::Result<()> {
        let mut fixed = vec![INET, subnet.prefix(), 0, 0];
        fixed.extend(interface.to_ne_bytes());
        let mut message = Message::new(NEW_ADDRESS, ACKNOWLEDGE | CREATE | EXCLUSIVE, &fixed);
        message
            .attribute(LOCAL, &address.octets())
            .attribute(ADDRESS, &address.octets())
            .attribute(BROADCAST, &subnet.last().octets());
        self.0.request(message)
    }

    /// Gives an interface an IPv6 address, which is its own at once: nobody else is asked whether it has it.
    pub(crate) fn add_address_six(&mut self, interface: u32, address: Ipv6Addr, prefix: u8) -> io::Result<()> {
        const NO_DUPLICATES_SOUGHT: u8 = 2;
        let mut fixed = vec![INET6, prefix, NO_DUPLICATES_SOUGHT, 0];
        fixed.extend(interface.to_ne_bytes());
        let mut message = Message::new(NEW_ADDRESS, ACKNOWLEDGE | CREATE | EXCLUSIVE, &fixed);
        message.attribute(LOCAL, &address.octets()).attribute(ADDRESS, &address.octets());
        self.0.request(message)
    }

    /// The same as [`Self::add_default_route`], for IPv6; one that is there stays.
    pub(crate) fn add_default_route_six(&mut self, gateway: Ipv6Addr) -> io::Result<()> {
        let fixed = [INET6, 0, 0, 0, MAIN_TABLE, 3, 0, 1, 0, 0, 0, 0];
        let mut message = Message::new(NEW_ROUTE, ACKNOWLEDGE | CREATE | EXCLUSIVE, &fixed);
        message.attribute(ROUTE_GATEWAY, &gateway.octets());
        match self.0.request(message) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            added => added,
        }
    }

    /// Sends everything that has no better route to a gateway.
    pub(crate) fn add_default_route(&mut self, gateway: Ipv4Addr) -> io::Result<()> {
        // family, lengths, service, table, protocol (boot), scope (universe), type (unicast), flags
        let fixed = [INET, 0, 0, 0, MAIN_TABLE, 3, 0, 1, 0, 0, 0, 0];
        let mut message = Message::new(NEW_ROUTE, ACKNOWLEDGE | CREATE | EXCLUSIVE, &fixed);
        message.attribute(ROUTE_GATEWAY, &gateway.octets());
        self.0.request(message)
    }

    /// The subnets that this namespace knows a way to, but the default route.
    pub(crate) fn routes(&mut self) -> io::Result<Vec<Subnet>> {
        let mut found = Vec::new();
        for answer in self.main_routes()? {
            let prefix = answer.body.get(1).copied().unwrap_or_default();
            let destination = answer.attributes(ROUTE_PART).find(|(kind, _)| *kind == ROUTE_DESTINATION);
            let address = destination.and_then(|(_, value)| <[u8; 4]>::try_from(value).ok()).map(Ipv4Addr::from);
            found.extend(address.and_then(|address| Subnet::new(address, prefix)));
        }
        Ok(found)
    }

    /// The gateway of the default route.
    pub(crate) fn default_gateway(&mut self) -> io::Result<Option<Ipv4Addr>> {
        let routes = self.main_routes()?;
        let default = routes.iter().filter(|answer| answer.body.get(1) == Some(&0));
        let mut gateways =
            default.filter_map(|answer| answer.attributes(ROUTE_PART).find(|(kind, _)| *kind == ROUTE_GATEWAY));
        Ok(gateways.find_map(|(_, value)| <[u8; 4]>::try_from(value).ok()).map(Ipv4Addr::from))
    }

    fn main_routes(&mut self) -> io::Result<Vec<super::netlink::Answer>> {
        let mut fixed = [0; ROUTE_PART];
        fixed[0] = INET;
        let answers = self.0.ask(Message::new(GET_ROUTE, DUMP, &fixed))?;
        Ok(answers.into_iter().filter(|answer| answer.body.get(4) == Some(&MAIN_TABLE)).collect())
    }
}

/// `struct ifinfomsg`: family, padding, type, number, flags, which flags.
fn link(index: u32, flags: u32) -> [u8; LINK_PART] {
    let mut fixed = [0; LINK_PART];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..16].copy_from_slice(&flags.to_ne_bytes());
    fixed
}

#[cfg(test)]
mod tests {
    use super::super::{filter, plane};
    use super::*;

    /// Two containers on a bridge, in namespaces of their own: needs root.
    #[test]
    fn a_bridge_with_its_rules_connects_two_namespaces() {
        let [plane, one, two] = [(); 3].map(|()| NetworkNamespace::create().unwrap());
        let subnet: Subnet = "10.9.8.0/24".parse().unwrap();
        let addresses: Vec<Ipv4Addr> = subnet.hosts().take(3).collect();
        let bridge = plane
            .within(|| {
                filter::set("kiln-test", (subnet, None), false)?;
                // Once more: a table that is there already.
                filter::set("kiln-test", (subnet, Some("fd00:9:8::/64".parse().unwrap())), true)?;
                filter::set("kiln-test", (subnet, None), false)?;
                filter::pass_through_iptables("kiln-test")?;
                let mut interfaces = Interfaces::open()?;
                let bridge = interfaces.add_bridge("kiln-test", plane::mac(addresses[0]), Some(1400))?;
                interfaces.add_address(bridge, addresses[0], subnet)?;
                assert_eq!(interfaces.routes()?, [subnet]);
                io::Result::Ok(bridge)
            })
            .unwrap()
            .unwrap();
        for (number, (container, address)) in [&one, &two].into_iter().zip(&addresses[1..]).enumerate() {
            let outside = format!("kveth{number}");
            let cable = Cable { outside: &outside, bridge, inside: "eth0", mac: plane::mac(*address), mtu: Some(1400) };
            plane.within(|| Interfaces::open()?.add_cable(&cable, container)).unwrap().unwrap();
            let configured = container.within(|| {
                let mut interfaces = Interfaces::open()?;
                let index = interfaces.find("eth0")?.unwrap();
                interfaces.raise(index)?;
                interfaces.add_address(index, *address, subnet)?;
                interfaces.add_default_route(addresses[0])?;
                assert_eq!(interfaces.default_gateway()?, Some(addresses[0]));
                io::Result::Ok(())
            });
            configured.unwrap().unwrap();
        }
        let listener = one.within(|| std::net::TcpListener::bind((addresses[1], 80))).unwrap().unwrap();
        two.within(|| std::net::TcpStream::connect(listener.local_addr().unwrap())).unwrap().unwrap();
        let removed = plane.within(|| {
            let mut interfaces = Interfaces::open()?;
            interfaces.remove("kiln-test")?;
            interfaces.remove("kiln-test")?;
            filter::remove("kiln-test", true)?;
            filter::remove("kiln-test", true)?;
            filter::forget_iptables("kiln-test")?;
            interfaces.find("kiln-test")
        });
        assert_eq!(removed.unwrap().unwrap(), None);
    }
}
