//! Taking an image in whose blobs are in the store.

use kiln_store::layer::LayerBlob;
use kiln_store::{DiffId, Digest, Store};

use super::{Descriptor, Manifest, oci_layer_type};
use crate::image::DOCUMENT_LIMIT;
use crate::{Error, Image, ImageConfig, Reference, Result};

/// Reads the config, unpacks and verifies the layers that are missing, and records the image with its names.
pub(crate) fn unpack(
    store: &Store,
    manifest: &Manifest,
    manifest_digest: Option<Digest>,
    names: &[Reference],
) -> Result<Image> {
    let config = read_config(store, &manifest.config.digest)?;
    for (layer, diff_id) in pair_layers(manifest, &config)? {
        unpack_layer(store, layer, &diff_id)?;
    }
    Image::record(store, manifest.config.digest, config, manifest_digest, names)
}

/// The config blob of the store.
pub(crate) fn read_config(store: &Store, id: &Digest) -> Result<ImageConfig> {
    ImageConfig::from_bytes(&store.blobs().read(id, DOCUMENT_LIMIT)?, id)
}

/// Each layer of the manifest with the diffID that the config promises.
pub(crate) fn pair_layers<'a>(manifest: &'a Manifest, config: &ImageConfig) -> Result<Vec<(&'a Descriptor, DiffId)>> {
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        let reason = format!("{} layers, but its config names {}", manifest.layers.len(), diff_ids.len());
        return Err(Error::invalid(format!("image {}", manifest.config.digest), reason));
    }
    Ok(manifest.layers.iter().zip(diff_ids.iter().copied()).collect())
}

/// Unpacks one layer whose blob is in the store, unless that was done before.
pub(crate) fn unpack_layer(store: &Store, layer: &Descriptor, diff_id: &DiffId) -> Result<()> {
    if store.layer(diff_id)?.is_some() {
        return Ok(());
    }
    let media_type = oci_layer_type(&layer.media_type).to_owned();
    let blob = LayerBlob { digest: layer.digest, size: layer.size, media_type };
    store.unpack_blob(&blob, Some(diff_id))?;
    Ok(())
}
