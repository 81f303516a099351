//! From a directory to a layer.

use std::io::{self, Write};
use std::path::Path;

use rustix::fs::CWD;

use super::{Layer, Staging};
use crate::archive::writer::{self, Treatment};
use crate::digest::Algorithm;
use crate::hashing::BackgroundHasher;
use crate::metadata::{LayerRow, insert_layer, mark_used, select_layer};
use crate::{DiffId, Error, Result, Store, directory};

impl Store {
    /// Turns the staging's upper directory into a layer: strips overlay's own xattrs, sockets and the like, clamps
    /// modification times to `clamp` (seconds since 1970) when given, hashes the deterministic tar, renames.
    /// An existing layer of the same diffID is kept and the staging dropped.
    #[allow(clippy::needless_pass_by_value, reason = "the staging ends here")]
    pub fn commit(&self, staging: Staging, clamp: Option<i64>) -> Result<Layer> {
        let layer = self.hash_directory(staging.upper(), Algorithm::Sha256, Treatment::Finish { clamp })?;
        self.place(staging.upper(), layer, true)
    }

    /// The layer that a directory makes.
    pub(super) fn hash_directory(&self, path: &Path, algorithm: Algorithm, treatment: Treatment) -> Result<Layer> {
        let mut hasher = BackgroundHasher::new(algorithm);
        let written = self.write_directory(path, treatment, &mut hasher)?;
        Ok(Layer { diff_id: hasher.finish()?, tar_size: written.size, empty: written.entries == 0 })
    }

    pub(super) fn write_directory(
        &self,
        path: &Path,
        treatment: Treatment,
        out: &mut dyn Write,
    ) -> Result<writer::Written> {
        let root = directory::open(CWD, path).map_err(Error::io("open layer", path))?;
        writer::write(root, self.privilege(), treatment, out)
    }

    /// Renames `path` to the layer's place and records it, as one step for every other process: a directory that is in
    /// place without its record belongs to a process that was killed in between.
    pub(super) fn place(&self, path: &Path, layer: Layer, reproducible: bool) -> Result<Layer> {
        self.pin(&layer.diff_id);
        let target = self.layer_path(&layer.diff_id);
        let mut replaced = None;
        let placed = self.database.change("record layer", |transaction| {
            if let Some(row) = select_layer(transaction, &layer.diff_id)?
                && self.is_trusted(&row.boot, row.settled)
                && target.is_dir()
            {
                mark_used(transaction, &layer.diff_id)?;
                return Ok(row.layer);
            }
            replaced = self.take_away(&target)?;
            std::fs::rename(path, &target).map_err(Error::io("store layer", &target))?;
            insert_layer(
                transaction,
                &LayerRow { layer, reproducible, boot: self.boot.clone(), settled: false, used: 0 },
            )?;
            Ok(layer)
        });
        if let Some(replaced) = replaced {
            self.temporary.remove(&replaced);
        }
        placed
    }

    /// Moves what stands at `path`, if anything, among the temporary files.
    pub(crate) fn take_away(&self, path: &Path) -> Result<Option<std::path::PathBuf>> {
        let away = self.temporary.unused();
        match std::fs::rename(path, &away) {
            Ok(()) => Ok(Some(away)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("move away", path)(error)),
        }
    }

    /// Writes the layer's tar, whose digest is `diff_id`: the deterministic tar of its directory, or, for a layer that
    /// came from elsewhere in another form, its own bytes. Returns their number.
    ///
    /// # Errors
    /// [`Error::LayerMissing`]; [`Error::OriginalMissing`].
    pub fn write_tar(&self, diff_id: &DiffId, out: &mut dyn Write) -> Result<u64> {
        self.layer(diff_id)?.ok_or(Error::LayerMissing(*diff_id))?;
        let row = self.layer_row(diff_id)?.ok_or(Error::LayerMissing(*diff_id))?;
        if row.reproducible {
            return Ok(self.write_directory(&self.layer_path(diff_id), Treatment::Read, out)?.size);
        }
        let mut original = self.open_form(diff_id)?.ok_or(Error::OriginalMissing(*diff_id))?;
        super::unpack::copy(&mut original, out)
    }
}
