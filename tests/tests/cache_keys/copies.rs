//! COPY and ADD.

use kiln_tests::{HttpServer, Kiln};

use super::{TREE, case, check};

const COPY: &str = "FROM busybox\nCOPY a /x/\n";
const COPY_ALL: &str = "FROM busybox\nCOPY d /x\n";
const WILD: &str = "FROM busybox\nCOPY *.c /x/\n";
const SOURCES: &[(&str, &str)] = &[("one.c", "1 CASE\n"), ("two.c", "2 CASE\n"), ("three.h", "3 CASE\n")];

#[test]
fn a_copy_is_found_by_what_it_copies_and_where_to() {
    let kiln = Kiln::with_busybox();
    check(
        &kiln,
        &[
            case("a touched file", COPY, "touch -d '2001-01-01' a", "COPY a"),
            case("a file that is not copied", COPY, "echo more >> b", "COPY a"),
            case("the host's owner", COPY, "chown 12:34 a", "COPY a"),
            case("a file written anew with the same text", COPY, "cp a c && rm a && mv c a", "COPY a"),
            case("a directory of another name", COPY_ALL, "mv d e && sed -i 's/COPY d/COPY e/' Dockerfile", "COPY")
                .files(TREE),
            case("a touched symlink", COPY_ALL, "touch -h -d '2001-01-01' d/l", "COPY")
                .files(TREE)
                .prepared("ln -s one d/l"),
            case("a hard link to a file elsewhere", COPY, "ln a c", "COPY a"),
            case("touched directories", COPY_ALL, "touch -d '2001-01-01' d d/sub", "COPY").files(TREE),
            case("a file beside the directory", COPY_ALL, "echo more >> other", "COPY").files(TREE),
            case("an ignored file", COPY_ALL, "echo x > d/x.log", "COPY")
                .files(&[("d/one", "CASE"), (".dockerignore", "**/*.log\n")]),
            case("a file that no wildcard matches", WILD, "echo x >> three.h; echo > four.h", "COPY").files(SOURCES),
            case("an excluded file", "FROM busybox\nCOPY --exclude=*.h . /x/\n", "echo x >> three.h", "COPY").files(&[
                ("one.c", "CASE"),
                ("three.h", "3"),
                (".dockerignore", "Dockerfile\n"),
            ]),
            case("a label before it", "FROM busybox\nLABEL a=1\nCOPY a /x/\n", "sed -i s/a=1/a=2/ Dockerfile", "COPY"),
            case(
                "a variable it does not use",
                "FROM busybox\nARG V=1\nENV W=1\nCOPY a /x/\n",
                "sed -i s/=1/=2/ Dockerfile",
                "COPY",
            ),
            case(
                "the same text by a variable",
                "FROM busybox\nARG D=/x/\nCOPY a /x/\n",
                "sed -i 's,a /x/,a $D,' Dockerfile",
                "COPY",
            ),
            case("spelling", COPY, "sed -i 's/COPY a/copy  a /;1i # comment' Dockerfile", "").step("a /x/"),
            case("a named user of the same number", "FROM busybox\nCOPY --chown=7 a /x/\n", "echo more >> b", "COPY"),
        ],
        true,
    );
    check(
        &kiln,
        &[
            case("text", COPY, "echo more >> a", "COPY a"),
            case("mode", COPY, "chmod 700 a", "COPY a"),
            case("an extended attribute", COPY, "setfattr -n user.k -v CASE a", "COPY a"),
            case("kind", COPY_ALL, "rm d/one && mkfifo d/one", "COPY").files(TREE),
            case("a new file", COPY_ALL, "echo > d/three", "COPY").files(TREE),
            case("a new directory", COPY_ALL, "mkdir d/empty", "COPY").files(TREE),
            case("a file less", COPY_ALL, "rm d/one", "COPY").files(TREE),
            case("a file of another name", COPY_ALL, "mv d/one d/eins", "COPY").files(TREE),
            case("the mode of a directory", COPY_ALL, "chmod 700 d/sub", "COPY").files(TREE),
            case("a symlink instead of a file", COPY_ALL, "mv d/one d/zwei && ln -s zwei d/one", "COPY").files(TREE),
            case("a symlink's target", COPY_ALL, "ln -sfn b d/l", "COPY").files(TREE).prepared("ln -s a d/l"),
            case("a hard link instead of a copy", COPY_ALL, "rm d/same && ln d/one d/same", "COPY")
                .files(&[("d/one", "1 CASE"), ("d/same", "1 CASE")]),
            case("a matched file of another name", WILD, "mv one.c eins.c", "COPY").files(SOURCES),
            case("a file that came to match", WILD, "mv three.h three.c", "COPY").files(SOURCES),
            case("destination", COPY, "sed -i 's,/x/,/y/,' Dockerfile", "COPY"),
            case("--chown", "FROM busybox\nCOPY --chown=1 a /x/\n", "sed -i s/chown=1/chown=2/ Dockerfile", "COPY"),
            case("--chmod", "FROM busybox\nCOPY --chmod=600 a /x/\n", "sed -i s/600/640/ Dockerfile", "COPY"),
            case("--link", COPY, "sed -i 's/COPY a/COPY --link a/' Dockerfile", "COPY"),
            case("--exclude", COPY_ALL, "sed -i 's/COPY d/COPY --exclude=two d/' Dockerfile", "COPY").files(TREE),
            case("a device's number", COPY_ALL, "rm d/n && mknod d/n c 1 5", "COPY")
                .files(TREE)
                .prepared("mknod d/n c 1 3"),
            case("--parents", "FROM busybox\nCOPY d /x/\n", "sed -i 's/COPY d/COPY --parents d/' Dockerfile", "COPY")
                .files(TREE),
            case(
                "what it lies on",
                "FROM busybox\nRUN echo CASE > /1\nCOPY a /x/\n",
                "sed -i 's,/1,/2,' Dockerfile",
                "COPY",
            ),
            case("the ignore file lets more in", COPY_ALL, "rm .dockerignore", "COPY").files(&[
                ("d/one", "CASE"),
                ("d/x.log", ""),
                (".dockerignore", "**/*.log\n"),
            ]),
            case(
                "the text of a here-document",
                "FROM busybox\nCOPY <<E /x\nCASE\nE\n",
                "sed -i 's/^E$/more\\nE/' Dockerfile",
                "COPY",
            ),
            case(
                "a user's number in the image",
                "FROM busybox\nRUN echo 'u:x:7:7:CASE::/:' >> /etc/passwd\nCOPY --chown=u a /x/\n",
                "sed -i 's/:7:7/:8:8/' Dockerfile",
                "COPY",
            ),
        ],
        false,
    );
}

