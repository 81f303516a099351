//! The ceiling of the build cache, kept while building.

use std::collections::HashSet;
use std::sync::Mutex;

use kiln_store::{DiffId, Store};

use super::prune::{self, Selection};
use crate::Result;

/// How much the build cache may take, and what it may not touch.
#[derive(Debug, Default)]
pub struct Limit {
    /// Bytes; `None` is no limit.
    pub bytes: Option<u64>,
    /// The layers of containers.
    pub keep: HashSet<DiffId>,
    /// One thread at a time counts and removes.
    enforcing: Mutex<()>,
}

impl Limit {
    /// A limit of so many bytes.
    pub fn new(bytes: Option<u64>, keep: HashSet<DiffId>) -> Self {
        Self { bytes, keep, enforcing: Mutex::default() }
    }

    /// Removes the least recently used entries until the cache is below the limit; what this build has used stays.
    pub(crate) fn enforce(&self, store: &Store) -> Result<()> {
        let Some(bytes) = self.bytes else { return Ok(()) };
        let Ok(_one) = self.enforcing.try_lock() else { return Ok(()) };
        let selection = Selection { keep_storage: Some(bytes), ..Selection::default() };
        for entry in prune::prune(store, &selection, &self.keep)?.removed {
            tracing::info!(entry = entry.id, size = entry.size, "cache limit: removed");
        }
        Ok(())
    }
}
