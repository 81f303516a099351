//! Results of which only their names are known, since another machine's cache does not carry their layers (`mode=min`):
//! they do for every step whose own result is known, too. Those whose files are needed are taken back before anything
//! is done.

use std::collections::BTreeSet;

use kiln_store::DiffId;

use super::wanted;
use crate::cache::lookup::{self, Found};
use crate::plan::{Operation, Plan};
use crate::progress::VertexId;
use crate::step::{Chain, Job, Site, internal};
use crate::{Error, Result};

/// Takes back what cannot be kept.
pub(crate) fn settle(site: &Site<'_>) {
    let exchange = &site.request.exchange;
    while exchange.has_sources() && !site.request.no_cache && has_other_stages(site.plan) {
        match needed(site) {
            Ok(layers) if exchange.withdraw(&layers) => {}
            // One that a lookup needed was taken back already.
            Err(Error::CacheLost { .. }) => {}
            // Whatever else is wrong, the steps themselves will say it.
            Ok(_) | Err(_) => return,
        }
    }
}

/// Whether the results need steps that are not their own: only their layers can be nowhere.
fn has_other_stages(plan: &Plan) -> bool {
    let mut own = BTreeSet::new();
    for target in &plan.targets {
        let mut next = target.result;
        while let Some(vertex) = next.filter(|vertex| own.insert(*vertex)) {
            next = plan.vertices[vertex].parent;
        }
    }
    wanted(plan).into_iter().filter(|wanted| *wanted).count() > own.len()
}

/// The layers that steps which are not in the cache will look into, and those of the result.
fn needed(site: &Site<'_>) -> Result<Vec<DiffId>> {
    let plan = site.plan;
    let wanted = wanted(plan);
    let mut results: Vec<Option<Chain>> = vec![None; plan.vertices.len()];
    let mut needed = Vec::new();
    for (id, vertex) in plan.vertices.iter().enumerate().filter(|(id, _)| wanted[*id]) {
        let inputs = vertex.inputs();
        let known = |id: VertexId| results[id].clone().ok_or_else(|| internal("look ahead: an input is missing"));
        let result = match &vertex.operation {
            Operation::Image { layers } => Some(Chain::from(layers.as_slice())),
            Operation::Fetch(_) => None,
            _ if inputs.iter().any(|input| results[*input].is_none()) => None,
            _ => {
                let parent = vertex.parent.map_or_else(|| Ok(Chain::from([])), known)?;
                let job = Job { site, id, vertex, parent, results: &known };
                match lookup::find(&job)? {
                    Found::Hit(hit) => Some(job.parent.iter().copied().chain([hit.value.layer]).collect()),
                    Found::Miss(_) => None,
                }
            }
        };
        if result.is_none() {
            let inputs = inputs.iter().filter_map(|input| results[*input].as_ref());
            needed.extend(inputs.flat_map(|chain| chain.iter().copied()));
        }
        results[id] = result;
    }
    let made = plan.targets.iter().chain(&plan.stages).filter_map(|target| results[target.result?].as_ref());
    needed.extend(made.flat_map(|chain| chain.iter()));
    Ok(needed)
}
