//! Several stages: what is built, in which order, and what flows between them.

use kiln_tests::Kiln;

/// Proves: D1.4-4, D1.4-10, --target, --skip-unused-stages
#[test]
fn only_what_the_target_needs_is_built() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[(
        "Dockerfile",
        "FROM busybox AS one\nRUN echo 1 > /one\nFROM busybox AS broken\nRUN exit 7\nFROM busybox AS two\n\
         COPY --from=one /one /two\nFROM broken AS last\n",
    )]);
    kiln.build(&context, "t", &["--target", "TWO"]).never_says("exit 7");
    assert_eq!(kiln.output("t", &["cat", "/two"]), "1\n");
    kiln.try_build(&context, "u", &[]).failure().says("exit 7");
    kiln.try_build(&context, "u", &["--target", "tow"]).failure().says("tow");
}

/// Proves: D1.4-3, D1.4-5, D1.4-6
#[test]
fn a_stage_gives_files_environment_and_directory_to_the_next() {
    let kiln = Kiln::with_busybox();
    kiln.build_text(
        "FROM busybox AS base\nENV A=1\nWORKDIR /w\nRUN echo base > file\nFROM base AS middle\nRUN cat file > copy\n\
         FROM busybox\nCOPY --from=middle /w /from-name\nCOPY --from=0 /w/file /from-number\n",
        "t",
    );
    assert_eq!(
        kiln.output("t", &["sh", "-c", "cat /from-name/copy /from-number; echo ${A-none}"]),
        "base\nbase\nnone\n"
    );
}

/// Four stages that do the same, each in a step of its own.
fn four(step: &str) -> String {
    let stages: String = (0..4)
        .map(|stage| {
            format!("FROM busybox AS s{stage}\nRUN --mount=type=cache,target=/met {step} && echo {stage} > /out\n")
        })
        .collect();
    let copies: String = (0..4).map(|stage| format!("COPY --from=s{stage} /out /out{stage}\n")).collect();
    format!("{stages}FROM scratch\n{copies}")
}

/// Proves: --jobs
#[test]
fn stages_that_do_not_wait_for_each_other_run_at_the_same_time() {
    let kiln = Kiln::with_busybox();
    // Each goes on when all are there.
    let all = "[ $(ls /met | wc -l) -ge 4 ]";
    let meet = format!("mktemp -d /met/XXXXXX && for try in $(seq 600); do {all} && break; sleep 0.1; done && {all}");
    kiln.build_text(&four(&meet), "t");
    assert_eq!(kiln.filesystem("t").paths().count(), 4);
    // Each takes a place that only one can have.
    let alone = "mkdir /met/place && sleep 0.2 && rmdir /met/place";
    let context = kiln.context(&[("Dockerfile", &four(alone))]);
    kiln.build(&context, "u", &["--jobs=1"]);
}

/// Proves: D1.4-11
#[test]
fn a_later_stage_cannot_be_named_and_a_cycle_is_refused() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM busybox AS a\nCOPY --from=1 /x /x\nFROM busybox AS b\n")]);
    kiln.try_build(&context, "t", &["--target", "a"]).failure();
}

/// Proves: D1.10-16
#[test]
fn an_image_can_be_copied_from() {
    let kiln = Kiln::with_busybox();
    kiln.build_text("FROM busybox\nRUN echo other > /other\n", "other:1");
    kiln.build_text("FROM scratch\nCOPY --from=other:1 /other /mine\n", "t");
    assert_eq!(kiln.filesystem("t").paths().collect::<Vec<_>>(), ["mine"]);
}

/// Proves: D1.13-17
#[test]
fn steps_are_named_by_their_stage_and_place() {
    let kiln = Kiln::with_busybox();
    kiln.build_text("FROM busybox\nENV A=1\nRUN true\nWORKDIR /w\n", "t")
        .says("[1/3] FROM docker.io/library/busybox:latest")
        .says("[2/3] RUN true")
        .says("[3/3] WORKDIR /w");
    let text = "FROM busybox AS Builder\nRUN echo 1 > /a\nFROM builder\nRUN echo 2 > /b\nFROM scratch\n\
                COPY --from=builder /a /a\nCOPY --from=1 /b /b\n";
    kiln.build_text(text, "t")
        .says("[builder 1/2] FROM docker.io/library/busybox:latest")
        .says("[builder 2/2] RUN echo 1 > /a")
        .says("[stage-1 1/1] RUN echo 2 > /b")
        .says("[stage-2 1/2] COPY --from=builder /a /a")
        .says("[stage-2 2/2] COPY --from=1 /b /b");
    let many: String = (0..9).map(|number| format!("RUN echo {number} > /n\n")).collect();
    kiln.build_text(&format!("FROM busybox\n{many}"), "t").says("[ 1/10] FROM").says("[10/10] RUN echo 8 > /n");
}
