//! Upper and lower case: keywords, AS, stage names, protocols.

use super::{Check, Findings};
use crate::ast::{Dockerfile, From, Instruction, InstructionKind, Word};
use crate::diagnostic::{Diagnostic, quoted};

pub(super) fn check(dockerfile: &Dockerfile, findings: &mut Findings) {
    keywords(dockerfile, findings);
    for instruction in &dockerfile.instructions {
        match &instruction.kind {
            InstructionKind::From(from) => {
                stage_name(from, findings);
                as_keyword(instruction, from, findings);
            }
            InstructionKind::Expose(words) => words.iter().for_each(|word| protocol(word, findings)),
            _ => {}
        }
    }
}

fn is_upper(text: &str) -> bool {
    !text.contains(|letter: char| letter.is_ascii_lowercase())
}

fn is_lower(text: &str) -> bool {
    !text.contains(|letter: char| letter.is_ascii_uppercase())
}

/// ConsistentInstructionCasing: the majority's case; of the ARGs before the first FROM nothing is asked.
fn keywords(dockerfile: &Dockerfile, findings: &mut Findings) {
    let in_stages = || {
        let globals = |instruction: &&Instruction| !matches!(instruction.kind, InstructionKind::From(_));
        dockerfile.instructions.iter().skip_while(globals).map(|instruction| &instruction.keyword)
    };
    let lower = in_stages().filter(|keyword| is_lower(&keyword.value)).count();
    let upper = in_stages().filter(|keyword| is_upper(&keyword.value)).count();
    let (is_right, case): (fn(&str) -> bool, _) =
        if lower > upper { (is_lower, "lower case") } else { (is_upper, "upper case") };
    for keyword in in_stages().filter(|keyword| !is_right(&keyword.value)) {
        let right = if lower > upper { keyword.value.to_ascii_lowercase() } else { keyword.value.to_ascii_uppercase() };
        let message = format!("{} is not written like the other keywords of this file", quoted(&keyword.value));
        findings.push(
            Diagnostic::finding(Check::ConsistentInstructionCasing, message, keyword.span)
                .with_label(format!("most are in {case}"))
                .with_help(format!("write `{right}`")),
        );
    }
}

/// StageNameCasing
fn stage_name(from: &From, findings: &mut Findings) {
    let Some(name) = from.name.as_ref().filter(|name| !is_lower(&name.value)) else { return };
    let message = format!("the stage's name {} has capital letters", quoted(&name.value));
    findings.push(
        Diagnostic::finding(Check::StageNameCasing, message, name.span)
            .with_label("names of stages are not case-sensitive")
            .with_help(format!("write `{}`", name.value.to_ascii_lowercase())),
    );
}

/// FromAsCasing; a FROM of mixed case is another check's.
fn as_keyword(instruction: &Instruction, from: &From, findings: &mut Findings) {
    let Some(keyword) = &from.as_keyword else { return };
    let (from, written) = (instruction.keyword.value.as_str(), keyword.value.as_str());
    let right = match (is_lower(from), is_upper(from)) {
        (true, _) => written.to_ascii_lowercase(),
        (_, true) => written.to_ascii_uppercase(),
        _ => return,
    };
    if right != written {
        findings.push(
            Diagnostic::finding(
                Check::FromAsCasing,
                format!("{} and {} are written in different cases", quoted(written), quoted(from)),
                keyword.span,
            )
            .with_label(format!("expected `{right}`")),
        );
    }
}

/// ExposeProtoCasing
fn protocol(word: &Word, findings: &mut Findings) {
    let Some((_, protocol)) = word.raw.rsplit_once('/') else { return };
    let plain = protocol.bytes().all(|byte| byte.is_ascii_alphabetic());
    if plain && !is_lower(protocol) {
        let message = format!("the protocol of {} has capital letters", quoted(&word.raw));
        findings.push(
            Diagnostic::finding(Check::ExposeProtoCasing, message, word.span)
                .with_label(format!("expected `/{}`", protocol.to_ascii_lowercase())),
        );
    }
}
