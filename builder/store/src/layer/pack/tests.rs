use std::fs::{self, File};
use std::io::Cursor;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::changeset::{Bytes, Changeset, Numbered};
use crate::layer_writer::{Attributes, Content, Directory, LayerWriter, Upper};
use crate::snapshot::Kind as FileKind;
use crate::store::tests::privilege;
use crate::{DiffId, Error, Snapshot};

/// Files of a directory by number: `0`, `1`, …
struct Sources<'a> {
    directory: &'a Path,
    read: Mutex<Vec<usize>>,
}

impl Files for Sources<'_> {
    type Error = Error;
    fn open(&self, number: usize) -> Result<File> {
        let path = self.directory.join(number.to_string());
        File::open(&path).map_err(Error::io("open", path))
    }
    fn xattrs(&self, _: usize, _: &File) -> Result<Vec<(std::ffi::OsString, Vec<u8>)>> {
        Ok(Vec::new())
    }
    fn was_read(&self, number: usize, _: &File) {
        self.read.lock().unwrap().push(number);
    }
}

fn numbered(number: usize, size: u64) -> Numbered {
    let mut content = [1; 32];
    content[..8].copy_from_slice(&(number as u64).to_le_bytes());
    Numbered { number, size, content }
}

fn attributes(mode: u32) -> Attributes {
    // The ids that every user of the tests can give away.
    Attributes { uid: 0, gid: 0, mode, mtime: (1_600_000_000, 5) }
}

/// Many small files, one that is larger than a piece, links, and names that sort before and after a slash.
fn write<U: Upper>(writer: &mut LayerWriter<'_, U>, mut file: impl FnMut(&mut LayerWriter<'_, U>, &Path, usize)) {
    writer.put_directory(Path::new("app"), attributes(0o750), &[]).unwrap();
    for number in 0..700 {
        file(writer, Path::new(&format!("app/d{}/f{number}", number % 7)), number);
    }
    for name in ["app.txt", "app-2", "app/zz", "big", "app/\u{1}", "app d"] {
        file(writer, Path::new(name), if name == "big" { 700 } else { 1 });
    }
    assert!(writer.put_link(Path::new("app/again"), Path::new("big")).unwrap());
    assert!(writer.put_link(Path::new("third"), Path::new("app/again")).unwrap());
    assert!(!writer.put_link(Path::new("fourth"), Path::new("nothing")).unwrap());
    writer.put_file(Path::new("l"), Content::Symlink(Path::new("app/zz")), attributes(0o777), &[]).unwrap();
    writer.put_file(Path::new("pipe"), Content::Fifo, attributes(0o600), &[]).unwrap();
    file(writer, Path::new("app-2"), 3);
}

