use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::archive::header::{Header, Kind};
use crate::store::Privilege;
use crate::{Error, Result};

/// What the machine lets this process be: the tests run as root and as anybody.
fn privilege() -> Privilege {
    if rustix::process::geteuid().is_root() { Privilege::Root } else { Privilege::Single }
}

fn store() -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), privilege()).unwrap();
    (root, store)
}

fn set_time(path: &Path, seconds: i64) {
    let times = crate::archive::writer::timestamps((seconds, 0));
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).unwrap();
}

/// A small tree; `reverse` makes it in another order.
fn populate(root: &Path, reverse: bool) {
    let files = ["a", "dir/b", "dir/inner/c", "dir-b", &format!("dir/{}", "long".repeat(60)), "dir/ünicode"];
    fs::create_dir_all(root.join("dir/inner")).unwrap();
    let mut order: Vec<&str> = files.to_vec();
    if reverse {
        order.reverse();
    }
    for file in order {
        fs::write(root.join(file), format!("content of {file}")).unwrap();
        fs::set_permissions(root.join(file), fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::hard_link(root.join("dir/b"), root.join("dir/inner/link")).unwrap();
    symlink("/absolute/../target", root.join("symlink")).unwrap();
    for file in files.iter().copied().chain(["dir/inner/link", "symlink", "dir/inner", "dir"]) {
        set_time(&root.join(file), 1_700_000_000);
    }
    for directory in ["dir", "dir/inner"] {
        fs::set_permissions(root.join(directory), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn tar_of(store: &Store, diff_id: &DiffId) -> Vec<u8> {
    let mut tar = Vec::new();
    assert_eq!(store.write_tar(diff_id, &mut tar).unwrap(), tar.len() as u64);
    tar
}

/// A layer that is not our own tar of its directory: root's entry first, other order, no padding at the end.
fn foreign_tar() -> Vec<u8> {
    let mut tar = Vec::new();
    for (path, kind, content) in [
        ("./", Kind::Directory, ""),
        ("./z", Kind::File, "last"),
        ("./a/", Kind::Directory, ""),
        ("./a/file", Kind::File, "content"),
        ("./.wh.gone", Kind::File, ""),
    ] {
        let header = Header { mode: 0o755, size: content.len() as u64, ..Header::bare(path.as_bytes(), kind) };
        header.encode(&mut tar);
        tar.extend_from_slice(content.as_bytes());
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

#[test]
fn an_empty_layer_is_the_well_known_one() {
    let (_root, store) = store();
    let layer = store.commit(store.stage().unwrap(), None).unwrap();
    assert!(layer.empty);
    assert_eq!(layer.diff_id.hex(), "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef");
    assert_eq!(store.layer(&layer.diff_id).unwrap(), Some(layer));
}

#[test]
fn the_same_tree_is_the_same_layer_and_is_kept_once() {
    let (_root, store) = store();
    let mut layers = Vec::new();
    for reverse in [false, true] {
        let staging = store.stage().unwrap();
        populate(staging.upper(), reverse);
        layers.push(store.commit(staging, None).unwrap());
    }
    assert_eq!(layers[0], layers[1]);
    assert_eq!(fs::read_dir(store.root().join("layers")).unwrap().count(), 1);
    let tar = tar_of(&store, &layers[0].diff_id);
    assert_eq!((Digest::of(&tar), tar.len() as u64), (layers[0].diff_id, layers[0].tar_size));
    if privilege() == Privilege::Root {
        assert_eq!(layers[0].diff_id.hex(), "80a3ce4866908caa72dcba2ccc8a54a8a86c2d51d7dc4176f91101bb272d6945");
    }
}