#[test]
fn a_copy_from_a_stage_is_found_by_what_it_copies() {
    let kiln = Kiln::with_busybox();
    const FROM: &str = "FROM busybox AS s\nCOPY a /a\nRUN head -c 1 /a > /made; echo CASE >> /made; touch /other\nFROM busybox\nCOPY --from=s /made /x\n";
    const LINK: &str = "FROM busybox\nRUN echo CASE > /1\nCOPY --link a /x/\n";
    check(
        &kiln,
        &[
            case("the stage was done again and came out the same", FROM, "echo more >> a", "COPY --from"),
            case(
                "another file of the stage",
                FROM,
                "sed -i 's/touch .other/echo > \\/other/' Dockerfile",
                "COPY --from",
            ),
            case(
                "the stage has another name",
                FROM,
                "sed -i 's/AS s/AS t/;s/from=s/from=t/' Dockerfile",
                "COPY --from",
            ),
            case("--link does not see what it lies on", LINK, "sed -i 's,> /1,> /2,' Dockerfile", "COPY --link"),
        ],
        true,
    );
    check(
        &kiln,
        &[
            case("the stage came out different", FROM, "echo b > a", "COPY --from"),
            case("another path", FROM, "sed -i 's/from=s .made/from=s \\/other/' Dockerfile", "COPY --from"),
        ],
        false,
    );
}

/// What is behind a URL counts by its content, however often it was sent or said to be new; and so does an archive.
#[test]
fn an_add_is_found_by_what_it_brings() {
    let kiln = Kiln::with_busybox();
    let web = HttpServer::start(&[("/file", b"one\n")]);
    let context = kiln.directory();
    let add = |kiln: &Kiln| kiln.build(&context, "t", &[]);
    context.write("Dockerfile", format!("FROM busybox\nADD {} /x/\n", web.url("/file")));
    add(&kiln);
    assert!(!super::ran(&add(&kiln), "ADD"));
    web.put("/file", b"two\n");
    assert!(super::ran(&add(&kiln), "ADD"));
    web.put("/file", b"one\n");
    assert!(!super::ran(&add(&kiln), "ADD"));
    context.write("Dockerfile", format!("FROM busybox\nADD --chmod=600 {} /x/\n", web.url("/file")));
    assert!(super::ran(&add(&kiln), "ADD"));

    const ARCHIVE: &str = "FROM busybox\nADD x.tar /x/\n";
    const PACK: &str = "tar -cf x.tar a";
    check(
        &kiln,
        &[
            case("an archive that was touched", ARCHIVE, "touch -d 2001-01-01 x.tar", "ADD").prepared(PACK),
            case("a file beside the archive", ARCHIVE, "echo more >> a", "ADD").prepared(PACK),
        ],
        true,
    );
    check(
        &kiln,
        &[
            case("an archive's content", ARCHIVE, "echo more >> a; tar -cf x.tar a", "ADD").prepared(PACK),
            case("--unpack", ARCHIVE, "sed -i 's/ADD x/ADD --unpack=false x/' Dockerfile", "ADD").prepared(PACK),
            case("COPY instead of ADD", ARCHIVE, "sed -i 's/ADD x/COPY x/' Dockerfile", "x.tar").prepared(PACK),
        ],
        false,
    );
}
