use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::archive::header::{Header, Kind};
use crate::metadata::ImageRecord;
use crate::store::Privilege;
use crate::store::tests::privilege;
use crate::{Digest, Error};

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

/// What GNU tar makes of our tar is, read again, the same layer.
#[test]
fn gnu_tar_reads_it() {
    let (root, store) = store();
    let staging = store.stage().unwrap();
    populate(staging.upper(), false);
    let layer = store.commit(staging, None).unwrap();
    let archive = root.path().join("layer.tar");
    fs::write(&archive, tar_of(&store, &layer.diff_id)).unwrap();
    let staging = store.stage().unwrap();
    let output = std::process::Command::new("tar")
        .args(["--extract", "--preserve-permissions", "--file"])
        .arg(&archive)
        .arg("--directory")
        .arg(staging.upper())
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(store.commit(staging, None).unwrap(), layer);
}

#[test]
fn our_own_tar_unpacks_to_itself() {
    let (_from_root, from) = store();
    let staging = from.stage().unwrap();
    populate(staging.upper(), false);
    let layer = from.commit(staging, None).unwrap();
    let tar = tar_of(&from, &layer.diff_id);
    let (_root, store) = store();
    assert_eq!(store.unpack(&mut tar.as_slice(), Some(&layer.diff_id)).unwrap(), layer);
    assert_eq!(tar_of(&store, &layer.diff_id), tar);
    assert!(store.original_blob(&layer.diff_id).unwrap().is_none(), "the bytes need not be kept");
    // Here already: nothing is read.
    assert_eq!(store.unpack(&mut std::io::empty(), Some(&layer.diff_id)).unwrap(), layer);
}

#[test]
fn a_foreign_layer_gives_its_own_bytes_back() {
    let tar = foreign_tar();
    let diff_id = Digest::of(&tar);
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let bytes = match compression {
            Compression::None => tar.clone(),
            Compression::Gzip => {
                // Two members, as parallel compressors write them.
                let mut bytes = Vec::new();
                for part in [&tar[..700], &tar[700..]] {
                    let mut encoder = flate2::write::GzEncoder::new(&mut bytes, flate2::Compression::fast());
                    std::io::Write::write_all(&mut encoder, part).unwrap();
                    encoder.finish().unwrap();
                }
                bytes
            }
            Compression::Zstd => {
                // Between skippable frames, which some tools put beside their own.
                let skippable = [0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
                [&skippable, zstd::encode_all(tar.as_slice(), 1).unwrap().as_slice(), &skippable].concat()
            }
        };
        let (_root, store) = store();
        let digest = store.blobs().put(&bytes).unwrap();
        let media_type = "application/vnd.docker.image.rootfs.diff.tar.gzip".to_owned();
        let blob = LayerBlob { digest, size: bytes.len() as u64, media_type };
        let layer = store.unpack_blob(&blob, Some(&diff_id)).unwrap();
        assert_eq!((layer.diff_id, layer.tar_size), (diff_id, tar.len() as u64));
        assert_eq!(store.original_blob(&diff_id).unwrap().as_ref(), Some(&blob));
        assert_eq!(store.layer_blob(&diff_id, compression).unwrap().as_ref(), Some(&blob));
        assert_eq!(tar_of(&store, &diff_id), tar);
        // The same by the way that does not start from a blob.
        let (_root, store) = self::store();
        store.unpack(&mut bytes.as_slice(), None).unwrap();
        assert_eq!(tar_of(&store, &diff_id), tar);
    }
}

