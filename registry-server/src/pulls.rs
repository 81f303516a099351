//! When manifests were last pulled: noted in memory, since a pull is not to wait for the disk, and written together
//! every now and then. A server that is killed forgets those of the last minute.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_store::Digest;
use tokio::sync::watch;

use crate::database;
use crate::error::{Error, chain};
use crate::name::RepositoryName;
use crate::registry::Registry;

/// How often they are written.
const INTERVAL: Duration = Duration::from_secs(60);
/// Manifests that are noted between two times; of more, some pulls are not known. Each is in as many repositories as
/// somebody pushed it to.
const MOST: usize = 32_768;

/// The pulls that are not in the database yet: of each manifest, where and when (seconds since 1970) it was last pulled.
#[derive(Debug, Default)]
pub(crate) struct Pulls(Mutex<HashMap<Digest, Vec<(RepositoryName, i64)>>>);

impl Pulls {
    /// The manifest is asked for, now.
    pub(crate) fn note(&self, repository: &RepositoryName, digest: &Digest) {
        let now = database::now();
        let mut pulls = self.noted();
        if pulls.len() >= MOST && !pulls.contains_key(digest) {
            return;
        }
        let places = pulls.entry(*digest).or_default();
        match places.iter_mut().find(|(name, _)| name == repository) {
            Some((_, at)) => *at = now,
            None => places.push((repository.clone(), now)),
        }
    }

    fn noted(&self) -> MutexGuard<'_, HashMap<Digest, Vec<(RepositoryName, i64)>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what was noted since the last time.
pub(crate) async fn write(registry: &Registry) -> Result<(), Error> {
    let noted = mem::take(&mut *registry.pulls.noted());
    if noted.is_empty() || registry.read_only {
        return Ok(());
    }
    let write = move |batch: &mut database::Batch<'_>| {
        for (digest, places) in &noted {
            for (repository, at) in places {
                database::note_pull(batch, repository, digest, *at)?;
            }
        }
        Ok(())
    };
    registry.database.change("note pulls", write).await
}

/// Writes them at intervals, until the sender of `stopped` is gone.
pub(crate) async fn run(registry: Arc<Registry>, mut stopped: watch::Receiver<()>) {
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = stopped.changed() => return,
        }
        if let Err(error) = write(&registry).await {
            tracing::warn!(error = chain(&error), "some pulls will not be known to retention");
        }
    }
}
