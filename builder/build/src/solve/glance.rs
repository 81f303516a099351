//! The steps that are found in the cache without a look at any file: in one go, in this thread, in one transaction.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Done, Solver};
use crate::Result;
use crate::cache::lookup;
use crate::cache::record::{Hit, Value};
use crate::plan::Operation;
use crate::progress::{Event, VertexId};
use crate::step::{Chain, Job, internal};

/// Which vertices were looked up already.
#[derive(Default)]
pub(super) struct Glances(HashSet<VertexId>);

impl Glances {
    /// Solves every vertex whose inputs are there and that the cache has. What it does not find, or cannot tell at
    /// once, is left to be looked at thoroughly.
    pub(super) fn take(&mut self, solver: &Solver<'_>) {
        let found = self.find(solver).unwrap_or_else(|error| {
            // Whoever looks thoroughly meets it again.
            tracing::debug!(%error, "look up the cache");
            Vec::new()
        });
        let reporter = solver.site.reporter;
        for (id, done) in found {
            reporter.event(Event::Started(id, &solver.site.plan.vertices[id].name));
            let is_image = matches!(solver.site.plan.vertices[id].operation, Operation::Image { .. });
            reporter.event(if is_image { Event::Done(id, Duration::ZERO) } else { Event::Cached(id) });
            let _ = solver.slots[id].set(done);
        }
    }

    fn find(&mut self, solver: &Solver<'_>) -> Result<Vec<(VertexId, Done)>> {
        let mut reading = solver.site.store.read_cache()?;
        let mut found: HashMap<VertexId, Done> = HashMap::new();
        let mut order = Vec::new();
        // Every vertex comes after its inputs.
        for (id, vertex) in solver.site.plan.vertices.iter().enumerate() {
            let chain_of = |id: VertexId| {
                let done = found.get(&id).or_else(|| solver.slots[id].get());
                done.map(|done| Arc::clone(&done.chain)).ok_or_else(|| internal("solve: an input is missing"))
            };
            if !solver.wanted[id]
                || solver.slots[id].get().is_some()
                || self.0.contains(&id)
                || solver.inputs[id].iter().any(|&input| chain_of(input).is_err())
            {
                continue;
            }
            self.0.insert(id);
            let done = if let Operation::Image { layers } = &vertex.operation {
                Some(Done { chain: Chain::from(layers.as_slice()), found: None, ran: false })
            } else {
                let parent = vertex.parent.map_or_else(|| Ok(Chain::from([])), chain_of)?;
                let job = Job { site: &solver.site, id, vertex, parent, results: &chain_of };
                look_up(&job, &mut reading)?
            };
            if let Some(done) = done {
                order.push(id);
                found.insert(id, done);
            }
        }
        if !reading.finish()? {
            // Somebody prunes at this moment.
            return Ok(Vec::new());
        }
        Ok(order.into_iter().filter_map(|id| Some((id, found.remove(&id)?))).collect())
    }
}

fn look_up(job: &Job<'_>, reading: &mut kiln_store::metadata::CacheReading<'_>) -> Result<Option<Done>> {
    // What is wrong with a step is told when it is done.
    let Ok(Some(key)) = lookup::key_without_files(job) else { return Ok(None) };
    let Some(value) = reading.value(&key)?.and_then(|bytes| Value::decode(&bytes)) else { return Ok(None) };
    if !job.site.request.is_fresh(value.made) {
        return Ok(None);
    }
    let chain = job.parent.iter().copied().chain([value.layer]).collect();
    Ok(Some(Done { chain, found: Some(Hit::of(key, value)), ran: false }))
}
