//! What is run again and what is not.

use kiln_tests::{Kiln, Outcome};

fn cached(outcome: &Outcome) -> usize {
    outcome.output().lines().filter(|line| line.ends_with(" CACHED")).count()
}

/// Proves: D1.13-4
#[test]
fn nothing_runs_twice_when_nothing_changed() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[
        (
            "Dockerfile",
            "FROM busybox\nCOPY a /a\nRUN cat /proc/sys/kernel/random/uuid > /time\nRUN cat /a /time > /both\n",
        ),
        ("a", "alpha\n"),
    ]);
    let first = kiln.build(&context, "t", &[]);
    assert_eq!(cached(&first), 0, "{first}");
    let id = kiln.image_id("t");
    let second = kiln.build(&context, "t", &[]);
    assert!(cached(&second) >= 3, "{second}");
    assert_eq!(kiln.image_id("t"), id);
}

#[test]
fn a_touched_file_is_the_same_file_and_an_edited_one_is_not() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[
        ("Dockerfile", "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /before\nCOPY a /a\nRUN cat /proc/sys/kernel/random/uuid > /after\n"),
        ("a", "alpha\n"),
        ("unused", "1\n"),
    ]);
    kiln.build(&context, "t", &[]);
    let (before, after) = (kiln.output("t", &["cat", "/before"]), kiln.output("t", &["cat", "/after"]));

    context.shell("touch a");
    context.write("unused", "2\n");
    kiln.build(&context, "t", &[]);
    assert_eq!(kiln.output("t", &["cat", "/after"]), after);

    context.write("a", "beta!\n");
    let edited = kiln.build(&context, "t", &[]);
    assert_eq!(kiln.output("t", &["cat", "/before"]), before, "{edited}");
    assert_ne!(kiln.output("t", &["cat", "/after"]), after, "{edited}");
    assert_eq!(kiln.output("t", &["cat", "/a"]), "beta!\n");
}

#[test]
fn an_edit_of_the_same_length_in_the_same_second_is_noticed() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nCOPY a /a\n"), ("a", "0\n")]);
    for round in 0..8 {
        context.write("a", format!("{round}\n"));
        kiln.build(&context, "t", &[]);
        assert_eq!(kiln.output("t", &["cat", "/a"]), format!("{round}\n"));
    }
}

#[test]
fn the_mode_of_a_file_is_part_of_it() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nCOPY a /a\n"), ("a", "x\n")]);
    kiln.build(&context, "t", &[]);
    context.shell("chmod 755 a");
    kiln.build(&context, "t", &[]);
    assert_eq!(kiln.filesystem("t").get("a").unwrap().mode, 0o755);
}

/// Proves: D1.5-14
#[test]
fn an_argument_matters_from_where_it_is_used() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[(
        "Dockerfile",
        "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /early\nARG V=1\nENV FIXED=1\nRUN echo $V > /v && cat /proc/sys/kernel/random/uuid > /late\n",
    )]);
    kiln.build(&context, "t", &["--build-arg", "V=1"]);
    let times = || (kiln.output("t", &["cat", "/early"]), kiln.output("t", &["cat", "/late"]));
    let (early, late) = times();
    kiln.build(&context, "t", &["--build-arg", "V=2"]);
    assert_eq!(times().0, early);
    assert_ne!(times().1, late);
    assert_eq!(kiln.output("t", &["cat", "/v"]), "2\n");
    kiln.build(&context, "t", &["--build-arg", "V=1"]);
    assert_eq!(times().1, late, "the first build is still in the cache");
}

#[test]
fn a_step_that_made_the_same_bytes_again_stops_the_rebuild() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[
        (
            "Dockerfile",
            "FROM busybox AS make\nCOPY source /source\nRUN head -n 1 /source > /made\nFROM busybox\n\
             COPY --from=make /made /made\nRUN cat /proc/sys/kernel/random/uuid > /time\n",
        ),
        ("source", "line one\nline two\n"),
    ]);
    kiln.build(&context, "t", &[]);
    let time = kiln.output("t", &["cat", "/time"]);
    context.write("source", "line one\nline three\n");
    kiln.build(&context, "t", &[]);
    assert_eq!(kiln.output("t", &["cat", "/time"]), time);
}

/// Proves: --no-cache
#[test]
fn no_cache_runs_everything() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /time\n")]);
    kiln.build(&context, "t", &[]);
    let time = kiln.output("t", &["cat", "/time"]);
    let again = kiln.build(&context, "t", &["--no-cache"]);
    assert_eq!(cached(&again), 0, "{again}");
    assert_ne!(kiln.output("t", &["cat", "/time"]), time);
}

#[test]
fn the_reason_of_a_miss_is_told() {
    let kiln = Kiln::with_busybox();
    let context =
        kiln.context(&[("Dockerfile", "FROM busybox\nCOPY src /src\n"), ("src/one", "1\n"), ("src/two", "2\n")]);
    kiln.build(&context, "t", &[]);
    context.write("src/two", "changed\n");
    kiln.build(&context, "t", &[]).says("two").never_says("one changed");
}

#[test]
fn a_cached_image_can_be_given_new_names() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nRUN echo x > /x\n")]);
    kiln.build(&context, "one:1", &["-t", "two:2"]);
    assert_eq!(kiln.image_id("one:1"), kiln.image_id("two:2"));
    kiln.run(["rmi", "one:1"]);
    kiln.build(&context, "three:3", &[]);
    assert_eq!(kiln.image_id("three:3"), kiln.image_id("two:2"));
}
