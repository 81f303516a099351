use std::fs::{self, File};
use std::io::Cursor;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::changeset::{Bytes, Changeset};
use crate::layer_writer::{Attributes, Content, Directory, LayerWriter, Upper};
use crate::snapshot::Kind as FileKind;
use crate::store::tests::privilege;
use crate::{DiffId, Error, Snapshot};

/// Files of a directory by number: `0`, `1`, …
struct Numbered<'a> {
    directory: &'a Path,
    read: Mutex<Vec<usize>>,
}

impl Files for Numbered<'_> {
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
        let bytes = if streamed { Bytes::Stream(&mut file) } else { Bytes::Numbered(number, size) };
        writer.put_file(path, Content::File(bytes), attributes(0o640), &[]).unwrap();
    });
    let files = Numbered { directory: sources.path(), read: Mutex::default() };
    let packed = store.pack(writer.into_upper(), Some(1_600_000_000), &files).unwrap();
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
    let files = Numbered { directory: root.path(), read: Mutex::default() };
    let pack = |parent: &[DiffId], write: &dyn Fn(&mut LayerWriter<'_, Changeset>)| {
        let parent = Snapshot::open(&store, parent).unwrap();
        let mut writer = LayerWriter::new(&parent, Changeset::new(store.stage().unwrap()), attributes(0o755));
        write(&mut writer);
        store.pack(writer.into_upper(), None, &files).unwrap().diff_id
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
        let bytes = Content::File(Bytes::Numbered(0, size));
        writer.put_file(Path::new(name), bytes, attributes(0o644), &[]).unwrap();
    }
    let files = Numbered { directory: root.path(), read: Mutex::default() };
    let error = store.pack(writer.into_upper(), None, &files).unwrap_err();
    assert!(error.to_string().contains("became shorter"), "{error}");
    assert!(store.blobs().list().unwrap().is_empty());
}
