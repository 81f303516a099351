//! Each vertex once, as soon as its inputs are there: looked up by its key, done only when it is not found.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Instant;

use kiln_store::layer::Layer;
use kiln_store::metadata::CacheRecord;
use kiln_store::{DiffId, Store};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::key::{Key, Parts};
use crate::plan::{Operation, Plan, Vertex};
use crate::progress::{Event, Reporter, VertexId};
use crate::step::copy::Copy;
use crate::step::run::Depth;
use crate::step::{Chain, Job, Outcome, Site, internal, run, workdir};
use crate::{Error, Request, Result, explain, remote};

/// What a cache record's value says.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Value {
    layer: DiffId,
    /// Nanoseconds since 1970 when it was made: history's time.
    made: i128,
}

/// The result of a solved plan.
pub(crate) struct Solution {
    /// The target's layers, lowest first.
    pub(crate) chain: Chain,
    /// When each vertex's layer was made, nanoseconds since 1970.
    pub(crate) made: Vec<Option<i128>>,
}

#[derive(Debug, Clone)]
struct Done {
    chain: Chain,
    made: Option<i128>,
}

/// Solves a plan.
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
    let slots: Vec<OnceLock<Done>> = plan.vertices.iter().map(|_| OnceLock::new()).collect();
    let solver = Solver { site, slots, wanted: wanted(plan), stop: AtomicBool::new(false), failure: Mutex::new(None) };
    solver.run()?;
    let chain = match plan.result {
        None => Chain::from([]),
        Some(result) => solver.result(result)?,
    };
    let made = solver.slots.iter().map(|slot| slot.get().and_then(|done| done.made)).collect();
    Ok(Solution { chain, made })
}

/// The vertices that the result needs: planning may have met more.
fn wanted(plan: &Plan) -> Vec<bool> {
    let mut wanted = vec![false; plan.vertices.len()];
    let mut open: Vec<VertexId> = plan.result.into_iter().collect();
    while let Some(vertex) = open.pop() {
        if !std::mem::replace(&mut wanted[vertex], true) {
            open.extend(plan.vertices[vertex].inputs());
        }
    }
    wanted
}

