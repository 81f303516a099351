//! The platforms of stages and of what is built.

use kiln_tests::Kiln;

use super::{case, check};

const AMD: &[&str] = &["--platform=linux/amd64"];
const ARM: &[&str] = &["--platform=linux/arm64"];

#[test]
fn a_platform_counts_where_it_can_be_seen() {
    let kiln = Kiln::with_busybox();
    const PINNED: &str = "FROM --platform=linux/amd64 busybox\nRUN echo CASE\n";
    const BUILD: &str = "FROM --platform=$BUILDPLATFORM busybox\nRUN echo CASE\n";
    const TOLD: &str = "FROM --platform=$BUILDPLATFORM busybox\nARG TARGETARCH\nRUN echo CASE $TARGETARCH\n";
    const UNTOLD: &str = "FROM --platform=$BUILDPLATFORM busybox\nARG TARGETOS\nRUN echo CASE $TARGETOS\n";
    const LATER: &str =
        "FROM --platform=$BUILDPLATFORM busybox\nRUN echo CASE\nARG TARGETARCH\nRUN echo CASE $TARGETARCH\n";
    const FREE: &str = "FROM busybox\nRUN echo CASE\n";
    const DATA: &str = "FROM scratch\nCOPY a /x/\n";
    const THROUGH: &str =
        "FROM --platform=$BUILDPLATFORM busybox AS s\nRUN echo CASE > /o\nFROM scratch\nCOPY --from=s /o /o\n";
    const DEPENDENT: &str = "FROM --platform=$BUILDPLATFORM busybox AS s\nARG TARGETARCH\nRUN echo CASE $TARGETARCH > /o\nFROM scratch\nCOPY --from=s /o /o\n";
    check(
        &kiln,
        &[
            case("a stage of its own platform", PINNED, "", "RUN").options(AMD, ARM),
            case("a stage for the build's platform", BUILD, "", "RUN").options(AMD, ARM),
            case("an argument that is the same for both", UNTOLD, "", "RUN").options(AMD, ARM),
            case("an argument that comes later", LATER, "", "2/3] RUN").options(AMD, ARM),
            case("files on nothing", DATA, "", "COPY").options(AMD, ARM),
            case("what a stage for the build's platform made", THROUGH, "", "COPY --from").options(AMD, ARM),
            case("the host's platform, given or not", FREE, "", "RUN").options(&[], AMD),
            case("one of several platforms", BUILD, "", "RUN").options(AMD, &["--platform=linux/amd64,linux/arm64"]),
        ],
        true,
    );
    check(
        &kiln,
        &[
            case("an argument that differs", TOLD, "", "RUN").options(AMD, ARM),
            case("an argument that differs, further down", LATER, "", "3/3] RUN").options(AMD, ARM),
            case("what a stage made of an argument that differs", DEPENDENT, "", "COPY --from").options(AMD, ARM),
            case("another variant", FREE, "", "RUN").options(AMD, &["--platform=linux/amd64/v2"]),
            case(
                "a stage that is given another variant",
                PINNED,
                "sed -i s,linux/amd64,linux/amd64/v2, Dockerfile",
                "RUN",
            ),
        ],
        false,
    );
}
