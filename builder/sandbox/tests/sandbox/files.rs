//! What a run leaves in the upper directory: what it wrote, and nothing else.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use kiln_sandbox::Exit;
use kiln_sandbox::spec::Mount;

use crate::Case;
use crate::room::{Room, mtime};

pub(crate) const CASES: &[Case] = &[
    ("only_what_was_written", only_what_was_written),
    ("removals_are_whiteouts", removals_are_whiteouts),
    ("an_empty_root", an_empty_root),
    ("files_of_etc", files_of_etc),
    ("files_of_etc_behind_symlinks", files_of_etc_behind_symlinks),
    ("mount_points_in_hidden_places", mount_points_in_hidden_places),
    ("mount_points_that_were_used", mount_points_that_were_used),
    ("two_hundred_layers", two_hundred_layers),
    ("odd_names", odd_names),
    ("a_read_only_root", a_read_only_root),
    ("hostile_roots", hostile_roots),
];

fn only_what_was_written(room: &Room) {
    assert_eq!(room.shell("true").text(), "");
    assert_eq!(room.written(), [] as [&str; 0]);
    room.shell("echo x > /etc/x; mkdir -p /a/b; chmod 700 /tmp; ln -s y /z; touch /run-me").text();
    assert_eq!(room.written(), ["d a", "d a/b", "d etc", "d tmp", "f etc/x", "f run-me", "l z"]);
    assert_eq!(fs::metadata(room.upper("tmp")).expect("there").mode() & 0o7777, 0o700);
    // Of busybox's thirty links none was copied up, and the umask is the usual one.
    assert_eq!(fs::metadata(room.upper("a")).expect("there").mode() & 0o7777, 0o755);
    assert_eq!(fs::metadata(room.upper("etc/x")).expect("there").mode() & 0o7777, 0o644);
}

fn removals_are_whiteouts(room: &Room) {
    fs::create_dir_all(room.base("old/deep")).expect("mkdir");
    fs::write(room.base("old/deep/file"), "x").expect("written");
    fs::write(room.base("etc/gone"), "x").expect("written");
    room.shell("rm /etc/gone; rm -r /old; mkdir /old; touch /old/new").text();
    assert_eq!(room.written(), ["c etc/gone", "d etc", "d old", "f old/new"]);
    assert_eq!(fs::symlink_metadata(room.upper("etc/gone")).expect("there").rdev(), 0);
    // The next step sees neither.
    let mut spec = room.spec(&["sh", "-c", "ls /old; ls /etc"]);
    spec.root.lower.insert(0, room.path("upper"));
    for (name, path) in
        [("upper2", &mut spec.root.upper), ("work2", &mut spec.root.work), ("stubs2", &mut spec.root.stubs)]
    {
        *path = room.path(name);
        fs::create_dir(&path).expect("mkdir");
    }
    assert_eq!(room.run(&spec).expect("started").text(), "new\nhosts\nresolv.conf");
    // A directory of a lower layer can be moved.
    assert_eq!(room.shell("mv /tmp /moved && ls -d /moved").text(), "/moved");
}

fn an_empty_root(room: &Room) {
    let mut spec = room.spec(&["/busybox", "ls", "-1", "/"]);
    spec.root.lower.clear();
    fs::copy("/bin/busybox", room.upper("busybox")).expect("copy");
    assert_eq!(room.run(&spec).expect("started").text(), "busybox\ndev\netc\nproc\nsys");
    assert_eq!(room.written(), ["f busybox"]);
}

