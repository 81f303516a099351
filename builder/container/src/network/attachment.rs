//! A running container's networks: plugged in when it starts, and given back when this is dropped.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use kiln_sandbox::network_namespace::NetworkNamespace;
use kiln_sandbox::spec;
use serde::{Deserialize, Serialize};

use super::etc::{self, ExtraHost, Resolver};
use super::helper::{Duty, Helper, Names};
use super::idle::Idle;
use super::options::{Connection, Link, Mode, NetworkOptions};
use super::plane::{self, Plane};
use super::publish::Binding;
use super::record::{DEFAULT, Endpoint, Network, Networks};
use super::six;
use crate::{Error, Result, names, record};

/// Who is connected.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// The container's id.
    pub id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its host name.
    pub hostname: &'a str,
}

/// `containers/<id>/network.json`, while it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// The ports of the host that lead to it.
    pub bindings: Vec<Binding>,
    /// Its /etc/hosts when it started.
    pub hosts: String,
    /// Its /etc/resolv.conf.
    pub resolv_conf: String,
    /// Its host name.
    pub hostname: String,
}

/// What a running container's networks need.
#[derive(Debug)]
pub struct Attachment {
    /// What the container's process joins.
    pub network: spec::Network,
    /// Its files, and its ports.
    pub connected: Connected,
    // It ends before what it serves goes away.
    helper: Option<Helper>,
    namespace: Option<NetworkNamespace>,
    plugged: Option<Plugged>,
    file: PathBuf,
}

/// The networks that a container is on, however far the set-up came.
#[derive(Debug)]
struct Plugged {
    networks: Networks,
    plane: Plane,
    container: String,
    /// Those that it has left again.
    left: Vec<Network>,
}

impl Attachment {
    /// Connects a container that is about to start; its lock is held. `other` is the pid of the container whose
    /// network it shares, and that container's id.
    ///
    /// # Errors
    /// A network is not there, an address or a port is taken, or the kernel refuses.
    pub fn new(root: &Path, who: Who<'_>, options: &NetworkOptions, other: Option<(u32, &str)>) -> Result<Self> {
        let networks = Networks::at(root)?;
        let mut attachment = Self {
            network: spec::Network::Host,
            connected: Connected { hostname: who.hostname.to_owned(), ..Connected::default() },
            helper: None,
            namespace: None,
            plugged: None,
            file: networks.container(who.id).join("network.json"),
        };
        match (&options.mode, other) {
            (Mode::Host, _) => attachment.write_names(options, who, true, &[], None),
            (Mode::None, _) => {
                attachment.network = spec::Network::None;
                attachment.write_names(options, who, false, &[], None);
            }
            (Mode::Container(_), Some((pid, id))) => {
                let namespace = NetworkNamespace::of_process(pid).map_err(|source| Error::Network {
                    action: format!("join the network of container {}", id.get(..12).unwrap_or(id)),
                    source,
                })?;
                attachment.network = spec::Network::Joined(namespace.path());
                attachment.namespace = Some(namespace);
                attachment.connected = Connected { bindings: Vec::new(), ..connected(root, id)?.unwrap_or_default() };
            }
            (Mode::Container(name), None) => return Err(Error::Unknown(name.clone())),
            (Mode::Bridges(connections), _) => attachment.plug_all(root, who, options, connections)?,
        }
        let json = serde_json::to_vec(&attachment.connected);
        let json = json.map_err(|error| Error::io("write", &attachment.file, error))?;
        crate::directory::write_whole(&attachment.file, &json)?;
        Ok(attachment)
    }

    fn plug_all(&mut self, root: &Path, who: Who<'_>, options: &NetworkOptions, wanted: &[Connection]) -> Result<()> {
        let networks = Networks::at(root)?;
        let namespace = NetworkNamespace::create()
            .map_err(|source| Error::Network { action: "make a network namespace".to_owned(), source })?;
        self.network = spec::Network::Joined(namespace.path());
        let namespace = self.namespace.insert(namespace);
        self.connected.resolv_conf = Resolver::of_host(&options.naming).text(false);
        let plane = Plane::open(&networks)?;
        let plugged = self.plugged.insert(Plugged {
            networks: networks.clone(),
            plane,
            container: who.id.to_owned(),
            left: Vec::new(),
        });
        let mut endpoints = Vec::with_capacity(wanted.len());
        let mut named = false;
        let mut internal = true;
        for (number, connection) in wanted.iter().enumerate() {
            let (network, endpoint) = plug(&networks, &plugged.plane, who, connection, number, namespace)?;
            named |= network.has_names();
            internal &= network.internal;
            endpoints.push(endpoint);
        }
        let mut options = options.clone();
        for link in &options.links {
            options.naming.hosts.extend(linked(root, link, &endpoints)?);
        }
        let options = &options;
        let Some(first) = endpoints.first() else { return Ok(()) };
        let (plane, address) = (&plugged.plane, first.address);
        let host = plane.host_address(first).map(IpAddr::V4);
        let resolver = Resolver::of_host(&options.naming);
        // Its own responder asks from the host's side, where all servers can be reached.
        let responds = named || !plane.is_hosts() || !resolver.is_reachable();
        let publish = options.published();
        if responds || !publish.is_empty() {
            let upstream = if internal { Vec::new() } else { resolver.servers.clone() };
            let names = Names { root: root.to_owned(), container: who.id.to_owned(), upstream };
            let duty = Duty {
                namespace: namespace.path(),
                publish,
                address,
                from_inside: !plane.is_hosts(),
                names: responds.then_some(names),
            };
            let (helper, bindings) = Helper::start(&duty)?;
            self.helper = Some(helper);
            self.connected.bindings = bindings;
        }
        let six = endpoints.iter().filter_map(|endpoint| Some(endpoint.six.as_ref()?.address.into()));
        let addresses: Vec<IpAddr> = endpoints.iter().map(|endpoint| endpoint.address.into()).chain(six).collect();
        self.write_names(options, who, false, &addresses, host);
        self.connected.resolv_conf = resolver.text(responds);
        Ok(())
    }

