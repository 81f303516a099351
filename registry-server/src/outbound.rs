//! Requests that the server itself sends: notifications, and questions to upstream registries.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use reqwest::{Certificate, Client, Url};

use crate::error::Error;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client for one host. `patience` is how long the other side may send nothing.
pub(crate) fn client(url: &Url, patience: Duration, authority: Option<&Path>) -> Result<Client, Error> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Fails only when another part of the program has installed one, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let mut builder = Client::builder()
        .user_agent(concat!("kiln-registry/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(patience);
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    if let Some(path) = authority {
        let pem = std::fs::read(path).map_err(Error::io("read", path))?;
        let certificates = Certificate::from_pem_bundle(&pem)
            .map_err(|error| Error::Certificate { path: path.to_path_buf(), reason: error.to_string() })?;
        for certificate in certificates {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(|error| Error::Tls(error.to_string()))
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
