//! RUN.

use kiln_tests::Kiln;

use super::{case, check};

const RUN: &str = "FROM busybox\nARG V=1\nENV E=1 F=2\nWORKDIR /w\nRUN echo CASE > /made\n";

#[test]
fn a_run_is_found_by_what_it_sees() {
    let kiln = Kiln::with_busybox().with_env("ABOVE", "1");
    kiln.run(["tag", "busybox", "same:1"]);
    const PROXY: &str = "HTTP_PROXY=http://127.0.0.1:1";
    const PROXY_2: &str = "HTTP_PROXY=http://127.0.0.1:2";
    const DECLARED: &str = "FROM busybox\nARG HTTP_PROXY\nRUN echo CASE\n";
    const SCRIPT: &str = "FROM busybox\nRUN <<E\n#!/bin/sh\necho CASE\nE\n";
    const STAGES: &str = "FROM busybox AS other\nRUN echo other CASE > /o\nFROM busybox AS own\nRUN echo CASE > /made\nCOPY --from=other /o /o\n";
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
            case("options given as they are", RUN, "", "RUN").options(
                &[
                    "--build-arg=BUILDKIT_SANDBOX_HOSTNAME=h",
                    "--ulimit=nofile=64",
                    "--shm-size=1024k",
                    "--build-arg=SOURCE_DATE_EPOCH=1",
                ],
                &[
                    "--build-arg=BUILDKIT_SANDBOX_HOSTNAME=h",
                    "--ulimit=nofile=64:64",
                    "--shm-size=1m",
                    "--build-arg=SOURCE_DATE_EPOCH=1",
                ],
            ),
            case("what it may take", RUN, "", "RUN").options(&[], &["--memory=512m", "--cpu-shares=100", "--jobs=1"]),
            case("what is allowed to those that ask", RUN, "", "RUN").options(&[], &["--allow=security.insecure"]),
            case("another stage is done again", STAGES, "", "[own 2/3]").options(&[], &["--no-cache-filter=other"]),
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
            case("the host name", RUN, "", "RUN").options(&[], &["--build-arg=BUILDKIT_SANDBOX_HOSTNAME=h"]),
            case("--ulimit", RUN, "", "RUN").options(&["--ulimit=nofile=64"], &["--ulimit=nofile=65"]),
            case("--cap-add", RUN, "", "RUN").options(&[], &["--cap-add=SYS_ADMIN"]),
            case("--cap-drop", RUN, "", "RUN").options(&[], &["--cap-drop=CHOWN"]),
            case("--dns", RUN, "", "RUN").options(&["--dns=1.1.1.1"], &["--dns=1.1.1.2"]),
            case("--security-opt", RUN, "", "RUN").options(&[], &["--security-opt=no-new-privileges"]),
            case("--security", RUN, "sed -i 's/RUN /RUN --security=insecure /' Dockerfile", "RUN")
                .options(&[], &["--allow=security.insecure"]),
            case("its own stage is done again", STAGES, "", "[own 2/3]").options(&[], &["--no-cache-filter=own"]),
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
