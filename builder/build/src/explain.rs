//! Why a step was not in the cache: the nearest earlier record of the same step against the new key's parts.

use std::collections::HashMap;

use kiln_store::metadata::StepRecord;

use crate::key::{KIND, Parts};
use crate::plan::{Operation, StepMount};
use crate::progress::VertexId;
use crate::step::Job;

/// How many changed files are named.
const NAMED_FILES: usize = 3;
/// Longer values are cut.
const VALUE_LENGTH: usize = 60;

/// Earlier records of the same Dockerfile that are compared, at most.
const EARLIER: usize = 64;

/// One line that says what changed. `ran` tells whether a vertex that is done was not found in the cache.
pub(crate) fn miss(job: &Job<'_>, parts: &Parts, ran: &dyn Fn(VertexId) -> bool) -> String {
    if job.is_uncached() {
        return "--no-cache".to_owned();
    }
    let Some((record, earlier)) = nearest(job, parts) else {
        return never_built(job);
    };
    if earlier == *parts {
        return match record.pruned {
            Some(time) => format!("pruned on {}", date(time)),
            None => "its layer is gone".to_owned(),
        };
    }
    difference(&earlier, parts, &|part| origin(job, part, ran))
}

/// Of a step that no record is about. What the key of a record elsewhere was made of does not travel: only that there is
/// one for the same instruction.
fn never_built(job: &Job<'_>) -> String {
    let (with, without): (Vec<_>, Vec<_>) =
        job.site.request.exchange.asked(&job.vertex.name).into_iter().partition(|(_, has_step)| *has_step);
    let list =
        |places: Vec<(String, bool)>| places.into_iter().map(|(place, _)| place).collect::<Vec<_>>().join(" and ");
    match (with.is_empty(), without.is_empty()) {
        (true, true) => "never built".to_owned(),
        (true, false) => format!("never built here, and not in {}", list(without)),
        (false, _) => {
            format!("never built here, and in {} only on other layers, or with other files or variables", list(with))
        }
    }
}

/// Of the earlier steps of the same stage the one that differs least; the one in the same place when several do.
fn nearest(job: &Job<'_>, parts: &Parts) -> Option<(StepRecord, Parts)> {
    let step = &job.vertex.step;
    let stage = step.rfind('#').map_or(step.as_str(), |end| &step[..=end]);
    let mut records = job.site.store.step_records(step, 1).ok()?;
    records.extend(job.site.store.step_records(stage, EARLIER).ok()?);
    let records = records.into_iter().enumerate().filter_map(|(age, record)| {
        let earlier = Parts::decode(&record.parts)?;
        Some((distance(&earlier, parts), record.step != *step, age, record, earlier))
    });
    let (distance, elsewhere, _, record, earlier) =
        records.min_by_key(|(distance, elsewhere, age, ..)| (*distance, *elsewhere, *age))?;
    // A step that has nothing but its kind in common with this one explains nothing.
    (!elsewhere || distance < FAR).then_some((record, earlier))
}

/// As far apart as two instructions that are not the same.
const FAR: usize = 1000;

/// How much two keys differ: what the instruction says weighs more than what it is given.
fn distance(before: &Parts, after: &Parts) -> usize {
    let old: HashMap<&str, &str> = before.named.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let missing = before.named.len().abs_diff(after.named.len());
    let changed = after.named.iter().filter(|(name, value)| old.get(name.as_str()) != Some(&value.as_str()));
    let weight = |name: &str| match name {
        KIND => 10 * FAR,
        "command" | "destination" | "path" => FAR,
        name if is_opaque(name) => 1,
        _ => 4,
    };
    changed.map(|(name, _)| weight(name)).sum::<usize>() + missing + usize::from(before.files != after.files)
}

