//! How a registry is served: `registry.toml`, as `reference.toml` beside this file documents it key by key.

mod environment;
mod keys;
mod load;
mod place;
mod prefix;
mod size;

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use place::ListenPlace;
pub use prefix::Prefix;
pub use size::Size;

use crate::collection::Collection;
use crate::manifest::LARGEST_MANIFEST;
use crate::pattern::Patterns;
use crate::period::Period;

/// Every key, its meaning and its default, as TOML that changes nothing: a start for a file of one's own.
pub const REFERENCE: &str = include_str!("config/reference.toml");

/// How a registry is served. `Config::new` serves plain HTTP on loopback, to everyone who reaches it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Config {
    /// The registry's directory; made when missing.
    pub data: PathBuf,
    /// Accept image manifests even when blobs they refer to were not pushed. (Indexes may always lack manifests.)
    pub accept_sparse: bool,
    /// Refuse every change; the collector does not run either.
    pub read_only: bool,
    /// Whether clients may delete at all.
    pub deletion: bool,
    /// What is removed when, and what may not be.
    #[serde(rename = "gc")]
    pub collection: Collection,
    /// Listening.
    pub http: Http,
    /// TLS, when a certificate is named.
    pub tls: Tls,
    /// Who may do what. Without users, everyone may do everything.
    pub access: Access,
    /// Tokens of a service elsewhere.
    pub token_service: TokenService,
    /// What one client may ask for.
    pub limits: Limits,
    /// The access log.
    pub log: Log,
    /// `/metrics`.
    pub metrics: Metrics,
    /// The web page.
    pub page: Page,
    /// Who is told of pushes and deletions.
    #[serde(rename = "webhook")]
    pub webhooks: Vec<Webhook>,
    /// Registries that this one stands in for.
    #[serde(rename = "upstream")]
    pub upstreams: Vec<Upstream>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::new(),
            accept_sparse: false,
            read_only: false,
            deletion: true,
            collection: Collection::default(),
            http: Http::default(),
            tls: Tls::default(),
            access: Access::default(),
            token_service: TokenService::default(),
            limits: Limits::default(),
            log: Log::default(),
            metrics: Metrics::default(),
            page: Page::default(),
            webhooks: Vec::new(),
            upstreams: Vec::new(),
        }
    }
}

impl Config {
    /// The defaults, for this directory.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into(), ..Self::default() }
    }
}

/// Where the registry listens.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Http {
    /// Where to listen. Port 0 chooses a free one.
    pub listen: Vec<ListenPlace>,
    /// The address that clients use, when a proxy stands before this server: `https://registry.example.com`.
    pub external_url: Option<String>,
    /// The path that everything is below.
    pub prefix: Prefix,
    /// How long requests under way may take to finish after the shutdown began.
    pub drain: Period,
    /// Proxies that are believed when they say in `X-Forwarded-For` who asks.
    pub proxies: Vec<IpAddr>,
    /// Headers that every answer has, each `Name: value`.
    pub headers: Vec<String>,
}

impl Default for Http {
    fn default() -> Self {
        let listen = vec![([127, 0, 0, 1], 5000).into()];
        Self {
            listen,
            external_url: None,
            prefix: Prefix::default(),
            drain: Period::seconds(30),
            proxies: Vec::new(),
            headers: Vec::new(),
        }
    }
}

/// TLS for all of [`Http::listen`].
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Tls {
    /// PEM: the server's certificate and those between it and the authority.
    pub certificate: Option<PathBuf>,
    /// PEM: its private key.
    pub key: Option<PathBuf>,
    /// PEM: authorities; clients must show a certificate of one of them.
    pub client_authorities: Option<PathBuf>,
    /// The oldest version that is spoken: `1.2` or `1.3`.
    pub minimum_version: String,
    /// Cipher suites that are used, by their names in rustls; all that are secure, when there are none.
    pub ciphers: Vec<String>,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
}

impl Default for Tls {
    fn default() -> Self {
        let minimum_version = "1.2".to_owned();
        Self {
            certificate: None,
            key: None,
            client_authorities: None,
            minimum_version,
            ciphers: Vec::new(),
            http2: false,
        }
    }
}

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Access {
    /// TOML: users, robots, groups and their rights.
    pub users: Option<PathBuf>,
    /// `name:bcrypt` lines: more users, with the rights of everyone who signed in.
    pub htpasswd: Option<PathBuf>,
    /// Whether clients that sign in get tokens. Otherwise they send the password with each request.
    pub tokens: bool,
    /// How long a token is good.
    pub token_lifetime: Period,
}