fn files_of_etc(room: &Room) {
    let text = "cat /etc/resolv.conf /etc/hosts; echo more >> /etc/hosts; cat /etc/hosts";
    let expected = "nameserver 192.0.2.1\n127.0.0.1 localhost\n127.0.0.1 localhost\nmore";
    assert_eq!(room.shell(text).text(), expected);
    assert_eq!(room.written(), [] as [&str; 0]);
    // Those that the image has are hidden, not changed.
    fs::write(room.base("etc/hosts"), "image\n").expect("written");
    room.shell("echo more >> /etc/hosts").text();
    assert_eq!(fs::read_to_string(room.base("etc/hosts")).expect("there"), "image\n");
    assert_eq!(room.written(), [] as [&str; 0]);
    let mut spec = room.spec(&["cat", "/etc/hosts"]);
    spec.hosts = None;
    assert_eq!(room.run(&spec).expect("started").text(), "image");
}

fn files_of_etc_behind_symlinks(room: &Room) {
    symlink("../run/systemd/resolve/stub.conf", room.base("etc/resolv.conf")).expect("symlink");
    fs::create_dir(room.base("run")).expect("mkdir");
    fs::create_dir(room.base("real")).expect("mkdir");
    symlink("/real/hosts", room.base("etc/hosts")).expect("symlink");
    let text = "cat /etc/resolv.conf /run/systemd/resolve/stub.conf /real/hosts";
    let expected = "nameserver 192.0.2.1\nnameserver 192.0.2.1\n127.0.0.1 localhost";
    assert_eq!(room.shell(text).text(), expected);
    assert_eq!(room.written(), [] as [&str; 0]);
    // Up and out goes nowhere.
    fs::remove_file(room.base("etc/resolv.conf")).expect("removed");
    symlink("../../../../../../../../etc/made", room.base("etc/resolv.conf")).expect("symlink");
    assert_eq!(room.shell("cat /etc/made").text(), "nameserver 192.0.2.1");
    assert_eq!(room.written(), [] as [&str; 0]);
}

/// An upper layer in which a directory is opaque: the stubs do not show.
fn hide(room: &Room, name: &str) {
    fs::create_dir_all(room.base(name)).expect("mkdir");
    // What is mounted in it is in the way of removing it.
    let mut spec = room.spec(&["sh", "-c", &format!("rm -r /{name} && mkdir /{name}")]);
    (spec.hosts, spec.resolv_conf) = (None, None);
    room.run(&spec).expect("started").text();
}

fn mount_points_in_hidden_places(room: &Room) {
    hide(room, "opt");
    hide(room, "etc");
    let before = (mtime(&room.upper("opt")), mtime(&room.upper("etc")), mtime(&room.upper("")));
    let mut spec = room.spec(&["sh", "-c", "ls /opt/a/b; cat /etc/hosts; cat /opt/secret"]);
    spec.mounts.push(Mount::Tmpfs { target: PathBuf::from("/opt/a/b"), size: None, mode: 0o755 });
    let (target, content) = (PathBuf::from("/opt/secret"), b"s".to_vec());
    spec.mounts.push(Mount::Secret { target, content, mode: 0o400, uid: 0, gid: 0 });
    assert_eq!(room.run(&spec).expect("started").text(), "127.0.0.1 localhost\ns");
    assert_eq!(room.written(), ["d etc", "d opt"]);
    assert_eq!((mtime(&room.upper("opt")), mtime(&room.upper("etc")), mtime(&room.upper(""))), before);
}

fn mount_points_that_were_used(room: &Room) {
    hide(room, "opt");
    let mut spec = room.spec(&["sh", "-c", "touch /opt/a/file; chmod 711 /opt/a"]);
    spec.mounts.push(Mount::Tmpfs { target: PathBuf::from("/opt/a/b"), size: None, mode: 0o755 });
    room.run(&spec).expect("started").text();
    assert_eq!(room.written(), ["d opt", "d opt/a", "f opt/a/file"]);
    // What the process puts where the mount point was is its own, and a symlink there leads nowhere.
    let outside = room.path("outside");
    fs::create_dir_all(outside.join("b")).expect("mkdir");
    let script =
        format!("mount -o bind / / 2>/dev/null; mv /opt/a /opt/c 2>/dev/null; ln -s {} /opt/a", outside.display());
    spec.args = vec!["sh".to_owned(), "-c".to_owned(), script];
    let _ = room.run(&spec).expect("started");
    assert!(outside.join("b").exists());
}

