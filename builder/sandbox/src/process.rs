//! Starting a sandbox and waiting for it.

use std::os::fd::OwnedFd;

use crate::spec::Spec;

/// Where the process's standard streams go.
pub enum Stdio {
    /// The caller's own.
    Inherit,
    /// /dev/null.
    Null,
    /// A pipe to or from the caller.
    Pipe,
    /// This descriptor.
    Fd(OwnedFd),
}

/// A running sandbox. Dropping it kills and reaps it.
pub struct Sandbox {
    /// Write end of standard input, when it was [`Stdio::Pipe`].
    pub stdin: Option<OwnedFd>,
    /// Read end of standard output.
    pub stdout: Option<OwnedFd>,
    /// Read end of standard error.
    pub stderr: Option<OwnedFd>,
    /// The master side of the terminal, when the spec asked for one (then the three above are `None`).
    pub terminal: Option<OwnedFd>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Code(u8),
    /// By this signal.
    Signal(i32),
}

/// Why it could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The command is not in the image: exit status 127.
    #[error("{0}: not found")]
    NotFound(String),
    /// The command cannot be executed: exit status 126.
    #[error("{0}: cannot be executed")]
    NotExecutable(String, #[source] std::io::Error),
    /// A step of the set-up failed: exit status 125.
    #[error("{step}")]
    Setup {
        /// What was being done, to what.
        step: String,
        /// Why.
        source: std::io::Error,
    },
}

impl Sandbox {
    /// Starts the process; returns once it has been executed (or could not be). May be called from any thread.
    /// The sandbox dies with this process, however this process ends.
    pub fn spawn(spec: &Spec, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> Result<Self, Error> {
        let _ = (spec, stdin, stdout, stderr);
        todo!()
    }
    /// Sends a signal to the process.
    pub fn signal(&self, signal: i32) -> std::io::Result<()> {
        let _ = signal;
        todo!()
    }
    /// Waits for the end. Everything the process started is gone then.
    pub fn wait(&mut self) -> std::io::Result<Exit> {
        todo!()
    }
}
