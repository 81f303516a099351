//! Cutting a Dockerfile into stages, and finding those that the target needs.

use std::collections::HashMap;

use kiln_grammar::ast::{ArgDeclaration, From, Instruction, InstructionKind, Transfer, Word};
use kiln_grammar::diagnostic::nearest;
use kiln_grammar::{Dockerfile, Span};

use crate::{Error, Result};

/// One stage as written.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    /// Its name, lower case, or its number.
    pub(super) name: String,
    /// Whether the name was written.
    pub(super) named: bool,
    /// FROM.
    pub(super) from: &'a From,
    /// FROM's instruction.
    pub(super) instruction: &'a Instruction,
    /// The rest.
    pub(super) body: &'a [Instruction],
}

/// A Dockerfile's stages.
#[derive(Debug)]
pub(super) struct Stages<'a> {
    /// ARGs before the first FROM.
    pub(super) globals: Vec<&'a ArgDeclaration>,
    /// In order.
    pub(super) stages: Vec<Stage<'a>>,
    names: HashMap<String, Vec<usize>>,
}

impl<'a> Stages<'a> {
    /// Cuts.
    pub(super) fn cut(dockerfile: &'a Dockerfile) -> Self {
        let instructions = &dockerfile.instructions;
        let starts: Vec<usize> = (0..instructions.len())
            .filter(|&index| matches!(instructions[index].kind, InstructionKind::From(_)))
            .collect();
        let first = starts.first().copied().unwrap_or(instructions.len());
        let mut globals = Vec::new();
        for instruction in &instructions[..first] {
            if let InstructionKind::Arg(declarations) = &instruction.kind {
                globals.extend(declarations);
            }
        }
        let mut cut = Self { globals, stages: Vec::with_capacity(starts.len()), names: HashMap::new() };
        for (number, &start) in starts.iter().enumerate() {
            let end = starts.get(number + 1).copied().unwrap_or(instructions.len());
            let InstructionKind::From(from) = &instructions[start].kind else { continue };
            let name = from.name.as_ref().map(|name| name.value.to_lowercase());
            if let Some(name) = &name {
                cut.names.entry(name.clone()).or_default().push(number);
            }
            cut.stages.push(Stage {
                named: name.is_some(),
                name: name.unwrap_or_else(|| number.to_string()),
                from,
                instruction: &instructions[start],
                body: &instructions[start + 1..end],
            });
        }
        cut
    }

    /// The last stage before `before` with that name.
    pub(super) fn named(&self, name: &str, before: usize) -> Option<usize> {
        let all = self.names.get(&name.to_lowercase())?;
        all.iter().rev().copied().find(|&stage| stage < before)
    }

    /// A stage by name or number, as `--from` and `--target` mean it.
    pub(super) fn find(&self, text: &str, before: usize) -> Option<usize> {
        self.named(text, before).or_else(|| text.parse().ok().filter(|&number: &usize| number < before))
    }

    /// The stage to build.
    pub(super) fn target(&self, target: Option<&str>) -> Result<usize> {
        let count = self.stages.len();
        let Some(text) = target else {
            return count.checked_sub(1).ok_or_else(|| Error::at(Span::default(), "the Dockerfile has no stage"));
        };
        self.find(text, count).ok_or_else(|| {
            let names: Vec<&str> = self.stages.iter().filter(|s| s.named).map(|s| s.name.as_str()).collect();
            let span = self.stages.last().map_or(Span::default(), |stage| stage.instruction.span);
            let help = match nearest(text, &names) {
                Some(name) => format!("did you mean `{name}`?"),
                None if names.is_empty() => "no stage of this Dockerfile has a name".to_owned(),
                None => format!("stages are: {}", names.join(", ")),
            };
            Error::at_with_help(span, format!("target stage {text:?} could not be found"), help)
                .labelled("the last stage; none has the name that --target says")
        })
    }

    /// Which stages `target` needs, itself included, by what is written in them.
    pub(super) fn needed(&self, target: usize, base_of: &dyn Fn(usize) -> Option<usize>) -> Vec<bool> {
        let mut needed = vec![false; self.stages.len()];
        let mut open = vec![target];
        while let Some(stage) = open.pop() {
            if std::mem::replace(&mut needed[stage], true) {
                continue;
            }
            open.extend(base_of(stage));
            for instruction in self.stages[stage].body {
                open.extend(sources(&instruction.kind).iter().filter_map(|from| self.find(from, stage)));
            }
        }
        needed
    }

    /// Says so when a name means a later stage (or the stage itself): a mistake, not an image.
    pub(super) fn check_not_later(&self, word: &Word, stage: usize) -> Result<()> {
        match self.named(&word.raw, self.stages.len()) {
            Some(later) if later >= stage => {
                let what = if later == stage { "itself" } else { "a later stage" };
                Err(Error::at_with_help(
                    word.span,
                    format!("stage {:?} refers to {what}", self.stages[stage].name),
                    "a stage can only use stages that come before it",
                ))
            }
            _ => Ok(()),
        }
    }
}

/// The stages or images that an instruction takes files from, as written.
fn sources(kind: &InstructionKind) -> Vec<&str> {
    match kind {
        InstructionKind::Copy(Transfer { from: Some(from), .. }) => vec![from.raw.as_str()],
        InstructionKind::Run(run) => run.mounts.iter().filter_map(|mount| mount_source(&mount.raw)).collect(),
        _ => Vec::new(),
    }
}

fn mount_source(options: &str) -> Option<&str> {
    options.split(',').find_map(|option| option.trim().strip_prefix("from="))
}
