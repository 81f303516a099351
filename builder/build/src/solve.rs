//! Each vertex once, as soon as its inputs are there: looked up by its key, done only when it is not found.

pub(crate) mod ahead;
mod glance;
pub(crate) mod promises;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Instant;

use kiln_store::Store;
use kiln_store::layer::Layer;

use crate::cache::lock_file::Held;
use crate::cache::lookup::{self, Found, Miss};
use crate::cache::record::{Hit, Value};
use crate::context::Context;
use crate::plan::{Operation, Plan, Target, Vertex};
use crate::progress::{Event, Reporter, VertexId};
use crate::step::{Chain, Job, Outcome, Site, internal};
use crate::{Error, Request, Result, explain, remote};

/// The result of a solved plan.
pub(crate) struct Solution {
    /// The layers of each target, lowest first.
    pub(crate) chains: Vec<Chain>,
    /// Those of each stage that is kept.
    pub(crate) stages: Vec<Chain>,
    /// What each vertex gave; nothing of those that nobody needed.
    pub(crate) done: Vec<Option<Done>>,
}

/// What a vertex gave.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) chain: Chain,
    /// Its place in the cache, if it has one.
    pub(crate) found: Option<Hit>,
    /// It was not found in the cache.
    pub(crate) ran: bool,
}

impl Solution {
    /// When a vertex's layer was made, nanoseconds since 1970.
    pub(crate) fn made(&self, vertex: VertexId) -> Option<i128> {
        self.done.get(vertex)?.as_ref()?.found.as_ref().map(|found| found.value.made)
    }
}

/// Solves a plan; the result's layers are here then.
///
/// # Errors
/// The first step that failed; steps that were already running are awaited.
pub(crate) fn solve(
    store: &Store,
    request: &Request,
    plan: &Plan,
    contexts: &[Context],
    reporter: &dyn Reporter,
) -> Result<Solution> {
    let site = Site { store, request, plan, contexts, reporter };
    promises::settle(&site);
    loop {
        let solution = attempt(store, request, plan, contexts, reporter).and_then(|solution| {
            let mut chains = solution.chains.iter().chain(&solution.stages);
            chains.try_for_each(|chain| match request.passed_on_to.as_slice() {
                [] => site.ensure(chain),
                to => site.ensure(&request.exchange.needed_to_send(store, chain, to)?),
            })?;
            Ok(solution)
        });
        match solution {
            // It will not be offered again, and so its step runs.
            Err(error @ Error::CacheLost { .. }) => reporter.event(Event::Note(&format!("{error}: beginning anew"))),
            solution => return solution,
        }
    }
}

fn attempt(
    store: &Store,
    request: &Request,
    plan: &Plan,
    contexts: &[Context],
    reporter: &dyn Reporter,
) -> Result<Solution> {
    let site = Site { store, request, plan, contexts, reporter };
    reporter.event(Event::Planned(plan));
    let slots: Vec<OnceLock<Done>> = plan.vertices.iter().map(|_| OnceLock::new()).collect();
    let solver = Solver {
        site,
        inputs: plan.vertices.iter().map(Vertex::inputs).collect(),
        slots,
        wanted: wanted(plan),
        stop: AtomicBool::new(false),
        failure: Mutex::new(None),
    };
    solver.run()?;
    let chain_of = |target: &Target| target.result.map_or_else(|| Ok(Chain::from([])), |result| solver.result(result));
    let chains = plan.targets.iter().map(chain_of).collect::<Result<_>>()?;
    let stages = plan.stages.iter().map(chain_of).collect::<Result<_>>()?;
    let done = solver.slots.into_iter().map(OnceLock::into_inner).collect();
    Ok(Solution { chains, stages, done })
}

/// The vertices that the result needs: planning may have met more.
pub(crate) fn wanted(plan: &Plan) -> Vec<bool> {
    let mut wanted = vec![false; plan.vertices.len()];
    let mut open: Vec<VertexId> = plan.targets.iter().chain(&plan.stages).filter_map(|target| target.result).collect();
    while let Some(vertex) = open.pop() {
        if !std::mem::replace(&mut wanted[vertex], true) {
            open.extend(plan.vertices[vertex].inputs());
        }
    }
    wanted
}

/// Steps that run at once unless it is said: they also wait for disks and servers, so more than there are processors.
fn most_at_once() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).saturating_mul(4)
}

