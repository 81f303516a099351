//! What stages are called, and what comments say that they are for.

use std::collections::HashMap;

use super::{Check, Findings};
use crate::ast::{Dockerfile, From, Instruction, InstructionKind};
use crate::diagnostic::{Diagnostic, quoted};
use crate::span::Spanned;

/// Words of `--from` and of the build that are no stage.
const RESERVED: [&str; 2] = ["context", "scratch"];

pub(super) fn check(dockerfile: &Dockerfile, findings: &mut Findings) {
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut stage = 0;
    for instruction in &dockerfile.instructions {
        match &instruction.kind {
            InstructionKind::From(From { name: Some(name), .. }) => {
                stage += 1;
                stage_name(name, known.insert(name.value.to_lowercase(), stage), findings);
                description(instruction, "stage", &[name], findings);
            }
            InstructionKind::From(_) => stage += 1,
            InstructionKind::Arg(declarations) => {
                let names: Vec<Spanned<String>> = declarations
                    .iter()
                    .map(|declaration| Spanned { value: declaration.name.raw.clone(), span: declaration.name.span })
                    .collect();
                description(instruction, "argument", &names.iter().collect::<Vec<_>>(), findings);
            }
            _ => {}
        }
    }
}

/// ReservedStageName and DuplicateStageName
fn stage_name(name: &Spanned<String>, earlier: Option<usize>, findings: &mut Findings) {
    if RESERVED.contains(&name.value.to_lowercase().as_str()) {
        let message = format!("{} means something else than a stage", quoted(&name.value));
        findings.push(
            Diagnostic::finding(Check::ReservedStageName, message, name.span)
                .with_label("reserved")
                .with_help("give the stage another name"),
        );
    }
    if let Some(earlier) = earlier {
        let message = format!("there is a stage {} already", quoted(&name.value));
        findings.push(
            Diagnostic::finding(Check::DuplicateStageName, message, name.span)
                .with_label(format!("stage {earlier} of this file has this name, too"))
                .with_help("give the stage another name: later ones hide earlier ones"),
        );
    }
}

/// InvalidDefinitionDescription
fn description(instruction: &Instruction, what: &str, names: &[&Spanned<String>], findings: &mut Findings) {
    let Some(comment) = instruction.comments.last() else { return };
    let first = comment.value.split_whitespace().next().unwrap_or_default();
    if names.iter().any(|name| name.value == first) {
        return;
    }
    let example = match names {
        [name] => name.value.as_str(),
        _ => "<name>",
    };
    findings.push(
        Diagnostic::finding(
            Check::InvalidDefinitionDescription,
            format!("the comment above this {what} does not begin with its name"),
            comment.span,
        )
        .with_label(format!("expected `# {example} <description>`"))
        .with_help("when it is no description, put an empty line below it"),
    );
}
