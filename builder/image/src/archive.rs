//! Tar archives: docker's (`manifest.json`) and OCI's (a layout in a tar); `save` writes one that is both.

use std::io::{Read, Write};

use kiln_store::{Store, layer::Compression};

use crate::{Image, Reference, Result};

/// Writes images, each with its names (as `docker save`), readable as docker archive and as OCI layout.
pub fn save(
    store: &Store,
    images: &[(Image, Vec<Reference>)],
    compression: Compression,
    out: &mut dyn Write,
) -> Result<()> {
    let _ = (store, images, compression, out);
    todo!()
}

/// Reads an archive of either kind (plain or compressed); returns the images and the names they were given.
pub fn load(store: &Store, input: &mut dyn Read) -> Result<Vec<(Image, Vec<Reference>)>> {
    let _ = (store, input);
    todo!()
}
