//! What is kept of networks: `networks/<id>/config.json`, and a file for each container that is plugged in.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::six::{Addresses6, Place6};
use super::subnet::Subnet;
use crate::{Error, Result, names};

/// The network that containers are on when nothing is said.
pub const DEFAULT: &str = "bridge";
/// Names that are networks without a record of their own.
pub const PREDEFINED: [&str; 3] = [DEFAULT, "host", "none"];

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// 64 hex digits.
    pub id: String,
    /// Unique among networks.
    pub name: String,
    /// `bridge`, `host` or `null`.
    pub driver: String,
    /// Seconds since 1970.
    pub created: i64,
    /// Its addresses; none for `host` and `none`.
    pub addresses: Option<Addresses>,
    /// Its IPv6 addresses, when it was made with them.
    #[serde(default)]
    pub six: Option<Addresses6>,
    /// No way out, and no way in.
    pub internal: bool,
    /// Containers may be connected after their start; docker's word, always so here.
    #[serde(default)]
    pub attachable: bool,
    /// What the user says of it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `-o`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// What a network hands out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// All of them.
    pub subnet: Subnet,
    /// The bridge's own.
    pub gateway: Ipv4Addr,
    /// Those for containers, when not all.
    pub range: Option<Subnet>,
    /// The subnet was asked for: it may not be exchanged for another.
    pub chosen: bool,
    /// `--aux-address`: not for containers.
    #[serde(default)]
    pub reserved: BTreeMap<String, Ipv4Addr>,
}

impl Addresses {
    /// With the usual gateway.
    pub(crate) fn of(subnet: Subnet) -> Self {
        let gateway = subnet.hosts().next().unwrap_or(subnet.base());
        Self { subnet, gateway, range: None, chosen: false, reserved: BTreeMap::new() }
    }
}

impl Network {
    /// The bridge's interface, whose name is unique on the machine and no longer than the kernel allows.
    pub(crate) fn bridge(&self) -> String {
        format!("{}{}", super::filter::PREFIX, self.id.get(..10).unwrap_or_default())
    }

    /// Bytes of a packet, at most.
    pub(crate) fn mtu(&self) -> Option<u32> {
        self.options.get("com.docker.network.driver.mtu").and_then(|mtu| mtu.parse().ok())
    }

    /// Whether names are resolved on it: not on the default one, as docker's.
    pub fn has_names(&self) -> bool {
        self.name != DEFAULT
    }
}

/// A container's place on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network's id.
    pub network: String,
    /// The network's name.
    pub network_name: String,
    /// 64 hex digits.
    pub id: String,
    /// The container's id.
    pub container: String,
    /// The container's name.
    pub name: String,
    /// What else it is called there.
    pub aliases: Vec<String>,
    /// Its address.
    pub address: Ipv4Addr,
    /// Bits of the subnet.
    pub prefix: u8,
    /// Where the rest of the world is; none on an internal network.
    pub gateway: Option<Ipv4Addr>,
    /// Its IPv6 address, on a network that has them.
    #[serde(default)]
    pub six: Option<Place6>,
    /// Hardware address.
    pub mac: String,
    /// Its interface inside.
    pub interface: String,
    /// Its interface's other end.
    pub outside: String,
}

impl Endpoint {
    /// Whether it goes by a name there; letters' case does not matter.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        let short = self.container.get(..12).unwrap_or_default();
        self.aliases
            .iter()
            .map(String::as_str)
            .chain([self.name.as_str(), short])
            .any(|own| own.eq_ignore_ascii_case(name))
    }
}

/// All networks of a store.
#[derive(Debug, Clone)]
pub(crate) struct Networks {
    path: PathBuf,
    containers: PathBuf,
}

impl Networks {
    /// Those of the store at this place.
    pub(crate) fn at(root: &Path) -> Result<Self> {
        let path = root.join("networks");
        std::fs::create_dir_all(&path).map_err(|error| Error::io("make", &path, error))?;
        Ok(Self { path, containers: root.join("containers") })
    }

