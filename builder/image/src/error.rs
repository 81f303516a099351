//! What can go wrong with images: what was being done, to what.

use std::path::PathBuf;

use kiln_store::Digest;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(Box<kiln_store::Error>),
    /// Text that is no image reference.
    #[error("invalid reference {text:?}: {reason}")]
    Reference {
        /// What was given.
        text: String,
        /// Which part is wrong, and how.
        reason: String,
    },
    /// Text that is no platform.
    #[error("invalid platform {text:?}: {reason}")]
    Platform {
        /// What was given.
        text: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Nothing in the store is called that.
    #[error("no such image: {text}")]
    NoSuchImage {
        /// What was asked for.
        text: String,
    },
    /// The beginning of several ids.
    #[error("image id prefix {text:?} is ambiguous: {count} images start so")]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// How many match.
        count: usize,
    },
    /// A user or group that the image does not have.
    #[error("unable to find {kind} {name:?}: no matching entry in the image's {file}")]
    NoSuchUser {
        /// `user` or `group`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Where it was looked for.
        file: &'static str,
    },
    /// A numeric id out of range.
    #[error("invalid {kind} id {text:?}: ids are between 0 and 2147483647")]
    InvalidId {
        /// `user` or `group`.
        kind: &'static str,
        /// What was given.
        text: String,
    },
    /// JSON that is not what it should be.
    #[error("read {what}")]
    Json {
        /// e.g. `image config sha256:…`.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A system call failed.
    #[error("{action} {path}")]
    Io {
        /// e.g. "write".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A stream failed.
    #[error("{action}")]
    Stream {
        /// e.g. "read the archive".
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Foreign data that breaks its specification, or a bound of ours.
    #[error("{what}: {reason}")]
    Invalid {
        /// What was being read.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Bytes that are not those a digest names.
    #[error("{what}: expected {expected}, got {actual}")]
    DigestMismatch {
        /// What was being read.
        what: String,
        /// The digest that was promised.
        expected: Box<Digest>,
        /// The digest of what came.
        actual: Box<Digest>,
    },
    /// An index without an image for the platform.
    #[error("no image of {what} for platform {platform}; there are: {available}")]
    NoPlatform {
        /// The index.
        what: String,
        /// What was asked for.
        platform: String,
        /// What there is.
        available: String,
    },
    /// A registry could not be reached, or the connection broke.
    #[error("{action} {url}")]
    Transport {
        /// e.g. "GET".
        action: String,
        /// Which address, without its query.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// A server whose certificate nobody vouches for.
    #[error(
        "{url}: its certificate is not trusted: {reason}; put the authority's into certs.d/{host}/ca.crt (in \
         ~/.config/containers, ~/.docker, /etc/containers or /etc/docker), or use --tls-verify=false"
    )]
    Untrusted {
        /// Which address, without its query.
        url: String,
        /// The registry, as `certs.d` names it.
        host: String,
        /// Why.
        reason: String,
    },
    /// A blob ended too early, again and again.
    #[error("blob {digest}: {received} bytes instead of {expected}")]
    Incomplete {
        /// Which.
        digest: Box<Digest>,
        /// Bytes that came.
        received: u64,
        /// Bytes that it has.
        expected: u64,
    },
    /// A registry said no.
    #[error("{action} {url}: {status}{message}")]
    Registry {
        /// e.g. "GET".
        action: String,
        /// Which address, without its query.
        url: String,
        /// HTTP's status code.
        status: u16,
        /// What the registry said, beginning with ": ", or what HTTP calls the status, or nothing.
        message: String,
    },
    /// A registry does not have what was asked for.
    #[error("{what} not found: the repository or tag does not exist, or needs `login`")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// A registry does not let us.
    #[error("access to {what} denied: {message}")]
    Denied {
        /// What was asked for.
        what: String,
        /// What the registry said.
        message: String,
    },
    /// A credential file or helper.
    #[error("{what}: {reason}")]
    Credentials {
        /// The file or helper.
        what: String,
        /// What is wrong.
        reason: String,
    },
}

impl From<kiln_store::Error> for Error {
    fn from(source: kiln_store::Error) -> Self {
        Self::Store(Box::new(source))
    }
}

impl Error {
    /// An [`Error::Invalid`].
    pub(crate) fn invalid(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), reason: reason.into() }
    }

    /// Makes an [`Error::Json`] of a parser's error.
    pub(crate) fn json(what: impl Into<String>) -> impl FnOnce(serde_json::Error) -> Self {
        move |source| Self::Json { what: what.into(), source }
    }

    /// Makes an [`Error::Io`] of a system call's error.
    pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Makes an [`Error::Stream`] of a reader's or writer's error.
    pub(crate) fn stream(action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Stream { action, source }
    }
}
