//! The build context: what is sent, what is ignored, where the Dockerfile comes from.

use kiln_tests::{Kiln, run_with_input};

/// Proves: D1.12-7, D1.12-8, D1.12-10
#[test]
fn dockerignore_hides_files_and_takes_exceptions_back() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[
        ("Dockerfile", "FROM scratch\nCOPY . /\n"),
        (".dockerignore", "# comment\n*.log\n!keep.log\nnode_modules\n**/deep\nDockerfile\n.dockerignore\n"),
        ("a", ""),
        ("x.log", ""),
        ("keep.log", ""),
        ("node_modules/m", ""),
        ("d/deep", ""),
        ("d/node_modules/kept", ""),
    ]);
    kiln.build(&context, "t", &[]);
    let root = kiln.filesystem("t");
    let paths: Vec<&str> = root.paths().collect();
    assert_eq!(paths, ["a", "d", "d/node_modules", "d/node_modules/kept", "keep.log"]);
}

#[test]
fn copying_an_ignored_file_fails_and_names_it() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[
        ("Dockerfile", "FROM scratch\nCOPY secret.txt /\n"),
        (".dockerignore", "secret.txt\n"),
        ("secret.txt", "x"),
    ]);
    kiln.try_build(&context, "t", &[]).failure().says("secret.txt");
}

/// Proves: D1.12-1, D1.12-2, D1.12-3, --file
#[test]
fn the_dockerfile_may_be_named_be_elsewhere_and_come_from_standard_input() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("a", "alpha\n"), ("sub/Other", "FROM scratch\nCOPY a /other\n")]);
    let path = context.path().to_str().unwrap();
    kiln.build(&context, "other", &["-f", &format!("{path}/sub/Other")]);
    assert!(kiln.filesystem("other").get("other").is_some());

    let outside = kiln.context(&[("Dockerfile", "FROM scratch\nCOPY a /outside\n")]);
    kiln.build(&context, "outside", &["-f", outside.path().join("Dockerfile").to_str().unwrap()]);
    assert!(kiln.filesystem("outside").get("outside").is_some());

    let build = kiln.command(["build", "-t", "stdin", "-f", "-", path]);
    run_with_input(build, b"FROM scratch\nCOPY a /stdin\n").success();
    assert!(kiln.filesystem("stdin").get("stdin").is_some());

    kiln.try_build(&context, "none", &[]).failure().says("Dockerfile");
}

#[test]
fn a_symlink_in_the_context_cannot_reach_out_of_it() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM scratch\nCOPY link/passwd /stolen\n")]);
    context.shell("ln -s /etc link");
    kiln.try_build(&context, "t", &[]).failure();
    context.write("Dockerfile", "FROM scratch\nCOPY up/etc/passwd /stolen\n");
    context.shell("ln -s ../../../../../../../.. up");
    kiln.try_build(&context, "t", &[]).failure();
}

#[test]
fn a_missing_source_is_shown_where_it_is_written() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nRUN true\nCOPY no-such-file /x\n")]);
    kiln.try_build(&context, "t", &[]).failure().says("no-such-file").says("Dockerfile:3");
}

#[test]
fn a_large_file_is_copied_exactly_in_little_memory() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nCOPY big /big\nRUN sha256sum /big > /sum\n")]);
    context.shell("head -c 300000000 /dev/urandom > big; sha256sum big | cut -d' ' -f1 > sum");
    let limited = kiln.command(["build", "-q", "-t", "t", context.path().to_str().unwrap()]);
    kiln_tests::run(limited).success();
    let sum = std::fs::read_to_string(context.path().join("sum")).unwrap();
    assert!(kiln.output("t", &["cat", "/sum"]).starts_with(sum.trim()));
}
