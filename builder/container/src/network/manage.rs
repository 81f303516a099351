//! Making, listing and removing networks.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::plane::Plane;
use super::record::{Addresses, DEFAULT, Endpoint, Network, Networks, PREDEFINED};
use super::six::{self, Subnet6};
use super::subnet::Subnet;
use crate::{Error, Result, names};

/// What `network create` was asked for.
#[derive(Debug, Clone, Default)]
pub struct NetworkRequest {
    /// The name.
    pub name: String,
    /// `-d`; `bridge` is the only one there is.
    pub driver: Option<String>,
    /// `--subnet`
    pub subnet: Option<Subnet>,
    /// `--gateway`
    pub gateway: Option<Ipv4Addr>,
    /// `--ipv6`
    pub ipv6: bool,
    /// An IPv6 `--subnet`
    pub subnet6: Option<Subnet6>,
    /// An IPv6 `--gateway`
    pub gateway6: Option<Ipv6Addr>,
    /// `--ip-range`
    pub range: Option<Subnet>,
    /// `--aux-address`
    pub reserved: BTreeMap<String, Ipv4Addr>,
    /// `--internal`
    pub internal: bool,
    /// `--attachable`
    pub attachable: bool,
    /// `--label`
    pub labels: BTreeMap<String, String>,
    /// `-o`
    pub options: BTreeMap<String, String>,
}

/// Makes a network; returns its id.
///
/// # Errors
/// The name is taken or wrong; the addresses do not fit each other, or overlap with another network's.
pub fn create(root: &Path, request: NetworkRequest) -> Result<String> {
    names::check("network", &request.name)?;
    match request.driver.as_deref() {
        None | Some(DEFAULT) => {}
        Some(other) => return Err(Error::Invalid(format!("network driver {other:?} is not known; expected bridge"))),
    }
    let networks = Networks::at(root)?;
    let _lock = networks.lock()?;
    let all = networks.all()?;
    if all.iter().any(|network| network.name == request.name) || request.name == "default" {
        return Err(Error::Invalid(format!("network with name {} already exists", request.name)));
    }
    let addresses = addresses(&request, &networks, &all)?;
    let id = names::random_id()?;
    let six = match request.ipv6 || request.subnet6.is_some() {
        true => Some(six::addresses(&id, request.subnet6, request.gateway6, &all)?),
        false => None,
    };
    let network = Network {
        id,
        name: request.name,
        driver: DEFAULT.to_owned(),
        created: jiff::Timestamp::now().as_second(),
        addresses: Some(addresses),
        six,
        internal: request.internal,
        attachable: request.attachable,
        labels: request.labels,
        options: request.options,
    };
    networks.save(&network)?;
    Ok(network.id)
}

fn addresses(request: &NetworkRequest, networks: &Networks, all: &[Network]) -> Result<Addresses> {
    let Some(subnet) = request.subnet else {
        if request.gateway.is_some() || request.range.is_some() || !request.reserved.is_empty() {
            return Err(Error::Invalid("--gateway, --ip-range and --aux-address need a --subnet".to_owned()));
        }
        return Ok(Addresses::of(Plane::open(networks)?.free_subnet(all)?));
    };
    let known = all.iter().filter_map(|network| Some((network, network.addresses.as_ref()?)));
    // One whose subnet was not asked for makes way, unless it is in use.
    let taken = |(network, known): &(&Network, &Addresses)| {
        known.subnet.overlaps(subnet) && (known.chosen || !networks.endpoints(network).is_empty())
    };
    if let Some((network, known)) = known.into_iter().find(taken) {
        return Err(Error::Invalid(format!(
            "pool overlaps with other one on this address space: {subnet} with {} of network {}",
            known.subnet, network.name
        )));
    }
    let inside = |what: &str, address: Ipv4Addr| match subnet.contains(address) {
        true => Ok(()),
        false => Err(Error::Invalid(format!("{what} {address} is not in the subnet {subnet}"))),
    };
    let mut addresses = Addresses { chosen: true, range: request.range, ..Addresses::of(subnet) };
    if let Some(gateway) = request.gateway {
        inside("the gateway", gateway)?;
        addresses.gateway = gateway;
    }
    if let Some(range) = request.range {
        inside("the range", range.base())?;
        inside("the range", range.last())?;
    }
    for (name, address) in &request.reserved {
        inside(name, *address)?;
    }
    addresses.reserved.clone_from(&request.reserved);
    Ok(addresses)
}

/// Every network, by name.
///
/// # Errors
/// The store cannot be read.
pub fn list(root: &Path) -> Result<Vec<Network>> {
    Networks::at(root)?.all()
}

/// A network by name, id, or the beginning of an id.
///
/// # Errors
/// There is none, or there are several.
pub fn find(root: &Path, text: &str) -> Result<Network> {
    Networks::at(root)?.find(text)
}

/// The running containers on a network.
///
/// # Errors
/// The store cannot be read.
pub fn users(root: &Path, network: &Network) -> Result<Vec<Endpoint>> {
    Ok(Networks::at(root)?.endpoints(network))
}

/// Removes a network that nobody is on; returns its name.
///
/// # Errors
/// There is none; it is predefined; running containers are on it.
pub fn remove(root: &Path, text: &str) -> Result<String> {
    let networks = Networks::at(root)?;
    let _lock = networks.lock()?;
    let network = networks.find(text)?;
    if PREDEFINED.contains(&network.name.as_str()) {
        return Err(Error::Invalid(format!("{} is a pre-defined network and cannot be removed", network.name)));
    }
    let present = networks.endpoints(&network);
    if !present.is_empty() {
        let names: Vec<&str> = present.iter().map(|endpoint| endpoint.name.as_str()).collect();
        return Err(Error::Invalid(format!(
            "network {} has active endpoints: stop or disconnect {}",
            network.name,
            names.join(", ")
        )));
    }
    // Of a container that kiln was killed with.
    if let Ok(plane) = Plane::open(&networks) {
        plane.lower(&network);
    }
    networks.remove(&network)?;
    Ok(network.name)
}

/// Removes the networks that no container uses, and for which `matches`; returns their names.
///
/// # Errors
/// The store cannot be read.
pub fn prune(root: &Path, is_wanted: &dyn Fn(&Network) -> bool) -> Result<Vec<String>> {
    let networks = Networks::at(root)?;
    let mut removed = Vec::new();
    for network in networks.all()? {
        let predefined = PREDEFINED.contains(&network.name.as_str());
        if predefined || is_wanted(&network) || !networks.endpoints(&network).is_empty() {
            continue;
        }
        removed.extend(remove(root, &network.id).ok());
    }
    Ok(removed)
}
