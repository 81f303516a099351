use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::archive::header::Header;
use crate::store::tests::privilege;

/// An archive in the making.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn add(mut self, header: Header<'_>, content: &[u8]) -> Self {
        Header { size: content.len() as u64, ..header }.encode(&mut self.0);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
    fn file(self, path: &str, content: &str) -> Self {
        let header = Header { mode: 0o644, mtime: (1000, 0), ..Header::bare(path.as_bytes(), Kind::File) };
        self.add(header, content.as_bytes())
    }
    fn directory(self, path: &str, seconds: i64) -> Self {
        let header = Header { mode: 0o755, mtime: (seconds, 0), ..Header::bare(path.as_bytes(), Kind::Directory) };
        self.add(header, b"")
    }
    fn link(self, kind: Kind, path: &str, target: &str) -> Self {
        self.add(Header { link: target.as_bytes(), mode: 0o777, ..Header::bare(path.as_bytes(), kind) }, b"")
    }
    fn symlink(self, path: &str, target: &str) -> Self {
        self.link(Kind::Symlink, path, target)
    }
    fn hard_link(self, path: &str, target: &str) -> Self {
        self.link(Kind::HardLink, path, target)
    }
}

/// A directory to unpack into, beside one that must not change.
struct Room {
    root: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("layer")).unwrap();
        fs::create_dir(root.path().join("outside")).unwrap();
        fs::write(root.path().join("outside/secret"), "secret").unwrap();
        Self { root }
    }
    fn layer(&self) -> std::path::PathBuf {
        self.root.path().join("layer")
    }
    fn unpack(&self, tar: &[u8]) -> Result<Extracted> {
        let root = directory::open(rustix::fs::CWD, self.layer()).unwrap();
        let extracted = extract(tar, root, privilege());
        self.assert_contained();
        extracted
    }
    fn assert_contained(&self) {
        let names = |path: &Path| fs::read_dir(path).unwrap().count();
        assert_eq!((names(self.root.path()), names(&self.root.path().join("outside"))), (2, 1));
        assert_eq!(fs::read(self.root.path().join("outside/secret")).unwrap(), b"secret");
        assert_eq!(fs::metadata(self.root.path().join("outside/secret")).unwrap().nlink(), 1);
    }
    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.layer().join(path)).unwrap()
    }
}

#[test]
fn names_cannot_climb() {
    let room = Room::new();
    let outside = room.root.path().join("outside/new");
    let tar = Tar::default()
        .file("../outside/a", "1")
        .file("/../../b", "2")
        .file(outside.to_str().unwrap(), "3")
        .file("x/../../../c", "4")
        .file("./d", "5");
    room.unpack(&tar.0).unwrap();
    assert_eq!(room.read("outside/a") + &room.read("b") + &room.read("c") + &room.read("d"), "1245");
}

#[test]
fn symlinks_lead_as_in_the_container() {
    let room = Room::new();
    let outside = room.root.path().join("outside");
    let tar = Tar::default()
        .directory("run/", 1)
        .symlink("var/run", "/run")
        .file("var/run/pid", "1")
        .symlink("out", outside.to_str().unwrap())
        .file("out/new", "2")
        .symlink("up", "../../..")
        .file("up/top", "3")
        .symlink("secret", outside.join("secret").to_str().unwrap())
        .file("secret", "4")
        .symlink("magic", "/proc/self/root")
        .file("magic/new", "5");
    room.unpack(&tar.0).unwrap();
    assert_eq!(room.read("run/pid") + &room.read("top") + &room.read("secret"), "134");
    let inside = room.layer().join(outside.strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(inside.join("new")).unwrap(), "2");
    assert_eq!(room.read("proc/self/root/new"), "5");
}

#[test]
fn loops_of_symlinks_end() {
    let room = Room::new();
    let tar = Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", "");
    assert!(room.unpack(&tar.0).is_err());
    let tar = Tar::default().symlink("c", "c/missing").file("c/x", "");
    assert!(room.unpack(&tar.0).is_err());
}

#[test]
fn hard_links_stay_inside() {
    let room = Room::new();
    let outside = room.root.path().join("outside/secret");
    for target in ["../outside/secret", outside.to_str().unwrap(), "missing", "", "..", "/"] {
        let error = room.unpack(&Tar::default().hard_link("link", target).0).unwrap_err();
        assert!(error.to_string().contains("link"), "{error}");
    }
    // Through a symlink that points out, too.
    let tar = Tar::default().symlink("out", "../outside").hard_link("link", "out/secret");
    assert!(room.unpack(&tar.0).is_err());
    let tar = Tar::default().file("a", "x").hard_link("b/c", "/a").hard_link("a", "a").hard_link("./a", "b/c");
    room.unpack(&tar.0).unwrap();
    assert_eq!(fs::metadata(room.layer().join("a")).unwrap().nlink(), 2);
    // A link to a symlink is one to the symlink itself.
    room.unpack(&Tar::default().symlink("s", "../outside/secret").hard_link("t", "s").file("t", "new").0).unwrap();
}

