//! Layers that are elsewhere, and come when a step first needs their files: those of steps that another machine did, and
//! those of base images. And those that nobody has, of which it is only known that a step gave them: they do as long as no
//! step needs their files.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_image::registry::RemoteImage;
use kiln_store::{DiffId, Store};

use super::document::{Piece, Record, parse_key};
use crate::cache::lock_file::Held;
use crate::cache::lookup;
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

/// Where a layer is.
#[derive(Clone)]
pub(super) enum Place {
    /// At a source of the cache, by its number.
    Cache(usize, Arc<Piece>),
    /// Where the base image is.
    Base(Arc<RemoteImage>),
}

/// A layer that is not here yet.
struct Waiting {
    place: Place,
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
        self.wait_for(piece.diff_id, || Place::Cache(source, Arc::new(piece)), Some(record));
        true
    }

    /// A layer of a base image.
    pub(super) fn add_base(&self, layer: DiffId, image: &Arc<RemoteImage>) {
        self.wait_for(layer, || Place::Base(Arc::clone(image)), None);
    }

    fn wait_for(&self, layer: DiffId, place: impl FnOnce() -> Place, record: Option<Record>) {
        let new = || Arc::new(Mutex::new(Waiting { place: place(), records: Vec::new(), fetched: false }));
        let waiting = Arc::clone(lock(&self.layers).entry(layer).or_insert_with(new));
        let mut waiting = lock(&waiting);
        let is_new = |record: &Record| !waiting.records.iter().any(|known| known.key == record.key);
        if let Some(record) = record.filter(is_new) {
            waiting.records.push(record);
        }
    }

    /// A layer that a record leads to, and that nobody has or that only a base image does; `false` when nobody has it and
    /// its files are needed.
    pub(super) fn promise(&self, layer: &DiffId) -> bool {
        if lock(&self.layers).contains_key(layer) {
            return true;
        }
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
    pub(super) fn place(&self, layer: &DiffId) -> Option<Place> {
        let waiting = Arc::clone(lock(&self.layers).get(layer)?);
        let waiting = lock(&waiting);
        (!waiting.fetched).then(|| waiting.place.clone())
    }

    /// Brings those of the layers that are not here, several at once; `bring` gets one, with the description of the step
    /// that made it.
    pub(super) fn ensure(
        &self,
        store: &Store,
        layers: &[DiffId],
        bring: impl Fn(&DiffId, &Place, &str) -> Result<()> + Sync,
    ) -> Result<()> {
        if let Some(layer) = layers.iter().find(|layer| self.is_promised(layer)) {
            self.withdraw(&[*layer]);
            return Err(Error::CacheLost { layer: Box::new(*layer), reason: "it is not there".to_owned() });
        }
        let wanted: Vec<(DiffId, Arc<Mutex<Waiting>>)> = {
            let known = lock(&self.layers);
            layers.iter().filter_map(|layer| Some((*layer, known.get(layer).cloned()?))).collect()
        };
        in_parallel(&wanted, |(layer, waiting)| self.bring(store, layer, waiting, &bring)).map(drop)
    }

    fn bring(
        &self,
        store: &Store,
        layer: &DiffId,
        waiting: &Mutex<Waiting>,
        bring: &impl Fn(&DiffId, &Place, &str) -> Result<()>,
    ) -> Result<()> {
        let mut waiting = lock(waiting);
        if waiting.fetched {
            return Ok(());
        }
        let brought = bring_once(store, layer, || {
            let step = waiting.records.first().map_or("", |record| record.description.as_str());
            bring(layer, &waiting.place, step)
        });
        match (brought.and_then(|()| waiting.records.iter().try_for_each(|record| keep(store, record))), &waiting.place)
        {
            (Ok(()), _) => {
                waiting.fetched = true;
                Ok(())
            }
            (Err(error), Place::Base(_)) => Err(error),
            (Err(error), Place::Cache(..)) => {
                lock(&self.lost).insert(*layer);
                Err(Error::CacheLost { layer: Box::new(*layer), reason: chain(&error) })
            }
        }
    }
}

/// Brings a layer, unless it is here or another process brings it at this moment.
fn bring_once(store: &Store, layer: &DiffId, bring: impl FnOnce() -> Result<()>) -> Result<()> {
    if store.layer(layer)?.is_some() {
        return Ok(());
    }
    let key = *blake3::Hasher::new().update(b"kiln layer 1").update(layer.hex().as_bytes()).finalize().as_bytes();
    let path = lookup::lock_path(store, &key)?;
    let (lock, waited) = lookup::wait_for_others(&path)?;
    let _held = Held::new(&path, lock);
    if waited && store.layer(layer)?.is_some() {
        return Ok(());
    }
    bring()
}

/// Keeps a record whose layer is here.
pub(super) fn keep(store: &Store, record: &Record) -> Result<()> {
    let (Some(key), Some(value)) = (parse_key(&record.key), record.value()) else { return Ok(()) };
    value.put(store, key, &Parts::default(), "", &record.description)
}
