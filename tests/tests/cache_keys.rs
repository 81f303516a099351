//! What a step is found by: nothing that cannot change its result, and everything that can. Each rule both ways.

#![allow(clippy::too_many_lines, reason = "each test is a table")]

use kiln_tests::{Context, Kiln, Outcome};

/// Two builds of one context with an edit in between. `CASE` in the Dockerfile and the files stands for a text that no
/// other case has.
struct Case {
    rule: &'static str,
    dockerfile: &'static str,
    files: &'static [(&'static str, &'static str)],
    /// Options of the first build.
    before: &'static [&'static str],
    /// A shell script, in the context.
    edit: &'static str,
    /// Options of the second build.
    after: &'static [&'static str],
    /// A text of the step that is looked at.
    step: &'static str,
}

const fn case(rule: &'static str, dockerfile: &'static str, edit: &'static str, step: &'static str) -> Case {
    Case { rule, dockerfile, files: &[("a", "a CASE\n"), ("b", "b CASE\n")], before: &[], edit, after: &[], step }
}

impl Case {
    const fn files(self, files: &'static [(&'static str, &'static str)]) -> Self {
        Self { files, ..self }
    }

    const fn options(self, before: &'static [&'static str], after: &'static [&'static str]) -> Self {
        Self { before, after, ..self }
    }
}

/// Whether the step that shows this text was done, and not found.
fn ran(outcome: &Outcome, step: &str) -> bool {
    let text = outcome.output();
    let line = text.lines().find(|line| line.starts_with('#') && line.contains("] ") && line.contains(step));
    let line = line.unwrap_or_else(|| panic!("no step {step:?} in\n{outcome}"));
    let number = line.split(' ').next().expect("a number");
    let is = |end: &str| text.lines().any(|line| line.starts_with(&format!("{number} {end}")));
    assert!(is("CACHED") != is("DONE"), "{step} is neither cached nor done, or both:\n{outcome}");
    is("DONE")
}

