//! Making the manifest of a store's image (compressing layers that never left), and reading foreign ones.

use kiln_store::{Digest, Store, layer::Compression};

use crate::{Image, Result};

/// The manifest of an image, ready to leave: every blob it names is in the store.
#[derive(Debug, Clone)]
pub struct Packed {
    /// The manifest's bytes: those that came, or new ones.
    pub bytes: Vec<u8>,
    /// Their digest.
    pub digest: Digest,
    /// Their media type.
    pub media_type: String,
}

/// Compresses what is not compressed and makes the manifest; an image that came from elsewhere keeps its own bytes.
pub fn pack(store: &Store, image: &Image, compression: Compression) -> Result<Packed> {
    let _ = (store, image, compression);
    todo!()
}
