//! What a build tells whoever watches it. Only the program draws.

use std::time::Duration;

use kiln_grammar::Diagnostic;
use kiln_image::registry::{NoProgress, TransferProgress};

/// Number of a vertex in its plan.
pub type VertexId = usize;

/// Which stream a step wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One thing that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A doubtful place of the Dockerfile.
    Warning(&'a Diagnostic),
    /// Something worth a line that belongs to no step.
    Note(&'a str),
    /// What will be done, before any of it is.
    Planned(&'a crate::plan::Plan),
    /// A vertex was begun.
    Started(VertexId, &'a str),
    /// It was found in the cache.
    Cached(VertexId),
    /// Why it was not.
    Missed(VertexId, &'a str),
    /// It made a layer of so many bytes (of its tar).
    Layer(VertexId, u64),
    /// Its process wrote.
    Output(VertexId, Stream, &'a [u8]),
    /// It is done.
    Done(VertexId, Duration),
    /// It failed.
    Failed(VertexId, &'a str),
    /// The image was written.
    Image(&'a kiln_store::Digest),
    /// A name points at the image.
    Named(&'a kiln_image::Reference),
}

/// Receives events, from any thread.
pub trait Reporter: Send + Sync {
    /// One event.
    fn event(&self, event: Event<'_>);

    /// Who draws what comes from registries meanwhile.
    fn transfers(&self) -> &dyn TransferProgress {
        &NoProgress
    }
}
