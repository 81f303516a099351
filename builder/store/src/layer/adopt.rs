//! A blob from elsewhere becomes a layer as it is: unpacked when somebody first looks into it, and never if none does.

use std::io::Read;

use super::unpack::{check, copy};
use super::{Layer, LayerBlob};
use crate::archive::BLOCK;
use crate::archive::decompress::decompress;
use crate::hashing::BackgroundHasher;
use crate::metadata::{LayerRow, insert_layer, mark_used, select_layer};
use crate::{DiffId, Error, Result, Store};

impl Store {
    /// Takes a blob of the store as the layer `diff_id`, whose tar has `tar_size` bytes; both are verified. A layer that
    /// is here already is returned without reading anything.
    ///
    /// # Errors
    /// [`Error::BlobMissing`]; [`Error::DigestMismatch`]; [`Error::TooLarge`] when more than `tar_size` bytes come out.
    pub fn adopt_blob(&self, blob: &LayerBlob, diff_id: &DiffId, tar_size: u64) -> Result<Layer> {
        if let Some(layer) = self.layer(diff_id)? {
            return Ok(layer);
        }
        let file = self.blobs().get(&blob.digest)?.ok_or(Error::BlobMissing(blob.digest))?;
        let (compression, stream) = decompress(file).map_err(Error::ArchiveRead)?;
        let mut hasher = BackgroundHasher::new(diff_id.algorithm());
        let size = copy(&mut stream.take(tar_size.saturating_add(1)), &mut hasher)?;
        if size > tar_size {
            let what = format!("the content of {}", blob.digest);
            return Err(Error::TooLarge { what, size, limit: tar_size });
        }
        check(blob.digest, diff_id, &hasher.finish()?)?;
        // Nothing but the two blocks that end a tar.
        let layer = Layer { diff_id: *diff_id, tar_size: size, empty: size <= 2 * BLOCK as u64 };
        // Neither the blob nor the layer may be pruned before the layer is marked as used.
        let _gate = self.temporary.keep_pruners_out()?;
        if self.blobs().size(&blob.digest)? != Some(blob.size) {
            return Err(Error::BlobMissing(blob.digest));
        }
        self.remember_form(diff_id, blob.clone(), compression, true)?;
        self.database.change("record layer", |transaction| {
            match select_layer(transaction, diff_id)? {
                Some(row) if self.is_trusted(&row.boot, row.settled) => drop(mark_used(transaction, diff_id)?),
                _ => {
                    let boot = self.boot.clone();
                    insert_layer(transaction, &LayerRow { layer, reproducible: false, boot, settled: false, used: 0 })?;
                }
            }
            self.pin(diff_id);
            Ok(())
        })?;
        Ok(layer)
    }
}

#[cfg(test)]
mod tests;
