//! Images and archives made to do harm.

use std::{fs, io::Cursor};

use kiln_tests::{Kiln, run_with_input};
use tar::{Builder, EntryType, Header};

/// A tar whose entries are exactly these, names unchecked.
fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, text) in entries {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(if *kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let mut content = text.as_bytes();
        if matches!(kind, EntryType::Link | EntryType::Symlink) {
            header.as_mut_bytes()[157..157 + text.len()].copy_from_slice(text.as_bytes());
            content = &[];
        }
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, Cursor::new(content)).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Imports it; whatever comes of that, the canary beside the store is as it was.
fn import(entries: &[(&str, EntryType, &str)]) -> Kiln {
    let kiln = Kiln::new();
    let canary = kiln.home().join("canary");
    fs::write(&canary, "alive").unwrap();
    let bytes = archive(entries);
    run_with_input(kiln.command(["import", "-", "hostile:1"]), &bytes).no_panic();
    assert_eq!(fs::read_to_string(&canary).unwrap(), "alive");
    let strangers: Vec<_> = fs::read_dir(kiln.home())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != "store" && name != "runtime" && name != "canary")
        .collect();
    assert!(strangers.is_empty(), "{strangers:?}");
    assert!(!fs::exists("/tmp/kiln-hostile-proof").unwrap(), "written outside");
    kiln
}

#[test]
fn names_that_climb_stay_inside() {
    import(&[("../../../../../../../../tmp/kiln-hostile-proof", EntryType::Regular, "x")]);
    import(&[("/tmp/kiln-hostile-proof", EntryType::Regular, "x")]);
    import(&[("a/../../../../../../../../../tmp/kiln-hostile-proof", EntryType::Regular, "x")]);
}

#[test]
fn links_do_not_lead_out() {
    import(&[("out", EntryType::Symlink, "/tmp"), ("out/kiln-hostile-proof", EntryType::Regular, "x")]);
    import(&[
        ("out", EntryType::Symlink, "../../../../../../../../../../tmp"),
        ("out/kiln-hostile-proof", EntryType::Regular, "x"),
    ]);
    import(&[("hard", EntryType::Link, "/etc/passwd"), ("hard", EntryType::Regular, "x")]);
    import(&[("hard", EntryType::Link, "../../../../../../../../etc/passwd")]);
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    assert!(passwd.contains("root:"));
}

#[test]
fn a_hard_link_to_a_file_of_the_host_does_not_read_it() {
    let kiln = Kiln::new();
    let bytes = archive(&[("stolen", EntryType::Link, "../../../../../../../../../../etc/shadow")]);
    let outcome = run_with_input(kiln.command(["import", "-", "hostile:1"]), &bytes).no_panic();
    if outcome.status.success() {
        assert!(kiln.filesystem("hostile:1").get("stolen").is_none(), "{outcome}");
    }
}

#[test]
fn whiteouts_hide_only_what_is_in_the_image() {
    import(&[
        (".wh...", EntryType::Regular, ""),
        (".wh..", EntryType::Regular, ""),
        ("a/.wh..wh..opq", EntryType::Regular, ""),
        (".wh.", EntryType::Regular, ""),
    ]);
}

#[test]
fn truncated_and_lying_archives_are_errors() {
    let kiln = Kiln::new();
    let whole = archive(&[("file", EntryType::Regular, &"x".repeat(5000))]);
    for length in [1, 100, 511, 513, 1500, 4000] {
        run_with_input(kiln.command(["import", "-", "hostile:1"]), &whole[..length]).failure();
    }
    let mut huge = Header::new_ustar();
    huge.set_path("huge").unwrap();
    huge.set_entry_type(EntryType::Regular);
    huge.set_mode(0o644);
    huge.set_uid(0);
    huge.set_gid(0);
    huge.set_mtime(0);
    huge.set_size(1 << 32);
    huge.set_cksum();
    run_with_input(kiln.command(["import", "-", "hostile:1"]), huge.as_bytes()).failure();
    run_with_input(kiln.command(["load"]), &whole).failure();
    run_with_input(kiln.command(["load"]), b"not an archive at all").failure();
}

#[test]
fn add_of_a_hostile_archive_stays_in_the_image() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nRUN ln -s /tmp /link\nADD t.tar /\n")]);
    context.write(
        "t.tar",
        archive(&[
            ("link/kiln-hostile-proof", EntryType::Regular, "x"),
            ("../../../../../../tmp/kiln-hostile-proof", EntryType::Regular, "x"),
        ]),
    );
    kiln.try_build(&context, "t", &[]);
    assert!(!fs::exists("/tmp/kiln-hostile-proof").unwrap(), "written outside");
}

#[test]
fn symlinks_of_the_image_do_not_lead_copy_out() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[
        (
            "Dockerfile",
            "FROM busybox\nRUN ln -s /../../../../../../../tmp /escape\nCOPY a /escape/kiln-hostile-proof\n",
        ),
        ("a", "x"),
    ]);
    kiln.build(&context, "t", &[]);
    assert!(!fs::exists("/tmp/kiln-hostile-proof").unwrap(), "written outside");
    assert!(kiln.filesystem("t").get("tmp/kiln-hostile-proof").is_some());
}

#[test]
fn many_entries_do_not_need_much_memory() {
    let kiln = Kiln::new();
    let directory = kiln.directory();
    let path = directory.path().join("many.tar");
    {
        let file = std::io::BufWriter::new(fs::File::create(&path).unwrap());
        let mut builder = Builder::new(file);
        for number in 0..200_000_u32 {
            let mut header = Header::new_ustar();
            header.set_path(format!("d{}/f{number}", number % 500)).unwrap();
            header.set_entry_type(EntryType::Regular);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(0);
            header.set_cksum();
            builder.append(&header, std::io::empty()).unwrap();
        }
        builder.finish().unwrap();
    }
    // Address space includes mappings that are never touched; resident memory is what is limited here.
    let peak = kiln.home().join("peak");
    let mut import = kiln_tests::command("/usr/bin/time", ["-f", "%M", "-o"]);
    let inner = kiln.command(["import", path.to_str().unwrap(), "many:1"]);
    import.arg(&peak).arg(inner.get_program()).args(inner.get_args());
    import.env("KILN_ROOT", kiln.root()).env("HOME", kiln.home());
    kiln_tests::run(import).success();
    let kibibytes: u64 = fs::read_to_string(&peak).unwrap().trim().parse().unwrap();
    assert!(kibibytes < 64 * 1024, "{kibibytes} KiB");
}
