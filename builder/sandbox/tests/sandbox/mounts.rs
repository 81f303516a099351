//! The mounts of a spec.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use kiln_sandbox::Exit;
use kiln_sandbox::spec::Mount;

use crate::room::Room;
use crate::{Case, has_ids};

pub(crate) const CASES: &[Case] = &[
    ("bind_mounts", bind_mounts),
    ("overlay_mounts", overlay_mounts),
    ("tmpfs_mounts", tmpfs_mounts),
    ("secrets", secrets),
    ("targets_inside_the_root", targets_inside_the_root),
    ("standard_mounts", standard_mounts),
];

fn bind(source: PathBuf, target: &str, readonly: bool) -> Mount {
    Mount::Bind { source, target: PathBuf::from(target), readonly }
}

fn bind_mounts(room: &Room) {
    let source = room.path("source");
    fs::create_dir(&source).expect("mkdir");
    fs::write(source.join("file"), "content").expect("written");
    let mut spec = room.spec(&["sh", "-c", "cat /a/file /f; echo x > /a/new; touch /r/new 2>/dev/null || echo no"]);
    spec.mounts = vec![
        bind(source.clone(), "/a", false),
        bind(source.clone(), "/r", true),
        bind(source.join("file"), "/f", true),
    ];
    assert_eq!(room.run(&spec).expect("started").text(), "contentcontentno");
    assert_eq!(fs::read_to_string(source.join("new")).expect("written through"), "x\n");
    assert_eq!(room.written(), [] as [&str; 0]);
    spec.mounts = vec![bind(room.path("missing"), "/a", false)];
    let text = room.run(&spec).map(|outcome| outcome.exit).expect_err("an error").to_string();
    assert!(text.contains("missing"), "{text}");
    // A file cannot be put on a directory.
    spec.mounts = vec![bind(source.join("file"), "/etc", false)];
    assert!(room.run(&spec).is_err());
}

fn overlay_mounts(room: &Room) {
    for (layer, name) in [("one", "x"), ("two", "y")] {
        fs::create_dir_all(room.path(layer).join("sub")).expect("mkdir");
        fs::write(room.path(layer).join("sub").join(name), name).expect("written");
    }
    symlink("/sub/x", room.path("one").join("link")).expect("symlink");
    for name in ["over", "overwork"] {
        fs::create_dir(room.path(name)).expect("mkdir");
    }
    let lower = vec![room.path("one"), room.path("two")];
    let mount = |lower: &[PathBuf], upper: Option<(PathBuf, PathBuf)>, source: &str, target: &str| Mount::Overlay {
        lower: lower.to_vec(),
        upper,
        source: PathBuf::from(source),
        target: PathBuf::from(target),
    };
    let script = "cat /a/x /a/y /f; touch /a/n 2>/dev/null || echo ro; echo z > /w/z; rm /w/y; cat /o/sub/x; touch /o/n 2>/dev/null || echo ro";
    let mut spec = room.spec(&["sh", "-c", script]);
    spec.mounts = vec![
        mount(&lower, None, "sub", "/a"),
        mount(&lower, None, "/link", "/f"),
        mount(&lower, Some((room.path("over"), room.path("overwork"))), "sub", "/w"),
        mount(&lower[..1], None, "/", "/o"),
        mount(&[], None, "/", "/nothing"),
    ];
    assert_eq!(room.run(&spec).expect("started").text(), "xyxro\nxro");
    assert!(room.path("over/sub/z").exists());
    assert!(!room.path("one/sub/z").exists());
    assert_eq!(room.written(), [] as [&str; 0]);
    spec.mounts = vec![mount(&lower, None, "../../../../etc/passwd", "/a")];
    assert!(room.run(&spec).is_err(), "the source is looked up inside");
}

