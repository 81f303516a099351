//! What happened to each step of a build and when: what `--explain` and `--timings` show.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::progress::{Event, VertexId};

/// One step.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// `[2/4] RUN make`.
    pub name: String,
    /// The steps whose results it needs.
    pub inputs: Vec<VertexId>,
    /// Since the build began.
    pub begun: Duration,
    /// Since the build began; absent while it runs.
    pub ended: Option<Duration>,
    /// It was found in the cache.
    pub cached: bool,
    /// Why it was not.
    pub reason: Option<String>,
    /// Bytes of the layer that it made.
    pub bytes: Option<u64>,
    /// What went wrong.
    pub error: Option<String>,
}

/// Keeps what a build tells.
#[derive(Debug)]
pub struct Recording {
    begun: Instant,
    steps: Mutex<BTreeMap<VertexId, Step>>,
}

impl Default for Recording {
    fn default() -> Self {
        Self { begun: Instant::now(), steps: Mutex::default() }
    }
}

impl Recording {
    /// Takes an event in.
    pub fn event(&self, event: &Event<'_>) {
        let now = self.begun.elapsed();
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Planned(plan) => {
                for (id, vertex) in plan.vertices.iter().enumerate() {
                    let (name, inputs) = (vertex.name.clone(), vertex.inputs());
                    steps.insert(id, Step { name, inputs, ..Step::default() });
                }
            }
            Event::Started(id, name) => {
                let step = steps.entry(*id).or_default();
                (*name).clone_into(&mut step.name);
                step.begun = now;
            }
            Event::Cached(id) => {
                let step = steps.entry(*id).or_default();
                (step.cached, step.ended) = (true, Some(now));
            }
            Event::Missed(id, why) => steps.entry(*id).or_default().reason = Some((*why).to_owned()),
            Event::Layer(id, bytes) => steps.entry(*id).or_default().bytes = Some(*bytes),
            Event::Done(id, _) => steps.entry(*id).or_default().ended = Some(now),
            Event::Failed(id, error) => {
                let step = steps.entry(*id).or_default();
                (step.error, step.ended) = (Some((*error).to_owned()), Some(now));
            }
            _ => {}
        }
    }

    /// The steps that were begun, by their numbers.
    pub fn steps(&self) -> BTreeMap<VertexId, Step> {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner).clone();
        steps.retain(|_, step| step.ended.is_some());
        steps
    }

    /// Since the build began.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The steps that nothing could have gone faster without, first to last: from the one that ended last back to the
    /// input of each that ended last.
    pub fn critical_path(&self) -> Vec<VertexId> {
        let steps = self.steps();
        let last = |ids: &mut dyn Iterator<Item = VertexId>| {
            ids.filter(|id| steps.contains_key(id)).max_by_key(|id| steps[id].ended)
        };
        let mut path = Vec::new();
        let mut next = last(&mut steps.keys().copied());
        while let Some(id) = next {
            path.push(id);
            next = last(&mut steps[&id].inputs.iter().copied());
        }
        path.reverse();
        path
    }
}
