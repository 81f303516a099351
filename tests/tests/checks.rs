//! `build --check` and `--call`: what is said of a Dockerfile without building it.

use kiln_tests::{Kiln, Outcome};
use serde_json::Value;

/// Checks a Dockerfile.
fn check_with(kiln: &Kiln, files: &[(&str, &str)], options: &[&str]) -> Outcome {
    let context = kiln.context(files);
    let mut line = vec!["build"];
    line.extend(options);
    let path = context.path().to_str().expect("a temporary path is text").to_owned();
    line.push(&path);
    kiln.try_run(line)
}

/// The checks that found something, each with the words that it points at.
fn found(kiln: &Kiln, files: &[(&str, &str)], options: &[&str]) -> Vec<(String, String)> {
    let mut all = vec!["--call=check,format=json"];
    all.extend(options);
    let outcome = check_with(kiln, files, &all);
    let value: Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}:\n{outcome}"));
    let lines: Vec<&str> = files[0].1.split('\n').collect();
    let place = |position: &Value| {
        let number = |key: &str| usize::try_from(position[key].as_u64().expect("a number")).expect("a small number");
        (number("line"), number("character"))
    };
    let words = |warning: &Value| {
        let range = &warning["location"]["ranges"][0];
        let ((line, start), (_, end)) = (place(&range["start"]), place(&range["end"]));
        lines[line - 1].get(start..end).unwrap_or_default().to_owned()
    };
    let warnings = value["warnings"].as_array().expect("warnings are a list");
    warnings.iter().map(|warning| (warning["ruleName"].as_str().expect("a name").to_owned(), words(warning))).collect()
}

fn finds(kiln: &Kiln, dockerfile: &str, options: &[&str], expected: &[(&str, &str)]) {
    let found = found(kiln, &[("Dockerfile", dockerfile)], options);
    let found: Vec<(&str, &str)> = found.iter().map(|(name, words)| (name.as_str(), words.as_str())).collect();
    assert_eq!(found, expected, "{dockerfile}");
}

/// Proves: D1.14-9, D1.14-17
#[test]
fn variables_of_from() {
    let kiln = Kiln::new();
    finds(
        &kiln,
        "ARG BASE=x\nFROM $BAES\n",
        &[],
        &[("UndefinedArgInFrom", "$BAES"), ("InvalidDefaultArgInFrom", "$BAES")],
    );
    finds(&kiln, "ARG BASE\nFROM ${BASE}:1\n", &["--build-arg=BASE=y"], &[("InvalidDefaultArgInFrom", "${BASE}:1")]);
    finds(&kiln, "ARG BASE=x\nFROM ${BASE}:1\nFROM ${OTHER:-y}\n", &[], &[]);
    finds(
        &kiln,
        "FROM scratch AS a\nARG A=a\nFROM $A\n",
        &[],
        &[("UndefinedArgInFrom", "$A"), ("InvalidDefaultArgInFrom", "$A")],
    );
}

/// Proves: D1.14-15, D1.14-18
#[test]
fn platforms_of_from() {
    let kiln = Kiln::new();
    finds(&kiln, "FROM --platform=$TARGETPLATFORM x\n", &[], &[("RedundantTargetPlatform", "$TARGETPLATFORM")]);
    finds(&kiln, "FROM --platform=$BUILDPLATFORM x\n", &[], &[]);
    finds(
        &kiln,
        "FROM --platform=linux/amd64 x AS build\n",
        &[],
        &[("FromPlatformFlagConstDisallowed", "linux/amd64")],
    );
    finds(&kiln, "FROM --platform=linux/amd64 x AS build_amd64\n", &[], &[]);
}

/// Proves: D1.14-10
#[test]
fn a_relative_working_directory() {
    let kiln = Kiln::new();
    finds(&kiln, "FROM x\nWORKDIR app\nWORKDIR more\n", &[], &[("WorkdirRelativePath", "app")]);
    finds(&kiln, "FROM x AS a\nWORKDIR /app\nFROM a\nWORKDIR more\nFROM y\nARG D=/d\nWORKDIR $D\n", &[], &[]);
}