fn check(kiln: &Kiln, cases: &[Case], hit: bool) {
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let unique =
            format!("{}-{hit}-{number}-{}", case.rule.replace(|c: char| !c.is_alphanumeric(), "-"), case.step.len());
        let fill = |text: &str| text.replace("CASE", &unique);
        let context = kiln.directory();
        context.write("Dockerfile", fill(case.dockerfile));
        for (path, text) in case.files {
            context.write(path, fill(text));
        }
        let name = format!("case{number}");
        let first = kiln.build(&context, &name, case.before);
        assert!(ran(&first, case.step), "{}: the first time there is nothing to find:\n{first}", case.rule);
        edit(&context, case.edit);
        let second = kiln.build(&context, &name, case.after);
        if ran(&second, case.step) == hit {
            wrong.push(format!("{}: expected a {}\n{second}", case.rule, if hit { "hit" } else { "miss" }));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn edit(context: &Context, script: &str) {
    if !script.is_empty() {
        context.shell(script);
    }
}

const COPY: &str = "FROM busybox\nCOPY a /x/\n";
const COPY_ALL: &str = "FROM busybox\nCOPY d /x\n";
const TREE: &[(&str, &str)] = &[("d/one", "1 CASE\n"), ("d/sub/two", "2 CASE\n"), ("other", "CASE\n")];
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
            case("a symlink's target", COPY_ALL, "ln -s a d/l; ln -sfn b d/l", "COPY").files(TREE),
            case("a hard link instead of a copy", COPY_ALL, "rm d/same && ln d/one d/same", "COPY")
                .files(&[("d/one", "1 CASE"), ("d/same", "1 CASE")]),
            case("a matched file of another name", WILD, "mv one.c eins.c", "COPY").files(SOURCES),
            case("a file that came to match", WILD, "mv three.h three.c", "COPY").files(SOURCES),
            case("destination", COPY, "sed -i 's,/x/,/y/,' Dockerfile", "COPY"),
            case("--chown", "FROM busybox\nCOPY --chown=1 a /x/\n", "sed -i s/chown=1/chown=2/ Dockerfile", "COPY"),
            case("--chmod", "FROM busybox\nCOPY --chmod=600 a /x/\n", "sed -i s/600/640/ Dockerfile", "COPY"),
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

impl Case {
    const fn step(self, step: &'static str) -> Self {
        Self { step, ..self }
    }
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

const RUN: &str = "FROM busybox\nARG V=1\nENV E=1 F=2\nWORKDIR /w\nRUN echo CASE > /made\n";

#[test]
fn a_run_is_found_by_what_it_sees() {
    let kiln = Kiln::with_busybox().with_env("ABOVE", "1");
    kiln.run(["tag", "busybox", "same:1"]);
    const PROXY: &str = "HTTP_PROXY=http://127.0.0.1:1";
    const PROXY_2: &str = "HTTP_PROXY=http://127.0.0.1:2";
    const DECLARED: &str = "FROM busybox\nARG HTTP_PROXY\nRUN echo CASE\n";
    const SCRIPT: &str = "FROM busybox\nRUN <<E\n#!/bin/sh\necho CASE\nE\n";
    const BODY: &str = "FROM busybox\nRUN cat <<E\nCASE\nE\n";
    check(
        &kiln,
        &[
            case("an argument that is not declared", RUN, "", "RUN")
                .options(&["--build-arg=W=1"], &["--build-arg=W=2"]),
            case("an argument declared later", RUN, "echo 'ARG W=1' >> Dockerfile", "RUN"),
            case("an argument given as its default", RUN, "", "RUN").options(&[], &["--build-arg=V=1"]),
            case("the order of variables", RUN, "sed -i 's/E=1 F=2/F=2 E=1/' Dockerfile", "RUN"),
            case("a variable in two instructions", RUN, "sed -i 's/E=1 F=2/E=1\\nENV F=2/' Dockerfile", "RUN"),
            case("proxies that are not declared", RUN, "", "RUN")
                .options(&["--build-arg", PROXY], &["--build-arg", PROXY_2]),
            case("a label", RUN, "sed -i '2i LABEL a=b' Dockerfile", "RUN"),
            case(
                "other settings of the image",
                RUN,
                "sed -i '2i EXPOSE 1\\nCMD x\\nENTRYPOINT y\\nVOLUME /v\\nSTOPSIGNAL 9' Dockerfile",
                "RUN",
            ),
            case("the address of a host", RUN, "", "RUN").options(&["--add-host=h:1.1.1.1"], &["--add-host=h:2.2.2.2"]),
            case("the image's other name", RUN, "sed -i s/busybox/same:1/ Dockerfile", "RUN"),
            case("the Dockerfile's name", RUN, "mv Dockerfile Containerfile", "RUN"),
            case("the context", RUN, "echo more > new", "RUN"),
            case("the name of the result", RUN, "", "RUN").options(&[], &["-t", "another:1"]),
            case("a stage's name", RUN, "sed -i 's/FROM busybox/FROM busybox AS s/' Dockerfile", "RUN"),
            case(
                "a file copied to where it was",
                "FROM busybox\nCOPY a /a\nRUN echo CASE\n",
                "touch -d 2001-01-01 a",
                "RUN",
            ),
            case(
                "a comment in it",
                "FROM busybox\nRUN echo CASE && \\\n  # why\n  true\n",
                "sed -i 's/# why/# because/' Dockerfile",
                "RUN",
            ),
        ],
        true,
    );
    check(
        &kiln,
        &[
            case("the command", RUN, "sed -i 's,/made,/made2,' Dockerfile", "RUN"),
            case(
                "where words end",
                "FROM busybox\nRUN [\"echo\", \"CASE b\"]\n",
                "sed -i 's/ b\"/\", \"b\"/' Dockerfile",
                "RUN",
            ),
            case(
                "shell or exec form",
                "FROM busybox\nRUN [\"echo\", \"CASE\"]\n",
                "sed -i 's/RUN .*/RUN echo CASE/' Dockerfile",
                "RUN",
            ),
            case(
                "the shell",
                "FROM busybox\nRUN echo CASE\n",
                "sed -i '2i SHELL [\"/bin/sh\", \"-ec\"]' Dockerfile",
                "RUN",
            ),
            case("an argument", RUN, "", "RUN").options(&[], &["--build-arg=V=2"]),
            case("a variable", RUN, "sed -i s/E=1/E=2/ Dockerfile", "RUN"),
            case(
                "the last of two variables of one name",
                "FROM busybox\nENV E=1\nENV E=2\nRUN echo CASE\n",
                "sed -i '2d;3s/2/1/' Dockerfile && sed -i 's/E=2/E=3/' Dockerfile",
                "RUN",
            ),
            case("proxies that are declared", DECLARED, "", "RUN")
                .options(&["--build-arg", PROXY], &["--build-arg", PROXY_2]),
            case("the directory", RUN, "sed -i 's,/w,/v,' Dockerfile", "RUN"),
            case("the user", RUN, "sed -i '/WORKDIR/a USER 1' Dockerfile; sed -i s,/made,/tmp/made, Dockerfile", "RUN"),
            case("the network", RUN, "sed -i 's/RUN /RUN --network=none /' Dockerfile", "RUN"),
            case("--network", RUN, "", "RUN").options(&[], &["--network=none"]),
            case("the name of a host", RUN, "", "RUN").options(&["--add-host=h:1.1.1.1"], &["--add-host=i:1.1.1.1"]),
            case("--shm-size", RUN, "", "RUN").options(&[], &["--shm-size=1m"]),
            case("SOURCE_DATE_EPOCH", RUN, "", "RUN")
                .options(&["--build-arg=SOURCE_DATE_EPOCH=1"], &["--build-arg=SOURCE_DATE_EPOCH=2"]),
            case("SOURCE_DATE_EPOCH or none", RUN, "", "RUN").options(&[], &["--build-arg=SOURCE_DATE_EPOCH=2"]),
            case(
                "the step before it",
                "FROM busybox\nRUN echo CASE > /1\nRUN echo CASE\n",
                "sed -i 's/CASE > .1/x > \\/1/' Dockerfile; sed -i 's,/1,/2,' Dockerfile",
                "RUN echo",
            )
            .step("RUN echo"),
            case("a file below it", "FROM busybox\nCOPY a /a\nRUN echo CASE\n", "echo more >> a", "RUN"),
            case("a script", SCRIPT, "sed -i 's/^echo/echo more/' Dockerfile", "RUN"),
            case("a script's first line", SCRIPT, "sed -i 's,#!/bin/sh,#!/bin/sh -e,' Dockerfile", "RUN"),
            case("the text of a here-document", BODY, "sed -i 's/^E$/more\\nE/' Dockerfile", "RUN"),
            case("--no-cache", RUN, "", "RUN").options(&[], &["--no-cache"]),
        ],
        false,
    );
}

#[test]
fn a_mount_counts_by_what_it_shows() {
    let kiln = Kiln::with_busybox().with_env("ONE", "1").with_env("TWO", "2");
    const BIND: &str = "FROM busybox\nRUN --mount=target=/m,source=a echo CASE\n";
    const TREE_BIND: &str = "FROM busybox\nRUN --mount=target=/m,source=d echo CASE\n";
    const STAGE: &str = "FROM busybox AS s\nCOPY a /a\nRUN mkdir /d && head -c 1 /a > /d/f && touch /other\nFROM busybox\nRUN --mount=from=s,source=/d,target=/m echo CASE\n";
    const IMAGE: &str = "FROM busybox AS s\nCOPY a /only\nFROM busybox\nRUN --mount=from=s,target=/m echo CASE\n";
    const CACHE: &str = "FROM busybox\nRUN --mount=type=cache,target=/c,id=CASE date >> /c/dates; echo CASE\n";
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

#[test]
fn bases_and_directories() {
    let kiln = Kiln::with_busybox();
    kiln.build_text("FROM busybox\nENV FROM_BASE=1\nRUN echo x > /x\n", "base:1");
    kiln.build_text("FROM busybox\nENV FROM_BASE=2\nRUN echo x > /x\n", "base:2");
    kiln.build_text("FROM busybox\nENV FROM_BASE=1\nLABEL l=1\nRUN echo x > /x\n", "base:labelled");
    const BASE: &str = "FROM base:1\nRUN echo CASE\n";
    const DIRECTORY: &str = "FROM busybox\nRUN echo CASE > /x\nWORKDIR /w\n";
    check(
        &kiln,
        &[
            case("a base that differs in its labels", BASE, "sed -i s/base:1/base:labelled/ Dockerfile", "RUN"),
            case("a directory", DIRECTORY, "sed -i '1a LABEL a=b' Dockerfile", "WORKDIR"),
            case(
                "an archive of another name",
                "FROM busybox\nCOPY a /CASE\nADD x.tar /x/\n",
                "touch -d 2001-01-01 x.tar",
                "ADD",
            )
            .files(&[("a", "CASE"), ("x.tar", "no archive")]),
        ],
        true,
    );
    check(
        &kiln,
        &[
            case("a base with other variables", BASE, "sed -i s/base:1/base:2/ Dockerfile", "RUN"),
            case("another base", BASE, "sed -i s/base:1/busybox/ Dockerfile", "RUN"),
            case("a directory's path", DIRECTORY, "sed -i s,/w,/v, Dockerfile", "WORKDIR"),
            case("a directory's owner", DIRECTORY, "sed -i '2a USER 1' Dockerfile", "WORKDIR"),
        ],
        false,
    );
}
