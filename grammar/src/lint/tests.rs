use super::*;
use crate::parse;

fn findings(source: &str) -> Vec<(&'static str, String)> {
    let dockerfile = parse(source.as_bytes()).unwrap();
    check(&dockerfile)
        .into_list(&Settings::parse("experimental=all").unwrap())
        .iter()
        .map(|finding| {
            let name = finding.check.expect("a finding has its check").name();
            (name, source[finding.span.start..finding.span.end].to_owned())
        })
        .collect()
}

fn found(source: &str, check: Check) -> Vec<String> {
    findings(source).into_iter().filter(|(name, _)| *name == check.name()).map(|(_, words)| words).collect()
}

#[test]
fn every_check_has_its_row_and_its_page() {
    for (index, rule) in RULES.iter().enumerate() {
        assert_eq!(format!("{:?}", rule.check), rule.name);
        assert_eq!(Check::named(rule.name), Some(rule.check));
        assert!(RULES[..index].iter().all(|earlier| earlier.check != rule.check));
    }
    let page = "https://docs.docker.com/go/dockerfile/rule/";
    assert_eq!(Check::JSONArgsRecommended.url(), format!("{page}json-args-recommended/"));
    assert_eq!(Check::FromPlatformFlagConstDisallowed.url(), format!("{page}from-platform-flag-const-disallowed/"));
    assert_eq!(Check::InvalidBaseImagePlatform.url(), "");
}

/// Proves: D1.2-5, D1.2-6, D1.2-7, D1.2-8, D1.2-9
#[test]
fn settings_skip_fail_and_ask() {
    let all = Settings::parse("").unwrap();
    assert!(all.counts(Check::UndefinedVar) && !all.error);
    assert!(!all.counts(Check::InvalidDefinitionDescription));
    let some = Settings::parse("skip=UndefinedVar, FromAsCasing;error=true").unwrap();
    assert!(!some.counts(Check::UndefinedVar) && !some.counts(Check::FromAsCasing) && some.error);
    assert!(some.counts(Check::StageNameCasing));
    assert!(!Settings::parse("skip=all").unwrap().counts(Check::StageNameCasing));
    assert!(Settings::parse("experimental=all").unwrap().counts(Check::InvalidDefinitionDescription));
    let one = Settings::parse("experimental=InvalidDefinitionDescription;error=False").unwrap();
    assert!(one.counts(Check::InvalidDefinitionDescription) && !one.error);
    let wrong_case = Settings::parse("skip=undefinedvar").unwrap();
    assert!(wrong_case.counts(Check::UndefinedVar));
    assert_eq!(wrong_case.unknown, ["no check is called \"undefinedvar\"; did you mean UndefinedVar?"]);
    for wrong in ["skip", "error=perhaps", "skipp=all"] {
        assert!(Settings::parse(wrong).is_err(), "{wrong}");
    }
}

/// Proves: D1.14-1
#[test]
fn stage_name_casing() {
    let of = |source: &str| found(source, Check::StageNameCasing);
    assert_eq!(of("FROM x AS Build"), ["Build"]);
    assert!(of("FROM x AS build-1").is_empty());
}

/// Proves: D1.14-2
#[test]
fn from_as_casing() {
    let of = |source: &str| found(source, Check::FromAsCasing);
    assert_eq!(of("FROM x as a\nFROM x AS b"), ["as"]);
    assert_eq!(of("from x AS a\nfrom x as b"), ["AS"]);
    assert_eq!(of("FROM x As a"), ["As"]);
    assert!(of("From x as a").is_empty());
}

/// Proves: D1.14-3, D1.1-7
#[test]
fn no_empty_continuation() {
    let source = "FROM x\nRUN a \\\n\n b\nRUN c \\\n d\n";
    let dockerfile = parse(source.as_bytes()).unwrap();
    let places: Vec<usize> =
        check(&dockerfile).into_list(&Settings::default()).iter().map(|finding| finding.span.start).collect();
    assert_eq!(places, [15]);
}

/// Proves: D1.14-4
#[test]
fn consistent_instruction_casing() {
    let of = |source: &str| found(source, Check::ConsistentInstructionCasing);
    assert_eq!(of("FROM x\nrun a\nRun b"), ["run", "Run"]);
    assert_eq!(of("from x\nrun a\nRUN b"), ["RUN"]);
    assert!(of("from x\nrun a").is_empty());
    assert!(of("arg A\nFROM x\nRUN a").is_empty());
}

