//! What can go wrong in the store: what was being done, to what.

use std::io;
use std::path::{Path, PathBuf};

use crate::{DiffId, Digest};

/// An error of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("{action} {}", path.display())]
    Io {
        /// e.g. "open layer".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A text is not a digest.
    #[error("`{text}` is not a digest: {reason}")]
    InvalidDigest {
        /// What was given, shortened.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Bytes are not what their name promises.
    #[error("{what} has digest {actual}, not {expected}")]
    DigestMismatch {
        /// Which bytes.
        what: String,
        /// The digest they should have.
        expected: Box<Digest>,
        /// The digest they have.
        actual: Box<Digest>,
    },
    /// A blob that is needed is not in the store.
    #[error("blob {0} is not in the store")]
    BlobMissing(Digest),
    /// A layer that is needed is not in the store.
    #[error("layer {0} is not in the store")]
    LayerMissing(Digest),
    /// A layer's bytes in the store are no longer those that were written.
    #[error("the bytes of layer {0} have changed on the disk; remove its image and build it again")]
    Changed(DiffId),
    /// A layer came as a tar that only its own blob can reproduce, and that blob is gone.
    #[error("the original bytes of layer {0} are no longer in the store; pull or load its image again")]
    OriginalMissing(Digest),
    /// Something is longer than its reader accepts.
    #[error("{what} is {size} bytes, more than the {limit} that are accepted")]
    TooLarge {
        /// What.
        what: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// An archive is damaged, or holds what no layer can.
    #[error("layer archive, entry `{entry}`: {reason}")]
    Archive {
        /// The entry, as far as it is known.
        entry: String,
        /// What is wrong.
        reason: String,
    },
    /// An archive could not be read.
    #[error("read layer archive")]
    ArchiveRead(#[source] io::Error),
    /// A layer's archive could not be written.
    #[error("write layer archive")]
    ArchiveWrite(#[source] io::Error),
    /// Symbolic links lead to each other.
    #[error("too many levels of symbolic links in {}", .0.display())]
    SymlinkLoop(PathBuf),
    /// A path leads through something that is not a directory.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// The metadata database failed.
    #[error("{action} in the metadata database")]
    Database {
        /// e.g. "record layer".
        action: &'static str,
        /// Why.
        source: rusqlite::Error,
    },
    /// The database was written by a newer kiln.
    #[error("the store's metadata has version {found}, this kiln knows up to {known}")]
    NewerSchema {
        /// What the database says.
        found: i64,
        /// What is known here.
        known: i64,
    },
    /// A thread of the store ended without a result.
    #[error("{0} ended early")]
    ThreadLost(&'static str),
}

impl Error {
    /// `what` does not have the digest that it should have.
    pub(crate) fn mismatch(what: impl Into<String>, expected: &Digest, actual: &Digest) -> Self {
        Self::DigestMismatch { what: what.into(), expected: Box::new(*expected), actual: Box::new(*actual) }
    }

    /// A closure for `map_err` on `std::io` and `rustix` results.
    pub(crate) fn io<E: Into<io::Error>>(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { action, path: path.as_ref().to_path_buf(), source: source.into() }
    }

    /// A closure for `map_err` on database results.
    pub(crate) fn database(action: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Database { action, source }
    }
}
