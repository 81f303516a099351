use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::archive::header::{Header, Kind as TarKind};
use crate::store::tests::privilege;

/// A layer out of lines: `dir/`, `file=content`, `link>target`, `-gone`, `dir/!` for opaque.
fn layer(store: &Store, lines: &[&str]) -> DiffId {
    let staging = store.stage().unwrap();
    for line in lines {
        if let Some(path) = line.strip_suffix("/!") {
            fs::create_dir_all(staging.upper().join(path)).unwrap();
            let directory = fs::File::open(staging.upper().join(path)).unwrap();
            Target::Open(directory.as_fd()).set_opaque(privilege()).unwrap();
        } else if let Some(path) = line.strip_suffix('/') {
            fs::create_dir_all(staging.upper().join(path)).unwrap();
        } else if let Some(path) = line.strip_prefix('-') {
            let path = staging.upper().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        } else if let Some((path, target)) = line.split_once('>') {
            let path = staging.upper().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
        } else {
            let (path, content) = line.split_once('=').unwrap();
            let path = staging.upper().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }
    store.commit(staging, None).unwrap().diff_id
}

const LAYERS: [&[&str]; 4] = [
    &[
        "etc/passwd=base",
        "etc/group=base",
        "bin/sh=shell",
        "run/pid=1",
        "var/run>/run",
        "opaque/low=1",
        "file-over-dir/x=1",
        "dir-over-file=1",
        "removed/deep/file=1",
        "came-back/old=1",
        "a/b/c/d=1",
        "loop>loop",
        "up>../../../etc",
        "hidden/x=1",
    ],
    &[
        "etc/passwd=second",
        "-etc/group",
        "opaque/!",
        "opaque/high=2",
        "file-over-dir=now a file",
        "dir-over-file/y=2",
        "-removed",
        "-came-back",
        "a/b/!",
        "a/b/e=2",
    ],
    &["came-back/!", "came-back/new=3", "etc/group=third", "a/b/c/f=3", "hidden=file", "chain>var/run/pid"],
    &["opaque/top=4", "hidden/!", "hidden/y=4", "-bin/sh", "relative>etc/../etc/passwd", "dangling>/nowhere/at/all"],
];

fn stack() -> (tempfile::TempDir, Store, Snapshot) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), privilege()).unwrap();
    let layers: Vec<DiffId> = LAYERS.iter().map(|lines| layer(&store, lines)).collect();
    let snapshot = Snapshot::open(&store, &layers).unwrap();
    (root, store, snapshot)
}

fn walk(snapshot: &Snapshot, path: &Path, found: &mut Vec<String>) {
    for (name, node) in snapshot.read_dir(path).unwrap() {
        assert_eq!(node.path, path.join(name));
        assert_eq!(snapshot.lookup(&node.path).unwrap().unwrap().inode, node.inode);
        let shown = node.path.display();
        match node.kind {
            Kind::Directory => {
                found.push(format!("{shown}/"));
                walk(snapshot, &node.path, found);
            }
            Kind::Symlink => found.push(format!("{shown}>{}", snapshot.read_link(&node).unwrap().display())),
            _ => {
                let mut content = String::new();
                snapshot.open_file(&node).unwrap().read_to_string(&mut content).unwrap();
                found.push(format!("{shown}={content}"));
            }
        }
    }
}

#[test]
fn the_stack_reads_as_one() {
    let (_root, _store, snapshot) = stack();
    let mut found = Vec::new();
    walk(&snapshot, Path::new(""), &mut found);
    for expected in [
        "etc/passwd=second",
        "etc/group=third",
        "opaque/high=2",
        "opaque/top=4",
        "file-over-dir=now a file",
        "dir-over-file/y=2",
        "came-back/new=3",
        "a/b/c/f=3",
        "a/b/e=2",
        "hidden/y=4",
    ] {
        assert!(found.iter().any(|line| line == expected), "{expected} is not in {found:?}");
    }
    for gone in ["opaque/low", "removed", "came-back/old", "a/b/c/d", "hidden/x", "bin/sh", "file-over-dir/x"] {
        assert!(!found.iter().any(|line| line.starts_with(gone)), "{gone}");
        assert!(snapshot.lookup(Path::new(gone)).unwrap().is_none(), "{gone}");
    }
    assert!(snapshot.lookup(Path::new("bin")).unwrap().is_some());
    assert!(snapshot.lookup(Path::new("var/run/pid")).unwrap().is_none(), "lookup follows nothing");
}

