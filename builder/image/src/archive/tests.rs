use std::io::Write;

use kiln_store::layer::Compression;
use kiln_store::store::Privilege;
use kiln_store::{Digest, Store};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{Image, ImageConfig, Reference};

fn store() -> (TempDir, Store) {
    let directory = tempfile::tempdir().expect("directory");
    let privilege = if rustix::process::geteuid().is_root() { Privilege::Root } else { Privilege::Single };
    let store = Store::open(directory.path(), privilege).expect("store");
    (directory, store)
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1);
        // Written as it is: `append_data` would refuse `..`.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, *content).expect("entry");
    }
    tar.into_inner().expect("tar")
}

fn image(store: &Store, names: &[&str]) -> (Image, Vec<Reference>) {
    let layer = store.import_tar(&mut tar_of(&[("etc/motd", b"hello")]).as_slice()).expect("layer");
    let mut config = ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
    config.rootfs.diff_ids.push(layer.diff_id);
    let names: Vec<Reference> = names.iter().map(|name| Reference::parse(name).expect(name)).collect();
    (Image::commit(store, &config, &names).expect("image"), names)
}

fn saved(store: &Store, images: &[(Image, Vec<Reference>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    save(store, images, Compression::Gzip, &mut archive).expect("save");
    archive
}

#[test]
fn what_is_saved_is_loaded_with_its_names_and_bytes() {
    let (_keep, from) = store();
    let original = image(&from, &["busybox", "quay.io/a/b:2"]);
    let archive = saved(&from, std::slice::from_ref(&original));
    assert_eq!(archive, saved(&from, std::slice::from_ref(&original)), "the same bytes each time");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive).expect("gzip");
    for bytes in [archive.clone(), gzip.finish().expect("gzip"), zstd::encode_all(archive.as_slice(), 1).expect("zstd")]
    {
        let (_keep, to) = store();
        let loaded = load(&to, &mut bytes.as_slice(), None).expect("load");
        let [(image, names)] = loaded.as_slice() else { panic!("one image: {loaded:?}") };
        assert_eq!(image.id, original.0.id);
        assert_eq!(names, &original.1);
        assert_eq!(Image::find(&to, "busybox").expect("by name").id, image.id);
        assert_eq!(saved(&to, &loaded), archive, "and out again as it came");
    }
}

/// As docker saved before it wrote layouts: a directory for each layer, links between equal ones, documents last.
fn docker_archive(links_to: &str) -> (Digest, Vec<u8>) {
    let layer = tar_of(&[("a", b"1")]);
    let diff_id = Digest::of(&layer);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Entrypoint":null}},"rootfs":{{"type":"layers","diff_ids":["{diff_id}","{diff_id}"]}}}}"#
    );
    let mut start = tar_of(&[("aa/VERSION", b"1.0"), ("aa/layer.tar", &layer)]);
    start.truncate(start.len() - 1024);
    let mut tar = tar::Builder::new(start);
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    tar.append_link(&mut link, "bb/layer.tar", links_to).expect("link");
    let id = Digest::of(config.as_bytes());
    let name = format!("{}.json", id.hex());
    let manifest = format!(r#"[{{"Config":"{name}","RepoTags":["old:1"],"Layers":["aa/layer.tar","bb/layer.tar"]}}]"#);
    let mut archive = tar.into_inner().expect("tar");
    archive.truncate(archive.len() - 1024);
    archive.extend(tar_of(&[(name.as_str(), config.as_bytes()), ("manifest.json", manifest.as_bytes())]));
    (id, archive)
}

#[test]
fn old_docker_archives_have_links_between_layers() {
    let (_keep, store) = store();
    let (id, archive) = docker_archive("../aa/layer.tar");
    let loaded = load(&store, &mut archive.as_slice(), None).expect("load");
    assert_eq!(loaded[0].0.id, id);
    assert_eq!(loaded[0].1[0].familiar(), "old:1");
    // The layers were not compressed: they are when they leave.
    let again = saved(&store, &loaded);
    let (_keep, other) = self::store();
    assert_eq!(load(&other, &mut again.as_slice(), None).expect("load again")[0].0.id, id);
}

#[test]
fn hostile_archives_are_refused_with_a_reason() {
    let wrong_blob = format!("blobs/sha256/{}", Digest::of(b"other").hex());
    let mut endless = tar_of(&[("x", b"")]);
    endless[124..136].copy_from_slice(b"77777777777\0");
    fix_checksum(&mut endless);
    let mut long_name = tar_of(&[("x", b"")]);
    long_name[156] = b'L';
    long_name[124..136].copy_from_slice(b"00100000000\0");
    fix_checksum(&mut long_name);
    let outside = r#"[{"Config":"../../etc/passwd","Layers":[]}]"#;
    let cases = [
        (tar_of(&[(&wrong_blob, b"bytes")]), "has digest"),
        (tar_of(&[("manifest.json", outside.as_bytes())]), "is not in it"),
        (tar_of(&[("manifest.json", b"[")]), "read manifest.json"),
        (endless, "middle of an entry"),
        (long_name, "longer than 1 MiB"),
        (docker_archive("../../aa/layer.tar").1, "is not in it"),
        (docker_archive("../bb/layer.tar").1, "is not in it"),
        (Vec::new(), "neither docker's manifest.json"),
        (b"not a tar".repeat(100), "checksum"),
    ];
    for (archive, reason) in cases {
        let (_keep, store) = store();
        let error = load(&store, &mut archive.as_slice(), None).expect_err(reason);
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        assert!(message.contains(reason), "{message} (expected {reason})");
        assert_eq!(store.images().expect("images"), [], "{reason}");
    }
}

fn fix_checksum(archive: &mut [u8]) {
    let mut header = tar::Header::from_byte_slice(&archive[..512]).clone();
    header.set_cksum();
    archive[..512].copy_from_slice(header.as_bytes());
}

#[test]
fn layers_that_are_not_what_the_config_says_are_refused() {
    let (_keep, store) = store();
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        Digest::of(b"something else")
    );
    let manifest = r#"[{"Config":"c","RepoTags":null,"Layers":["l"]}]"#;
    let archive =
        tar_of(&[("l", &tar_of(&[("a", b"1")])), ("c", config.as_bytes()), ("manifest.json", manifest.as_bytes())]);
    assert!(load(&store, &mut archive.as_slice(), None).is_err());
    assert_eq!(store.images().expect("images"), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn garbage_is_answered(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let (_keep, store) = store();
        prop_assert!(load(&store, &mut bytes.as_slice(), None).is_err());
    }

    #[test]
    fn damaged_archives_never_give_another_image(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let (id, mut archive) = docker_archive("../aa/layer.tar");
        let at = at.index(archive.len());
        archive[at] = value;
        let (_keep, store) = store();
        if let Ok(loaded) = load(&store, &mut archive.as_slice(), None) {
            for (image, _) in loaded {
                let snapshot = kiln_store::Snapshot::open(&store, &image.layers);
                prop_assert!(snapshot.is_ok());
                if image.id == id {
                    prop_assert_eq!(image.layers.len(), 2);
                }
            }
        }
    }
}