struct Solver<'a> {
    site: Site<'a>,
    /// The inputs of each vertex.
    inputs: Vec<Vec<VertexId>>,
    slots: Vec<OnceLock<Done>>,
    wanted: Vec<bool>,
    stop: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl Solver<'_> {
    fn run(&self) -> Result<()> {
        let most = self.site.request.jobs.unwrap_or_else(most_at_once);
        let mut begun = vec![false; self.slots.len()];
        let mut glances = glance::Glances::default();
        let (finished, finishing) = mpsc::channel();
        std::thread::scope(|scope| {
            let mut running = 0;
            loop {
                let mut ready = Vec::new();
                if !self.stop.load(Ordering::Relaxed) {
                    glances.take(self);
                    ready = self.ready(&begun);
                }
                // Nothing can become ready meanwhile: it needs no thread of its own.
                if let (&[only], 0) = (ready.as_slice(), running) {
                    begun[only] = true;
                    self.vertex(only);
                    continue;
                }
                for id in ready.into_iter().take(most.saturating_sub(running)) {
                    begun[id] = true;
                    running += 1;
                    let finished = finished.clone();
                    scope.spawn(move || {
                        self.vertex(id);
                        // The receiver outlives every sender: it is dropped after the scope.
                        let _ = finished.send(());
                    });
                }
                if running == 0 || finishing.recv().is_err() {
                    return;
                }
                running -= 1;
            }
        });
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// What could be begun now.
    fn ready(&self, begun: &[bool]) -> Vec<VertexId> {
        let open = (0..self.slots.len()).filter(|&id| self.wanted[id] && !begun[id] && self.slots[id].get().is_none());
        open.filter(|&id| self.inputs[id].iter().all(|&input| self.slots[input].get().is_some())).collect()
    }

    fn vertex(&self, id: VertexId) {
        let vertex = &self.site.plan.vertices[id];
        match self.solve_vertex(id, vertex) {
            Ok(done) => {
                let _ = self.slots[id].set(done);
            }
            Err(error) => {
                self.stop.store(true, Ordering::Relaxed);
                self.site.reporter.event(Event::Failed(id, &error.to_string()));
                self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    }

    fn result(&self, id: VertexId) -> Result<Chain> {
        self.slots[id].get().map(|done| Arc::clone(&done.chain)).ok_or_else(|| internal("solve: an input is missing"))
    }

    fn solve_vertex(&self, id: VertexId, vertex: &Vertex) -> Result<Done> {
        let reporter = self.site.reporter;
        reporter.event(Event::Started(id, &vertex.name));
        let begun = Instant::now();
        if let Operation::Image { layers } = &vertex.operation {
            reporter.event(Event::Done(id, begun.elapsed()));
            return Ok(Done { chain: Chain::from(layers.as_slice()), found: None, ran: false });
        }
        if let Operation::Fetch(what) = &vertex.operation {
            let (epoch, no_cache) = (self.site.request.epoch, self.site.request.no_cache);
            let fetched = remote::fetch(self.site.store, what, epoch, no_cache);
            let layer = fetched.map_err(|error| error.located(vertex.span))?.layer;
            reporter.event(Event::Done(id, begun.elapsed()));
            return Ok(Done { chain: Chain::from([layer]), found: None, ran: true });
        }
        let parent = match vertex.parent {
            None => Chain::from([]),
            Some(parent) => self.result(parent)?,
        };
        let results = |id| self.result(id);
        let job = Job { site: &self.site, id, vertex, parent, results: &results };
        let (found, cached) = self.find_or_do(&job)?;
        let chain = job.parent.iter().copied().chain([found.value.layer]).collect();
        reporter.event(if cached { Event::Cached(id) } else { Event::Done(id, begun.elapsed()) });
        Ok(Done { chain, found: Some(found), ran: !cached })
    }

    fn find_or_do(&self, job: &Job<'_>) -> Result<(Hit, bool)> {
        match lookup::find(job)? {
            Found::Hit(hit) => Ok((hit, true)),
            Found::Miss(miss) => self.perform(job, miss),
        }
    }

    /// Does what was not found, unless another build is doing it at this moment.
    fn perform(&self, job: &Job<'_>, Miss { quick, key, parts, perform }: Miss<'_>) -> Result<(Hit, bool)> {
        let store = self.site.store;
        let path = lookup::lock_path(store, &key)?;
        let (lock, waited) = lookup::wait_for_others(&path)?;
        let _held = Held::new(&path, lock);
        if waited && let Some(value) = lookup::look_up(job, &key)? {
            return Ok((Hit { value, quick, key }, true));
        }
        let reason = explain::miss(job, &parts, &|id| self.ran(id));
        self.site.reporter.event(Event::Missed(job.id, &reason));
        let Outcome { layer: Layer { diff_id, tar_size, .. }, cacheable } = perform()?;
        self.site.reporter.event(Event::Layer(job.id, tar_size));
        let value = Value { layer: diff_id, made: now(), content_key: None };
        if cacheable {
            lookup::remember(job, (quick, key, &parts), &value)?;
        }
        self.site.request.cache_limit.enforce(store)?;
        Ok((Hit { value, quick, key }, false))
    }

    /// Whether a vertex that is done was not found in the cache.
    fn ran(&self, id: VertexId) -> bool {
        self.slots[id].get().is_some_and(|done| done.ran)
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}