#[test]
fn a_packed_layer_is_the_layer_of_the_same_directory() {
    let (root, sources) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(root.path(), privilege()).unwrap();
    for number in 0..700 {
        fs::write(sources.path().join(number.to_string()), format!("{number}\n").repeat(number)).unwrap();
    }
    fs::write(sources.path().join("700"), vec![7; 3 << 20]).unwrap();
    let nothing = Snapshot::open(&store, &[]).unwrap();

    let staging = store.stage().unwrap();
    let upper = Directory::open(staging.upper(), store.privilege()).unwrap();
    let mut writer = LayerWriter::new(&nothing, upper, attributes(0o755));
    write(&mut writer, |writer, path, number| {
        let mut file = File::open(sources.path().join(number.to_string())).unwrap();
        writer.put_file(path, Content::File(&mut file), attributes(0o640), &[]).unwrap();
    });
    writer.into_upper().finish().unwrap();
    let directory = store.commit(staging, Some(1_600_000_000)).unwrap();

    let other = tempfile::tempdir().unwrap();
    let store = Store::open(other.path(), privilege()).unwrap();
    let mut writer = LayerWriter::new(&nothing, Changeset::new(store.stage().unwrap()), attributes(0o755));
    let mut streamed = false;
    write(&mut writer, |writer, path, number| {
        // One after the other from where it can be read again, and from where it cannot.
        streamed = !streamed;
        let source = sources.path().join(number.to_string());
        let size = fs::metadata(&source).unwrap().size();
        let mut file = File::open(source).unwrap();
        let bytes = if streamed { Bytes::Stream(&mut file) } else { Bytes::Numbered(numbered(number, size)) };
        writer.put_file(path, Content::File(bytes), attributes(0o640), &[]).unwrap();
    });
    let files = Sources { directory: sources.path(), read: Mutex::default() };
    let packed = store.pack(writer.into_upper(), Some(1_600_000_000), None, &files).unwrap();
    assert_eq!(packed, directory);
    assert!(files.read.into_inner().unwrap().len() > 300);

    // It counts as a layer without its directory, is unpacked when somebody looks into it, and stays the same.
    let path = store.layer_path(&packed.diff_id);
    assert_eq!(store.layer(&packed.diff_id).unwrap(), Some(packed));
    assert!(!path.exists());
    let snapshot = Snapshot::open(&store, &[packed.diff_id]).unwrap();
    assert!(path.is_dir());
    assert_eq!(snapshot.read(Path::new("app/d5/f5"), 100).unwrap().unwrap(), b"5\n5\n5\n5\n5\n");
    let mut tar = Vec::new();
    store.write_tar(&packed.diff_id, &mut tar).unwrap();
    assert_eq!(crate::Digest::of(&tar), packed.diff_id);
    assert_eq!(store.original_blob(&packed.diff_id).unwrap(), None, "it is compressed when it leaves");
}

#[test]
fn what_lies_below_is_copied_up_and_replaced() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), privilege()).unwrap();
    let files = Sources { directory: root.path(), read: Mutex::default() };
    let pack = |parent: &[DiffId], write: &dyn Fn(&mut LayerWriter<'_, Changeset>)| {
        let parent = Snapshot::open(&store, parent).unwrap();
        let mut writer = LayerWriter::new(&parent, Changeset::new(store.stage().unwrap()), attributes(0o755));
        write(&mut writer);
        store.pack(writer.into_upper(), None, None, &files).unwrap().diff_id
    };
    let text = |writer: &mut LayerWriter<'_, Changeset>, path: &str, text: &str| {
        let mut bytes = Cursor::new(text.to_owned());
        writer.put_file(Path::new(path), Content::File(Bytes::Stream(&mut bytes)), attributes(0o644), &[])
    };
    let low = pack(&[], &|writer| {
        writer.put_directory(Path::new("real"), attributes(0o700), &[]).unwrap();
        text(writer, "real/old", "old").unwrap();
        writer.put_file(Path::new("link"), Content::Symlink(Path::new("/real")), attributes(0o777), &[]).unwrap();
    });
    let high = pack(&[low], &|writer| {
        let path = writer.real_path(Path::new("/link/new"), true).unwrap();
        assert_eq!(path, Path::new("real/new"));
        text(writer, "real/new", "first").unwrap();
        text(writer, "real/new", "second").unwrap();
        assert!(text(writer, "real", "x").is_err(), "a file never replaces a directory");
        assert!(text(writer, "real/.wh.new", "x").is_err(), "a whiteout is not a name");
    });
    let snapshot = Snapshot::open(&store, &[low, high]).unwrap();
    assert_eq!(snapshot.read(Path::new("link/new"), 100).unwrap().unwrap(), b"second");
    assert_eq!(snapshot.read(Path::new("link/old"), 100).unwrap().unwrap(), b"old");
    let real = snapshot.lookup(Path::new("real")).unwrap().unwrap();
    assert_eq!((real.kind, real.mode, real.layer), (FileKind::Directory, 0o700, 1));
}

