//! What can go wrong with containers, and the exit status that docker's users expect for it.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The command line asks for what cannot be.
    #[error("{0}")]
    Invalid(String),
    /// No container has this name or id.
    #[error("No such container: {0}")]
    Unknown(String),
    /// Another container has the name.
    #[error(
        "the container name {name:?} is already in use by container {id}: remove or rename that one, or choose another \
         name"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        id: String,
    },
    /// It cannot be removed while it runs.
    #[error("container {0} is running: stop it first, or force its removal with rm -f")]
    Running(String),
    /// Only a running container can do that.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// The supervisor could not start the command.
    #[error("{text}")]
    NotStarted {
        /// Docker's exit status for it.
        status: u8,
        /// Why, in full.
        text: String,
    },
    /// The supervisor went away.
    #[error("the supervisor of container {0} was killed")]
    Lost(String),
    /// A system call failed.
    #[error("{action} {path}")]
    Io {
        /// e.g. "read container".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No network has this name or id.
    #[error("network {0} not found")]
    UnknownNetwork(String),
    /// A network could not be set up, or a port not published.
    #[error("{action}")]
    Network {
        /// What was being done, to what.
        action: String,
        /// Why.
        source: std::io::Error,
    },
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] kiln_sandbox::process::Error),
    /// The image.
    #[error(transparent)]
    Image(#[from] kiln_image::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] kiln_store::Error),
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: impl Into<std::io::Error>) -> Self {
        Self::Io { action, path: path.into(), source: source.into() }
    }

    /// 127 when the command is not there, 126 when it cannot be executed, 125 for everything that is kiln's.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Sandbox(kiln_sandbox::process::Error::NotFound(_)) => 127,
            Self::Sandbox(kiln_sandbox::process::Error::NotExecutable(..)) => 126,
            Self::NotStarted { status, .. } => *status,
            _ => 125,
        }
    }
}
