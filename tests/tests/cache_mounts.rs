//! Who may use a cache mount at the same time as whom.

use kiln_tests::Kiln;

/// Two stages that run at once, with the same script: `$ME` is the name of each, `$OTHER` that of the other. They wait
/// for one another with `meet WORD`.
fn build_two(mounts: &str, script: &str) {
    let meet = "meet() { touch /meet/$1-$ME; for i in $(seq 1200); do [ -e /meet/$1-$OTHER ] && return; sleep 0.05; done; \
        echo alone; exit 9; }";
    let stage = |me: &str, other: &str| {
        format!(
            "FROM busybox AS {me}\nRUN --mount=type=cache,id=meet,sharing=shared,target=/meet {mounts} \
             ME={me}; OTHER={other}; {meet}; {script}; echo {me} > /out\n"
        )
    };
    let last = "FROM scratch\nCOPY --from=one /out /one\nCOPY --from=two /out /two\n";
    let kiln = Kiln::with_busybox();
    kiln.build_text(&format!("{}{}{last}", stage("one", "two"), stage("two", "one")), "t");
}

/// Proves: D1.8-9
#[test]
fn a_shared_cache_is_used_by_both_at_once() {
    build_two(
        "--mount=type=cache,target=/c",
        "meet begun; echo $ME > /c/$ME; meet written; [ \"$(cat /c/$OTHER)\" = $OTHER ] || exit 5; meet read",
    );
}

#[test]
fn a_private_cache_is_anothers_while_it_is_used() {
    build_two(
        "--mount=type=cache,target=/c,sharing=private",
        "meet begun; echo $ME > /c/$ME; meet written; [ ! -e /c/$OTHER ] || exit 5; meet read",
    );
}

#[test]
fn a_locked_cache_is_waited_for() {
    // Whoever comes second finds what the first left, and never anything half done.
    build_two(
        "--mount=type=cache,target=/c,sharing=locked",
        "[ ! -e /c/busy ] || exit 5; touch /c/busy; sleep 1; rm /c/busy; echo $ME >> /c/list; \
         [ $(sort -u /c/list | wc -l) = $(wc -l < /c/list) ] || exit 6",
    );
}

#[test]
fn a_private_cache_that_nobody_uses_is_used_again() {
    let kiln = Kiln::with_busybox();
    let mount = "--mount=type=cache,target=/c,sharing=private";
    kiln.build_text(&format!("FROM busybox\nRUN {mount} echo first > /c/f\n"), "t");
    kiln.build_text(&format!("FROM busybox\nRUN {mount} cp /c/f /f\n"), "t");
    assert_eq!(kiln.output("t", &["cat", "/f"]), "first\n");
}