#[test]
fn compressed_forms_unpack_to_the_layer() {
    let (_root, store) = store();
    let staging = store.stage().unwrap();
    populate(staging.upper(), false);
    // More than one block, one that does not shrink among them.
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(3 << 20)
    .collect();
    fs::write(staging.upper().join("noise"), &noise).unwrap();
    fs::write(staging.upper().join("zeros"), vec![0; 3 << 20]).unwrap();
    let layer = store.commit(staging, Some(1_600_000_000)).unwrap();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let blob = store.compress(&layer.diff_id, compression).unwrap();
        assert_eq!(store.compress(&layer.diff_id, compression).unwrap(), blob);
        assert_eq!(store.blobs().size(&blob.digest).unwrap(), Some(blob.size));
        let bytes = store.blobs().read(&blob.digest, 100 << 20).unwrap();
        let (_root, other) = self::store();
        other.blobs().put(&bytes).unwrap();
        assert_eq!(other.unpack_blob(&blob, Some(&layer.diff_id)).unwrap(), layer);
        store.blobs().remove(&blob.digest).unwrap();
        let mut sent = Vec::new();
        let streamed = store.compress_to(&layer.diff_id, compression, &mut |block| sent.extend(block)).unwrap();
        assert_eq!((&streamed, &sent), (&blob, &bytes), "whoever listens gets the same bytes");
        assert_eq!(store.blobs().size(&blob.digest).unwrap(), None, "they are not kept");
        assert_eq!(store.layer_blob(&layer.diff_id, compression).unwrap(), None);
        assert_eq!(store.remembered_blob(&layer.diff_id, compression).unwrap(), Some(blob.clone()));
        let (mut tar, mut stream) = (Vec::new(), Vec::new());
        store.write_tar(&layer.diff_id, &mut tar).unwrap();
        compress_stream(&mut tar.as_slice(), compression, &mut stream).unwrap();
        assert_eq!(stream, bytes);
        // Compressing what came that way gives the same bytes again.
        other.blobs().remove(&blob.digest).unwrap();
        if compression == Compression::Gzip {
            // The noise comes first, and is only stored.
            assert_eq!(&bytes[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255]);
            assert!(blob.size < (3 << 20) + (1 << 16), "noise is stored, zeros vanish: {}", blob.size);
        }
    }
    assert!(store.original_blob(&layer.diff_id).unwrap().is_none());
}

#[test]
fn a_layer_that_arrives_is_in_its_place_when_it_is_kept() {
    let (_root, store) = store();
    let tar = foreign_tar();
    let digest = store.blobs().put(&tar).unwrap();
    let blob = LayerBlob { digest, size: tar.len() as u64, media_type: Compression::None.media_type().to_owned() };
    let wrong = Digest::of(b"another");
    assert!(matches!(store.unpack_stream(tar.as_slice(), Some(&wrong)), Err(Error::DigestMismatch { .. })));
    drop(store.unpack_stream(tar.as_slice(), Some(&digest)).unwrap());
    assert!(store.layer(&digest).unwrap().is_none());
    let unpacked = store.unpack_stream(tar.as_slice(), Some(&digest)).unwrap();
    let layer = store.keep(&unpacked, &blob).unwrap();
    drop(unpacked);
    assert_eq!(store.layer(&digest).unwrap(), Some(layer));
    assert_eq!(store.original_blob(&digest).unwrap(), Some(blob));
    assert_eq!(fs::read_dir(store.temporary.path()).unwrap().count(), 0);
}

#[test]
fn a_blob_that_is_not_the_layer_is_refused() {
    let (_root, store) = store();
    let tar = foreign_tar();
    let digest = store.blobs().put(&tar).unwrap();
    let blob = LayerBlob { digest, size: tar.len() as u64, media_type: Compression::None.media_type().to_owned() };
    let other = store.commit(store.stage().unwrap(), None).unwrap().diff_id;
    for expected in [other, Digest::of(b"something that is not here")] {
        assert!(matches!(store.unpack_blob(&blob, Some(&expected)), Err(Error::DigestMismatch { .. })));
        assert!(store.original_blob(&expected).unwrap().is_none());
    }
    assert!(store.layer(&Digest::of(b"something that is not here")).unwrap().is_none());
}

