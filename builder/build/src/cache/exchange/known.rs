//! What builds used and made: what an export may send.

use std::collections::{BTreeMap, BTreeSet};

use kiln_store::{DiffId, Store};

use super::document::{Content, Document, Record, hex};
use crate::Result;
use crate::cache::record::Value;
use crate::key::Key;
use crate::plan::{Operation, Plan, StepMount, Target};
use crate::solve::Solution;
use crate::step::mounts;

/// The records of builds, by their keys.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// Those of the results' own stages, and of the images.
    own: BTreeMap<Key, Record>,
    /// Those of other stages.
    others: BTreeMap<Key, Record>,
    /// The cache mounts that steps name.
    mounts: BTreeSet<String>,
}

impl Known {
    /// Of one image of a build. `image` is the key of the whole image, and when it was first built.
    pub(crate) fn of(plan: &Plan, target: &Target, solution: &Solution, image: Option<(Key, &str)>) -> Self {
        let mut known = Self::default();
        let mut own = BTreeSet::new();
        let mut next = target.result;
        while let Some(vertex) = next {
            own.insert(vertex);
            next = plan.vertices[vertex].parent;
        }
        for (id, vertex) in plan.vertices.iter().enumerate() {
            let Some(done) = solution.done.get(id).and_then(Option::as_ref) else { continue };
            if let Operation::Run(step) = &vertex.operation {
                for mount in &step.mounts {
                    let StepMount::Cache { id, from, .. } = mount else { continue };
                    let base = from.and_then(|from| solution.done.get(from)?.as_ref());
                    known.mounts.insert(mounts::cache_name(id, base.map_or(&[], |base| &base.chain)));
                }
            }
            let Some(found) = &done.found else { continue };
            let records = if own.contains(&id) { &mut known.own } else { &mut known.others };
            let value = Value { content_key: None, ..found.value.clone() };
            records.insert(found.key, Record::step(&found.key, &value, &vertex.name, done.ran));
            if let Some(quick) = found.quick {
                let value = Value { content_key: Some(hex(&found.key)), ..value };
                records.insert(quick, Record::step(&quick, &value, &vertex.name, done.ran));
            }
        }
        if let Some((key, created)) = image {
            known.own.insert(key, Record::image(&key, created));
        }
        known
    }

    /// Adds what another build used and made.
    pub(super) fn merge(&mut self, other: Self) {
        self.own.extend(other.own);
        self.others.extend(other.others);
        self.mounts.extend(other.mounts);
    }

    /// The records, each with whether its layer goes with it: only those of the results' own stages, or all.
    pub(super) fn records(&self, all_stages: bool) -> Vec<(&Record, bool)> {
        let mut records: BTreeMap<&Key, (&Record, bool)> = BTreeMap::new();
        records.extend(self.others.iter().map(|(key, record)| (key, (record, all_stages))));
        records.extend(self.own.iter().map(|(key, record)| (key, (record, true))));
        records.into_values().collect()
    }

    /// The cache mounts.
    pub(super) fn mounts(&self) -> impl Iterator<Item = &String> {
        self.mounts.iter()
    }

    /// What an image of these layers can carry in itself.
    pub(crate) fn inline(&self, store: &Store, layers: &[DiffId]) -> Result<Document> {
        let mut document = Document::default();
        for layer in layers.iter().collect::<BTreeSet<_>>() {
            if let Some(known) = store.layer(layer)? {
                document.layers.push(Content { diff_id: *layer, size: known.tar_size });
            }
        }
        // What the steps of other stages are called is nobody's business who has the image.
        let bare = |(record, _): (&Record, bool)| Record { description: String::new(), ..record.clone() };
        document.records = self.records(false).into_iter().map(bare).collect();
        Ok(document)
    }
}