/// The kernel's overlay of the same layers says the same.
#[test]
fn overlay_agrees() {
    if privilege() != Privilege::Root {
        println!("only root may mount the overlay to compare with");
        return;
    }
    let (root, _store, snapshot) = stack();
    let lower: Vec<String> = snapshot.lower_directories().iter().map(|path| path.display().to_string()).collect();
    let mount = root.path().join("mount");
    fs::create_dir(&mount).unwrap();
    let script = r#"mount -t overlay overlay -o "ro,lowerdir=$1" "$2" && cd "$2" && find . -mindepth 1 | LC_ALL=C sort | while read -r path; do
        path=${path#./}
        if [ -L "$path" ]; then echo "$path>$(readlink "$path")"
        elif [ -d "$path" ]; then echo "$path/"
        else echo "$path=$(cat "$path")"; fi; done"#;
    let output = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", &lower.join(":")])
        .arg(&mount)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut theirs: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    let mut ours = Vec::new();
    walk(&snapshot, Path::new(""), &mut ours);
    theirs.sort();
    ours.sort();
    assert_eq!(ours, theirs);
}

#[test]
fn symlinks_are_followed_inside() {
    let (_root, _store, snapshot) = stack();
    let resolved = |path: &str, follow| {
        let (path, node) = snapshot.resolve(Path::new(path), follow).unwrap();
        (path.to_str().unwrap().to_owned(), node.is_some())
    };
    let yes = |path: &str| (path.to_owned(), true);
    let no = |path: &str| (path.to_owned(), false);
    assert_eq!(resolved("/var/run/pid", false), yes("run/pid"));
    assert_eq!(resolved("var/run", false), yes("var/run"));
    assert_eq!(resolved("var/run", true), yes("run"));
    assert_eq!(resolved("chain", true), yes("run/pid"));
    assert_eq!(resolved("up/passwd", true), yes("etc/passwd"));
    assert_eq!(resolved("relative", true), yes("etc/passwd"));
    assert_eq!(resolved("../../etc/./passwd", true), yes("etc/passwd"));
    assert_eq!(resolved("var/run/../etc", true), yes("etc"));
    assert_eq!(resolved("dangling/x", true), no("nowhere/at/all/x"));
    assert_eq!(resolved("new/dir/../file", true), no("new/file"));
    assert_eq!(resolved("", true), yes(""));
    assert_eq!(resolved("..", true), yes(""));
    assert!(matches!(snapshot.resolve(Path::new("loop"), true), Err(Error::SymlinkLoop(_))));
    assert!(matches!(snapshot.resolve(Path::new("etc/passwd/x"), true), Err(Error::NotADirectory(_))));
    assert_eq!(snapshot.read(Path::new("var/run/pid"), 10).unwrap().as_deref(), Some(b"1".as_slice()));
    assert_eq!(snapshot.read(Path::new("relative"), 3).unwrap(), None);
    assert_eq!(snapshot.read(Path::new("etc/passwd/x"), 3).unwrap(), None);
}

#[test]
fn a_stack_without_layers_is_an_empty_root() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), privilege()).unwrap();
    let snapshot = Snapshot::open(&store, &[]).unwrap();
    let (path, node) = snapshot.resolve(Path::new("/app/x"), true).unwrap();
    assert_eq!((path.to_str(), node.is_none()), (Some("app/x"), true));
    assert!(snapshot.read_dir(Path::new("")).unwrap().is_empty());
    let node = snapshot.lookup(Path::new("/")).unwrap().unwrap();
    assert!(snapshot.xattrs(&node).unwrap().is_empty());
    assert!(matches!(Snapshot::open(&store, &[crate::Digest::of(b"")]), Err(Error::LayerMissing(_))));
}

#[test]
fn an_opaque_root_hides_all_layers_below() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), privilege()).unwrap();
    let low = layer(&store, &["low=1"]);
    let mut tar = Vec::new();
    Header::bare(b".wh..wh..opq", TarKind::File).encode(&mut tar);
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    Header { mode: 0o644, uid, gid, ..Header::bare(b"high", TarKind::File) }.encode(&mut tar);
    tar.resize(tar.len() + 1024, 0);
    let high = store.unpack(&mut tar.as_slice(), None).unwrap().diff_id;
    let snapshot = Snapshot::open(&store, &[low, high]).unwrap();
    assert!(snapshot.lookup(Path::new("low")).unwrap().is_none());
    assert_eq!(snapshot.lower_directories(), [store.layer_path(&high)]);
    let mut again = Vec::new();
    store.write_tar(&high, &mut again).unwrap();
    assert_eq!(again, tar);
}