#[test]
fn times_are_clamped_in_the_directory_too() {
    let (_root, store) = store();
    let staging = store.stage().unwrap();
    populate(staging.upper(), false);
    set_time(&staging.upper().join("a"), 5);
    let layer = store.commit(staging, Some(1000)).unwrap();
    let path = store.layer_path(&layer.diff_id);
    for (name, seconds) in [("a", 5), ("dir", 1000), ("dir/b", 1000), ("dir/inner", 1000), ("symlink", 1000)] {
        assert_eq!(fs::symlink_metadata(path.join(name)).unwrap().mtime(), seconds, "{name}");
    }
    assert_eq!(Digest::of(&tar_of(&store, &layer.diff_id)), layer.diff_id);
}

#[test]
fn what_no_archive_can_hold_is_left_out() {
    let (_root, store) = store();
    let (staging, plain) = (store.stage().unwrap(), store.stage().unwrap());
    for upper in [staging.upper(), plain.upper()] {
        fs::create_dir(upper.join("d")).unwrap();
        fs::write(upper.join("d/f"), "x").unwrap();
    }
    let _socket = std::os::unix::net::UnixListener::bind(staging.upper().join("d/socket")).unwrap();
    fs::write(staging.upper().join("d/.wh.f"), "").unwrap();
    fs::create_dir(staging.upper().join(".wh..wh.plnk")).unwrap();
    for upper in [staging.upper(), plain.upper()] {
        set_time(&upper.join("d/f"), 10);
        set_time(&upper.join("d"), 10);
    }
    let file = fs::File::open(staging.upper().join("d")).unwrap();
    use std::os::fd::AsFd;
    crate::attributes::Target::Open(file.as_fd()).set(b"user.overlay.impure", b"y").unwrap();
    let layer = store.commit(staging, None).unwrap();
    let path = store.layer_path(&layer.diff_id);
    assert_eq!(fs::read_dir(&path).unwrap().count() + fs::read_dir(path.join("d")).unwrap().count(), 2);
    assert!(crate::attributes::Target::Open(file.as_fd()).names().unwrap().is_empty());
    assert_eq!(store.commit(plain, None).unwrap(), layer);
}

/// Everything a layer can hold, there and back.
#[test]
fn every_kind_of_file_survives() {
    let (_root, store) = store();
    let mut tar = Vec::new();
    let attributes = vec![(b"user.a".to_vec(), b"1".to_vec())];
    let bare = |path: &'static str, kind| Header::bare(path.as_bytes(), kind);
    let own = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    for header in [
        Header { mode: 0o1777, attributes: attributes.clone(), mtime: (3, 4), ..bare("d/", Kind::Directory) },
        bare("d/.wh..wh..opq", Kind::File),
        Header { mode: 0o4711, attributes, mtime: (-5, 999_999_999), ..bare("d/file", Kind::File) },
        Header { mode: 0o600, ..bare("d/pipe", Kind::Fifo) },
        Header { mode: 0o777, link: b"\xff/target", ..bare("d/symlink", Kind::Symlink) },
        bare(".wh.gone", Kind::File),
        Header { mode: 0o4711, mtime: (-5, 999_999_999), link: b"d/file", ..bare("hard", Kind::HardLink) },
        Header { mode: 0o755, mtime: (1 << 33, 0), ..bare("long-after-2200", Kind::File) },
    ] {
        let whiteout = header.path.windows(4).any(|name| name == b".wh.");
        let (uid, gid) = if whiteout { (0, 0) } else { own };
        Header { uid, gid, ..header }.encode(&mut tar);
    }
    if privilege() == Privilege::Root {
        Header { mode: 0o660, device: (8, 300), mtime: (1, 0), ..bare("sda", Kind::BlockDevice) }.encode(&mut tar);
    }
    tar.resize(tar.len() + 1024, 0);
    // "gone" is ordered by its own name: before "hard".
    let sorted = |tar: &[u8]| Digest::of(tar);
    let layer = store.unpack(&mut tar.as_slice(), None).unwrap();
    assert_eq!(layer.diff_id, sorted(&tar));
    assert_eq!(tar_of(&store, &layer.diff_id), tar);
    assert!(store.original_blob(&layer.diff_id).unwrap().is_none(), "the directory holds all of it");
}

