//! OCI image layout directories (OCI image specification "Image Layout").

use std::path::Path;

use kiln_store::{Store, layer::Compression};

use crate::{Image, Reference, Result};

/// Writes an image into a layout directory, beside what is there.
pub fn save(
    store: &Store,
    image: &Image,
    name: Option<&Reference>,
    compression: Compression,
    directory: &Path,
) -> Result<()> {
    let _ = (store, image, name, compression, directory);
    todo!()
}

/// Reads every image of a layout directory.
pub fn load(store: &Store, directory: &Path) -> Result<Vec<(Image, Vec<Reference>)>> {
    let _ = (store, directory);
    todo!()
}
