//! `metadata.db`: images, references, layers, cache records, file fingerprints. SQLite in WAL mode.

use crate::{DiffId, Digest, Result, Store};

/// An image of the store. Its name is its config's digest, as docker's image id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// Digest of the config blob.
    pub id: Digest,
    /// Digest of the manifest blob as it came, for an image that came from elsewhere or was pushed.
    pub manifest: Option<Digest>,
    /// The layers, lowest first.
    pub layers: Vec<DiffId>,
    /// Seconds since 1970 when it entered the store.
    pub added: i64,
}

/// What a cache key leads to. `value` is the builder's own; the store only keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRecord {
    /// The key.
    pub key: [u8; 32],
    /// Which step, for finding the nearest earlier record of the same step.
    pub step: String,
    /// What the key was made of, for explaining a miss.
    pub parts: Vec<u8>,
    /// The result.
    pub value: Vec<u8>,
    /// Layers that must live as long as this record.
    pub layers: Vec<DiffId>,
    /// Seconds since 1970.
    pub created: i64,
}

impl Store {
    /// Adds or replaces an image.
    pub fn put_image(&self, image: &ImageRecord) -> Result<()> {
        let _ = image;
        todo!()
    }
    /// The image with this id.
    pub fn image(&self, id: &Digest) -> Result<Option<ImageRecord>> {
        let _ = id;
        todo!()
    }
    /// Images whose id's hex starts with `prefix`.
    pub fn images_by_prefix(&self, prefix: &str) -> Result<Vec<ImageRecord>> {
        let _ = prefix;
        todo!()
    }
    /// The image whose manifest digest is this.
    pub fn image_by_manifest(&self, manifest: &Digest) -> Result<Option<ImageRecord>> {
        let _ = manifest;
        todo!()
    }
    /// All images, newest first.
    pub fn images(&self) -> Result<Vec<ImageRecord>> {
        todo!()
    }
    /// Removes an image and nothing else; the references must be gone.
    pub fn remove_image(&self, id: &Digest) -> Result<bool> {
        let _ = id;
        todo!()
    }
    /// Points a reference (a full name such as `docker.io/library/busybox:latest`) at an image; returns the image it pointed at.
    pub fn set_reference(&self, name: &str, id: &Digest) -> Result<Option<Digest>> {
        let _ = (name, id);
        todo!()
    }
    /// What a reference points at.
    pub fn reference(&self, name: &str) -> Result<Option<Digest>> {
        let _ = name;
        todo!()
    }
    /// Removes a reference; returns what it pointed at.
    pub fn remove_reference(&self, name: &str) -> Result<Option<Digest>> {
        let _ = name;
        todo!()
    }
    /// All references, sorted by name.
    pub fn references(&self) -> Result<Vec<(String, Digest)>> {
        todo!()
    }
    /// The record of a key; marks it as used.
    pub fn cache_record(&self, key: &[u8; 32]) -> Result<Option<CacheRecord>> {
        let _ = key;
        todo!()
    }
    /// Adds or replaces a record.
    pub fn put_cache_record(&self, record: &CacheRecord) -> Result<()> {
        let _ = record;
        todo!()
    }
    /// The newest record of a step, whatever its key.
    pub fn latest_cache_record(&self, step: &str) -> Result<Option<CacheRecord>> {
        let _ = step;
        todo!()
    }
    /// The fingerprints kept for a directory tree; opaque to the store.
    pub fn fingerprints(&self, tree: &str) -> Result<Option<Vec<u8>>> {
        let _ = tree;
        todo!()
    }
    /// Replaces them.
    pub fn put_fingerprints(&self, tree: &str, bytes: &[u8]) -> Result<()> {
        let _ = (tree, bytes);
        todo!()
    }
    /// Deletes blobs and layers that no image, reference, cache record or container needs; returns the bytes freed.
    /// Takes the lock exclusively: `Ok(None)` when another process is using the store.
    pub fn collect_garbage(&self, keep_layers: &[DiffId]) -> Result<Option<u64>> {
        let _ = keep_layers;
        todo!()
    }
}
