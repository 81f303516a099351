//! Giving back what the build cache takes.

use std::collections::HashSet;

use kiln_store::metadata::Pruned;
use kiln_store::{DiffId, Digest, Store};

use super::usage::{self, Entry, Kind};
use crate::Result;

/// What is to go.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Also what images and containers share: their steps run again, and no room is gained.
    pub all: bool,
    /// Only what was not used for so many seconds.
    pub unused_for: Option<i64>,
    /// Only these kinds (BuildKit's names); all when empty.
    pub kinds: Vec<String>,
    /// Only entries whose id begins so; all when empty.
    pub ids: Vec<String>,
    /// Only entries whose description contains all of these.
    pub descriptions: Vec<String>,
    /// Only shared ones, or only others.
    pub shared: Option<bool>,
    /// Least recently used first, until no more than so many bytes are left.
    pub keep_storage: Option<u64>,
}

impl Selection {
    /// Whether an entry is one of those.
    pub fn wants(&self, entry: &Entry, now: i64) -> bool {
        let any = |list: &[String], matches: &dyn Fn(&str) -> bool| {
            list.is_empty() || list.iter().any(|text| matches(text.as_str()))
        };
        (self.all || !entry.shared)
            && self.unused_for.is_none_or(|seconds| now - entry.last_used >= seconds)
            && any(&self.kinds, &|kind| kind == entry.kind.name())
            && any(&self.ids, &|id| entry.id.starts_with(id))
            && self.descriptions.iter().all(|text| entry.description.contains(text.as_str()))
            && self.shared.is_none_or(|shared| shared == entry.shared)
    }

    fn is_everything(&self) -> bool {
        let Self { all, unused_for, kinds, ids, descriptions, shared, keep_storage } = self;
        *all && unused_for.is_none()
            && kinds.is_empty()
            && ids.is_empty()
            && descriptions.is_empty()
            && shared.is_none()
            && keep_storage.is_none()
    }
}

/// What is gone.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The entries.
    pub removed: Vec<Entry>,
    /// Bytes that their going freed.
    pub freed: u64,
}

/// Removes what is selected, and nothing that an image, a container or a running build needs. `keep` are the layers
/// of containers.
///
/// # Errors
/// The store cannot be changed; what is gone by then is gone.
pub fn prune(store: &Store, selection: &Selection, keep: &HashSet<DiffId>) -> Result<Report> {
    let entries = usage::list(store, keep)?;
    let mut total: u64 = entries.iter().map(|entry| entry.size).sum();
    let now = i64::try_from(crate::solve::now() / 1_000_000_000).unwrap_or(i64::MAX);
    let mut report = Report::default();
    let mut orphans = Vec::new();
    for entry in entries.into_iter().filter(|entry| !entry.in_use && selection.wants(entry, now)) {
        if selection.keep_storage.is_some_and(|keep| total <= keep) {
            break;
        }
        if let Some(freed) = remove(store, &entry, keep, &mut orphans)? {
            total = total.saturating_sub(entry.size);
            report.freed += freed;
            report.removed.push(entry);
        }
    }
    report.freed += store.remove_orphans(&orphans, keep)?;
    if selection.is_everything() {
        store.forget_fingerprints()?;
    }
    Ok(report)
}

/// Removes one entry; tells what that freed at once, or nothing when a running build may need it.
fn remove(store: &Store, entry: &Entry, keep: &HashSet<DiffId>, orphans: &mut Vec<Digest>) -> Result<Option<u64>> {
    match (entry.kind, &entry.layer) {
        (Kind::Regular, Some(layer)) => Ok(match store.prune_cached_layer(layer, keep, orphans)? {
            Pruned::Layer(freed) => Some(freed),
            Pruned::Records => Some(0),
            Pruned::Nothing => None,
        }),
        (Kind::FailedStep, _) => usage::remove_failed_step(store, entry),
        _ => usage::remove_mount(store, entry),
    }
}
