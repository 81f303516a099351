use std::fs;

use super::*;
use crate::layer::Compression;
use crate::store::tests::privilege;
use crate::{Digest, Snapshot};

/// The gzip blob of a layer with one file, as another store makes it, and the layer.
fn foreign() -> (Vec<u8>, LayerBlob, Layer) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), privilege()).unwrap();
    let staging = store.stage().unwrap();
    fs::write(staging.upper().join("file"), "zero".repeat(100_000)).unwrap();
    let layer = store.commit(staging, Some(0)).unwrap();
    let blob = store.compress(&layer.diff_id, Compression::Gzip).unwrap();
    (fs::read(store.blobs().path(&blob.digest)).unwrap(), blob, layer)
}

#[test]
fn a_blob_is_a_layer_before_it_is_unpacked() {
    let (bytes, blob, layer) = foreign();
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), privilege()).unwrap();
    assert!(matches!(store.adopt_blob(&blob, &layer.diff_id, layer.tar_size), Err(Error::BlobMissing(_))));
    store.blobs().put(&bytes).unwrap();
    assert_eq!(store.adopt_blob(&blob, &layer.diff_id, layer.tar_size).unwrap(), layer);
    assert_eq!(store.layer(&layer.diff_id).unwrap(), Some(layer));
    assert!(!store.layer_path(&layer.diff_id).exists());
    // It leaves as it came, and is unpacked when somebody looks into it.
    assert_eq!(store.original_blob(&layer.diff_id).unwrap(), Some(blob));
    let file = Snapshot::open(&store, &[layer.diff_id]).unwrap().read("file".as_ref(), 1 << 20).unwrap();
    assert_eq!(file.map(|file| file.len()), Some(400_000));
    assert!(store.layer_path(&layer.diff_id).is_dir());
}

#[test]
fn what_is_not_the_layer_or_too_long_is_refused() {
    let (bytes, blob, layer) = foreign();
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), privilege()).unwrap();
    store.blobs().put(&bytes).unwrap();
    let other = Digest::of(b"another layer");
    assert!(matches!(store.adopt_blob(&blob, &other, layer.tar_size), Err(Error::DigestMismatch { .. })));
    // A few bytes that would become many end where they were said to end.
    let short = store.adopt_blob(&blob, &layer.diff_id, 1000);
    assert!(matches!(short, Err(Error::TooLarge { limit: 1000, size: 1001, .. })), "{short:?}");
    for diff_id in [other, layer.diff_id] {
        assert!(store.layer(&diff_id).unwrap().is_none() && store.original_blob(&diff_id).unwrap().is_none());
    }
}