    /// A container's directory.
    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.containers.join(id)
    }

    /// Held while networks or endpoints are made or taken away.
    pub(crate) fn lock(&self) -> Result<File> {
        crate::directory::lock(&self.path.join(".lock"), FlockOperation::LockExclusive)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Every network, by name. The three that everybody has are made when they are first looked for.
    pub(crate) fn all(&self) -> Result<Vec<Network>> {
        let mut found = self.recorded()?;
        for name in PREDEFINED {
            if !found.iter().any(|network| network.name == name) {
                found.push(self.predefine(name)?);
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn recorded(&self) -> Result<Vec<Network>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(|error| Error::io("read", &self.path, error))?.flatten() {
            let Ok(json) = std::fs::read(entry.path().join("config.json")) else { continue };
            found.extend(serde_json::from_slice::<Network>(&json).ok());
        }
        Ok(found)
    }

    fn predefine(&self, name: &str) -> Result<Network> {
        let _lock = crate::directory::lock(&self.path.join(".predefining"), FlockOperation::LockExclusive)?;
        if let Some(network) = self.recorded()?.into_iter().find(|network| network.name == name) {
            return Ok(network);
        }
        let bridge = name == DEFAULT;
        let network = Network {
            id: names::random_id()?,
            name: name.to_owned(),
            driver: match name {
                "none" => "null".to_owned(),
                name => name.to_owned(),
            },
            created: jiff::Timestamp::now().as_second(),
            addresses: if bridge { super::subnet::pool().next().map(Addresses::of) } else { None },
            six: None,
            internal: false,
            attachable: false,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
        };
        self.save(&network)?;
        Ok(network)
    }

    /// By name, id, or the beginning of an id.
    pub(crate) fn find(&self, text: &str) -> Result<Network> {
        let mut all = self.all()?;
        if let Some(at) = all.iter().position(|network| network.name == text || network.id == text) {
            return Ok(all.swap_remove(at));
        }
        let mut matching = all.into_iter().filter(|network| !text.is_empty() && network.id.starts_with(text));
        match (matching.next(), matching.next()) {
            (Some(found), None) => Ok(found),
            (Some(_), Some(_)) => Err(Error::Invalid(format!("several networks' ids begin with {text}"))),
            (None, _) => Err(Error::UnknownNetwork(text.to_owned())),
        }
    }

    pub(crate) fn save(&self, network: &Network) -> Result<()> {
        let path = self.path.join(&network.id);
        let endpoints = path.join("endpoints");
        std::fs::create_dir_all(&endpoints).map_err(|error| Error::io("make", &endpoints, error))?;
        crate::directory::write_whole(&path.join("config.json"), &json(network)?)
    }

    /// Forgets a network.
    pub(crate) fn remove(&self, network: &Network) -> Result<()> {
        let path = self.path.join(&network.id);
        // Without its config it is no network, however far the removal gets.
        let config = path.join("config.json");
        std::fs::remove_file(&config).map_err(|error| Error::io("remove", config, error))?;
        std::fs::remove_dir_all(&path).map_err(|error| Error::io("remove", path, error))
    }

    fn endpoint_path(&self, network: &str, container: &str) -> PathBuf {
        self.path.join(network).join("endpoints").join(container)
    }

    pub(crate) fn save_endpoint(&self, endpoint: &Endpoint) -> Result<()> {
        crate::directory::write_whole(&self.endpoint_path(&endpoint.network, &endpoint.container), &json(endpoint)?)
    }

    pub(crate) fn remove_endpoint(&self, network: &str, container: &str) {
        // There may be none any more.
        let _ = std::fs::remove_file(self.endpoint_path(network, container));
    }

    pub(crate) fn endpoint(&self, network: &str, container: &str) -> Option<Endpoint> {
        serde_json::from_slice(&std::fs::read(self.endpoint_path(network, container)).ok()?).ok()
    }

    /// The containers that are plugged in and alive.
    pub(crate) fn endpoints(&self, network: &Network) -> Vec<Endpoint> {
        let entries = std::fs::read_dir(self.path.join(&network.id).join("endpoints"));
        let mut found: Vec<Endpoint> = entries
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| serde_json::from_slice(&std::fs::read(entry.path()).ok()?).ok())
            .filter(|endpoint: &Endpoint| self.is_alive(&endpoint.container))
            .collect();
        found.sort_by_key(|endpoint| endpoint.address);
        found
    }

    /// Locked by whoever takes the network's bridge away when it stays unused.
    pub(crate) fn watch(&self, network: &Network) -> PathBuf {
        self.path.join(&network.id).join(".watch")
    }

    /// When somebody last came or went.
    pub(crate) fn last_use(&self, network: &Network) -> Option<std::time::SystemTime> {
        std::fs::metadata(self.path.join(&network.id).join("endpoints")).ok()?.modified().ok()
    }

    /// Forgets the endpoints of containers that kiln was killed with. The caller holds the lock.
    pub(crate) fn sweep(&self, network: &Network) {
        let entries = std::fs::read_dir(self.path.join(&network.id).join("endpoints"));
        for entry in entries.into_iter().flatten().flatten() {
            if !self.is_alive(&entry.file_name().to_string_lossy()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Whether somebody holds the lock of a container, as whoever runs it does.
    pub(crate) fn is_alive(&self, container: &str) -> bool {
        let Ok(file) = File::open(self.containers.join(container).join("lock")) else { return false };
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err()
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|error| Error::io("write", "networks", error))
}