fn two_hundred_layers(room: &Room) {
    let mut spec = room.spec(&["sh", "-c", "ls /etc | grep -c layer; cat /etc/top"]);
    spec.root.lower.clear();
    for number in 0..200 {
        let layer = room.path(&format!("layers/{number}-{}", "long-name".repeat(20)));
        fs::create_dir_all(layer.join("etc")).expect("mkdir");
        fs::write(layer.join(format!("etc/layer{number}")), "").expect("written");
        fs::write(layer.join("etc/top"), number.to_string()).expect("written");
        spec.root.lower.push(layer);
    }
    spec.root.lower.push(room.path("base"));
    assert_eq!(room.run(&spec).expect("started").text(), "200\n0");
}

fn odd_names(room: &Room) {
    let odd = std::ffi::OsStr::from_bytes(b"a:b,c\\d e\n\xff\xfe=f");
    let layer = room.path("layers").join(odd);
    fs::create_dir_all(layer.join("etc")).expect("mkdir");
    fs::write(layer.join("etc/odd"), "found").expect("written");
    let mut spec = room.spec(&["sh", "-c", "cat /etc/odd; echo y > \"$(printf '/x\\ny:\\377')\"; cat '/m,:\\ n/t'"]);
    spec.root.lower.insert(0, layer);
    let source = room.path("source").join(odd);
    fs::create_dir_all(&source).expect("mkdir");
    fs::write(source.join("t"), "bound").expect("written");
    spec.mounts.push(Mount::Bind { source, target: PathBuf::from("/m,:\\ n"), readonly: true });
    let outcome = room.run(&spec).expect("started");
    assert_eq!((outcome.exit, outcome.stdout.as_str()), (Exit::Code(0), "foundbound"), "{}", outcome.stderr);
    assert!(fs::symlink_metadata(room.path("upper").join(std::ffi::OsStr::from_bytes(b"x\ny:\xff"))).is_ok());
}

fn a_read_only_root(room: &Room) {
    let mut spec = room.spec(&["sh", "-c", "touch /x 2>/dev/null || echo no; touch /dev/shm/x /m/y && echo yes"]);
    spec.root.readonly = true;
    spec.mounts.push(Mount::Tmpfs { target: PathBuf::from("/m"), size: Some(65536), mode: 0o777 });
    assert_eq!(room.run(&spec).expect("started").text(), "no\nyes");
    assert_eq!(room.written(), [] as [&str; 0]);
}

fn hostile_roots(room: &Room) {
    symlink("/tmp", room.base("proc")).expect("symlink");
    let error = room.run(&room.spec(&["true"])).map(|outcome| outcome.exit).expect_err("refused");
    let text = format!("{error} {:?}", std::error::Error::source(&error).map(ToString::to_string));
    assert!(text.contains("/proc") && text.contains("symlink"), "{text}");
    fs::remove_file(room.base("proc")).expect("removed");
    // Symlinks in a circle.
    symlink("b", room.base("a")).expect("symlink");
    symlink("a", room.base("b")).expect("symlink");
    let mut spec = room.spec(&["true"]);
    spec.mounts.push(Mount::Tmpfs { target: PathBuf::from("/a/x"), size: None, mode: 0o755 });
    assert!(room.run(&spec).is_err());
    // A magic link of /proc is text, not a way out.
    symlink("/proc/self/cwd/etc", room.base("magic")).expect("symlink");
    spec.mounts = vec![Mount::Tmpfs { target: PathBuf::from("/magic/x"), size: None, mode: 0o755 }];
    let _ = room.run(&spec);
    fs::set_permissions(room.base("etc"), fs::Permissions::from_mode(0o755)).expect("chmod");
    assert!(!room.path("etc").exists());
}