impl Default for Access {
    fn default() -> Self {
        Self { users: None, htpasswd: None, tokens: true, token_lifetime: Period::seconds(300) }
    }
}

/// A token service elsewhere, which this registry believes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct TokenService {
    /// Where clients get tokens.
    pub realm: Option<String>,
    /// What the service calls this registry: the tokens' audience.
    pub service: Option<String>,
    /// The tokens' issuer.
    pub issuer: Option<String>,
    /// PEM public keys or certificates, or a JWK set: one of them must have signed.
    pub keys: Option<PathBuf>,
}

/// What one client may ask for.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes of the largest blob; 0 for any.
    pub blob: Size,
    /// Bytes of the largest manifest.
    pub manifest: Size,
    /// Bytes of a request's first line and headers, at least 8 KiB.
    pub head: Size,
    /// Requests per second of one client address over a minute; 0 for any number.
    pub requests_per_second: u32,
    /// Uploads that send bytes at once; others wait for their turn, and are sent away after half a minute.
    pub uploads: u32,
    /// Connections that are served at once; others wait to be accepted.
    pub connections: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            blob: Size(0),
            manifest: Size(LARGEST_MANIFEST as u64),
            head: Size(64 << 10),
            requests_per_second: 0,
            uploads: 256,
            connections: 1_024,
        }
    }
}

/// What is written down of what happens.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Log {
    /// How much the server says of itself, on standard error.
    pub level: Level,
    /// Whether each line of that is JSON.
    pub json: bool,
    /// The access log, one line of JSON for every request: a file, or `stdout` or `stderr`.
    pub access: Option<PathBuf>,
}

/// How much is said: this, and what is more serious.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "they are everybody's")]
pub enum Level {
    Error,
    #[default]
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    /// The level as a filter of `tracing`'s: for this crate and its kin; of others, nothing below a warning.
    pub fn filter(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "warn,kiln=info",
            Self::Debug => "warn,kiln=debug",
            Self::Trace => "warn,kiln=trace",
        }
    }
}

/// Prometheus' metrics.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Metrics {
    /// Whether `/metrics` is there.
    pub enabled: bool,
    /// Whether those who have not signed in may read them.
    pub public: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { enabled: true, public: false }
    }
}

/// The web page.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Page {
    /// Whether it is there.
    pub enabled: bool,
    /// Its title.
    pub title: String,
}

impl Default for Page {
    fn default() -> Self {
        Self { enabled: true, title: "Registry".to_owned() }
    }
}

/// Somebody who is told of pushes and deletions.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Webhook {
    /// Where the notification is sent by POST.
    pub url: String,
    /// What it is about: `push`, `delete`.
    pub events: Vec<String>,
    /// Repositories it is about, as patterns.
    pub repositories: Patterns,
    /// A file with the key of the HMAC in the header `X-Kiln-Signature`.
    pub secret_file: Option<PathBuf>,
    /// How long the receiver may take.
    pub timeout: Period,
    /// How often it is tried, with growing pauses.
    pub attempts: u32,
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            url: String::new(),
            events: vec!["push".to_owned(), "delete".to_owned()],
            repositories: Patterns::everything(),
            secret_file: None,
            timeout: Period::seconds(10),
            attempts: 60,
        }
    }
}

/// A registry that this one stands in for: what it has is fetched once, kept, and served from here.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Upstream {
    /// Its address: `https://registry-1.docker.io`.
    pub url: String,
    /// Repositories below this prefix are the upstream's.
    pub prefix: String,
    /// Host names that clients may ask for, in the `Host` header or the `ns` parameter, instead of the prefix.
    pub hosts: Vec<String>,
    /// The user to sign in as.
    pub username: Option<String>,
    /// A file with the password.
    pub password_file: Option<PathBuf>,
    /// PEM: authorities to trust besides the system's.
    pub authority: Option<PathBuf>,
    /// How long a tag is served without asking the upstream where it points.
    pub fresh: Period,
    /// How long the upstream may take to answer.
    pub timeout: Period,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            url: String::new(),
            prefix: String::new(),
            hosts: Vec::new(),
            username: None,
            password_file: None,
            authority: None,
            fresh: Period::seconds(60),
            timeout: Period::seconds(30),
        }
    }
}