/// Proves: D1.14-11, D1.4-9
#[test]
fn variables_that_are_not_set() {
    let kiln = Kiln::new();
    let scratch = "ARG GLOBAL=1\nFROM scratch AS a\nARG VERSION=1\nENV HOME=/h B=$HOME\nCOPY $VERSOIN $VERSION/\nENV C=$GLOBAL D=${NO:-x}\nLABEL l=\"$TARGETARCH\" m='$QUOTED'\nFROM a\nWORKDIR $PATH/$VERSION\n";
    finds(
        &kiln,
        scratch,
        &[],
        &[
            ("UndefinedVar", "$HOME"),
            ("UndefinedVar", "$VERSOIN"),
            ("UndefinedVar", "$GLOBAL"),
            ("UndefinedVar", "$TARGETARCH"),
        ],
    );
    let text = check_with(&kiln, &[("Dockerfile", scratch)], &["--check"]).stdout;
    assert!(text.contains("did you mean `$VERSION`?") && text.contains("repeat `ARG GLOBAL` in this stage"), "{text}");
    // what is not here may set anything; what is here is known
    finds(&kiln, "FROM no-such-image\nENV A=$B\n", &[], &[]);
    let kiln = kiln.import_busybox();
    finds(&kiln, "FROM busybox\nENV A=$B C=$PATH\n", &[], &[("UndefinedVar", "$B")]);
}

/// Proves: D1.14-14, D1.4-12
#[test]
fn a_base_image_for_another_platform() {
    let kiln = Kiln::with_busybox();
    let expected = [("InvalidBaseImagePlatform", "busybox")];
    finds(&kiln, "FROM busybox\n", &["--platform=linux/s390x"], &expected);
    finds(&kiln, "FROM busybox\n", &[], &[]);
}

/// Proves: D1.14-19
#[test]
fn copies_of_what_is_ignored() {
    let kiln = Kiln::new();
    let of = |ignore: &str| {
        let dockerfile = "FROM scratch\nCOPY ./secret/ keep /d/\nADD --chown=1 a.log /\nCOPY --from=x secret /\n";
        found(&kiln, &[("Dockerfile", dockerfile), (".dockerignore", ignore)], &[])
    };
    let names = |found: Vec<(String, String)>| found.into_iter().map(|(_, words)| words).collect::<Vec<_>>();
    assert_eq!(names(of("secret\n*.log\n")), ["./secret/", "a.log"]);
    assert!(of("secret\n!secret/public\n").is_empty());
    assert!(of("").is_empty());
}

/// Proves: D1.14-23, D1.2-5, D1.2-6, D1.2-7, D1.2-10, --check, --call
#[test]
fn findings_warn_and_fail_as_the_directive_says() {
    let kiln = Kiln::new();
    let line = "FROM scratch\nCMD a b\n";
    let check = |dockerfile: &str, options: &[&str]| {
        let mut all = vec!["--check"];
        all.extend(options);
        check_with(&kiln, &[("Dockerfile", dockerfile)], &all)
    };
    check(line, &[]).failure().says("warning[JSONArgsRecommended]").says("1 warning has been found");
    check(&format!("# check=skip=JSONArgsRecommended\n{line}"), &[]).success().says("no warnings found");
    check(&format!("# check=skip=all\n{line}"), &[]).success();
    check(line, &["--build-arg=BUILDKIT_DOCKERFILE_CHECK=skip=all"]).success();
    check(&format!("# check=skip=all\n{line}"), &["--build-arg=BUILDKIT_DOCKERFILE_CHECK=error=true"]).failure();
    check(&format!("# check=skip=JsonArgs\n{line}"), &[]).failure().says("no check is called");
    check(&format!("# check=slip=all\n{line}"), &[]).failure().says("did you mean `skip`?");
    // a build only fails when it is told to
    let build = |dockerfile: &str| check_with(&kiln, &[("Dockerfile", dockerfile)], &["--progress=plain"]);
    build(line).success().says("warning: JSONArgsRecommended").says("Dockerfile:2:5");
    build(&format!("# check=error=true\n{line}")).failure().says("JSONArgsRecommended");
    build(&format!("# check=skip=JSONArgsRecommended;error=true\n{line}")).success().never_says("JSONArgs");
}

