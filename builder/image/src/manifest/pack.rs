//! The manifest of an image that is about to leave.

use kiln_store::layer::{Compression, LayerBlob};
use kiln_store::{DiffId, Digest, Store};

use std::collections::BTreeMap;

use super::{
    DOCKER_CONFIG, DOCKER_MANIFEST, Descriptor, Document, Manifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Packed,
    docker_layer_type, oci_layer_type,
};
use crate::image::DOCUMENT_LIMIT;
use crate::{Error, Image, Result};

/// Compresses what is not compressed and makes the manifest; an image that came from elsewhere keeps its own bytes.
pub fn pack(store: &Store, image: &Image, compression: Compression) -> Result<Packed> {
    pack_as(store, image, Form { forced: false, ..Form::of(compression) })
}

/// How layers are to be compressed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    pub(crate) compression: Compression,
    /// How hard it tries; the compression's own choice when not given.
    pub(crate) level: Option<i32>,
    /// Those that came from elsewhere, too.
    pub(crate) forced: bool,
    /// docker's media types instead of OCI's.
    pub(crate) docker_types: bool,
    /// Of layers whose compressed bytes are known but not here, to know them is enough.
    pub(crate) remembered: bool,
}

impl Form {
    /// OCI's, for the layers that need compression.
    pub(crate) fn of(compression: Compression) -> Self {
        Self { compression, level: None, forced: false, docker_types: false, remembered: false }
    }
}

/// [`pack`], in another form.
pub(crate) fn pack_as(store: &Store, image: &Image, form: Form) -> Result<Packed> {
    if let Some(digest) = image.manifest.as_ref().filter(|_| !form.forced)
        && let Some(packed) = kept(store, digest)?
    {
        return Ok(packed);
    }
    pack_anew(store, image, form, BTreeMap::new())
}

/// A manifest of the image's config and layers, whatever it came with.
pub(crate) fn pack_anew(
    store: &Store,
    image: &Image,
    form: Form,
    annotations: BTreeMap<String, String>,
) -> Result<Packed> {
    let layers = image.layers.iter().map(|layer| {
        let (media_type, digest, size) = match image.elsewhere.get(layer) {
            Some(blob) => (blob.media_type.clone(), blob.digest, blob.size),
            None => {
                let LayerBlob { digest, size, media_type } = layer_blob(store, layer, form)?;
                (media_type, digest, size)
            }
        };
        let media_type = oci_layer_type(&media_type);
        let media_type = if form.docker_types { docker_layer_type(media_type) } else { media_type };
        Ok(Descriptor::new(media_type, digest, size))
    });
    let layers = layers.collect::<Result<Vec<_>>>()?;
    let size = store.blobs().size(&image.id)?.ok_or(kiln_store::Error::BlobMissing(image.id))?;
    let (own, config) = if form.docker_types { (DOCKER_MANIFEST, DOCKER_CONFIG) } else { (OCI_MANIFEST, OCI_CONFIG) };
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(own.to_owned()),
        config: Descriptor::new(config, image.id, size),
        layers,
        annotations,
    };
    let bytes = serde_json::to_vec(&manifest).map_err(Error::json("image manifest"))?;
    Ok(Packed { digest: Digest::of(&bytes), bytes, media_type: own.to_owned() })
}

/// The layers that [`pack`] would have to compress, each once.
pub(crate) fn unpacked_layers(store: &Store, image: &Image, form: Form) -> Result<Vec<DiffId>> {
    if let Some(digest) = image.manifest.as_ref().filter(|_| !form.forced)
        && kept(store, digest)?.is_some()
    {
        return Ok(Vec::new());
    }
    let mut layers: Vec<DiffId> = Vec::new();
    for layer in image.layers.iter().filter(|layer| !image.elsewhere.contains_key(layer)) {
        let known = known_blob(store, layer, form)?.is_some();
        if !known && !layers.contains(layer) {
            layers.push(*layer);
        }
    }
    Ok(layers)
}

/// The manifest that came, when everything it names is still here.
fn kept(store: &Store, digest: &Digest) -> Result<Option<Packed>> {
    if store.blobs().size(digest)?.is_none() {
        return Ok(None);
    }
    let bytes = store.blobs().read(digest, DOCUMENT_LIMIT)?;
    let Document::Manifest(manifest) = Document::parse(&bytes, &format!("manifest {digest}"))? else {
        return Ok(None);
    };
    for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
        if store.blobs().size(&blob.digest)? != Some(blob.size) {
            return Ok(None);
        }
    }
    let media_type = manifest.media_type().to_owned();
    Ok(Some(Packed { bytes, digest: *digest, media_type }))
}

fn layer_blob(store: &Store, layer: &DiffId, form: Form) -> Result<LayerBlob> {
    match known_blob(store, layer, form)? {
        Some(blob) => Ok(blob),
        None => match form.level {
            Some(level) => Ok(store.compress_at(layer, form.compression, level)?),
            None => Ok(store.compress(layer, form.compression)?),
        },
    }
}

/// The bytes the layer came with, unless they are an uncompressed tar (of an archive) and compression is wanted; or those
/// that it was compressed to before.
fn known_blob(store: &Store, layer: &DiffId, form: Form) -> Result<Option<LayerBlob>> {
    let Form { compression, level, forced, remembered, .. } = form;
    if !forced
        && let Some(original) = store.original_blob(layer)?
        && (compression == Compression::None || oci_layer_type(&original.media_type) != OCI_LAYER)
    {
        return Ok(Some(original));
    }
    if level.is_some() {
        return Ok(None);
    }
    Ok(match store.layer_blob(layer, compression)? {
        None if remembered => store.remembered_blob(layer, compression)?,
        blob => blob,
    })
}