#[test]
fn a_file_that_became_shorter_is_an_error_that_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), privilege()).unwrap();
    fs::write(root.path().join("0"), "short").unwrap();
    let nothing = Snapshot::open(&store, &[]).unwrap();
    let mut writer = LayerWriter::new(&nothing, Changeset::new(store.stage().unwrap()), attributes(0o755));
    for (name, size) in [("a", 5), ("b", 6), ("c", 5)] {
        let bytes = Content::File(Bytes::Numbered(numbered(0, size)));
        writer.put_file(Path::new(name), bytes, attributes(0o644), &[]).unwrap();
    }
    let files = Sources { directory: root.path(), read: Mutex::default() };
    let error = store.pack(writer.into_upper(), None, None, &files).unwrap_err();
    assert!(error.to_string().contains("became shorter"), "{error}");
    assert!(store.blobs().list().unwrap().is_empty());
}

/// Packs files `d/N` of these contents over `similar`.
fn pack_texts(store: &Store, texts: &[&str], similar: Option<&DiffId>) -> (Layer, usize) {
    let sources = tempfile::tempdir().unwrap();
    let nothing = Snapshot::open(store, &[]).unwrap();
    let mut writer = LayerWriter::new(&nothing, Changeset::new(store.stage().unwrap()), attributes(0o755));
    for (number, text) in texts.iter().enumerate() {
        fs::write(sources.path().join(number.to_string()), text).unwrap();
        let content = *blake3::hash(text.as_bytes()).as_bytes();
        let bytes = Bytes::Numbered(Numbered { number, size: text.len() as u64, content });
        let path = format!("d/{number:03}");
        writer.put_file(Path::new(&path), Content::File(bytes), attributes(0o644), &[]).unwrap();
    }
    let files = Sources { directory: sources.path(), read: Mutex::default() };
    let layer = store.pack(writer.into_upper(), None, similar, &files).unwrap();
    (layer, files.read.into_inner().unwrap().len())
}

#[test]
fn what_did_not_change_is_taken_from_the_layer_before() {
    let (root, clean) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(root.path(), privilege()).unwrap();
    let clean = Store::open(clean.path(), privilege()).unwrap();
    let long: Vec<String> = (0..100).map(|number| format!("text {number} ").repeat(200)).collect();
    let mut texts: Vec<&str> = long.iter().map(String::as_str).collect();
    let (first, read) = pack_texts(&store, &texts, None);
    assert_eq!(read, 100);

    texts[50] = "changed";
    let (second, read) = pack_texts(&store, &texts, Some(&first.diff_id));
    assert_eq!((second, read), (pack_texts(&clean, &texts, None).0, 1));
    texts[3] = "changed too";
    texts.pop();
    texts.push("another");
    texts.push("new");
    let (third, read) = pack_texts(&store, &texts, Some(&second.diff_id));
    assert_eq!((third, read), (pack_texts(&clean, &texts, None).0, 3), "of the base, of the second, and new");
    assert_eq!(store.layer(&third.diff_id).unwrap(), Some(third));

    // The bytes are those of the layer, as a tar, compressed, and as a directory; the base is kept for it.
    let keep = |layers: &[DiffId]| store.collect_garbage(layers).unwrap().unwrap();
    assert!(keep(&[third.diff_id]) > 0);
    assert!(store.layer(&first.diff_id).unwrap().is_none());
    let mut tar = Vec::new();
    assert_eq!(store.write_tar(&third.diff_id, &mut tar).unwrap(), third.tar_size);
    assert_eq!(crate::Digest::of(&tar), third.diff_id);
    store.compress(&third.diff_id, Compression::Gzip).unwrap();
    let snapshot = Snapshot::open(&store, &[third.diff_id]).unwrap();
    assert_eq!(snapshot.read(Path::new("d/050"), 100).unwrap().unwrap(), b"changed");
    assert_eq!(snapshot.read(Path::new("d/051"), 10_000).unwrap().unwrap(), long[51].as_bytes());

    // When most of it is new, it is a whole of its own, and nothing of the past is kept.
    let other: Vec<String> = long.iter().map(|text| text.to_uppercase()).collect();
    let other: Vec<&str> = other.iter().map(String::as_str).chain(texts[90..].iter().copied()).collect();
    let (fourth, read) = pack_texts(&store, &other, Some(&third.diff_id));
    assert_eq!((fourth, read), (pack_texts(&clean, &other, None).0, other.len()));
    keep(&[fourth.diff_id]);
    assert_eq!(store.blobs().list().unwrap().len(), 2, "its tar and the list of its parts");
    keep(&[]);
    assert!(store.blobs().list().unwrap().is_empty());
}