struct Solver<'a> {
    site: Site<'a>,
    slots: Vec<OnceLock<Done>>,
    wanted: Vec<bool>,
    stop: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl Solver<'_> {
    fn run(&self) -> Result<()> {
        let vertices = &self.site.plan.vertices;
        let mut missing: Vec<usize> = vertices.iter().map(|vertex| vertex.inputs().len()).collect();
        let mut users: Vec<Vec<VertexId>> = vec![Vec::new(); vertices.len()];
        for (id, vertex) in vertices.iter().enumerate().filter(|(id, _)| self.wanted[*id]) {
            vertex.inputs().into_iter().for_each(|input| users[input].push(id));
        }
        let mut ready: Vec<VertexId> = (0..vertices.len()).filter(|&id| self.wanted[id] && missing[id] == 0).collect();
        let (finished, finishing) = mpsc::channel();
        std::thread::scope(|scope| {
            let mut running = 0;
            loop {
                for id in std::mem::take(&mut ready).into_iter().filter(|_| !self.stop.load(Ordering::Relaxed)) {
                    let finished = finished.clone();
                    running += 1;
                    scope.spawn(move || {
                        self.vertex(id);
                        // The receiver outlives every sender: it is dropped after the scope.
                        let _ = finished.send(id);
                    });
                }
                if running == 0 {
                    return;
                }
                let Ok(id) = finishing.recv() else { return };
                running -= 1;
                for &user in &users[id] {
                    missing[user] -= 1;
                    if missing[user] == 0 && self.slots[id].get().is_some() {
                        ready.push(user);
                    }
                }
            }
        });
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
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
            return Ok(Done { chain: Chain::from(layers.as_slice()), made: None });
        }
        if let Operation::Fetch(what) = &vertex.operation {
            let (epoch, no_cache) = (self.site.request.epoch, self.site.request.no_cache);
            let fetched = remote::fetch(self.site.store, what, epoch, no_cache);
            let layer = fetched.map_err(|error| error.located(vertex.span))?.layer;
            reporter.event(Event::Done(id, begun.elapsed()));
            return Ok(Done { chain: Chain::from([layer]), made: None });
        }
        let parent = match vertex.parent {
            None => Chain::from([]),
            Some(parent) => self.result(parent)?,
        };
        let results = |id| self.result(id);
        let job = Job { site: &self.site, id, vertex, parent, results: &results };
        let (value, cached) = self.find_or_do(&job)?;
        let chain = job.parent.iter().copied().chain([value.layer]).collect();
        reporter.event(if cached { Event::Cached(id) } else { Event::Done(id, begun.elapsed()) });
        Ok(Done { chain, made: Some(value.made) })
    }

    fn find_or_do(&self, job: &Job<'_>) -> Result<(Value, bool)> {
        match &job.vertex.operation {
            Operation::Run(step) => {
                let perform = || run::perform(job, step).map_err(|error| error.located(job.vertex.span));
                let key = run::key(job, step, Depth::Layers)?;
                if !run::mounts_a_part(step) {
                    return self.look_up_or(job, key, Vec::new, perform);
                }
                if let Some(value) = self.look_up(&key.0)? {
                    return Ok((value, true));
                }
                let by_content = run::key(job, step, Depth::Files)?;
                let (value, cached) = self.look_up_or(job, by_content, Vec::new, perform)?;
                self.remember(key.0, &Parts::default(), &value, "")?;
                Ok((value, cached))
            }
            Operation::Workdir(step) => self.look_up_or(job, workdir::key(job, step), Vec::new, || {
                workdir::perform(job, step).map_err(|error| error.located(job.vertex.span))
            }),
            Operation::Copy(step) => {
                let quick = crate::step::copy::quick_key(job, step)?;
                if let Some(value) = self.look_up_optional(quick.as_ref())? {
                    return Ok((value, true));
                }
                let copy = Copy::find(job, step).map_err(|error| error.located(job.vertex.span))?;
                let (value, cached) = self.look_up_or(job, copy.key(), || copy.files(), || copy.perform())?;
                if let Some(quick) = quick {
                    self.remember(quick, &Parts::default(), &value, "")?;
                }
                Ok((value, cached))
            }
            Operation::Image { .. } | Operation::Fetch(_) => Err(internal("solve: an image is not a step")),
        }
    }

    fn look_up_optional(&self, key: Option<&Key>) -> Result<Option<Value>> {
        key.map_or(Ok(None), |key| self.look_up(key))
    }

    /// The record of a key, when its layer is there.
    fn look_up(&self, key: &Key) -> Result<Option<Value>> {
        if self.site.request.no_cache {
            return Ok(None);
        }
        let Some(record) = self.site.store.cache_record(key)? else { return Ok(None) };
        let Ok(value) = serde_json::from_slice::<Value>(&record.value) else { return Ok(None) };
        Ok(self.site.store.layer(&value.layer)?.map(|_| value))
    }

    fn look_up_or(
        &self,
        job: &Job<'_>,
        (key, mut parts): (Key, Parts),
        files: impl FnOnce() -> Vec<(String, u64)>,
        perform: impl FnOnce() -> Result<Outcome>,
    ) -> Result<(Value, bool)> {
        if let Some(value) = self.look_up(&key)? {
            return Ok((value, true));
        }
        parts.files = files();
        let reason = explain::miss(self.site.store, &job.vertex.step, &parts, self.site.request.no_cache);
        self.site.reporter.event(Event::Missed(job.id, &reason));
        let Outcome { layer: Layer { diff_id, .. }, cacheable } = perform()?;
        let value = Value { layer: diff_id, made: now() };
        if cacheable {
            self.remember(key, &parts, &value, &job.vertex.step)?;
        }
        Ok((value, false))
    }

    fn remember(&self, key: Key, parts: &Parts, value: &Value, step: &str) -> Result<()> {
        let made = i64::try_from(value.made / 1_000_000_000).unwrap_or(i64::MAX);
        let encoded = serde_json::to_vec(value).map_err(|_| internal("encode a cache record"))?;
        let record = CacheRecord {
            key,
            step: step.to_owned(),
            parts: parts.encode(),
            value: encoded,
            layers: vec![value.layer],
            created: made,
        };
        Ok(self.site.store.put_cache_record(&record)?)
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}
