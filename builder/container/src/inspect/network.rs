//! The networks and ports of a container, in docker's fields.

use kiln_store::Store;
use serde_json::{Map, Value, json};

use crate::Result;
use crate::network::{self, Mode, NetworkOptions};
use crate::record::{Container, Record};

/// `HostConfig.NetworkMode`
pub(super) fn mode(options: &NetworkOptions) -> String {
    match &options.mode {
        Mode::Host => "host".to_owned(),
        Mode::None => "none".to_owned(),
        Mode::Container(other) => format!("container:{other}"),
        Mode::Bridges(connections) => connections.first().map_or_else(String::new, |first| first.network.clone()),
    }
}

/// `HostConfig.PortBindings`: what was asked for.
pub(super) fn port_bindings(options: &NetworkOptions) -> Value {
    let mut all = Map::new();
    for publish in &options.publish {
        let address = publish.address.map_or_else(String::new, |address| address.to_string());
        let host = match publish.host {
            None => String::new(),
            Some((first, last)) if first == last => first.to_string(),
            Some((first, last)) => format!("{first}-{last}"),
        };
        add(&mut all, publish.port.to_string(), json!({"HostIp": address, "HostPort": host}));
    }
    Value::Object(all)
}

fn add(all: &mut Map<String, Value>, port: String, binding: Value) {
    if let Some(known) = all.entry(port).or_insert_with(|| json!([])).as_array_mut() {
        known.push(binding);
    }
}

/// `HostConfig.Links`
pub(super) fn links(record: &Record) -> Value {
    let links = &record.settings.network.links;
    let shown = links.iter().map(|link| format!("/{}:/{}/{}", link.container, record.name, link.alias));
    if links.is_empty() { Value::Null } else { json!(shown.collect::<Vec<_>>()) }
}

/// `HostConfig.ExtraHosts`
pub(super) fn extra_hosts(options: &NetworkOptions) -> Vec<String> {
    let address = |host: &network::ExtraHost| host.address.map_or("host-gateway".to_owned(), |one| one.to_string());
    options.naming.hosts.iter().map(|host| format!("{}:{}", host.name, address(host))).collect()
}

fn six(endpoint: &network::Endpoint, field: &dyn Fn(&network::Place6) -> String) -> String {
    endpoint.six.as_ref().map_or_else(String::new, field)
}

/// `NetworkSettings`: what is, while it runs.
pub(super) fn settings(store: &Store, container: &Container) -> Result<Value> {
    let (id, options) = (&container.record.id, &container.record.settings.network);
    let connected = network::connected(store.root(), id)?;
    let mut ports = Map::new();
    if let Some(connected) = &connected {
        for port in &options.exposed {
            ports.insert(port.to_string(), Value::Null);
        }
        for binding in &connected.bindings {
            let place = json!({"HostIp": binding.address.to_string(), "HostPort": binding.host.to_string()});
            match ports.get_mut(&binding.port.to_string()).and_then(Value::as_array_mut) {
                Some(known) => known.push(place),
                None => drop(ports.insert(binding.port.to_string(), json!([place]))),
            }
        }
    }
    let present = network::endpoints(store.root(), id)?;
    let mut networks = Map::new();
    for endpoint in &present {
        let described = json!({
            "Aliases": endpoint.aliases,
            "NetworkID": endpoint.network,
            "EndpointID": endpoint.id,
            "Gateway": endpoint.gateway.map_or_else(String::new, |gateway| gateway.to_string()),
            "IPAddress": endpoint.address.to_string(),
            "IPPrefixLen": endpoint.prefix,
            "IPv6Gateway": six(endpoint, &|place| place.gateway.map_or_else(String::new, |gateway| gateway.to_string())),
            "GlobalIPv6Address": six(endpoint, &|place| place.address.to_string()),
            "GlobalIPv6PrefixLen": endpoint.six.as_ref().map_or(0, |place| place.prefix),
            "MacAddress": endpoint.mac,
        });
        networks.insert(endpoint.network_name.clone(), described);
    }
    if let Mode::Bridges(connections) = &options.mode {
        for connection in connections {
            let absent = json!({"Aliases": connection.aliases, "NetworkID": "", "EndpointID": "", "Gateway": "",
                "IPAddress": "", "IPPrefixLen": 0, "MacAddress": ""});
            networks.entry(connection.network.clone()).or_insert(absent);
        }
    } else if !matches!(options.mode, Mode::Container(_)) {
        networks.insert(
            mode(options),
            json!({"NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "", "MacAddress": ""}),
        );
    }
    let first = present.first().filter(|endpoint| endpoint.network_name == network::DEFAULT);
    let of_first = |field: &dyn Fn(&network::Endpoint) -> String| first.map_or_else(String::new, field);
    Ok(json!({
        "Ports": ports,
        "IPAddress": of_first(&|endpoint| endpoint.address.to_string()),
        "IPPrefixLen": first.map_or(0, |endpoint| endpoint.prefix),
        "Gateway": of_first(&|endpoint| endpoint.gateway.map_or_else(String::new, |gateway| gateway.to_string())),
        "MacAddress": of_first(&|endpoint| endpoint.mac.clone()),
        "Networks": networks,
    }))
}
