//! What can go wrong in a build.

use std::path::PathBuf;

use kiln_grammar::{Diagnostic, Span};
use kiln_image::Reference;

/// An error of the build.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The Dockerfile is wrong, or asks for what is not there; points at the words.
    #[error("{}", .0.message)]
    Dockerfile(Box<Diagnostic>),
    /// Checks found something, and the Dockerfile wants the build to fail then.
    #[error("checks that are to fail the build found something: {0}")]
    Checks(String),
    /// A step's command failed.
    #[error("{name}: {reason}")]
    Step {
        /// The vertex, e.g. `[2/3] RUN make`.
        name: String,
        /// Where it stands.
        span: Span,
        /// e.g. "exit code: 2".
        reason: String,
        /// The exit status, when the command ran.
        status: Option<u8>,
        /// The last lines it wrote.
        tail: Vec<u8>,
        /// Where to go on from here.
        hints: Box<Hints>,
    },
    /// The build context cannot be read.
    #[error("{action} {path}")]
    Io {
        /// e.g. "read context file".
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A pattern of the ignore file is malformed.
    #[error("{file}:{line}: pattern {pattern:?}: {reason}")]
    Ignore {
        /// The ignore file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// As written.
        pattern: String,
        /// Why.
        reason: String,
    },
    /// An archive given to ADD is damaged or hostile.
    #[error("unpack {archive}")]
    Archive {
        /// Which.
        archive: String,
        /// Why.
        source: std::io::Error,
    },
    /// What is not on this host cannot be had.
    #[error("fetch {address}: {reason}")]
    Remote {
        /// From where, without what may be secret.
        address: String,
        /// Why not.
        reason: String,
    },
    /// The sandbox could not be set up.
    #[error(transparent)]
    Sandbox(#[from] kiln_sandbox::process::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] kiln_store::Error),
    /// An image.
    #[error(transparent)]
    Image(#[from] kiln_image::Error),
    /// What came from the cache of another machine is malformed.
    #[error("not a build cache: {0}")]
    CacheDocument(String),
    /// A layer of another machine's cache cannot be had after all.
    #[error("fetch layer {layer} from the cache: {reason}")]
    CacheLost {
        /// Which.
        layer: Box<kiln_store::DiffId>,
        /// Why not.
        reason: String,
    },
    /// A layer of a base image cannot be had.
    #[error("the image {reference} cannot be had: layer {layer}")]
    BaseLayer {
        /// The image.
        reference: String,
        /// Which layer.
        layer: Box<kiln_store::DiffId>,
        /// Why not.
        source: Box<kiln_image::Error>,
    },
    /// The cache cannot be sent.
    #[error("export cache to {place}")]
    CacheExport {
        /// Where to.
        place: String,
        /// Why not.
        source: Box<Error>,
    },
    /// A step's thread died; a defect of kiln.
    #[error("internal error in {0}")]
    Internal(String),
}

/// What helps with a step that failed.
#[derive(Debug, Default)]
pub struct Hints {
    /// What to do about it.
    pub help: Option<String>,
    /// The file with everything that it wrote.
    pub log: Option<PathBuf>,
    /// Its root file system is there to look around in (see [`crate::failed_step`]).
    pub kept: bool,
}

impl Error {
    /// An error at a place of the Dockerfile.
    pub(crate) fn at(span: Span, message: impl Into<String>) -> Self {
        Self::Dockerfile(Box::new(Diagnostic::error(message, span)))
    }

    /// The same with what to do about it.
    pub(crate) fn at_with_help(span: Span, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Dockerfile(Box::new(Diagnostic::error(message, span).with_help(help)))
    }

    /// A system call on a path.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: impl Into<std::io::Error>) -> Self {
        Self::Io { action, path: path.into(), source: source.into() }
    }

    /// The error of an image that cannot be had, pointing at the words that name it.
    #[must_use]
    pub(crate) fn of_image(self, reference: &Reference, span: Span) -> Self {
        match self {
            Self::Image(error) => {
                Self::at(span, format!("the image {} cannot be had: {}", reference.familiar(), chain(&error)))
            }
            other => other.located(span),
        }
    }

    /// Adds what stands at the carets.
    #[must_use]
    pub(crate) fn labelled(self, label: impl Into<String>) -> Self {
        match self {
            Self::Dockerfile(diagnostic) => Self::Dockerfile(Box::new(diagnostic.with_label(label))),
            other => other,
        }
    }

    /// The same error, pointing at `span` when it points nowhere yet: a step's cause becomes the caret's label.
    #[must_use]
    pub(crate) fn located(self, span: Span) -> Self {
        match self {
            Self::Dockerfile(_)
            | Self::Checks(_)
            | Self::Step { .. }
            | Self::Ignore { .. }
            | Self::CacheLost { .. }
            | Self::Internal(_) => self,
            other => Self::at(span, chain(&other)),
        }
    }
}

impl From<Box<Diagnostic>> for Error {
    fn from(diagnostic: Box<Diagnostic>) -> Self {
        Self::Dockerfile(diagnostic)
    }
}

/// An error with what caused it, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