#[test]
fn hashing_begins_where_the_first_change_is() {
    let (root, clean) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(root.path(), privilege()).unwrap();
    let clean = Store::open(clean.path(), privilege()).unwrap();
    let long: Vec<String> = (0..40).map(|number| format!("{number:09} ").repeat(20_000)).collect();
    let texts: Vec<&str> = long.iter().map(String::as_str).collect();
    let (first, _) = pack_texts(&store, &texts, None);
    assert!(first.tar_size > 7 << 20);
    let mut similar = first.diff_id;
    for changed in [0, 1, 20, 39] {
        let mut texts = texts.clone();
        texts[changed] = "changed";
        let (layer, read) = pack_texts(&store, &texts, Some(&similar));
        assert_eq!(layer, pack_texts(&clean, &texts, None).0);
        // The next one takes the base's text from below, not the changed one.
        assert_eq!(read, if similar == first.diff_id { 1 } else { 2 });
        similar = layer.diff_id;
    }
    let (last, read) = pack_texts(&store, &texts[..39], Some(&first.diff_id));
    assert_eq!((last, read), (pack_texts(&clean, &texts[..39], None).0, 0));
    let (same, read) = pack_texts(&store, &texts, Some(&first.diff_id));
    assert_eq!((same, read), (first, 0));
}

#[test]
fn parts_that_a_power_loss_damaged_are_no_layer() {
    let root = tempfile::tempdir().unwrap();
    let mut store = Store::open(root.path(), privilege()).unwrap();
    let long: Vec<String> = (0..50).map(|number| format!("text {number} ").repeat(200)).collect();
    let mut texts: Vec<&str> = long.iter().map(String::as_str).collect();
    let (first, _) = pack_texts(&store, &texts, None);
    texts[7] = "changed";
    let (second, _) = pack_texts(&store, &texts, Some(&first.diff_id));
    "another boot".clone_into(&mut store.boot);
    assert_eq!(store.layer(&second.diff_id).unwrap(), Some(second));
    "a third boot".clone_into(&mut store.boot);
    assert_eq!(store.layer(&second.diff_id).unwrap(), Some(second), "it was settled by being verified");

    texts[8] = "changed as well";
    let (third, _) = pack_texts(&store, &texts, Some(&second.diff_id));
    let mut bytes = fs::read(store.blobs().path(&first.diff_id)).unwrap();
    bytes[9000] ^= 1;
    fs::write(store.blobs().path(&first.diff_id), bytes).unwrap();
    "a fourth boot".clone_into(&mut store.boot);
    assert_eq!(store.layer(&third.diff_id).unwrap(), None);
}

#[test]
fn a_packed_tar_that_changed_on_disk_is_not_pushed() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), privilege()).unwrap();
    let long: Vec<String> = (0..40).map(|number| format!("{number:09} ").repeat(20_000)).collect();
    let texts: Vec<&str> = long.iter().map(String::as_str).collect();
    let (layer, _) = pack_texts(&store, &texts, None);
    let path = store.blobs().path(&layer.diff_id);
    let whole = fs::read(&path).unwrap();
    let compress = || store.compress_to(&layer.diff_id, Compression::Gzip, &mut |_| {});
    compress().unwrap();
    for place in [600, 3 << 20, whole.len() - 2000] {
        let mut bytes = whole.clone();
        bytes[place] ^= 4;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(compress(), Err(Error::Changed(_) | Error::DigestMismatch { .. })), "{place}");
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(store.compress(&layer.diff_id, Compression::Gzip).unwrap(), compress().unwrap());
}