    fn write_names(
        &mut self,
        options: &NetworkOptions,
        who: Who<'_>,
        of_host: bool,
        own: &[IpAddr],
        host: Option<IpAddr>,
    ) {
        let host = if of_host { Some(IpAddr::V4(Ipv4Addr::LOCALHOST)) } else { host };
        self.connected.hosts = etc::hosts(&options.naming, of_host, (own, who.hostname), host);
        self.connected.resolv_conf = Resolver::of_host(&options.naming).text(false);
    }

    /// Gives back what somebody may want at once: ports, and places on networks.
    pub(crate) fn leave(&mut self) {
        if !self.connected.bindings.is_empty() {
            drop(self.helper.take());
        }
        if let Some(plugged) = &mut self.plugged {
            plugged.leave();
        }
        let _ = std::fs::remove_file(&self.file);
    }

    /// Gives back everything but the bridges, which the next container may be glad of.
    pub(crate) fn release(mut self) -> Option<Idle> {
        self.leave();
        let Plugged { networks, plane, left, .. } = self.plugged.take()?;
        Some(Idle { networks, plane, bridges: left })
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.leave();
        drop(self.helper.take());
        drop(self.namespace.take());
        let Some(Plugged { networks, plane, left, .. }) = self.plugged.take() else { return };
        let Ok(_lock) = networks.lock() else { return };
        left.iter().for_each(|network| lower_if_unused(&networks, &plane, network));
    }
}

impl Plugged {
    /// Its places are free from here on.
    fn leave(&mut self) {
        for network in self.networks.all().unwrap_or_default() {
            if self.networks.endpoint(&network.id, &self.container).is_some() {
                self.networks.remove_endpoint(&network.id, &self.container);
                self.left.push(network);
            }
        }
    }
}

/// The names of a container that is linked to, which must be on one of these networks.
fn linked(root: &Path, link: &Link, own: &[Endpoint]) -> Result<Vec<ExtraHost>> {
    let other = record::find_in(&root.join("containers"), &link.container)?.record;
    let theirs = endpoints(root, &other.id)?;
    let found = theirs.iter().find(|endpoint| own.iter().any(|one| one.network == endpoint.network));
    let Some(found) = found else {
        let why = if theirs.is_empty() { "it does not run" } else { "it is on none of this container's networks" };
        return Err(Error::Invalid(format!("cannot link to container {} as {}: {why}", other.name, link.alias)));
    };
    let mut names = vec![link.alias.as_str(), other.name.as_str(), other.short_id()];
    names.dedup();
    let host = |name: &str| ExtraHost { name: name.to_owned(), address: Some(found.address.into()) };
    Ok(names.into_iter().map(host).collect())
}

/// A bridge goes with its last container. The caller holds the lock.
pub(super) fn lower_if_unused(networks: &Networks, plane: &Plane, network: &Network) {
    networks.sweep(network);
    if networks.endpoints(network).is_empty() {
        plane.lower(network);
    }
}

/// Plugs a container into one network, as its interface of this number.
fn plug(
    networks: &Networks,
    plane: &Plane,
    who: Who<'_>,
    wanted: &Connection,
    number: usize,
    namespace: &NetworkNamespace,
) -> Result<(Network, Endpoint)> {
    let _lock = networks.lock()?;
    let mut network = networks.find(&wanted.network)?;
    if network.driver != DEFAULT {
        return Err(Error::Invalid(format!("network {} cannot be combined with another", network.name)));
    }
    networks.sweep(&network);
    plane.raise(networks, &mut network)?;
    let plugged = endpoint(networks, &network, who, wanted, number).and_then(|endpoint| {
        networks.save_endpoint(&endpoint)?;
        plane.plug(&network, &endpoint, namespace)?;
        Ok(endpoint)
    });
    let endpoint = plugged.inspect_err(|_| {
        networks.remove_endpoint(&network.id, who.id);
        lower_if_unused(networks, plane, &network);
    })?;
    Ok((network, endpoint))
}

