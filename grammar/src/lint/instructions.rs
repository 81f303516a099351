//! What single instructions say, and how often.

use super::{Check, Findings};
use crate::ast::{Command, Dockerfile, HealthCheck, Instruction, InstructionKind, Word};
use crate::diagnostic::{Diagnostic, quoted};
use crate::span::Span;

/// Words of a variable's name that make it a secret's, and those that say it is none.
const SECRET: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
const NO_SECRET: [&str; 3] = ["public", "file", "version"];

/// The instructions of which only a stage's last counts, with their places.
#[derive(Default)]
struct Last {
    cmd: Option<Span>,
    entrypoint: Option<Span>,
    health_check: Option<Span>,
    shell: bool,
}

pub(super) fn check(dockerfile: &Dockerfile, findings: &mut Findings) {
    let mut last = Last::default();
    let mut in_stage = false;
    for instruction in &dockerfile.instructions {
        match &instruction.kind {
            InstructionKind::From(_) => {
                in_stage = true;
                last = Last::default();
            }
            InstructionKind::Shell(_) => last.shell = true,
            InstructionKind::Cmd(command) => {
                only_once(instruction, &mut last.cmd, findings);
                exec_form(instruction, command, last.shell, findings);
            }
            InstructionKind::Entrypoint(command) => {
                only_once(instruction, &mut last.entrypoint, findings);
                exec_form(instruction, command, last.shell, findings);
            }
            InstructionKind::HealthCheck(HealthCheck::None | HealthCheck::Test { .. }) => {
                only_once(instruction, &mut last.health_check, findings);
            }
            InstructionKind::Maintainer(name) => maintainer(instruction, name, findings),
            InstructionKind::Arg(declarations) if in_stage => {
                declarations.iter().for_each(|declaration| secret("ARG", &declaration.name, findings));
            }
            InstructionKind::Env(pairs) => pairs.iter().for_each(|pair| secret("ENV", &pair.key, findings)),
            InstructionKind::Expose(words) => words.iter().for_each(|word| port_mapping(word, findings)),
            _ => {}
        }
    }
}

/// MultipleInstructionsDisallowed: about the earlier one, which is in vain.
fn only_once(instruction: &Instruction, earlier: &mut Option<Span>, findings: &mut Findings) {
    let keyword = instruction.keyword.value.to_ascii_uppercase();
    if let Some(earlier) = earlier.replace(instruction.keyword.span) {
        findings.push(
            Diagnostic::finding(
                Check::MultipleInstructionsDisallowed,
                format!("a later {keyword} of this stage takes the place of this one"),
                earlier,
            )
            .with_label("has no effect")
            .with_help(format!("remove it, or the other {keyword}")),
        );
    }
}

/// JSONArgsRecommended: whoever chose a shell means one.
fn exec_form(instruction: &Instruction, command: &Command, shell: bool, findings: &mut Findings) {
    let Command::Shell(line) = command else { return };
    if shell || line.value.is_empty() {
        return;
    }
    let keyword = instruction.keyword.value.to_ascii_uppercase();
    let simple = !line.value.contains(|letter: char| "$&|;<>(){}[]*?`'\"\\!~#".contains(letter));
    let help = if simple && line.value.len() <= 80 {
        let words: Vec<String> = line.value.split_whitespace().map(|word| format!("\"{word}\"")).collect();
        format!("write `{keyword} [{}]`", words.join(", "))
    } else {
        format!("write `{keyword} [\"executable\", \"argument\"]`, or set SHELL when it needs one")
    };
    findings.push(
        Diagnostic::finding(
            Check::JSONArgsRecommended,
            format!("{keyword} in shell form: the shell gets the signals, and may not pass them on"),
            line.span,
        )
        .with_label("expected a JSON array of strings")
        .with_help(help),
    );
}

/// MaintainerDeprecated
fn maintainer(instruction: &Instruction, name: &str, findings: &mut Findings) {
    let help = format!("write `LABEL org.opencontainers.image.authors=\"{}\"`", name.replace('"', "'"));
    findings.push(
        Diagnostic::finding(Check::MaintainerDeprecated, "MAINTAINER is deprecated", instruction.keyword.span)
            .with_label("expected a LABEL")
            .with_help(help),
    );
}

/// SecretsUsedInArgOrEnv
fn secret(keyword: &str, name: &Word, findings: &mut Findings) {
    let is_among =
        |words: &[&str]| name.raw.split('_').any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)));
    if is_among(&SECRET) && !is_among(&NO_SECRET) {
        let message = format!("{} sounds like a secret, and {keyword} keeps it in the image", quoted(&name.raw));
        findings.push(
            Diagnostic::finding(Check::SecretsUsedInArgOrEnv, message, name.span)
                .with_label("anybody who has the image can read its value")
                .with_help("use `RUN --mount=type=secret,id=<name>` and give it with `--secret`"),
        );
    }
}

/// ExposeInvalidFormat: `host:container` and `address:host:container` are for those who run it to say.
fn port_mapping(word: &Word, findings: &mut Findings) {
    let mut depth = 0_usize;
    let mut colon = None;
    for (at, letter) in word.raw.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ':' if depth == 0 => colon = Some(at),
            _ => {}
        }
    }
    let Some(colon) = colon else { return };
    findings.push(
        Diagnostic::finding(
            Check::ExposeInvalidFormat,
            format!("{} maps a port, which an image cannot", quoted(&word.raw)),
            word.span,
        )
        .with_label("expected a port of the container")
        .with_help(format!(
            "write `{}`, and map it when a container is made",
            word.raw.get(colon + 1..).unwrap_or_default()
        )),
    );
}