#[test]
fn anything_replaces_anything() {
    let room = Room::new();
    let tar = Tar::default()
        .directory("a/", 1)
        .file("a/b/c", "deep")
        .file("a", "file")
        .directory("a/", 2)
        .file("a/d", "again")
        .symlink("a/d", "../..")
        .directory("a/d/", 3)
        .file("a/d/e", "1")
        .file("a/d/e", "22");
    room.unpack(&tar.0).unwrap();
    assert_eq!(room.read("a/d/e"), "22");
    assert!(!room.layer().join("a/b").exists() && room.layer().join("a/d").is_dir());
    assert!(room.unpack(&Tar::default().file("f", "").file("f/g", "").0).is_err());
}

#[test]
fn directories_keep_their_times() {
    let room = Room::new();
    let tar = Tar::default()
        .directory("a/", 100)
        .directory("a/b/", 200)
        .file("a/b/x", "")
        .file("a/y", "")
        .file("c/z", "")
        .file("a/b/late", "")
        .directory("c/", 300);
    room.unpack(&tar.0).unwrap();
    let time = |path: &str| fs::metadata(room.layer().join(path)).unwrap().mtime();
    assert_eq!((time("a"), time("a/b"), time("c")), (100, 200, 300));
}

#[test]
fn whiteouts_become_overlays_own() {
    let room = Room::new();
    let tar = Tar::default()
        .file(".wh.gone", "")
        .file("opaque/.wh..wh..opq", "")
        .file("kept", "1")
        .file(".wh.kept", "")
        .file(".wh.back", "")
        .directory("back/", 1)
        .file(".wh.implied", "")
        .file("implied/x", "")
        .file(".wh..wh.plnk/1.2", "")
        .file(".wh..wh.aufs", "");
    room.unpack(&tar.0).unwrap();
    let gone = fs::symlink_metadata(room.layer().join("gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(room.read("kept"), "1");
    for path in ["opaque", "back", "implied"] {
        let directory = directory::open(rustix::fs::CWD, room.layer().join(path)).unwrap();
        assert!(Target::Open(directory.as_fd()).is_opaque(privilege()).unwrap(), "{path}");
    }
    assert!(!room.layer().join(".wh..wh.aufs").exists());
    for nothing in [".wh.", ".wh..", ".wh..."] {
        assert!(room.unpack(&Tar::default().file(nothing, "").0).is_err());
    }
}

#[test]
fn metadata_is_restored() {
    let room = Room::new();
    let capability = [1, 0, 0, 2].into_iter().chain([0x20; 16]).collect::<Vec<u8>>();
    let attributes = vec![
        (b"security.capability".to_vec(), capability.clone()),
        (b"trusted.overlay.opaque".to_vec(), b"y".to_vec()),
        (b"user.note".to_vec(), b"n".to_vec()),
        (b"user.overlay.opaque".to_vec(), b"y".to_vec()),
    ];
    let file =
        Header { mode: 0o6755, uid: 1234, gid: 6000, mtime: (5, 7), attributes, ..Header::bare(b"file", Kind::File) };
    let fifo = Header { mode: 0o640, ..Header::bare(b"fifo", Kind::Fifo) };
    let device = Header { mode: 0o666, device: (1, 3), ..Header::bare(b"null", Kind::CharDevice) };
    let extracted = room.unpack(&Tar::default().add(file, b"x").add(fifo, b"").add(device, b"").0).unwrap();
    assert_eq!(extracted.entries + extracted.skipped_devices, 3);
    let metadata = fs::metadata(room.layer().join("file")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.mtime(), metadata.mtime_nsec()), (0o6755, 5, 7));
    assert!(fs::metadata(room.layer().join("fifo")).unwrap().file_type().is_fifo());
    if privilege() != Privilege::Single {
        assert_eq!((metadata.uid(), metadata.gid()), (1234, 6000));
        let file = fs::File::open(room.layer().join("file")).unwrap();
        let kept = Target::Open(file.as_fd()).names().unwrap();
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert_eq!(Target::Open(file.as_fd()).get(b"security.capability").unwrap(), Some(capability));
    }
}

#[test]
fn zeros_fill_no_disk() {
    let room = Room::new();
    let mut content = vec![0; 4 << 20];
    content[1 << 20] = 1;
    let file = Header { mode: 0o600, ..Header::bare(b"sparse", Kind::File) };
    room.unpack(&Tar::default().add(file, &content).0).unwrap();
    let metadata = fs::metadata(room.layer().join("sparse")).unwrap();
    assert!(metadata.blocks() * 512 < 1 << 20, "{}", metadata.blocks());
    assert_eq!(fs::read(room.layer().join("sparse")).unwrap(), content);
}

#[test]
fn claims_of_size_cost_nothing() {
    let room = Room::new();
    let mut tar = Vec::new();
    Header { size: u64::MAX >> 2, ..Header::bare(b"huge", Kind::File) }.encode(&mut tar);
    tar.extend([1; 5000]);
    assert!(matches!(room.unpack(&tar), Err(Error::ArchiveRead(_))));
    // PAX and GNU extensions of a claimed gigabyte.
    for flag in [b'x', b'L', b'K'] {
        let mut tar = Vec::new();
        Header { size: 1 << 30, ..Header::bare(b"x", Kind::File) }.encode(&mut tar);
        tar[156] = flag;
        let sum: u64 = (0..512).map(|at| if (148..156).contains(&at) { 32 } else { u64::from(tar[at]) }).sum();
        tar[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let error = room.unpack(&tar).unwrap_err();
        assert!(error.to_string().contains("1048576"), "{error}");
    }
    assert!(room.unpack(&Tar::default().file(&"d/".repeat(3000), "").0).is_err());
    assert!(room.unpack(&Tar::default().file(&"n".repeat(300), "").0).is_err());
}

#[test]
fn deep_nesting_is_made_and_read() {
    let room = Room::new();
    let deep = "d/".repeat(1500);
    room.unpack(&Tar::default().directory(&deep, 7).file(&format!("{deep}f"), "x").0).unwrap();
    let mut tar = Vec::new();
    let root = || directory::open(rustix::fs::CWD, room.layer()).unwrap();
    crate::archive::writer::write(root(), privilege(), crate::archive::writer::Treatment::Read, &mut tar).unwrap();
    let again = Room::new();
    assert_eq!(again.unpack(&tar).unwrap().entries, 1501);
    directory::remove_tree(directory::open(rustix::fs::CWD, room.root.path()).unwrap().as_fd(), b"layer").unwrap();
    directory::remove_tree(directory::open(rustix::fs::CWD, again.root.path()).unwrap().as_fd(), b"layer").unwrap();
}

/// Members whose names and links point everywhere.
fn member() -> impl Strategy<Value = (u8, String, String, Vec<u8>)> {
    let name = prop_oneof![
        Just("a"),
        Just("b"),
        Just(".."),
        Just("."),
        Just(""),
        Just(".wh.a"),
        Just(".wh..wh..opq"),
        Just("outside"),
        Just("secret")
    ];
    let path = || prop::collection::vec(name.clone(), 1..5).prop_map(|names| names.join("/"));
    let target =
        prop_oneof![path(), path().prop_map(|path| format!("/{path}")), path().prop_map(|path| format!("../{path}"))];
    (0..7_u8, path(), target, prop::collection::vec(any::<u8>(), 0..20))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_archive_gets_out(members in prop::collection::vec(member(), 1..20), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3)) {
        let room = Room::new();
        symlink("../outside", room.layer().join("planted")).unwrap();
        let mut tar = Tar::default();
        for (kind, path, target, content) in &members {
            let kind = [Kind::File, Kind::HardLink, Kind::Symlink, Kind::CharDevice, Kind::BlockDevice, Kind::Directory, Kind::Fifo][usize::from(*kind)];
            let content = if kind == Kind::File { content.as_slice() } else { b"" };
            tar = tar.add(Header { link: target.as_bytes(), mode: 0o700, ..Header::bare(path.as_bytes(), kind) }, content);
        }
        for (at, byte) in damage {
            let at = at.index(tar.0.len());
            tar.0[at] = byte;
        }
        let _ = room.unpack(&tar.0);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let room = Room::new();
        let _ = room.unpack(&bytes);
    }
}

#[test]
fn unreadable_directories_can_still_be_filled() {
    let room = Room::new();
    let closed = Header { mode: 0, ..Header::bare(b"closed/", Kind::Directory) };
    let result = room.unpack(&Tar::default().add(closed, b"").file("closed/x", "1").0);
    if privilege() == Privilege::Root {
        result.unwrap();
        assert_eq!(fs::metadata(room.layer().join("closed")).unwrap().permissions().mode() & 0o7777, 0);
    }
}

#[test]
fn owners_are_right_whatever_the_directory_gives() {
    if privilege() != Privilege::Root {
        return;
    }
    let room = Room::new();
    let owned =
        |path: &'static str, kind, uid, gid, mode| Header { uid, gid, mode, ..Header::bare(path.as_bytes(), kind) };
    let tar = Tar::default()
        .add(owned("d/", Kind::Directory, 5, 6, 0o2755), b"")
        .add(owned("d/root", Kind::File, 0, 0, 0o600), b"")
        .add(owned("d/five", Kind::File, 5, 6, 0o600), b"")
        .add(owned("e/", Kind::Directory, 5, 6, 0o755), b"")
        .add(owned("e/", Kind::Directory, 0, 0, 0o755), b"");
    room.unpack(&tar.0).unwrap();
    let owner = |path: &str| {
        let metadata = fs::metadata(room.layer().join(path)).unwrap();
        (metadata.uid(), metadata.gid())
    };
    assert_eq!((owner("d"), owner("d/root"), owner("d/five"), owner("e")), ((5, 6), (0, 0), (5, 6), (0, 0)));
}
