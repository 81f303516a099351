//! An image of the store, and finding one by what a user typed.

use kiln_store::{DiffId, Digest, Store};

use crate::{ImageConfig, Platform, Reference, Result};

/// An image of the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// The config's digest.
    pub id: Digest,
    /// The config.
    pub config: ImageConfig,
    /// The layers, lowest first.
    pub layers: Vec<DiffId>,
    /// The manifest as it came, when it came from elsewhere.
    pub manifest: Option<Digest>,
}

impl Image {
    /// Stores a config (its layers are in the store) as an image and, for each name, points it there.
    pub fn commit(store: &Store, config: &ImageConfig, names: &[Reference]) -> Result<Self> {
        let _ = (store, config, names);
        todo!()
    }
    /// The image with this id.
    pub fn open(store: &Store, id: &Digest) -> Result<Option<Self>> {
        let _ = (store, id);
        todo!()
    }
    /// The image of this exact reference.
    pub fn by_reference(store: &Store, reference: &Reference) -> Result<Option<Self>> {
        let _ = (store, reference);
        todo!()
    }
    /// What a user typed: a name, an id, the beginning of an id, `sha256:…`.
    ///
    /// # Errors
    /// No such image; several ids begin so.
    pub fn find(store: &Store, text: &str) -> Result<Self> {
        let _ = (store, text);
        todo!()
    }
    /// Its platform.
    pub fn platform(&self) -> Platform {
        todo!()
    }
}
