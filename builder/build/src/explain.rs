//! Why a step was not in the cache: the nearest earlier record of the same step against the new key's parts.

use std::collections::HashMap;

use kiln_store::Store;

use crate::key::{KIND, Parts};

/// How many changed files are named.
const NAMED_FILES: usize = 3;
/// Longer values are cut.
const VALUE_LENGTH: usize = 60;

/// One line that says what changed.
pub(crate) fn miss(store: &Store, step: &str, parts: &Parts, no_cache: bool) -> String {
    if no_cache {
        return "--no-cache".to_owned();
    }
    let earlier = match store.latest_cache_record(step) {
        Ok(Some(record)) => Parts::decode(&record.parts),
        _ => None,
    };
    match earlier {
        None => "never built".to_owned(),
        Some(earlier) => difference(&earlier, parts),
    }
}

fn difference(before: &Parts, after: &Parts) -> String {
    let old: HashMap<&str, &str> = before.named.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let new: HashMap<&str, &str> = after.named.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    if old.get(KIND) != new.get(KIND) {
        return "another instruction stood here".to_owned();
    }
    let mut changes = files(before, after);
    for (name, value) in &after.named {
        match old.get(name.as_str()) {
            Some(was) if was == value => {}
            Some(_) if is_opaque(name) => changes.push(format!("{name} changed")),
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
    if changes.is_empty() { "its record was pruned".to_owned() } else { changes.join(", ") }
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
            difference(&before, &after),
            "src/main.rs changed, new is new, old is gone, env VERSION `1` → `2`, parent changed"
        );
        assert_eq!(difference(&before, &before), "its record was pruned");
        let (run, copy) = (parts(&[("instruction", "run")], &[]), parts(&[("instruction", "copy")], &[]));
        assert_eq!(difference(&run, &copy), "another instruction stood here");
    }
}
