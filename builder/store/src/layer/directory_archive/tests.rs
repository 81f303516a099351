use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use super::*;
use crate::store::tests::privilege;

#[test]
fn a_directory_comes_back_as_it_was_and_nothing_else_does() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), privilege()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::create_dir(path.join("d")).unwrap();
    fs::write(path.join("d/file"), "content").unwrap();
    fs::hard_link(path.join("d/file"), path.join("link")).unwrap();
    symlink("../../etc/passwd", path.join("symlink")).unwrap();
    let mut archive = Vec::new();
    let (digest, size) = store.archive_directory(path, &mut archive).unwrap();
    let mut again = Vec::new();
    assert_eq!(store.archive_directory(path, &mut again).unwrap(), (digest, size));
    assert_eq!(archive, again);

    let staging = store.stage().unwrap();
    store.unpack_directory(archive.as_slice(), &digest, size, &staging).unwrap();
    let (before, after) = (path.join("d/file"), staging.upper().join("d/file"));
    assert_eq!(fs::read(&after).unwrap(), b"content");
    let stat = |path: &Path| fs::metadata(path).unwrap();
    assert_eq!((stat(&before).mtime_nsec(), stat(&before).mode()), (stat(&after).mtime_nsec(), stat(&after).mode()));
    assert_eq!(stat(&after).nlink(), 2);
    assert_eq!(fs::read_link(staging.upper().join("symlink")).unwrap(), Path::new("../../etc/passwd"));

    let wrong = DiffId::of(b"something else");
    let refused = |digest: &DiffId, size: u64| {
        store.unpack_directory(archive.as_slice(), digest, size, &store.stage().unwrap()).unwrap_err()
    };
    assert!(matches!(refused(&wrong, size), Error::DigestMismatch { .. }));
    refused(&digest, size - 512);
    assert!(store.unpack_directory(&archive[..archive.len() / 2], &digest, size, &store.stage().unwrap()).is_err());
}
