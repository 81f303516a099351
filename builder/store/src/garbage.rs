//! Deleting what nothing leads to any more.

use std::collections::HashSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::digest::Algorithm;
use crate::metadata::delete_layer;
use crate::{DiffId, Digest, Error, Result, Store};

/// Manifests longer than this are none (as the registry's limit, four times over).
const MAX_MANIFEST: u64 = 16 << 20;

impl Store {
    /// Deletes blobs and layers that no image, reference, cache record or container needs; returns the bytes freed.
    /// Takes the lock exclusively: `Ok(None)` when another process is using the store, or a layer is being made here.
    /// Must not be called while another thread still needs what nothing leads to.
    pub fn collect_garbage(&self, keep_layers: &[DiffId]) -> Result<Option<u64>> {
        let _one = self.converting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stagings.load(Ordering::Acquire) > 0 {
            return Ok(None);
        }
        let lock = |operation| rustix::io::retry_on_intr(|| flock(&self.lock, operation));
        let taken = lock(FlockOperation::NonBlockingLockExclusive);
        let freed = match taken {
            Ok(()) => self.sweep(keep_layers).map(Some),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(Error::io("lock", self.root())(errno)),
        };
        // A conversion that fails gives the shared lock away as well.
        lock(FlockOperation::LockShared).map_err(Error::io("lock", self.root()))?;
        freed
    }

    fn sweep(&self, keep_layers: &[DiffId]) -> Result<u64> {
        let (layers, blobs) = self.mark(keep_layers)?;
        let mut freed = self.sweep_layers(&layers)?;
        self.forget_layers_but(&layers)?;
        for digest in self.blobs().list()? {
            if !blobs.contains(&digest) {
                freed += self.blobs().size(&digest)?.unwrap_or(0);
                self.blobs().remove(&digest)?;
            }
        }
        self.forget_missing_blobs()?;
        Ok(freed)
    }

    /// The layers and blobs that something leads to.
    pub(crate) fn mark(&self, keep_layers: &[DiffId]) -> Result<(HashSet<DiffId>, HashSet<Digest>)> {
        let mut layers: HashSet<DiffId> = keep_layers.iter().copied().collect();
        let mut blobs = HashSet::new();
        for image in self.images()? {
            layers.extend(image.layers);
            blobs.insert(image.id);
            if let Some(manifest) = image.manifest {
                self.mark_manifest(manifest, &mut blobs);
            }
        }
        for (_, id) in self.references()? {
            // An index, or a manifest that is known by where it can be had.
            self.mark_manifest(id, &mut blobs);
        }
        layers.extend(self.cached_layers()?);
        for diff_id in &layers {
            for row in self.blob_rows(diff_id)? {
                blobs.extend(self.blobs_of_form(&row));
                blobs.insert(row.blob.digest);
            }
        }
        Ok((layers, blobs))
    }

    /// A manifest and what it names, as far as it is here: its layers may wait as blobs until a step needs them.
    fn mark_manifest(&self, manifest: Digest, blobs: &mut HashSet<Digest>) {
        let mut pending = vec![manifest];
        while let Some(digest) = pending.pop() {
            if !blobs.insert(digest) {
                continue;
            }
            let Ok(bytes) = self.blobs().read(&digest, MAX_MANIFEST) else { continue };
            let Ok(json) = serde_json::from_slice::<serde_json::Value>(&bytes) else { continue };
            let named = |descriptor: &serde_json::Value| descriptor.get("digest")?.as_str()?.parse::<Digest>().ok();
            blobs.extend(json.get("config").and_then(named));
            let array = |key| json.get(key).and_then(serde_json::Value::as_array).into_iter().flatten();
            blobs.extend(array("layers").filter_map(named));
            pending.extend(array("manifests").filter_map(named));
        }
    }

    fn sweep_layers(&self, keep: &HashSet<DiffId>) -> Result<u64> {
        let directory = self.root().join("layers");
        let mut freed = 0;
        for entry in std::fs::read_dir(&directory).map_err(Error::io("list", &directory))? {
            let entry = entry.map_err(Error::io("list", &directory))?;
            let name = entry.file_name();
            let digest = name
                .to_str()
                .and_then(|hex| Algorithm::ALL.into_iter().find_map(|algorithm| Digest::from_hex(algorithm, hex).ok()));
            let Some(diff_id) = digest.filter(|diff_id| !keep.contains(diff_id)) else { continue };
            freed += self.layer_row(&diff_id)?.map_or(0, |row| row.layer.tar_size);
            let away = self.database.change("remove layer", |transaction| {
                delete_layer(transaction, &diff_id)?;
                self.take_away(&entry.path())
            })?;
            if let Some(away) = away {
                self.temporary.remove(&away);
            }
        }
        Ok(freed)
    }
}
