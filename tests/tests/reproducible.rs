//! The same input gives the same bytes, on any store and for any user.

use kiln_tests::{Account, Kiln, fixture};

const DOCKERFILE: &str = "FROM busybox\nENV A=1\nWORKDIR /work\nCOPY . .\n\
    RUN mkdir -p deep/er && echo made > deep/er/file && ln -s file deep/er/link && ln deep/er/file deep/hard\n\
    RUN rm a && chmod 4755 deep/er/file && chown 33:100 deep/er && truncate -s 3000000 sparse\n\
    USER 33\nCMD [\"sh\"]\n";

/// Also the files that RUN writes now have a time of the epoch at the latest.
fn digest(account: Account) -> (String, Vec<u8>) {
    let kiln = Kiln::of(account).with_env("SOURCE_DATE_EPOCH", "1700000000").import_busybox();
    let context = kiln.context(&[("Dockerfile", DOCKERFILE), ("a", "alpha\n"), ("b/c", "gamma\n")]);
    context.shell("find . -exec touch -h -d @1600000000 {} +");
    kiln.build(&context, "t", &[]);
    let archive = kiln.run(["save", "t"]).bytes;
    (kiln.image_id("t"), archive)
}

/// Proves: D1.6-11
#[test]
fn two_empty_stores_give_the_same_image() {
    let (first, first_archive) = digest(Account::current());
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let (second, second_archive) = digest(Account::current());
    assert_eq!(first, second);
    assert_eq!(first_archive, second_archive);
}

#[test]
fn an_ordinary_user_builds_the_same_image_as_root() {
    let (root, _) = digest(Account::current());
    let (user, _) = digest(Account::with_subuids());
    assert_eq!(root, user);
}

/// Proves: D1.13-5
#[test]
fn the_times_of_the_image_are_the_epoch() {
    let kiln = Kiln::with_busybox().with_env("SOURCE_DATE_EPOCH", "1700000000");
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nRUN true\nENV A=b\n")]);
    kiln.build(&context, "t", &[]);
    let config = kiln.saved("t").config;
    assert_eq!(config["created"], "2023-11-14T22:13:20Z");
    for entry in config["history"].as_array().unwrap().iter().skip(1) {
        assert_eq!(entry["created"], "2023-11-14T22:13:20Z", "{config}");
    }
}

#[test]
fn the_hello_fixture_is_reproducible() {
    let ids = [0, 1].map(|_| {
        let kiln = Kiln::new().with_env("SOURCE_DATE_EPOCH", "1700000000").import_busybox();
        kiln.run(["build", "-t", "hello:1", fixture("hello").to_str().unwrap()]);
        kiln.image_id("hello:1")
    });
    assert_eq!(ids[0], ids[1]);
}