fn tmpfs_mounts(room: &Room) {
    let mut spec = room.spec(&[
        "sh",
        "-c",
        "stat -c %a /t; echo x > /t/x; head -c 200000 /dev/zero > /t/big 2>/dev/null || echo full",
    ]);
    spec.args[2] = spec.args[2].replace("head", "busybox head");
    spec.mounts = vec![Mount::Tmpfs { target: PathBuf::from("/t"), size: Some(65536), mode: 0o1777 }];
    assert_eq!(room.run(&spec).expect("started").text(), "1777\nfull");
    assert_eq!(room.written(), [] as [&str; 0]);
}

fn secrets(room: &Room) {
    let ids = if has_ids(room.identity) { 5 } else { 0 };
    let mut spec = room.spec(&[
        "sh",
        "-c",
        "cat /run/secrets/key; stat -c '%a %u %g' /run/secrets/key; echo x > /run/secrets/key || echo no",
    ]);
    let target = PathBuf::from("/run/secrets/key");
    spec.mounts = vec![Mount::Secret { target, content: b"a\0\xffb".to_vec(), mode: 0o440, uid: ids, gid: ids }];
    let outcome = room.run(&spec).expect("started");
    assert_eq!(outcome.exit, Exit::Code(0));
    assert_eq!(outcome.stdout, format!("a\0\u{fffd}b440 {ids} {ids}\nno\n"));
    assert_eq!(room.written(), [] as [&str; 0]);
    assert_eq!(fs::metadata(room.path("stubs/run/secrets/key")).expect("a stub").size(), 0);
    spec.args = vec!["sh".to_owned(), "-c".to_owned(), "echo kept > /run/secrets/other".to_owned()];
    room.run(&spec).expect("started").text();
    assert_eq!(room.written(), ["d run", "d run/secrets", "f run/secrets/other"]);
}

fn targets_inside_the_root(room: &Room) {
    let outside = room.path("outside");
    fs::create_dir(&outside).expect("mkdir");
    symlink(&outside, room.base("way")).expect("symlink");
    symlink("../../../../../../..", room.base("up")).expect("symlink");
    let mut spec = room.spec(&["sh", "-c", "cat /way/t/x /up/y /z"]);
    let secret = |target: &str, content: &[u8]| Mount::Secret {
        target: PathBuf::from(target),
        content: content.to_vec(),
        mode: 0o444,
        uid: 0,
        gid: 0,
    };
    spec.mounts = vec![secret("/way/t/x", b"1"), secret("/up/y", b"2"), secret("/etc/../../z", b"3")];
    assert_eq!(room.run(&spec).expect("started").text(), "123");
    assert_eq!(fs::read_dir(&outside).expect("there").count(), 0);
    assert_eq!(room.written(), [] as [&str; 0]);
}

fn standard_mounts(room: &Room) {
    let script = "for f in null zero full random urandom tty ptmx shm pts fd stdin stdout stderr core mqueue; do \
                  test -e /dev/$f -o -L /dev/$f || echo missing $f; done; \
                  echo x > /dev/null; busybox head -c 3 /dev/zero | wc -c; stat -c %a /dev /dev/shm /dev/null; \
                  echo x > /dev/shm/x; touch /sys/x 2>/dev/null || echo sys; \
                  echo 1 > /proc/sys/kernel/hostname 2>/dev/null || echo proc; cat /proc/kcore 2>/dev/null | wc -c; ls /sys/firmware | wc -l; \
                  ls -d /sys/class/net";
    let outcome = room.shell(script);
    assert_eq!(outcome.text(), "3\n755\n1777\n666\nsys\nproc\n0\n0\n/sys/class/net");
    let mut spec = room.spec(&["sh", "-c", "busybox df -k /dev/shm | busybox tail -1"]);
    spec.shm_size = Some(1 << 20);
    assert!(room.run(&spec).expect("started").text().contains(" 1024 "));
    // Nothing of the host is left to be seen.
    let mounts = room.shell("cat /proc/self/mountinfo").text().to_owned();
    assert!(!mounts.contains("/oldroot") && mounts.lines().count() < 60, "{mounts}");
    assert!(mounts.lines().all(|line| !line.contains(" shared:") && !line.contains(" master:")), "{mounts}");
}
