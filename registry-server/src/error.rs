//! What can go wrong in the server itself: what was being done, to what. What a client does wrong is a
//! [`Failure`](crate::failure::Failure).

use std::io;
use std::path::{Path, PathBuf};

/// An error of the server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("{action} {}", path.display())]
    Io {
        /// e.g. "create directory".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An address cannot be listened at.
    #[error("listen at {address}")]
    Listen {
        /// Which.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The configuration, the users' file or a variable says something that cannot be meant.
    #[error("{place}: {reason}")]
    Config {
        /// The file, or the variable.
        place: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// A certificate or a private key cannot be used.
    #[error("read the certificate or key {}: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("set up TLS: {0}")]
    Tls(String),
    /// bcrypt takes no such password.
    #[error("a password has 1 to 72 bytes, and no NUL among them")]
    Password,
    /// A token could not be made.
    #[error("make a token: {0}")]
    Token(String),
    /// Another server has the directory open.
    #[error("another registry server is using {}", .0.display())]
    InUse(PathBuf),
    /// The database failed.
    #[error("{action} in the registry's database")]
    Database {
        /// e.g. "open".
        action: &'static str,
        /// Why.
        source: rusqlite::Error,
    },
    /// The directory was written by a later version of the server.
    #[error("the registry's database has version {found}; this program knows {known} and older")]
    NewerDatabase {
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The blob directory failed.
    #[error(transparent)]
    Store(#[from] kiln_store::Error),
    /// A batch of writes could not be made durable, for a reason that was logged.
    #[error("the write was not stored")]
    NotStored,
    /// There is no room on the disk.
    #[error("the disk of {} is full", .0.display())]
    StorageFull(PathBuf),
    /// A batch of writes could not be made durable because there is no room on the disk.
    #[error("the write was not stored: the disk is full")]
    NotStoredFull,
    /// The server that has the directory open could not do what it was asked to.
    #[error("the server answered: {0}")]
    Refused(String),
    /// There is no data of a `distribution` registry.
    #[error("{} is no data directory of a distribution registry: it has no docker/registry/v2", .0.display())]
    NoDistribution(PathBuf),
    /// A thread that worked for a request ended early.
    #[error("the work for the request was interrupted")]
    Interrupted,
    /// The system gave no random bytes.
    #[error("no random bytes for an upload's id")]
    Random(#[source] io::Error),
}

impl Error {
    /// For `map_err` after a system call.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// For `map_err` after a statement.
    pub(crate) fn database(action: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Database { action, source }
    }
}

impl Error {
    /// Whether there is no room on the disk, or none for this user.
    pub(crate) fn is_storage_full(&self) -> bool {
        if matches!(self, Self::StorageFull(_) | Self::NotStoredFull) {
            return true;
        }
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            let system = error.downcast_ref::<io::Error>().map(io::Error::kind);
            let full = matches!(system, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded));
            let database = error.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
            if full || database == Some(rusqlite::ErrorCode::DiskFull) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// An error with its causes, on one line, for the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