/// Proves: D1.14-5, D1.14-6
#[test]
fn stage_names() {
    assert_eq!(found("FROM x AS a\nFROM x AS b\nFROM x AS A", Check::DuplicateStageName), ["A"]);
    assert_eq!(found("FROM x AS scratch\nFROM x AS context", Check::ReservedStageName), ["scratch", "context"]);
}

/// Proves: D1.14-7
#[test]
fn json_args_recommended() {
    let of = |source: &str| found(source, Check::JSONArgsRecommended);
    assert_eq!(of("FROM x\nCMD run it\nENTRYPOINT [\"a\"]"), ["run it"]);
    assert_eq!(of("FROM x\nENTRYPOINT run $it"), ["run $it"]);
    assert!(of("FROM x\nSHELL [\"bash\", \"-c\"]\nCMD run it").is_empty());
    assert_eq!(of("FROM x\nSHELL [\"bash\", \"-c\"]\nFROM x\nCMD run it").len(), 1);
}

/// Proves: D1.14-8
#[test]
fn maintainer_deprecated() {
    assert_eq!(found("FROM x\nMAINTAINER me", Check::MaintainerDeprecated), ["MAINTAINER"]);
}

/// Proves: D1.14-12, D1.7-10
#[test]
fn multiple_instructions_disallowed() {
    let of = |source: &str| found(source, Check::MultipleInstructionsDisallowed);
    assert_eq!(of("FROM x\nCMD [\"a\"]\nCMD [\"b\"]\nCMD [\"c\"]").len(), 2);
    assert_eq!(of("FROM x\nHEALTHCHECK NONE\nHEALTHCHECK CMD a"), ["HEALTHCHECK"]);
    assert_eq!(of("FROM x\nENTRYPOINT [\"a\"]\nENTRYPOINT [\"b\"]"), ["ENTRYPOINT"]);
    assert!(of("FROM x\nCMD [\"a\"]\nFROM x\nCMD [\"b\"]").is_empty());
}

/// Proves: D1.14-13
#[test]
fn legacy_key_value_format() {
    assert_eq!(found("FROM x\nENV a b c\nENV d=e\nLABEL f g", Check::LegacyKeyValueFormat), ["a b c", "f g"]);
}

/// Proves: D1.14-16
#[test]
fn secrets_used_in_arg_or_env() {
    let of = |source: &str| found(source, Check::SecretsUsedInArgOrEnv);
    assert_eq!(
        of("FROM x\nARG GITHUB_TOKEN a=b\nENV api_key=1 secret_x=2 AUTH=3"),
        ["GITHUB_TOKEN", "api_key", "secret_x", "AUTH"]
    );
    assert!(of("ARG TOKEN\nFROM x\nENV PUBLIC_KEY=1 PASSWORD_FILE=2 TOKENIZER=3 KEY_VERSION=4").is_empty());
}

/// Proves: D1.14-20, D1.1-15
#[test]
fn invalid_definition_description() {
    let of = |source: &str| found(source, Check::InvalidDefinitionDescription);
    assert_eq!(of("# a comment\nFROM x AS build\n# V is it\nARG V\n# no\nARG W Z"), ["a comment", "no"]);
    assert!(of("# a comment\n\nFROM x AS build\n# other\n#\nARG V\n# any\nFROM x").is_empty());
    let source = "# V  the version\n# to take\nARG V\nFROM x";
    let dockerfile = parse(source.as_bytes()).unwrap();
    assert_eq!(dockerfile.instructions[0].description("V"), Some("the version"));
    assert_eq!(dockerfile.instructions[0].description("W"), None);
}

/// Proves: D1.14-21, D1.14-22, D1.6-7
#[test]
fn expose() {
    let source = "FROM x\nEXPOSE 80/TCP 81/udp 127.0.0.1:1:2 3:4 ${P:-5}/${Q:-UDP}";
    assert_eq!(found(source, Check::ExposeProtoCasing), ["80/TCP"]);
    assert_eq!(found(source, Check::ExposeInvalidFormat), ["127.0.0.1:1:2", "3:4"]);
}
