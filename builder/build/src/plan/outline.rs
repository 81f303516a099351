//! What a Dockerfile offers: its targets, and what a target can be given.

use std::collections::HashMap;

use kiln_grammar::ast::{ArgDeclaration, Dockerfile, Instruction, InstructionKind, Word};
use kiln_grammar::expand::{NoVariables, expand};
use kiln_grammar::{Span, mount};

use super::stages::{Stage, Stages};
use crate::{Request, Result};

/// A stage that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name; a stage without one has none.
    pub name: Option<String>,
    /// What is built when no target is named.
    pub default: bool,
    /// The comment above its FROM.
    pub description: Option<String>,
    /// What it goes on from, as written.
    pub base: String,
    /// `--platform`, as written.
    pub platform: Option<String>,
    /// Its FROM.
    pub span: Span,
}

/// What a target can be given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target's name, when it has one.
    pub name: Option<String>,
    /// What its comment says.
    pub description: Option<String>,
    /// Build arguments, in the order of their declarations.
    pub args: Vec<Argument>,
    /// `--secret`
    pub secrets: Vec<Wanted>,
    /// `--ssh`
    pub agents: Vec<Wanted>,
    /// Cache mounts.
    pub caches: Vec<Wanted>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// What its comment says.
    pub description: Option<String>,
    /// Its default, or what was given.
    pub value: Option<String>,
    /// Its name's place.
    pub span: Span,
}

/// Something that a RUN mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its id.
    pub id: String,
    /// The build fails without it.
    pub required: bool,
    /// The mount's place.
    pub span: Span,
}

/// All targets, in the order of the file.
pub fn targets(dockerfile: &Dockerfile) -> Vec<Target> {
    let stages = Stages::cut(dockerfile).stages;
    let last = stages.len().saturating_sub(1);
    let target = |(number, stage): (usize, &Stage<'_>)| Target {
        name: stage.named.then(|| stage.name.clone()),
        default: number == last,
        description: description(stage),
        base: stage.from.image.raw.clone(),
        platform: stage.from.platform.as_ref().map(|word| word.raw.clone()),
        span: stage.instruction.span,
    };
    stages.iter().enumerate().map(target).collect()
}

fn description(stage: &Stage<'_>) -> Option<String> {
    let name = stage.from.name.as_ref()?;
    stage.instruction.description(&name.value).map(str::to_owned)
}

/// What the request's target can be given, and the stages that it needs.
///
/// # Errors
/// There is no such target.
pub fn outline(dockerfile: &Dockerfile, request: &Request) -> Result<Outline> {
    let stages = Stages::cut(dockerfile);
    let target = stages.target(request.target.as_deref())?;
    let base_of = |stage: usize| stages.named(&stages.stages[stage].from.image.raw, stage);
    let needed = stages.needed(target, &base_of);
    let mut reader = Reader {
        request,
        escape: dockerfile.directives.escape,
        outline: Outline {
            name: stages.stages[target].named.then(|| stages.stages[target].name.clone()),
            description: description(&stages.stages[target]),
            ..Outline::default()
        },
        places: HashMap::new(),
    };
    let is_from = |instruction: &&Instruction| matches!(instruction.kind, InstructionKind::From(_));
    for instruction in dockerfile.instructions.iter().take_while(|instruction| !is_from(instruction)) {
        reader.read(instruction);
    }
    for (_, stage) in stages.stages.iter().enumerate().filter(|(number, _)| needed[*number]) {
        stage.body.iter().for_each(|instruction| reader.read(instruction));
    }
    Ok(reader.outline)
}

struct Reader<'a> {
    request: &'a Request,
    escape: char,
    outline: Outline,
    /// Where each argument is in the outline.
    places: HashMap<String, usize>,
}

impl Reader<'_> {
    fn read(&mut self, instruction: &Instruction) {
        match &instruction.kind {
            InstructionKind::Arg(declarations) => {
                declarations.iter().for_each(|declaration| self.argument(instruction, declaration));
            }
            InstructionKind::Run(run) => run.mounts.iter().for_each(|word| self.mount(word)),
            _ => {}
        }
    }

    /// An argument that is declared again, in a stage, is the same one.
    fn argument(&mut self, instruction: &Instruction, declaration: &ArgDeclaration) {
        let name = declaration.name.raw.clone();
        let default = declaration.default.as_ref().map(|word| {
            expand(word, self.escape, &NoVariables).ok().filter(|_| !word.raw.contains('$')).unwrap_or(word.raw.clone())
        });
        let value = self.request.build_args.get(&name).cloned().or(default);
        let description = instruction.description(&name).map(str::to_owned);
        if let Some(known) = self.places.get(&name).and_then(|place| self.outline.args.get_mut(*place)) {
            known.value = value.or(known.value.take());
            known.description = known.description.take().or(description);
            return;
        }
        self.places.insert(name.clone(), self.outline.args.len());
        self.outline.args.push(Argument { name, description, value, span: declaration.name.span });
    }

    /// A mount that is wrong is an error of the build.
    fn mount(&mut self, word: &Word) {
        let Ok(mount) = mount::parse(word, self.escape, &NoVariables) else { return };
        let (list, id, required) = match mount {
            mount::Mount::Secret { id, required, .. } => (&mut self.outline.secrets, id, required),
            mount::Mount::Ssh { id, required, .. } => (&mut self.outline.agents, id, required),
            mount::Mount::Cache { id, .. } => (&mut self.outline.caches, id, false),
            _ => return,
        };
        if let Some(known) = list.iter_mut().find(|known| known.id == id) {
            known.required |= required;
        } else if list.len() < MOST_WANTED {
            list.push(Wanted { id, required, span: word.span });
        }
    }
}

/// Mounts of a kind that are listed, at most.
const MOST_WANTED: usize = 1_000;