/// Proves: D1.14-24, D1.14-25, D1.13-16
#[test]
fn reports_are_machine_readable() {
    let kiln = Kiln::new();
    let dockerfile = "from scratch\nCMD a\nCMD b\nCOPPY x y\n";
    let files = [("Dockerfile", dockerfile)];
    let json = check_with(&kiln, &files, &["--call=check,format=json"]).failure().stdout;
    let value: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(value["warnings"].as_array().expect("a list").len(), 4, "{json}");
    assert!(value["buildError"]["message"].as_str().expect("a message").contains("COPPY"), "{json}");
    assert_eq!(value["buildError"]["location"]["ranges"][0]["start"]["line"], 4);
    assert_eq!(value["sources"][0]["filename"].as_str().expect("a name").rsplit('/').next(), Some("Dockerfile"));
    let sarif = check_with(&kiln, &files, &["--call=check,format=sarif"]).failure().stdout;
    let value: Value = serde_json::from_str(&sarif).expect("JSON");
    let run = &value["runs"][0];
    assert_eq!(value["version"], "2.1.0");
    assert_eq!(run["tool"]["driver"]["rules"].as_array().expect("rules").len(), 22);
    let results = run["results"].as_array().expect("results");
    assert_eq!(results.len(), 5, "{sarif}");
    for result in results.iter().filter(|result| result["level"] == "warning") {
        let index = usize::try_from(result["ruleIndex"].as_u64().expect("an index")).expect("small");
        assert_eq!(run["tool"]["driver"]["rules"][index]["id"], result["ruleId"]);
    }
    assert_eq!(results[4]["locations"][0]["physicalLocation"]["region"]["endColumn"], 6, "{sarif}");
}

/// Proves: D1.13-16, D1.1-15, --call
#[test]
fn targets_and_outlines() {
    let kiln = Kiln::new();
    let dockerfile = "\
# VERSION of the compiler
ARG VERSION=1
# build makes it
FROM x:$VERSION AS build
ARG VERSION
ARG MODE=fast
RUN --mount=type=secret,id=key,required --mount=type=cache,target=/c --mount=type=ssh make
FROM scratch AS unused
ARG OTHER
# final is what to ship
FROM build AS final
";
    let files = [("Dockerfile", dockerfile)];
    let targets = check_with(&kiln, &files, &["--call=targets"]).success().stdout;
    assert_eq!(
        targets,
        "TARGET            DESCRIPTION\nbuild             makes it\nunused\nfinal (default)   is what to ship\n"
    );
    let outline = check_with(&kiln, &files, &["--call=outline", "--build-arg=MODE=slow"]).success().stdout;
    for words in [
        "TARGET:      final",
        "VERSION     1       of the compiler",
        "MODE        slow",
        "key      true",
        "default",
        "/c",
    ] {
        assert!(outline.contains(words), "{words:?}:\n{outline}");
    }
    assert!(!outline.contains("OTHER"), "{outline}");
    let json = check_with(&kiln, &files, &["--call=outline,format=json", "--target=unused"]).success().stdout;
    let value: Value = serde_json::from_str(&json).expect("JSON");
    let args: Vec<&str> =
        value["args"].as_array().expect("args").iter().map(|arg| arg["name"].as_str().expect("name")).collect();
    assert_eq!((value["name"].as_str(), args), (Some("unused"), vec!["VERSION", "OTHER"]));
    check_with(&kiln, &files, &["--call=what"]).failure().says("expected build, check, outline or targets");
}
