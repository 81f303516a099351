//! The compressed forms that are known of a layer.

use std::io::Read;

use super::{Compression, Layer, LayerBlob};
use crate::archive::decompress::{buffered, decompress};
use crate::metadata::BlobRow;
use crate::{DiffId, Error, Result, Store};

impl Store {
    /// The compressed form, when one is known and its blob is here.
    pub fn layer_blob(&self, diff_id: &DiffId, compression: Compression) -> Result<Option<LayerBlob>> {
        self.find_form(diff_id, |row| row.compression == Some(compression))
    }

    /// What the layer's bytes were when it was last compressed so, whether they are here or not.
    pub fn remembered_blob(&self, diff_id: &DiffId, compression: Compression) -> Result<Option<LayerBlob>> {
        let ours = |row: &BlobRow| !row.original && row.compression == Some(compression);
        Ok(self.blob_rows(diff_id)?.into_iter().find(ours).map(|row| row.blob))
    }

    /// Any compressed form as it came from elsewhere; what a push prefers to recompressing.
    pub fn original_blob(&self, diff_id: &DiffId) -> Result<Option<LayerBlob>> {
        self.find_form(diff_id, |row| row.original)
    }

    fn find_form(&self, diff_id: &DiffId, wanted: impl Fn(&BlobRow) -> bool) -> Result<Option<LayerBlob>> {
        for row in self.blob_rows(diff_id)?.into_iter().filter(wanted) {
            if self.is_blob_intact(diff_id, &row)? {
                return Ok(Some(row.blob));
            }
        }
        Ok(None)
    }

    /// Whether the blob is here; one that a power loss may have damaged is hashed again, and removed if it was.
    fn is_blob_intact(&self, diff_id: &DiffId, row: &BlobRow) -> Result<bool> {
        if self.blobs().size(&row.blob.digest)? != Some(row.blob.size) {
            return Ok(false);
        }
        if self.is_trusted(&row.boot, row.settled) {
            return Ok(true);
        }
        if self.blobs().verify(&row.blob.digest)? {
            self.insert_blob(diff_id, &BlobRow { settled: true, ..row.clone() })?;
            return Ok(true);
        }
        self.delete_blob(diff_id, &row.blob.digest)?;
        self.blobs().remove(&row.blob.digest)?;
        Ok(false)
    }

    /// Remembers a blob as a form of the layer.
    pub(super) fn remember_form(
        &self,
        diff_id: &DiffId,
        blob: LayerBlob,
        compression: Compression,
        original: bool,
    ) -> Result<()> {
        self.insert_blob(
            diff_id,
            &BlobRow { blob, compression: Some(compression), original, boot: self.boot.clone(), settled: false },
        )
    }

    /// Whether any form of the layer is here.
    pub(super) fn has_form(&self, diff_id: &DiffId) -> Result<bool> {
        Ok(self.find_form(diff_id, |row| row.compression.is_some())?.is_some() || self.has_parts(diff_id)?)
    }

    /// Opens any form of the layer, uncompressed; what needs no decompression before others.
    pub(super) fn open_form(&self, diff_id: &DiffId) -> Result<Option<Box<dyn Read>>> {
        let blob = match self.layer_blob(diff_id, Compression::None)? {
            Some(blob) => Some(blob),
            None => match self.open_parts(diff_id)? {
                Some(parts) => return Ok(Some(Box::new(parts.into_reader()))),
                None => self.find_form(diff_id, |row| row.compression.is_some())?,
            },
        };
        let Some(blob) = blob else { return Ok(None) };
        let Some(file) = self.blobs().get(&blob.digest)? else { return Ok(None) };
        let (_, stream) = decompress(file).map_err(Error::ArchiveRead)?;
        Ok(Some(stream))
    }

    /// Unpacks the layer from any of its forms.
    pub(super) fn unpack_form(&self, diff_id: &DiffId) -> Result<Option<Layer>> {
        let Some(form) = self.open_form(diff_id)? else { return Ok(None) };
        let staging = self.stage()?;
        let (layer, _) = self.unpack_into(&staging, buffered(form), Some(diff_id))?;
        self.place(staging.upper(), layer, false).map(Some)
    }
}
