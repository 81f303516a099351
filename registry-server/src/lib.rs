//! A push and pull registry over one directory: the OCI distribution specification 1.1. Knows nothing of the builder.
//!
//! ```text
//! lock                 held by the one server of this directory
//! registry.db          SQLite, WAL: repositories, tags, manifests (their bytes too), links to blobs
//! blobs/sha256/<hex>   every blob once, whatever repositories link it
//! uploads/<id>.<scope> unfinished uploads; the file's length is the upload's offset
//! ```

mod blocking;
mod cache;
mod database;
mod error;
mod failure;
mod manifest;
mod name;
mod range;
mod registry;
mod routes;
mod server;
mod transfer;
mod upload;

pub use error::Error;
pub use server::{Config, Server};

/// What the server's own functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
