//! Where a registry is, and whether it is spoken to in HTTPS or HTTP.

use std::net::IpAddr;
use std::time::Duration;

use kiln_trust::Peers;
use reqwest::{Client, Url, redirect};

use super::Options;
use super::certificates;
use super::proxy::proxied;
use super::routes::Registries;
use super::session::transport;
use crate::reference::DEFAULT_REGISTRY;
use crate::{Error, Result};

/// The host behind the name `docker.io`.
const DOCKER_HUB: &str = "registry-1.docker.io";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a connection may be silent.
const READ_TIMEOUT: Duration = Duration::from_secs(90);
const REDIRECT_LIMIT: usize = 10;

/// A registry and the client to reach it.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) http: Client,
    /// Ends in `/v2/`.
    pub(super) base: Url,
}

impl Endpoint {
    /// Finds out how the registry is spoken to: HTTPS; with loopback registries HTTP first; with insecure ones
    /// HTTPS without verification, then HTTP.
    pub(super) async fn find(registry: &str, options: &Options) -> Result<Self> {
        let host = if registry == DEFAULT_REGISTRY { DOCKER_HUB } else { registry };
        let loopback = is_loopback(host);
        let insecure = options.insecure || Registries::load()?.is_insecure(registry);
        let peers = certificates::find(registry, options.certificates.as_deref())?;
        let no_proxy = ["NO_PROXY", "no_proxy"].iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default();
        let direct = loopback || is_named_with_port(host, &no_proxy);
        let http = client(direct, Peers { unverified: loopback || insecure, ..peers })?;
        let schemes: &[&str] = match (loopback, insecure) {
            (true, _) => &["http", "https"],
            (false, true) => &["https", "http"],
            (false, false) => &["https"],
        };
        let mut failure = None;
        for scheme in schemes {
            let text = format!("{scheme}://{host}/v2/");
            let base =
                Url::parse(&text).map_err(|error| Error::invalid(format!("registry {registry}"), error.to_string()))?;
            if schemes.len() == 1 {
                return Ok(Self { http, base });
            }
            match http.get(base.clone()).send().await {
                // What a server of HTTPS answers to HTTP.
                Ok(response) if *scheme == "http" && response.status() == 400 => {}
                Ok(_) => return Ok(Self { http, base }),
                Err(source) => {
                    failure.get_or_insert(transport("GET", &base, source));
                }
            }
        }
        Err(failure
            .unwrap_or_else(|| Error::invalid(format!("registry {registry}"), "it speaks neither HTTP nor HTTPS")))
    }
}

fn client(direct: bool, peers: Peers) -> Result<Client> {
    let tls =
        peers.configuration().map_err(|error| Error::invalid("certificates for the registry", error.to_string()))?;
    let mut builder = Client::builder()
        .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .redirect(redirect::Policy::custom(follow))
        .tls_backend_preconfigured(tls);
    let failed = |what: &str| {
        let url = what.to_owned();
        move |source| Error::Transport { action: "set up".to_owned(), url, source }
    };
    builder = if direct { builder.no_proxy() } else { proxied(builder).map_err(failed("the proxy"))? };
    builder.build().map_err(failed("TLS"))
}

/// Whether `NO_PROXY` names the registry with its port, as it may for most programs.
fn is_named_with_port(host: &str, no_proxy: &str) -> bool {
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "443"));
    no_proxy.split(',').map(str::trim).filter_map(|entry| entry.rsplit_once(':')).any(|(entry, entry_port)| {
        let below = entry.strip_prefix('.').is_some_and(|_| name.ends_with(entry));
        entry_port == port && (below || entry.eq_ignore_ascii_case(name))
    })
}

/// Redirects are followed (blobs often are elsewhere), but not from HTTPS to HTTP.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let was_secure = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if was_secure && attempt.url().scheme() != "https" {
        return attempt.error("redirected from HTTPS to HTTP");
    }
    if attempt.previous().len() > REDIRECT_LIMIT {
        return attempt.error("too many redirects");
    }
    attempt.follow()
}

/// `localhost`, `127.…`, `::1`, with or without a port.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::{is_loopback, is_named_with_port};

    #[test]
    fn loopback_is_told_by_its_address() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:80", "127.9.9.9", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example.com", "128.0.0.1", "127.example.com", "[fe80::1]"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_registry_is_exempt_from_the_proxy_by_name_and_port() {
        for (host, list) in [
            ("r.example:5000", "a.example, r.example:5000"),
            ("r.example:5000", ".example:5000"),
            ("r.example", "r.example:443"),
        ] {
            assert!(is_named_with_port(host, list), "{host} in {list}");
        }
        for (host, list) in [("r.example:5000", "r.example:443"), ("xr.example:1", "r.example:1"), ("r.example", "")] {
            assert!(!is_named_with_port(host, list), "{host} in {list}");
        }
    }
}