/// As after a power loss: written by a boot that is over, never flushed.
fn pretend_new_boot(store: &Store) {
    for table in ["layers", "layer_blobs"] {
        store.database.lock().execute(&format!("UPDATE {table} SET boot = 'before', settled = 0"), []).unwrap();
    }
}

#[test]
fn an_unsettled_layer_is_checked_after_a_boot() {
    let (_root, store) = store();
    let layers: Vec<Layer> = ["intact", "damaged"]
        .map(|content| {
            let staging = store.stage().unwrap();
            fs::write(staging.upper().join("file"), content).unwrap();
            store.commit(staging, None).unwrap()
        })
        .into();
    pretend_new_boot(&store);
    fs::write(store.layer_path(&layers[1].diff_id).join("file"), "DAMAGED").unwrap();
    assert_eq!(store.layer(&layers[0].diff_id).unwrap(), Some(layers[0]));
    assert_eq!(store.layer(&layers[1].diff_id).unwrap(), None);
    assert!(!store.layer_path(&layers[1].diff_id).exists());
    assert!(store.layer_row(&layers[0].diff_id).unwrap().unwrap().settled);
}

#[test]
fn settled_layers_are_trusted() {
    let (_root, store) = store();
    let layer = store.commit(store.stage().unwrap(), None).unwrap();
    assert!(!store.layer_row(&layer.diff_id).unwrap().unwrap().settled);
    store.settle().unwrap();
    store.settle().unwrap();
    assert!(store.layer_row(&layer.diff_id).unwrap().unwrap().settled);
}

#[test]
fn a_damaged_foreign_layer_comes_back_from_its_blob() {
    let (_root, store) = store();
    let tar = foreign_tar();
    let layer = store.unpack(&mut tar.as_slice(), None).unwrap();
    let path = store.layer_path(&layer.diff_id);
    pretend_new_boot(&store);
    fs::write(path.join("a/file"), "DAMAGED").unwrap();
    assert_eq!(store.layer(&layer.diff_id).unwrap(), Some(layer));
    assert_eq!(fs::read(path.join("a/file")).unwrap(), b"content");
    assert!(store.layer_row(&layer.diff_id).unwrap().unwrap().settled, "once is enough");
    // And is gone when the blob was damaged as well.
    let blob = store.original_blob(&layer.diff_id).unwrap().unwrap();
    pretend_new_boot(&store);
    fs::write(store.blobs().path(&blob.digest), vec![0; blob.size as usize]).unwrap();
    assert_eq!(store.layer(&layer.diff_id).unwrap(), None);
    assert_eq!(store.blobs().size(&blob.digest).unwrap(), None);
}

#[test]
fn layers_without_records_are_verified_before_they_count() {
    let (root, store) = store();
    let staging = store.stage().unwrap();
    populate(staging.upper(), false);
    let layer = store.commit(staging, None).unwrap();
    let wrong = Digest::of(b"wrong");
    drop(store);
    for file in ["metadata.db", "metadata.db-wal", "metadata.db-shm"] {
        let _ = fs::remove_file(root.path().join(file));
    }
    fs::create_dir_all(root.path().join("layers").join(wrong.hex()).join("x")).unwrap();
    let store = Store::open(root.path(), privilege()).unwrap();
    assert_eq!(store.layer(&layer.diff_id).unwrap(), Some(layer));
    assert_eq!(store.layer(&wrong).unwrap(), None);
    assert!(!store.layer_path(&wrong).exists() && store.layer_path(&layer.diff_id).exists());
}

#[test]
fn a_layer_that_changed_on_disk_is_not_pushed() {
    let (_root, store) = store();
    let staging = store.stage().unwrap();
    fs::write(staging.upper().join("file"), "right").unwrap();
    let layer = store.commit(staging, None).unwrap();
    fs::write(store.layer_path(&layer.diff_id).join("file"), "wrong").unwrap();
    for compression in [Compression::None, Compression::Gzip] {
        assert!(matches!(store.compress(&layer.diff_id, compression), Err(Error::DigestMismatch { .. })));
    }
    assert!(store.blobs().list().unwrap().is_empty());
}

