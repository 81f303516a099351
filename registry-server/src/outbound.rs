//! Requests that the server itself sends: notifications, and questions to upstream registries.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use kiln_trust::Peers;
use reqwest::{Client, Url};

use crate::error::{Error, chain};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client for one host. `patience` is how long the other side may send nothing.
pub(crate) fn client(url: &Url, patience: Duration, authority: Option<&Path>) -> Result<Client, Error> {
    let mut peers = Peers::default();
    if let Some(path) = authority {
        let pem = std::fs::read(path).map_err(Error::io("read", path))?;
        let reason = "there is no certificate in it".to_owned();
        let none = Error::Certificate { path: path.to_path_buf(), reason };
        peers.authorities = kiln_trust::certificates(&pem).ok_or(none)?;
    }
    let mut builder = Client::builder()
        .user_agent(concat!("kiln-registry/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(patience)
        .tls_backend_preconfigured(peers.configuration().map_err(|error| Error::Tls(error.to_string()))?);
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| Error::Tls(error.to_string()))
}

/// Why a request was not answered.
pub(crate) fn reason(error: reqwest::Error) -> String {
    match kiln_trust::refused(&error) {
        Some(reason) => format!("its certificate is not trusted: {reason}"),
        None => chain(&error.without_url()),
    }
}

/// A URL of the configuration.
pub(crate) fn url(text: &str) -> Result<Url, Error> {
    let invalid = |reason: String| Error::Config { place: "the configuration".to_owned(), reason };
    let url = Url::parse(text).map_err(|error| invalid(format!("`{text}`: {error}")))?;
    if ["http", "https"].contains(&url.scheme()) && url.has_host() {
        Ok(url)
    } else {
        Err(invalid(format!("`{text}` is no address of HTTP or HTTPS")))
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
