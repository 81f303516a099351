//! Several plans as one: what they have in common is there once.

use std::collections::HashMap;

use super::{Operation, Origin, Plan, StepMount, Target, Vertex};
use crate::progress::VertexId;
use crate::request::ContextDirectory;

/// One plan of those for each platform. Vertices that do the same to the same are one: a stage that is built for
/// `$BUILDPLATFORM` runs once, however many platforms use it.
pub(super) fn merge(plans: Vec<Plan>) -> Plan {
    let mut plans = plans.into_iter();
    let Some(mut merged) = plans.next() else {
        return Plan {
            vertices: Vec::new(),
            targets: Vec::new(),
            stages: Vec::new(),
            contexts: Vec::new(),
            unconsumed: None,
        };
    };
    let mut rest = plans.peekable();
    if rest.peek().is_none() {
        return merged;
    }
    let mut known: HashMap<blake3::Hash, VertexId> = HashMap::new();
    for (id, vertex) in merged.vertices.iter().enumerate() {
        known.entry(identity(vertex)).or_insert(id);
    }
    for plan in rest {
        add(&mut merged, plan, &mut known);
    }
    merged
}

fn add(merged: &mut Plan, plan: Plan, known: &mut HashMap<blake3::Hash, VertexId>) {
    let contexts: Vec<usize> = plan
        .contexts
        .into_iter()
        .enumerate()
        .map(|(number, directory)| if number == 0 { 0 } else { context(&mut merged.contexts, directory) })
        .collect();
    let mut numbers: Vec<VertexId> = Vec::with_capacity(plan.vertices.len());
    for mut vertex in plan.vertices {
        renumber(&mut vertex, &numbers, &contexts);
        let id = *known.entry(identity(&vertex)).or_insert_with(|| {
            merged.vertices.push(vertex);
            merged.vertices.len() - 1
        });
        numbers.push(id);
    }
    let renumbered = |mut target: Target| {
        target.result = target.result.map(|result| numbers[result]);
        for vertex in target.history.iter_mut().flatten() {
            *vertex = numbers[*vertex];
        }
        target
    };
    merged.targets.extend(plan.targets.into_iter().map(renumbered));
    merged.stages.extend(plan.stages.into_iter().map(renumbered));
}

/// The number of a context, which is added when it is new.
fn context(contexts: &mut Vec<Option<ContextDirectory>>, directory: Option<ContextDirectory>) -> usize {
    match contexts.iter().skip(1).position(|known| *known == directory) {
        Some(number) => number + 1,
        None => {
            contexts.push(directory);
            contexts.len() - 1
        }
    }
}

/// Inputs come before what uses them, so their new numbers are known.
fn renumber(vertex: &mut Vertex, numbers: &[VertexId], contexts: &[usize]) {
    let change = |id: &mut VertexId| *id = numbers[*id];
    vertex.parent.iter_mut().for_each(change);
    match &mut vertex.operation {
        Operation::Copy(copy) => {
            for source in &mut copy.sources {
                match &mut source.origin {
                    Origin::Vertex(from) => from.iter_mut().for_each(change),
                    Origin::Context(number) => *number = contexts[*number],
                }
            }
        }
        Operation::Run(run) => {
            for mount in &mut run.mounts {
                if let StepMount::Bind { from, .. } | StepMount::Cache { from, .. } = mount {
                    from.iter_mut().for_each(change);
                }
            }
        }
        Operation::Image { .. } | Operation::Workdir(_) | Operation::Fetch(_) => {}
    }
}

/// Everything that tells one vertex from another.
fn identity(vertex: &Vertex) -> blake3::Hash {
    let Vertex { name, step, span, parent, operation } = vertex;
    blake3::hash(format!("{name}\0{step}\0{span:?}\0{parent:?}\0{operation:?}").as_bytes())
}