#[test]
fn garbage_is_what_nothing_leads_to() {
    let (root, store) = store();
    let layer = |content: &str| {
        let staging = store.stage().unwrap();
        fs::write(staging.upper().join("file"), content).unwrap();
        store.commit(staging, None).unwrap().diff_id
    };
    let [of_image, of_cache, kept, garbage] = ["image", "cache", "kept", "garbage"].map(layer);
    let blobs: Vec<Digest> =
        [of_image, garbage].iter().map(|diff_id| store.compress(diff_id, Compression::Gzip).unwrap().digest).collect();
    let lazy = store.blobs().put(b"a layer that is not unpacked yet").unwrap();
    let config = store.blobs().put(b"config").unwrap();
    let manifest = format!(r#"{{"config":{{"digest":"{config}"}},"layers":[{{"digest":"{lazy}"}}]}}"#);
    let manifest = store.blobs().put(manifest.as_bytes()).unwrap();
    let orphan = store.blobs().put(b"orphan").unwrap();
    store.put_image(&ImageRecord { id: config, manifest: Some(manifest), layers: vec![of_image], added: 0 }).unwrap();
    store
        .put_cache_record(&crate::metadata::CacheRecord {
            key: [0; 32],
            step: String::new(),
            parts: Vec::new(),
            value: Vec::new(),
            layer: Some(of_cache),
            description: String::new(),
            created: 0,
        })
        .unwrap();

    let staging = store.stage().unwrap();
    assert_eq!(store.collect_garbage(&[kept]).unwrap(), None, "a layer is being made");
    drop(staging);
    let other = Store::open(root.path(), privilege()).unwrap();
    assert_eq!(store.collect_garbage(&[kept]).unwrap(), None, "another process is here");
    drop(other);
    assert!(store.collect_garbage(&[kept]).unwrap().unwrap() > 0);
    for diff_id in [of_image, of_cache, kept] {
        assert!(store.layer(&diff_id).unwrap().is_some());
    }
    assert_eq!(store.layer(&garbage).unwrap(), None);
    let mut left = store.blobs().list().unwrap();
    let mut expected = vec![blobs[0], lazy, config, manifest];
    left.sort_unstable();
    expected.sort_unstable();
    assert_eq!(left, expected);
    assert!(!left.contains(&orphan));
    // The lock is shared again.
    let other = Store::open(root.path(), privilege()).unwrap();
    drop(store);
    assert_eq!(other.collect_garbage(&[kept]).unwrap(), Some(0));
}

#[test]
fn an_imported_tree_is_an_ordinary_layer() {
    let (_root, store) = store();
    let layer = store.import_tar(&mut foreign_tar().as_slice()).unwrap();
    assert_eq!(Digest::of(&tar_of(&store, &layer.diff_id)), layer.diff_id);
    assert_ne!(layer.diff_id, Digest::of(&foreign_tar()));
}

/// Whatever form GNU tar writes, it holds the same tree.
#[test]
fn archives_of_gnu_tar_are_read() {
    let (root, store) = store();
    let staging = store.stage().unwrap();
    populate(staging.upper(), false);
    let long = ["component"; 30].join("/");
    fs::create_dir_all(staging.upper().join(&long)).unwrap();
    symlink("t".repeat(300), staging.upper().join(&long).join("link")).unwrap();
    set_time(&staging.upper().join(&long).join("link"), 7);
    for depth in (1..=30).rev() {
        let path = staging.upper().join(["component"; 30][..depth].join("/"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        set_time(&path, 7);
    }
    let archives = ["gnu", "posix"].map(|format| {
        let archive = root.path().join(format);
        let mut command = std::process::Command::new("tar");
        command.args(["--create", "--sort=name", "--format", format, "--file"]).arg(&archive);
        let output = command.arg("--directory").arg(staging.upper()).arg(".").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read(archive).unwrap()
    });
    let layer = store.commit(staging, None).unwrap();
    for archive in archives {
        assert_eq!(store.import_tar(&mut archive.as_slice()).unwrap(), layer);
    }
}