/// A place on a network with an address that is free, or the one that was asked for.
fn endpoint(
    networks: &Networks,
    network: &Network,
    who: Who<'_>,
    wanted: &Connection,
    number: usize,
) -> Result<Endpoint> {
    let addresses = network.addresses.as_ref();
    let addresses = addresses.ok_or_else(|| Error::Invalid(format!("network {} has no addresses", network.name)))?;
    let present = networks.endpoints(network);
    let is_free = |address: Ipv4Addr| {
        address != addresses.gateway
            && !addresses.reserved.values().any(|reserved| *reserved == address)
            && !present.iter().any(|endpoint| endpoint.address == address && endpoint.container != who.id)
    };
    let address = match wanted.address {
        Some(_) if !addresses.chosen => {
            return Err(Error::Invalid(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
                    .to_owned(),
            ));
        }
        Some(address) if !addresses.subnet.contains(address) => {
            return Err(Error::Invalid(format!(
                "{address} is not in the subnet {} of {}",
                addresses.subnet, network.name
            )));
        }
        Some(address) if !is_free(address) => {
            return Err(Error::Invalid(format!("address {address} is already in use on network {}", network.name)));
        }
        Some(address) => address,
        None => {
            let mut candidates = addresses.range.unwrap_or(addresses.subnet).hosts();
            let free = candidates.find(|address| is_free(*address));
            free.ok_or_else(|| Error::Invalid(format!("no address of network {} is free", network.name)))?
        }
    };
    let id = names::random_id()?;
    let six = six::place(network, wanted.six, &present, who.id)?;
    Ok(Endpoint {
        six,
        network: network.id.clone(),
        network_name: network.name.clone(),
        outside: format!("kveth{}", id.get(..9).unwrap_or_default()),
        id,
        container: who.id.to_owned(),
        name: who.name.to_owned(),
        aliases: wanted.aliases.clone(),
        address,
        prefix: addresses.subnet.prefix(),
        gateway: (!network.internal).then_some(addresses.gateway),
        mac: wanted.mac.clone().unwrap_or_else(|| plane::format_mac(plane::mac(address))),
        interface: format!("eth{number}"),
    })
}

/// Connects a running container to one more network; `pid` is a process of it.
///
/// # Errors
/// There is no such network; it is on it; no address is free; the kernel refuses.
pub fn connect(root: &Path, who: Who<'_>, pid: u32, wanted: &Connection) -> Result<()> {
    let networks = Networks::at(root)?;
    let network = networks.find(&wanted.network)?;
    if networks.endpoint(&network.id, who.id).is_some() {
        return Err(Error::Invalid(format!("container {} is already on network {}", who.name, network.name)));
    }
    let used = endpoints(root, who.id)?;
    let is_free = |number: &usize| !used.iter().any(|endpoint| endpoint.interface == format!("eth{number}"));
    let number = (0..).find(is_free).unwrap_or_default();
    let failed = |source| Error::Network { action: format!("open the network of container {}", who.name), source };
    let namespace = NetworkNamespace::of_process(pid).map_err(failed)?;
    plug(&networks, &Plane::open(&networks)?, who, wanted, number, &namespace).map(drop)
}

/// Takes a running container off a network.
///
/// # Errors
/// There is no such network; it is not on it; the kernel refuses.
pub fn disconnect(root: &Path, container: &str, name: &str, network: &str) -> Result<()> {
    let networks = Networks::at(root)?;
    let network = networks.find(network)?;
    let _lock = networks.lock()?;
    let endpoint = networks
        .endpoint(&network.id, container)
        .ok_or_else(|| Error::Invalid(format!("container {name} is not connected to network {}", network.name)))?;
    let plane = Plane::open(&networks)?;
    if networks.is_alive(container) {
        plane.unplug(&endpoint)?;
    }
    networks.remove_endpoint(&network.id, container);
    lower_if_unused(&networks, &plane, &network);
    Ok(())
}

/// Gives a running container's places another name.
///
/// # Errors
/// The store cannot be written.
pub fn rename(root: &Path, container: &str, name: &str) -> Result<()> {
    let networks = Networks::at(root)?;
    let _lock = networks.lock()?;
    for endpoint in endpoints(root, container)? {
        networks.save_endpoint(&Endpoint { name: name.to_owned(), ..endpoint })?;
    }
    Ok(())
}

/// The places that a running container has, by network.
///
/// # Errors
/// The store cannot be read.
pub fn endpoints(root: &Path, container: &str) -> Result<Vec<Endpoint>> {
    let networks = Networks::at(root)?;
    if !networks.is_alive(container) {
        return Ok(Vec::new());
    }
    let all = networks.all()?;
    let mut found: Vec<_> = all.iter().filter_map(|network| networks.endpoint(&network.id, container)).collect();
    found.sort_by(|a, b| a.interface.cmp(&b.interface));
    Ok(found)
}

/// How a running container is connected; `None` when it does not run.
///
/// # Errors
/// The store cannot be read.
pub fn connected(root: &Path, container: &str) -> Result<Option<Connected>> {
    let networks = Networks::at(root)?;
    if !networks.is_alive(container) {
        return Ok(None);
    }
    let file = networks.container(container).join("network.json");
    Ok(std::fs::read(file).ok().and_then(|json| serde_json::from_slice(&json).ok()))
}
