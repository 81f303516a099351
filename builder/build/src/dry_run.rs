//! What a build would do, without doing it.

use kiln_store::Store;

use crate::cache::lookup::{self, Found};
use crate::context::Context;
use crate::plan::{ImageSource, Operation, Plan};
use crate::progress::{Event, Reporter, VertexId};
use crate::step::{Chain, Job, Site, internal};
use crate::{Error, Request, Result, explain, plan, solve};

/// What would become of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlook {
    /// A base image.
    Base,
    /// It is in the cache.
    Cached,
    /// It would be done, for this reason.
    Runs(String),
    /// It depends on what this step, which would be done, comes out as.
    Open(String),
}

/// One step of the plan, in an order in which it could be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStep {
    /// Its number in the plan.
    pub id: VertexId,
    /// `[2/4] RUN make`.
    pub name: String,
    /// What would become of it.
    pub outlook: Outlook,
}

/// Looks every step up that a build would need, and does none.
///
/// # Errors
/// The Dockerfile cannot be planned; a file that a COPY names is not there.
pub fn dry_run(
    store: &Store,
    request: &Request,
    images: &dyn ImageSource,
    reporter: &dyn Reporter,
) -> Result<Vec<PlannedStep>> {
    let dockerfile = kiln_grammar::parse(&request.dockerfile).map_err(Error::Dockerfile)?;
    dockerfile.warnings.iter().for_each(|warning| reporter.event(Event::Warning(warning)));
    let request = &*plan::arguments::with_epoch(&dockerfile, request)?;
    let plan = plan::make(&dockerfile, request, images)?;
    let open = |directory: &Option<_>| Context::open(store, directory.as_ref());
    let contexts = plan.contexts.iter().map(open).collect::<Result<Vec<_>>>()?;
    let site = Site { store, request, plan: &plan, contexts: &contexts, reporter };
    solve::promises::settle(&site);
    let steps = foresee(&site, &plan)?;
    contexts.iter().try_for_each(|context| context.remember(store))?;
    Ok(steps)
}

pub(crate) fn foresee(site: &Site<'_>, plan: &Plan) -> Result<Vec<PlannedStep>> {
    let wanted = solve::wanted(plan);
    let mut results: Vec<Option<Chain>> = vec![None; plan.vertices.len()];
    let mut steps: Vec<PlannedStep> = Vec::new();
    for (id, vertex) in plan.vertices.iter().enumerate().filter(|(id, _)| wanted[*id]) {
        let (outlook, result) = if let Operation::Image { layers } = &vertex.operation {
            (Outlook::Base, Some(Chain::from(layers.as_slice())))
        } else if matches!(vertex.operation, Operation::Fetch(_)) {
            (Outlook::Runs("asks whether it has changed".to_owned()), None)
        } else if let Some(input) = vertex.inputs().into_iter().find(|input| results[*input].is_none()) {
            (Outlook::Open(plan.vertices[input].name.clone()), None)
        } else {
            let known = |id: VertexId| results[id].clone().ok_or_else(|| internal("dry run: an input is missing"));
            look_up(site, id, &known)?
        };
        results[id] = result;
        steps.push(PlannedStep { id, name: vertex.name.clone(), outlook });
    }
    Ok(steps)
}

/// What would become of a step whose inputs are known, and what it gives when that is known too.
fn look_up(
    site: &Site<'_>,
    id: VertexId,
    results: &(dyn Fn(VertexId) -> Result<Chain> + Sync),
) -> Result<(Outlook, Option<Chain>)> {
    let vertex = &site.plan.vertices[id];
    let parent = vertex.parent.map_or_else(|| Ok(Chain::from([])), results)?;
    let job = Job { site, id, vertex, parent, results };
    Ok(match lookup::find(&job)? {
        Found::Hit(hit) => (Outlook::Cached, Some(job.parent.iter().copied().chain([hit.value.layer]).collect())),
        Found::Miss(miss) => (Outlook::Runs(explain::miss(&job, &miss.parts, &|_| false)), None),
    })
}
