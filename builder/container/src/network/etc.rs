//! A container's /etc/hosts and /etc/resolv.conf.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::dns;
use crate::{Error, Result};

/// Names and servers that were given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Naming {
    /// `--dns`
    #[serde(default)]
    pub servers: Vec<IpAddr>,
    /// `--dns-search`
    #[serde(default)]
    pub search: Vec<String>,
    /// `--dns-option`
    #[serde(default)]
    pub options: Vec<String>,
    /// `--add-host`
    #[serde(default)]
    pub hosts: Vec<ExtraHost>,
}

/// One `--add-host`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// Its address; the host's when not given (`host-gateway`).
    pub address: Option<IpAddr>,
}

impl ExtraHost {
    /// Parses `NAME:ADDRESS` or `NAME=ADDRESS`; the address may be `host-gateway`.
    ///
    /// # Errors
    /// Text that is neither.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::Invalid(format!("invalid host {text:?}: expected NAME:IP or NAME:host-gateway"));
        let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(wrong)?;
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let address = match address {
            "host-gateway" => None,
            address => {
                let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
                Some(bare.parse().map_err(|_| wrong())?)
            }
        };
        Ok(Self { name: name.to_owned(), address })
    }
}

const LOOPBACK: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// The host's file, for a container on the host's network, else one of the container's own. `own` are the container's
/// addresses and its host name; `host` is where the host is reached.
pub(crate) fn hosts(naming: &Naming, of_host: bool, own: (&[IpAddr], &str), host: Option<IpAddr>) -> String {
    let mut text = match of_host {
        true => std::fs::read_to_string("/etc/hosts").unwrap_or_else(|_| LOOPBACK.to_owned()),
        false => LOOPBACK.to_owned(),
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    for ExtraHost { name, address } in &naming.hosts {
        if let Some(address) = address.or(host) {
            text.push_str(&format!("{address}\t{name}\n"));
        }
    }
    let (addresses, name) = own;
    for address in addresses {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    let has_name = text.lines().any(|line| line.split_whitespace().skip(1).any(|word| word == name));
    if !has_name && !name.is_empty() {
        text.push_str(&format!("127.0.1.1\t{name}\n"));
    }
    text
}

/// What the host's file says, and which of it holds in a container.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolver {
    pub(crate) servers: Vec<IpAddr>,
    search: Vec<String>,
    options: Vec<String>,
}

impl Resolver {
    /// Of the host, with what was given instead.
    pub(crate) fn of_host(naming: &Naming) -> Self {
        let mut found = Self::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
        if !naming.servers.is_empty() {
            found.servers.clone_from(&naming.servers);
        }
        if !naming.search.is_empty() {
            // A lone dot is no search at all.
            found.search = naming.search.iter().filter(|domain| *domain != ".").cloned().collect();
        }
        if !naming.options.is_empty() {
            found.options.clone_from(&naming.options);
        }
        found
    }

    fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let word = words.next();
            let rest = words.map(str::to_owned);
            match word {
                Some("nameserver") => found.servers.extend(rest.filter_map(|word| word.parse::<IpAddr>().ok())),
                Some("search" | "domain") => found.search = rest.collect(),
                Some("options") => found.options.extend(rest),
                _ => {}
            }
        }
        found
    }

    /// Whether a container can ask these servers by itself: not those on the host's loopback.
    pub(crate) fn is_reachable(&self) -> bool {
        !self.servers.is_empty() && !self.servers.iter().any(IpAddr::is_loopback)
    }

    /// The file, naming kiln's own responder where `responder`.
    pub(crate) fn text(&self, responder: bool) -> String {
        let mut text = String::new();
        if responder {
            text.push_str(&format!("nameserver {}\n", dns::ADDRESS));
        } else {
            self.servers.iter().for_each(|server| text.push_str(&format!("nameserver {server}\n")));
        }
        if !self.search.is_empty() {
            text.push_str(&format!("search {}\n", self.search.join(" ")));
        }
        let mut options = self.options.clone();
        if responder && !options.iter().any(|option| option.starts_with("ndots:")) {
            // Names of containers have no dot.
            options.push("ndots:0".to_owned());
        }
        if !options.is_empty() {
            text.push_str(&format!("options {}\n", options.join(" ")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_hosts() {
        let parse = |text: &str| ExtraHost::parse(text).unwrap();
        assert_eq!(parse("a:1.2.3.4").address, Some("1.2.3.4".parse().unwrap()));
        assert_eq!(parse("a=1.2.3.4").name, "a");
        assert_eq!(parse("a:host-gateway").address, None);
        assert_eq!(parse("a:[::1]"), parse("a:::1"));
        for wrong in ["", "a", ":1.2.3.4", "a:b", "a b:1.2.3.4"] {
            assert!(ExtraHost::parse(wrong).is_err(), "{wrong}");
        }
        let naming = Naming { hosts: vec![parse("a:1.2.3.4"), parse("up:host-gateway")], ..Naming::default() };
        let text = hosts(&naming, false, (&["10.0.0.2".parse().unwrap()], "me"), Some("10.0.0.1".parse().unwrap()));
        assert!(text.ends_with("1.2.3.4\ta\n10.0.0.1\tup\n10.0.0.2\tme\n"), "{text}");
        assert!(hosts(&Naming::default(), false, (&[], "me"), None).ends_with("127.0.1.1\tme\n"));
    }

    #[test]
    fn resolvers() {
        let text = "# c\nnameserver 127.0.0.53\nnameserver 9.9.9.9\nsearch a b\noptions edns0\n";
        let resolver = Resolver::parse(text);
        assert!(!resolver.is_reachable());
        assert_eq!(resolver.text(false), "nameserver 127.0.0.53\nnameserver 9.9.9.9\nsearch a b\noptions edns0\n");
        assert_eq!(resolver.text(true), "nameserver 127.0.0.11\nsearch a b\noptions edns0 ndots:0\n");
        assert!(!Resolver::parse("").is_reachable());
    }
}
