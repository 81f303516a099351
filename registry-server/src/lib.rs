//! A push and pull registry over one directory: the OCI distribution specification 1.1. Knows nothing of the builder.
//!
//! ```text
//! lock                 held by the one server of this directory
//! token.key            signs the tokens of this registry, where there are users
//! registry.db          SQLite, WAL: repositories, tags, manifests (their bytes too), links to blobs
//! registry.reserve     room on the disk that deletions may use when there is no other
//! blobs/sha256/<hex>   every blob once, whatever repositories link it
//! uploads/<id>.<scope> unfinished uploads; the file's length is the upload's offset
//! quarantine/          files of blobs that were found damaged, until somebody looks at them
//! control.sock         where the server takes orders from `kiln registry gc` and `scrub`
//! ```

mod access;
mod access_log;
mod blocking;
mod cache;
mod collection;
pub mod config;
mod control;
mod database;
mod direct;
mod error;
mod failure;
mod front;
mod import;
mod integrity;
#[cfg(any(test, fuzzing))]
pub mod invariants;
mod limits;
mod manifest;
mod memory;
mod metrics;
mod name;
mod outbound;
mod page;
mod pattern;
mod period;
mod pulls;
mod range;
mod registry;
mod reloaded;
mod routes;
mod scrub;
mod server;
mod tls;
mod transfer;
mod upload;
mod upstream;
mod webhook;

pub use access::{hash_password, robot_secret};
pub use collection::report::{CollectionReport, Removed, RemovedKind};
pub use collection::{Collection, Retention, TagPatterns};
pub use config::Config;
pub use control::{collect, scrub};
pub use error::Error;
pub use import::{ImportReport, import};
pub use memory::MemoryDirectory;
pub use pattern::Patterns;
pub use period::Period;
pub use scrub::{Damage, ScrubReport};
pub use server::Server;

/// What the server's own functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
