//! Doing what a vertex says, when the cache does not have it.

mod advice;
pub(crate) mod copy;
mod log;
pub(crate) mod mounts;
pub(crate) mod run;
pub(crate) mod workdir;

use std::sync::Arc;

use kiln_store::layer::Layer;
use kiln_store::{DiffId, Snapshot, Store};

use crate::plan::{Operation, Plan, Vertex};
use crate::progress::{Reporter, VertexId};
use crate::{Error, Request, Result, context::Context};

/// A stack of layers, lowest first.
pub(crate) type Chain = Arc<[DiffId]>;

/// What every step may use.
pub(crate) struct Site<'a> {
    pub(crate) store: &'a Store,
    pub(crate) request: &'a Request,
    pub(crate) plan: &'a Plan,
    /// By their numbers in the plan.
    pub(crate) contexts: &'a [Context],
    pub(crate) reporter: &'a dyn Reporter,
}

impl Site<'_> {
    /// Brings those of the layers that are elsewhere. One that a base image should have is missed where the image is named.
    pub(crate) fn ensure(&self, layers: &[DiffId]) -> Result<()> {
        let brought = self.request.exchange.ensure(self.store, self.reporter, layers);
        brought.map_err(|error| {
            let Error::BaseLayer { layer, .. } = &error else { return error };
            let has_it =
                |vertex: &&Vertex| matches!(&vertex.operation, Operation::Image { layers } if layers.contains(layer));
            match self.plan.vertices.iter().find(has_it) {
                Some(vertex) => error.located(vertex.span),
                None => error,
            }
        })
    }
}

/// One vertex with its inputs' results.
pub(crate) struct Job<'a> {
    pub(crate) site: &'a Site<'a>,
    pub(crate) id: VertexId,
    pub(crate) vertex: &'a Vertex,
    /// The parent's layers; none when there is no parent.
    pub(crate) parent: Chain,
    /// The results of every vertex that is done.
    pub(crate) results: &'a (dyn Fn(VertexId) -> Result<Chain> + Sync),
}

impl Job<'_> {
    /// Nothing that was made before may be used for it.
    pub(crate) fn is_uncached(&self) -> bool {
        let request = self.site.request;
        request.no_cache || self.vertex.stage().is_some_and(|stage| request.uncached_stages.iter().any(|s| s == stage))
    }

    /// The files of a stack of layers; those that are elsewhere come now.
    pub(crate) fn snapshot(&self, layers: &[DiffId]) -> Result<Snapshot> {
        self.site.ensure(layers)?;
        Ok(Snapshot::open(self.site.store, layers)?)
    }

    /// The layers of an optional vertex.
    pub(crate) fn result_of(&self, vertex: Option<VertexId>) -> Result<Chain> {
        vertex.map_or_else(|| Ok(Chain::from([])), |vertex| (self.results)(vertex))
    }
}

/// What doing a step gave.
pub(crate) struct Outcome {
    pub(crate) layer: Layer,
    /// The result may be kept: nothing it was made from changed meanwhile.
    pub(crate) cacheable: bool,
}

/// Times later than SOURCE_DATE_EPOCH are set back to it.
pub(crate) fn clamp_time(request: &Request, time: (i64, u32)) -> (i64, u32) {
    match request.epoch {
        Some(epoch) if time.0 >= epoch => (epoch, 0),
        _ => time,
    }
}

/// Turns a thread's or lock's failure into an error that names the step.
pub(crate) fn internal(what: &str) -> Error {
    Error::Internal(what.to_owned())
}
