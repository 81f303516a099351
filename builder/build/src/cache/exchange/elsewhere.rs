//! Layers that are elsewhere, and come when a step first needs their files; and those that nobody has, of which it is
//! only known that a step gave them: they do as long as no step needs their files.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_image::manifest::Descriptor;
use kiln_store::layer::LayerBlob;
use kiln_store::{DiffId, Store};

use super::document::{Piece, Record, parse_key};
use crate::error::chain;
use crate::key::Parts;
use crate::parallel::in_parallel;
use crate::{Error, Result};

/// The layers, by their diffIDs.
#[derive(Default)]
pub(super) struct Elsewhere {
    layers: Mutex<HashMap<DiffId, Arc<Mutex<Waiting>>>>,
    /// Nobody has them.
    promised: Mutex<HashSet<DiffId>>,
    /// They could not be had, or their files are needed.
    lost: Mutex<HashSet<DiffId>>,
}

/// A layer that is not here yet.
struct Waiting {
    source: usize,
    piece: Piece,
    /// What leads to it once it is here.
    records: Vec<Record>,
    fetched: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Elsewhere {
    /// A layer that a source has, and a record that leads to it; `false` when it was lost before.
    pub(super) fn add(&self, source: usize, piece: Piece, record: Record) -> bool {
        if lock(&self.lost).contains(&piece.diff_id) {
            return false;
        }
        let new = |piece| Arc::new(Mutex::new(Waiting { source, piece, records: Vec::new(), fetched: false }));
        let waiting = Arc::clone(lock(&self.layers).entry(piece.diff_id).or_insert_with(|| new(piece)));
        let mut waiting = lock(&waiting);
        if !waiting.records.iter().any(|known| known.key == record.key) {
            waiting.records.push(record);
        }
        true
    }

    /// A layer that nobody has; `false` when its files are needed.
    pub(super) fn promise(&self, layer: &DiffId) -> bool {
        if lock(&self.lost).contains(layer) {
            return false;
        }
        lock(&self.promised).insert(*layer);
        true
    }

    /// Takes back what was promised of these layers, as their files are needed; whether there was anything to take back.
    pub(super) fn withdraw(&self, layers: &[DiffId]) -> bool {
        let (mut promised, mut lost) = (lock(&self.promised), lock(&self.lost));
        let taken: Vec<&DiffId> = layers.iter().filter(|layer| promised.remove(*layer)).collect();
        lost.extend(taken.iter().copied());
        !taken.is_empty()
    }

    /// Whether nobody has it.
    pub(super) fn is_promised(&self, layer: &DiffId) -> bool {
        lock(&self.promised).contains(layer)
    }

    /// Where a layer is that did not come.
    pub(super) fn piece(&self, layer: &DiffId) -> Option<Piece> {
        let waiting = Arc::clone(lock(&self.layers).get(layer)?);
        let waiting = lock(&waiting);
        (!waiting.fetched).then(|| waiting.piece.clone())
    }

    /// Fetches those of the layers that are not here, several at once; `fetch` brings a source's blob.
    pub(super) fn ensure(
        &self,
        store: &Store,
        note: &(dyn Fn(&str) + Sync),
        layers: &[DiffId],
        fetch: impl Fn(usize, &Descriptor) -> Result<()> + Sync,
    ) -> Result<()> {
        if let Some(layer) = layers.iter().find(|layer| self.is_promised(layer)) {
            self.withdraw(&[*layer]);
            return Err(Error::CacheLost { layer: Box::new(*layer), reason: "it is not there".to_owned() });
        }
        let wanted: Vec<Arc<Mutex<Waiting>>> = {
            let known = lock(&self.layers);
            layers.iter().filter_map(|layer| known.get(layer).cloned()).collect()
        };
        let waiting: Vec<_> = wanted.into_iter().filter(|waiting| !lock(waiting).fetched).collect();
        in_parallel(&waiting, |waiting| self.bring(store, note, waiting, &fetch)).map(drop)
    }

    fn bring(
        &self,
        store: &Store,
        note: &(dyn Fn(&str) + Sync),
        waiting: &Mutex<Waiting>,
        fetch: &impl Fn(usize, &Descriptor) -> Result<()>,
    ) -> Result<()> {
        let mut waiting = lock(waiting);
        if waiting.fetched {
            return Ok(());
        }
        let Piece { blob, diff_id, tar_size } = &waiting.piece;
        let bring = || {
            if store.layer(diff_id)?.is_none() {
                if store.blobs().size(&blob.digest)? != Some(blob.size) {
                    let step = waiting.records.first().map_or("", |record| record.description.as_str());
                    note(&format!("fetching from cache: {step} ({} bytes)", blob.size));
                    fetch(waiting.source, blob)?;
                }
                let form = LayerBlob { digest: blob.digest, size: blob.size, media_type: blob.media_type.clone() };
                store.adopt_blob(&form, diff_id, *tar_size)?;
            }
            waiting.records.iter().try_for_each(|record| keep(store, record))
        };
        if let Err(error) = bring() {
            lock(&self.lost).insert(*diff_id);
            return Err(Error::CacheLost { layer: Box::new(*diff_id), reason: chain(&error) });
        }
        waiting.fetched = true;
        Ok(())
    }
}

/// Keeps a record whose layer is here.
pub(super) fn keep(store: &Store, record: &Record) -> Result<()> {
    let (Some(key), Some(value)) = (parse_key(&record.key), record.value()) else { return Ok(()) };
    value.put(store, key, &Parts::default(), "", &record.description)
}
