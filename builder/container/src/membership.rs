//! Connecting containers to networks, and taking them off, whether they run or not.

use kiln_store::Store;

use crate::network::{self, Connection, DEFAULT, Mode, Who};
use crate::record::Container;
use crate::{Error, Result};

/// Connects a container to one more network: now when it runs, and whenever it starts.
///
/// # Errors
/// There is no such network; it is on it; it has the host's network or another container's; no address is free.
pub fn connect(store: &Store, container: &Container, wanted: &Connection) -> Result<()> {
    let network = network::find(store.root(), &wanted.network)?;
    let wanted = Connection { network: network.name.clone(), ..wanted.clone() };
    let mut record = container.record.clone();
    let name = record.name.clone();
    let connections = match &mut record.settings.network.mode {
        Mode::Bridges(connections) => connections,
        Mode::None => {
            return Err(Error::Invalid(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode"
                    .to_owned(),
            ));
        }
        Mode::Host | Mode::Container(_) => {
            return Err(Error::Invalid(format!("container {name} has no network of its own: it cannot be connected")));
        }
    };
    if network.driver != DEFAULT {
        return Err(Error::Invalid(format!("container cannot be connected to network {}", network.name)));
    }
    if connections.iter().any(|known| known.network == network.name || known.network == network.id) {
        return Err(Error::Invalid(format!("endpoint with name {name} already exists in network {}", network.name)));
    }
    if let Ok(pid @ 1..) = u32::try_from(container.state.pid)
        && container.state.is_alive()
    {
        let who = Who { id: &record.id, name: &name, hostname: "" };
        network::connect(store.root(), who, pid, &wanted)?;
    }
    connections.push(wanted);
    crate::directory::write_record(&container.path, &record)
}

/// Takes a container off a network: now when it runs, and for good.
///
/// # Errors
/// There is no such network; it is not on it.
pub fn disconnect(store: &Store, container: &Container, network: &str) -> Result<()> {
    let network = network::find(store.root(), network)?;
    let mut record = container.record.clone();
    let unknown =
        || Error::Invalid(format!("container {} is not connected to network {}", container.record.name, network.name));
    let Mode::Bridges(connections) = &mut record.settings.network.mode else { return Err(unknown()) };
    let at = connections.iter().position(|known| known.network == network.name || known.network == network.id);
    connections.remove(at.ok_or_else(unknown)?);
    if container.state.is_alive() {
        network::disconnect(store.root(), &record.id, &record.name, &network.id)?;
    }
    crate::directory::write_record(&container.path, &record)
}

/// The networks that containers want, by the names or ids that they want them by, whether they run or not.
///
/// # Errors
/// The store cannot be read.
pub fn networks_in_use(store: &Store) -> Result<Vec<String>> {
    let modes = crate::list(store)?.into_iter().map(|container| container.record.settings.network.mode);
    let connections = modes.filter_map(|mode| match mode {
        Mode::Bridges(connections) => Some(connections),
        _ => None,
    });
    Ok(connections.flatten().map(|connection| connection.network).collect())
}