/// The step that a part of the key comes from, and whether it was done again: `[2/4] RUN make was done again`.
fn origin(job: &Job<'_>, part: &str, ran: &dyn Fn(VertexId) -> bool) -> Option<String> {
    let vertices = &job.site.plan.vertices;
    let mut from = match (&job.vertex.operation, part) {
        (_, "parent") => job.vertex.parent?,
        (Operation::Run(step), part) => step.mounts.iter().find_map(|mount| match mount {
            StepMount::Bind { from, target, .. } if part.strip_prefix("mount ") == Some(target) => *from,
            _ => None,
        })?,
        _ => return None,
    };
    // The nearest one below that did not come from the cache: what stands between only follows it.
    while !ran(from) {
        match vertices[from].parent {
            Some(parent) => from = parent,
            None => return Some(format!("{} is another one", vertices[from].name)),
        }
    }
    Some(format!("{} came out different", vertices[from].name))
}

/// `2026-11-21 14:03`, in UTC.
fn date(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn difference(before: &Parts, after: &Parts, origin: &dyn Fn(&str) -> Option<String>) -> String {
    let old: HashMap<&str, &str> = before.named.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let new: HashMap<&str, &str> = after.named.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    if old.get(KIND) != new.get(KIND) {
        return "another instruction stood here".to_owned();
    }
    let mut changes = files(before, after);
    for (name, value) in &after.named {
        match old.get(name.as_str()) {
            Some(was) if was == value => {}
            Some(_) if is_opaque(name) => match origin(name) {
                // The files tell more than the mount they are in.
                _ if name.starts_with("mount ") && before.files != after.files => {}
                Some(origin) => changes.push(origin),
                None => changes.push(format!("{name} changed")),
            },
            Some(was) => changes.push(format!("{name} {} → {}", cut(was), cut(value))),
            None => changes.push(format!("{name} {} is new", cut(value))),
        }
    }
    changes.extend(
        before
            .named
            .iter()
            .filter(|(name, _)| !new.contains_key(name.as_str()))
            .map(|(name, _)| format!("{name} is gone")),
    );
    changes.join(", ")
}

/// Parts whose value is a digest: it tells nobody anything.
fn is_opaque(name: &str) -> bool {
    name == "parent" || name.starts_with("mount ") || name == "source"
}

fn files(before: &Parts, after: &Parts) -> Vec<String> {
    let old: HashMap<&str, u64> = before.files.iter().map(|(path, hash)| (path.as_str(), *hash)).collect();
    let new: HashMap<&str, u64> = after.files.iter().map(|(path, hash)| (path.as_str(), *hash)).collect();
    let mut changes = Vec::new();
    for (path, hash) in &after.files {
        match old.get(path.as_str()) {
            None => changes.push(format!("{path} is new")),
            Some(was) if was != hash => changes.push(format!("{path} changed")),
            Some(_) => {}
        }
    }
    changes.extend(
        before
            .files
            .iter()
            .filter(|(path, _)| !new.contains_key(path.as_str()))
            .map(|(path, _)| format!("{path} is gone")),
    );
    if changes.len() > NAMED_FILES {
        let more = changes.len() - NAMED_FILES;
        changes.truncate(NAMED_FILES);
        changes.push(format!("{more} more files"));
    }
    changes
}

fn cut(value: &str) -> String {
    let line = value.replace('\n', "⏎");
    if line.chars().count() <= VALUE_LENGTH {
        return format!("`{line}`");
    }
    let head: String = line.chars().take(VALUE_LENGTH).collect();
    format!("`{head}…`")
}

#[cfg(test)]
mod tests {
    use super::{Parts, difference};

    fn parts(named: &[(&str, &str)], files: &[(&str, u64)]) -> Parts {
        Parts {
            named: named.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
            files: files.iter().map(|(a, b)| ((*a).to_owned(), *b)).collect(),
        }
    }

    #[test]
    fn names_what_changed() {
        let before = parts(&[("env VERSION", "1"), ("parent", "aa")], &[("src/main.rs", 1), ("old", 2)]);
        let after = parts(&[("env VERSION", "2"), ("parent", "bb")], &[("src/main.rs", 9), ("new", 2)]);
        assert_eq!(
            difference(&before, &after, &|_| None),
            "src/main.rs changed, new is new, old is gone, env VERSION `1` → `2`, parent changed"
        );
        let (run, copy) = (parts(&[("instruction", "run")], &[]), parts(&[("instruction", "copy")], &[]));
        assert_eq!(difference(&run, &copy, &|_| None), "another instruction stood here");
    }
}
