//! COPY and ADD: `--link`, `--parents`, `--exclude`, owners and modes of what has none of its own.

use kiln_tests::{Account, Kiln, Kind};

/// Proves: D1.10-13
#[test]
fn a_linked_copy_lies_on_nothing() {
    let kiln = Kiln::with_busybox();
    kiln.build_text("FROM busybox\nRUN mkdir /real && ln -s /real /place && echo other > /other\n", "other");
    let context = kiln.context(&[("a", "alpha\n"), ("d/b", "beta\n")]);
    let build = |base: &str, name: &str| {
        let text = format!("FROM {base}\nWORKDIR /place\nCOPY --link --chown=7:8 --chmod=640 a d sub/\n");
        context.write("Dockerfile", &text);
        kiln.build(&context, name, &[]).output()
    };
    build("busybox", "one");
    let second = build("other", "two");
    assert!(second.contains("CACHED"), "the base does not matter:\n{second}");
    let layers = |name: &str| kiln.saved(name).config["rootfs"]["diff_ids"].as_array().unwrap().clone();
    assert_eq!(layers("one").last(), layers("two").last(), "one layer for every base");
    let root = kiln.filesystem("two");
    assert_eq!(root.get("place").map(|node| node.kind.clone()), Some(Kind::Directory), "the symlink is not followed");
    assert!(root.get("real/sub").is_none());
    let file = root.get("place/sub/a").expect("WORKDIR counts");
    assert_eq!((file.uid, file.gid, file.mode), (7, 8, 0o640));
    assert_eq!(kiln.output("two", &["cat", "/place/sub/b"]), "beta\n");
}

/// Proves: D1.10-14
#[test]
fn parents_are_kept_from_the_pivot_on() {
    let kiln = Kiln::with_busybox();
    let text = "FROM scratch\nCOPY --parents x/a.txt y/a.txt /whole/\nCOPY --parents ./x/./y/*.txt /pivot/\n\
                COPY --parents src/**/*.rs /deep/\nCOPY --parents src/./one /directory/\n";
    let files = ["x/a.txt", "y/a.txt", "x/y/b.txt", "x/y/c.md", "src/top.rs", "src/one/two/d.rs", "src/one/e.c"];
    let files: Vec<(&str, &str)> = files.into_iter().map(|path| (path, path)).chain([("Dockerfile", text)]).collect();
    kiln.build(&kiln.context(&files), "t", &[]);
    let root = kiln.filesystem("t");
    let found: Vec<&str> =
        root.paths().filter(|path| root.get(path).is_some_and(|node| node.kind != Kind::Directory)).collect();
    let expected = [
        "deep/src/one/two/d.rs",
        "deep/src/top.rs",
        "directory/one/e.c",
        "directory/one/two/d.rs",
        "pivot/y/b.txt",
        "whole/x/a.txt",
        "whole/y/a.txt",
    ];
    assert_eq!(found, expected);
}

/// Proves: D1.10-15
#[test]
fn what_is_excluded_is_named_from_the_source_on() {
    let kiln = Kiln::with_busybox();
    let text = "FROM scratch\nCOPY --exclude=b --exclude=*.log dir /one/\nCOPY --exclude=**/*.log --exclude=sub/b dir /two/\n\
                ADD --exclude=**/keep/no dir /three/\n";
    let files = ["dir/a", "dir/b", "dir/x.log", "dir/sub/b", "dir/sub/y.log", "dir/keep/no"];
    let files: Vec<(&str, &str)> = files.into_iter().map(|path| (path, path)).chain([("Dockerfile", text)]).collect();
    let context = kiln.context(&files);
    kiln.build(&context, "t", &[]);
    let root = kiln.filesystem("t");
    let below = |top: &str| -> Vec<String> {
        let is_file = |path: &&str| root.get(path).is_some_and(|node| node.kind != Kind::Directory);
        root.paths().filter(is_file).filter_map(|path| path.strip_prefix(top)).map(str::to_owned).collect()
    };
    assert_eq!(below("one/"), ["a", "keep/no", "sub/b", "sub/y.log"]);
    assert_eq!(below("two/"), ["a", "b", "keep/no"]);
    assert_eq!(below("three/"), ["a", "b", "sub/b", "sub/y.log", "x.log"]);
    context.write("dir/x.log", "changed");
    kiln.build(&context, "t", &["--target=0"]).says("CACHED");
}

/// Proves: D1.9-11, D1.11-10
#[test]
fn heredocs_and_unpacked_entries_get_owner_and_mode() {
    let kiln = Kiln::with_busybox();
    let text = "FROM busybox\nCOPY --chown=33:100 --chmod=640 <<one <<two /made/\n1\none\n2\ntwo\n\
                ADD --chown=www-data --chmod=u=rwX,go= <<three /three\n3\nthree\n\
                ADD --chown=8:9 --chmod=600 t.tar /unpacked/\n";
    let context = kiln.context(&[("Dockerfile", text), ("in", "inside\n")]);
    context.shell("chmod 755 in; tar --owner=1000 --group=1000 -cf t.tar in");
    kiln.build(&context, "t", &[]);
    let root = kiln.filesystem("t");
    let of = |path: &str| root.get(path).map(|node| (node.uid, node.gid, node.mode));
    assert_eq!(of("made/one"), Some((33, 100, 0o640)));
    assert_eq!(of("made/two"), Some((33, 100, 0o640)));
    assert_eq!(of("three"), Some((33, 33, 0o600)));
    assert_eq!(of("unpacked/in"), Some((8, 9, 0o600)));
}

/// Proves: D1.12-12
#[test]
fn what_no_instruction_names_is_not_read() {
    let kiln = Kiln::of(Account::without_subuids()).import_busybox();
    let text = "FROM busybox\nCOPY wanted /\nRUN --mount=source=mounted,target=/m cat /m/f > /f\n";
    let context = kiln.context(&[
        ("Dockerfile", text),
        ("wanted", "1"),
        ("mounted/f", "2"),
        ("closed/file", "3"),
        ("secret", "4"),
    ]);
    context.shell("chown 0:0 secret && chmod 600 secret && chown 0:0 closed/file && chmod 000 closed/file");
    kiln.build(&context, "t", &[]);
    assert!(kiln.filesystem("t").get("wanted").is_some());
    context.write("Dockerfile", "FROM busybox\nCOPY . /\n");
    kiln.try_build(&context, "t", &[]).failure().says("denied");
}
