//! Networks as docker shows them.

use jiff::Timestamp;
use kiln_container::network::{Endpoint, Network};
use serde_json::{Map, Value, json};

use crate::images::SHORT_ID;

pub(super) fn id(network: &Network, whole: bool) -> String {
    network.id.chars().take(if whole { usize::MAX } else { SHORT_ID }).collect()
}

fn created(network: &Network) -> String {
    Timestamp::from_second(network.created).map_or_else(|_| String::new(), |time| time.to_string())
}

/// A line of `network ls`.
pub(super) fn row(network: &Network, whole: bool) -> Map<String, Value> {
    let labels: Vec<String> = network.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let fields = [
        ("CreatedAt", created(network)),
        ("Driver", network.driver.clone()),
        ("ID", id(network, whole)),
        ("IPv6", network.six.is_some().to_string()),
        ("Internal", network.internal.to_string()),
        ("Labels", labels.join(",")),
        ("Name", network.name.clone()),
        ("Scope", "local".to_owned()),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect()
}

/// What `network inspect` shows.
pub(super) fn whole(network: &Network, users: &[Endpoint]) -> Value {
    let six =
        network.six.iter().map(|six| json!({"Subnet": six.subnet.to_string(), "Gateway": six.gateway.to_string()}));
    let addresses: Vec<Value> = network
        .addresses
        .iter()
        .map(|addresses| {
            let mut config = Map::new();
            config.insert("Subnet".to_owned(), addresses.subnet.to_string().into());
            if let Some(range) = addresses.range {
                config.insert("IPRange".to_owned(), range.to_string().into());
            }
            config.insert("Gateway".to_owned(), addresses.gateway.to_string().into());
            if !addresses.reserved.is_empty() {
                let reserved =
                    addresses.reserved.iter().map(|(name, address)| (name.clone(), address.to_string().into()));
                config.insert("AuxiliaryAddresses".to_owned(), Value::Object(reserved.collect()));
            }
            Value::Object(config)
        })
        .chain(six)
        .collect();
    let containers: Map<String, Value> = users
        .iter()
        .map(|user| {
            let described = json!({
                "Name": user.name,
                "EndpointID": user.id,
                "MacAddress": user.mac,
                "IPv4Address": format!("{}/{}", user.address, user.prefix),
                "IPv6Address": user.six.as_ref().map_or_else(String::new, |six| format!("{}/{}", six.address, six.prefix)),
            });
            (user.container.clone(), described)
        })
        .collect();
    json!({
        "Name": network.name,
        "Id": network.id,
        "Created": created(network),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv6": network.six.is_some(),
        "IPAM": { "Driver": "default", "Options": null, "Config": addresses },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers,
        "Options": network.options,
        "Labels": network.labels,
    })
}
