//! Mounts of RUN.

use kiln_tests::Kiln;

use super::{TREE, case, check};

#[test]
fn a_mount_counts_by_what_it_shows() {
    let kiln = Kiln::with_busybox().with_env("ONE", "1").with_env("TWO", "2");
    const BIND: &str = "FROM busybox\nRUN --mount=target=/m,source=a echo CASE\n";
    const TREE_BIND: &str = "FROM busybox\nRUN --mount=target=/m,source=d echo CASE\n";
    const STAGE: &str = "FROM busybox AS s\nCOPY a /a\nRUN mkdir /d && head -c 1 /a > /d/f && touch /other\nFROM busybox\nRUN --mount=from=s,source=/d,target=/m echo CASE\n";
    const IMAGE: &str = "FROM busybox AS s\nCOPY a /only\nFROM busybox\nRUN --mount=from=s,target=/m echo CASE\n";
    const CACHE: &str = "FROM busybox\nRUN --mount=type=cache,target=/c,id=CASE date >> /c/dates; echo CASE\n";
    const SEEDED: &str = "FROM busybox AS s\nCOPY a /d/a\nCOPY b /e/b\nFROM busybox\nRUN --mount=type=cache,target=/c,id=CASE,from=s,source=/d echo CASE\n";
    const SECRET: &str = "FROM busybox\nRUN --mount=type=secret,id=s,target=/t echo CASE\n";
    const SSH: &str = "FROM busybox\nRUN --mount=type=ssh echo CASE\n";
    const TMPFS: &str = "FROM busybox\nRUN --mount=type=tmpfs,target=/t,size=1m echo CASE\n";
    check(
        &kiln,
        &[
            case("a touched file", BIND, "touch -d 2001-01-01 a", "RUN"),
            case("a file that it does not show", BIND, "echo more >> b", "RUN"),
            case("the same file by another name", BIND, "mv a c; sed -i s/source=a/source=c/ Dockerfile", "RUN"),
            case("a touched tree", TREE_BIND, "touch -d 2001-01-01 d/sub/two d/sub d", "RUN").files(TREE),
            case("a file beside the tree", TREE_BIND, "echo more >> other", "RUN").files(TREE),
            case("a stage that came out the same", STAGE, "echo more >> a", "RUN --mount"),
            case(
                "another file of the stage",
                STAGE,
                "sed -i 's/touch .other/echo > \\/other/' Dockerfile",
                "RUN --mount",
            ),
            case("a whole stage that came out the same", IMAGE, "touch -d 2001-01-01 a", "RUN --mount"),
            case("the content of a cache", CACHE, "", "RUN"),
            case("which cache it is", CACHE, "sed -i s/id=/id=x/ Dockerfile", "RUN"),
            case("how a cache is shared", CACHE, "sed -i s/type=cache/type=cache,sharing=locked/ Dockerfile", "RUN"),
            case("a secret's value", SECRET, "", "RUN").options(&["--secret=id=s,env=ONE"], &["--secret=id=s,env=TWO"]),
            case(
                "an agent that need not be there",
                SSH,
                "sed -i s/type=ssh/type=ssh,required=false/ Dockerfile",
                "RUN",
            ),
            case("a cache that starts with the same", SEEDED, "touch -d 2001-01-01 a", "RUN --mount"),
            case("the size of a tmpfs in other words", TMPFS, "sed -i s/size=1m/size=1024k/ Dockerfile", "RUN"),
            case(
                "the order of mounts' options",
                TMPFS,
                "sed -i s#target=/t,size=1m#size=1m,target=/t# Dockerfile",
                "RUN",
            ),
            case("a secret that was not given", SECRET, "", "RUN").options(&["--secret=id=s,env=ONE"], &[]),
        ],
        true,
    );
    check(
        &kiln,
        &[
            case("the file's text", BIND, "echo more >> a", "RUN"),
            case("the file's mode", BIND, "chmod 700 a", "RUN"),
            case("where to", BIND, "sed -i s,/m,/n, Dockerfile", "RUN"),
            case("whether it may be written", BIND, "sed -i 's|/m|/m,rw|' Dockerfile", "RUN"),
            case("a file of the tree", TREE_BIND, "echo more >> d/sub/two", "RUN").files(TREE),
            case("a name in the tree", TREE_BIND, "mv d/one d/eins", "RUN").files(TREE),
            case("a stage that came out different", STAGE, "echo b > a", "RUN --mount"),
            case("another path of the stage", STAGE, "sed -i s,source=/d,source=/bin, Dockerfile", "RUN --mount"),
            case("a file of the whole stage", IMAGE, "echo more >> a", "RUN --mount"),
            case("where a cache is", CACHE, "sed -i 's,/c,/k,g' Dockerfile", "RUN"),
            case(
                "a cache that may not be written",
                CACHE,
                "sed -i 's|target=/c|target=/c,ro|;s|date.*;|true;|' Dockerfile",
                "RUN",
            ),
            case("a cache that starts with something else", SEEDED, "echo more >> a", "RUN --mount"),
            case(
                "another directory for a cache to start with",
                SEEDED,
                "sed -i s,source=/d,source=/e, Dockerfile",
                "RUN --mount",
            ),
            case("a cache's owner", CACHE, "sed -i 's/type=cache/type=cache,uid=1/' Dockerfile", "RUN"),
            case("a secret's mode", SECRET, "sed -i 's/type=secret/type=secret,mode=0444/' Dockerfile", "RUN")
                .options(&["--secret=id=s,env=ONE"], &["--secret=id=s,env=ONE"]),
            case("an agent's owner", SSH, "sed -i s/type=ssh/type=ssh,uid=1/ Dockerfile", "RUN"),
            case("where a tmpfs is", TMPFS, "sed -i s,target=/t,target=/u, Dockerfile", "RUN"),
            case("a mount more", BIND, "sed -i 's/RUN /RUN --mount=type=tmpfs,target=\\/t /' Dockerfile", "RUN"),
            case("a cache's mode", CACHE, "sed -i 's/type=cache/type=cache,mode=0700/' Dockerfile", "RUN"),
            case("where a secret is", SECRET, "sed -i s,/t,/u, Dockerfile", "RUN"),
            case("which secret it is", SECRET, "sed -i s/id=s/id=t/ Dockerfile", "RUN"),
            case("where an agent is", SSH, "sed -i s#type=ssh#type=ssh,target=/agent# Dockerfile", "RUN"),
            case("which agent it is", SSH, "sed -i s/type=ssh/type=ssh,id=other/ Dockerfile", "RUN"),
            case("an agent's mode", SSH, "sed -i s/type=ssh/type=ssh,mode=0666/ Dockerfile", "RUN"),
            case("a secret in a variable", SECRET, "sed -i s/id=s/id=s,env=S/ Dockerfile", "RUN"),
            case("the size of a tmpfs", TMPFS, "sed -i s/size=1m/size=2m/ Dockerfile", "RUN"),
            case(
                "another kind of mount",
                TMPFS,
                "sed -i 's/type=tmpfs,target=.t,size=1m/type=cache,target=\\/t/' Dockerfile",
                "RUN",
            ),
        ],
        false,
    );
}
