//! FROM and WORKDIR.

use kiln_tests::Kiln;

use super::{case, check};

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
