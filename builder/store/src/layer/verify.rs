//! Whether a layer is here, and still is what its name says after a power loss or without its record.

use std::path::PathBuf;

use super::Layer;
use crate::archive::writer::Treatment;
use crate::metadata::{LayerRow, USE_RESOLUTION, delete_layer, insert_layer, mark_used, now, select_layer};
use crate::{DiffId, Error, Result, Store};

impl Store {
    /// Whether the layer is here (and, after an unclean boot, intact), as a directory or in a form that makes one.
    /// What is asked for is not pruned from the build cache while this store is open.
    pub fn layer(&self, diff_id: &DiffId) -> Result<Option<Layer>> {
        let layer = self.find_layer(diff_id)?;
        if layer.is_some() {
            self.pin(diff_id);
        }
        Ok(layer)
    }

    /// Others see that it is needed; and if one of them was faster, it is not here.
    fn mark_as_used(&self, row: &LayerRow) -> Result<Option<Layer>> {
        let stale = now() - row.used >= USE_RESOLUTION;
        let kept = !stale || mark_used(&self.database.lock(), &row.layer.diff_id)?;
        self.database.marked(usize::from(stale && kept));
        Ok(kept.then_some(row.layer))
    }

    fn find_layer(&self, diff_id: &DiffId) -> Result<Option<Layer>> {
        let here = self.layer_path(diff_id).is_dir();
        match self.layer_row(diff_id)? {
            Some(row) if here && self.is_trusted(&row.boot, row.settled) => self.mark_as_used(&row),
            Some(row) if !here && self.has_form(diff_id)? => self.mark_as_used(&row),
            Some(row) => self.verify_again(&row, here),
            None if here => self.adopt_unknown(diff_id),
            None => Ok(None),
        }
    }

    /// The layer's directory, unpacked now if it was not.
    ///
    /// # Errors
    /// [`crate::Error::LayerMissing`].
    pub fn unpacked(&self, diff_id: &DiffId) -> Result<PathBuf> {
        let path = self.layer_path(diff_id);
        self.layer(diff_id)?.ok_or(Error::LayerMissing(*diff_id))?;
        if !path.is_dir() {
            self.unpack_form(diff_id)?.ok_or(Error::LayerMissing(*diff_id))?;
        }
        Ok(path)
    }

    /// Written since the machine was last started, or flushed before.
    pub(crate) fn is_trusted(&self, boot: &str, settled: bool) -> bool {
        settled || boot == self.boot
    }

    /// A layer that a power loss may have damaged, or whose directory is gone.
    fn verify_again(&self, row: &LayerRow, here: bool) -> Result<Option<Layer>> {
        let diff_id = &row.layer.diff_id;
        if row.reproducible && here {
            let path = self.layer_path(diff_id);
            // A directory that cannot even be read is as good as damaged.
            let found = self.hash_directory(&path, diff_id.algorithm(), Treatment::Read);
            if found.is_ok_and(|found| found == row.layer) {
                insert_layer(&self.database.lock(), &LayerRow { settled: true, ..row.clone() })?;
                return Ok(Some(row.layer));
            }
        }
        // Its blob, which is verified on the way, makes it again.
        if let Ok(Some(layer)) = self.unpack_form(diff_id) {
            // Not again after the next boot.
            self.settle()?;
            return Ok(Some(layer));
        }
        tracing::warn!(%diff_id, "layer was damaged and is removed");
        self.forget(diff_id)?;
        Ok(None)
    }

    fn forget(&self, diff_id: &DiffId) -> Result<()> {
        let mut away = None;
        let path = self.layer_path(diff_id);
        self.database.change("forget layer", |transaction| {
            let row = select_layer(transaction, diff_id)?;
            // Another process may have brought it back meanwhile.
            if row.is_none_or(|row| !self.is_trusted(&row.boot, row.settled) || !path.is_dir()) {
                delete_layer(transaction, diff_id)?;
                away = self.take_away(&path)?;
            }
            Ok(())
        })?;
        if let Some(away) = away {
            self.temporary.remove(&away);
        }
        Ok(())
    }

    /// A directory without a record: of a process that was killed between the two, or the metadata was lost.
    /// It is taken out of everybody's sight, hashed, and put back if it is what its name says.
    fn adopt_unknown(&self, diff_id: &DiffId) -> Result<Option<Layer>> {
        let path = self.layer_path(diff_id);
        let (known, away) = self.database.change("adopt layer", |transaction| {
            Ok(match select_layer(transaction, diff_id)? {
                Some(row) => (Some(row.layer), None),
                None => (None, self.take_away(&path)?),
            })
        })?;
        let Some(away) = away else { return Ok(known) };
        let found = self.hash_directory(&away, diff_id.algorithm(), Treatment::Read);
        let layer = match found {
            Ok(layer) if layer.diff_id == *diff_id => Some(self.place(&away, layer, true)?),
            _ => None,
        };
        self.temporary.remove(&away);
        Ok(layer)
    }
}
