//! From instructions to vertices and configs, one stage at a time.

mod contexts;
mod instructions;
mod labels;
mod process;
mod transfer;

pub(crate) use process::SCRIPT_DIRECTORY;

use std::collections::{BTreeSet, HashMap};

use kiln_grammar::ast::{Instruction, InstructionKind, Word};
use kiln_grammar::{Dockerfile, Span};
use kiln_image::config::History;
use kiln_image::{Image, ImageConfig, Platform, Reference};

use super::stages::Stages;
use super::variables::{GlobalScope, StageScope};
use super::{ImageSource, Operation, Plan, Target, Vertex, history};
use crate::progress::VertexId;
use crate::request::ContextDirectory;
use crate::{Error, Request, Result};

/// The search path of a process whose image sets none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A stage while (and after) its instructions are worked through.
#[derive(Debug, Clone)]
pub(super) struct StageState {
    /// Which stage.
    number: usize,
    /// Its config so far.
    config: ImageConfig,
    /// The machine that its programs are for.
    platform: Platform,
    /// Its variables so far.
    scope: StageScope,
    /// Its file system so far.
    result: Option<VertexId>,
    /// The stage it goes on from: that one's history comes first.
    base: Option<usize>,
    /// The history lines of its own instructions, with the vertices of those that made a layer.
    lines: Vec<Line>,
    /// CMD was given in this stage: ENTRYPOINT leaves it alone then.
    cmd_set: bool,
    /// `2` of `2/4`.
    step: usize,
    /// `4` of `2/4`.
    steps: usize,
}

/// A history line, and the vertex of its layer.
type Line = (History, Option<VertexId>);

/// Makes a plan.
pub(super) struct Planner<'a> {
    request: &'a Request,
    platform: &'a Platform,
    images: &'a dyn ImageSource,
    stages: Stages<'a>,
    escape: char,
    target: usize,
    globals: GlobalScope,
    bases: Vec<Base>,
    states: Vec<Option<StageState>>,
    vertices: Vec<Vertex>,
    image_vertices: HashMap<(String, String), VertexId>,
    /// Directories that files are taken from, with the names of all but the first.
    contexts: Vec<(String, Option<ContextDirectory>)>,
    /// What fetched contexts became, by name.
    context_vertices: HashMap<String, VertexId>,
    /// The build arguments that ARGs took.
    consumed: BTreeSet<String>,
}

/// What a FROM means.
#[derive(Debug, Clone)]
enum Base {
    Scratch,
    Stage(usize),
    Image(Box<(Reference, Platform)>),
    /// A named context, for the image, or for the whole stage.
    Context {
        name: String,
        whole_stage: bool,
    },
    /// Cannot be told: only an error when the stage is needed.
    Wrong(Box<kiln_grammar::Diagnostic>),
}

impl<'a> Planner<'a> {
    /// Reads the global scope and every FROM.
    pub(super) fn new(
        dockerfile: &'a Dockerfile,
        request: &'a Request,
        platform: &'a Platform,
        images: &'a dyn ImageSource,
    ) -> Result<Self> {
        let stages = Stages::cut(dockerfile);
        let target = stages.target(request.target.as_deref())?;
        let target_name = if stages.stages[target].named { stages.stages[target].name.as_str() } else { "default" };
        let mut planner = Self {
            request,
            platform,
            images,
            escape: dockerfile.directives.escape,
            target,
            globals: GlobalScope::platform(request, platform, target_name),
            bases: Vec::new(),
            states: vec![None; stages.stages.len()],
            stages,
            vertices: Vec::new(),
            image_vertices: HashMap::new(),
            contexts: vec![(String::new(), request.context.directory().cloned())],
            context_vertices: HashMap::new(),
            consumed: BTreeSet::new(),
        };
        planner.declare_globals()?;
        planner.bases = (0..planner.stages.stages.len()).map(|stage| planner.read_base(stage)).collect();
        Ok(planner)
    }

    fn declare_globals(&mut self) -> Result<()> {
        for declaration in &self.stages.globals {
            let name = kiln_grammar::expand::expand(&declaration.name, self.escape, &self.globals)?;
            let default = match &declaration.default {
                Some(word) => Some(kiln_grammar::expand::expand(word, self.escape, &self.globals)?),
                None => self.globals.0.get(&name).cloned().flatten(),
            };
            let value = self.request.build_args.get(&name).cloned().or(default);
            self.globals.0.insert(name, value);
        }
        Ok(())
    }

    fn read_base(&self, stage: usize) -> Base {
        match self.try_read_base(stage) {
            Ok(base) => base,
            Err(diagnostic) => Base::Wrong(diagnostic),
        }
    }

    fn try_read_base(&self, stage: usize) -> Result<Base, Box<kiln_grammar::Diagnostic>> {
        let from = self.stages.stages[stage].from;
        if let Some(name) = from.name.as_ref().and_then(|name| self.context_named(&name.value)) {
            return Ok(Base::Context { name, whole_stage: true });
        }
        let written = match (&self.request.edits.first_from, stage) {
            (Some(image), 0) => &Word { raw: image.clone(), span: from.image.span },
            _ => &from.image,
        };
        let name = kiln_grammar::expand::expand(written, self.escape, &self.globals)?;
        let wrong = |message: String, span: Span| Box::new(kiln_grammar::Diagnostic::error(message, span));
        if name.is_empty() {
            return Err(Box::new(
                kiln_grammar::Diagnostic::error(
                    format!("base name ({}) should not be blank", from.image.raw),
                    from.image.span,
                )
                .with_help("give the ARG a default before the first FROM, or a value with --build-arg"),
            ));
        }
        if let Some(base) = self.stages.named(&name, stage) {
            return Ok(Base::Stage(base));
        }
        if let Some(name) = self.context_named(&name) {
            return Ok(Base::Context { name, whole_stage: false });
        }
        if name == "scratch" {
            return Ok(Base::Scratch);
        }
        let platform = match &from.platform {
            None => self.platform.clone(),
            Some(word) => {
                let text = kiln_grammar::expand::expand(word, self.escape, &self.globals)?;
                if text.is_empty() {
                    let diagnostic = wrong(format!("--platform={} is empty", word.raw), word.span);
                    return Err(Box::new(diagnostic.with_help(
                        "give the variable a value, or write --platform=$BUILDPLATFORM or --platform=$TARGETPLATFORM",
                    )));
                }
                Platform::parse(&text).map_err(|error| wrong(error.to_string(), word.span))?
            }
        };
        let reference = Reference::parse(&name).map_err(|error| wrong(error.to_string(), from.image.span))?;
        Ok(Base::Image(Box::new((reference, platform))))
    }

    /// Plans the target and all it needs.
    pub(super) fn plan(mut self, dockerfile: &Dockerfile) -> Result<Plan> {
        let target = self.target;
        self.ensure_stage(target)?;
        let Some(mut state) = self.states.get_mut(target).and_then(Option::take) else {
            return Err(Error::Internal("plan: the target was not dispatched".to_owned()));
        };
        if !self.request.labels.is_empty() {
            let labels = state.config.config.labels.get_or_insert_default();
            labels.extend(self.request.labels.iter().cloned());
        }
        let mut made = self.target_of(&state);
        self.request.edits.apply(&mut made.config);
        let stages = if self.request.layering.save_stages {
            self.states.iter().flatten().map(|state| self.target_of(state)).collect()
        } else {
            Vec::new()
        };
        let contexts = self.contexts.into_iter().map(|(_, directory)| directory).collect();
        let unconsumed = super::arguments::unconsumed(dockerfile, self.request, &self.consumed);
        Ok(Plan { vertices: self.vertices, targets: vec![made], stages, contexts, unconsumed })
    }

    /// What a stage makes.
    fn target_of(&self, state: &StageState) -> Target {
        let (lines, history): (Vec<_>, Vec<_>) = self.lines_of(state).into_iter().unzip();
        let mut config = state.config.clone();
        config.history.extend(lines);
        Target { platform: self.platform.clone(), result: state.result, config, history }
    }

    /// A stage's history after that of all the stages it goes on from.
    fn lines_of(&self, state: &StageState) -> Vec<Line> {
        let mut stages = vec![state];
        let mut next = state.base;
        while let Some(state) = next.and_then(|stage| self.states[stage].as_ref()) {
            next = state.base;
            stages.push(state);
        }
        stages.into_iter().rev().flat_map(|state| state.lines.iter().cloned()).collect()
    }

    /// Dispatches a stage and everything it needs, in the order of the file: no recursion, however long the chain.
    fn ensure_stage(&mut self, wanted: usize) -> Result<()> {
        if self.states[wanted].is_some() {
            return Ok(());
        }
        let base_of = |stage: usize| match &self.bases[stage] {
            Base::Stage(base) => Some(*base),
            _ => None,
        };
        let needed = self.stages.needed(wanted, &base_of);
        for stage in (0..=wanted).filter(|&stage| needed[stage]) {
            if self.states[stage].is_none() {
                self.dispatch_stage(stage)?;
            }
        }
        Ok(())
    }

    fn dispatch_stage(&mut self, number: usize) -> Result<()> {
        let body = match self.bases[number] {
            Base::Context { whole_stage: true, .. } => &[],
            _ => self.stages.stages[number].body,
        };
        let mut state = self.begin_stage(number)?;
        // A FROM is a step where it brings an image.
        state.step = usize::from(!matches!(self.bases[number], Base::Scratch | Base::Stage(_)));
        state.steps = state.step + body.iter().filter(|instruction| makes_vertex(&instruction.kind)).count();
        let triggers = state.config.config.on_build.take().unwrap_or_default();
        self.run_triggers(&mut state, &triggers)?;
        for instruction in body {
            self.dispatch(&mut state, instruction)?;
        }
        self.states[number] = Some(state);
        Ok(())
    }

    /// FROM.
    fn begin_stage(&mut self, number: usize) -> Result<StageState> {
        let mut state = match self.bases[number].clone() {
            Base::Wrong(diagnostic) => return Err(Error::Dockerfile(diagnostic)),
            Base::Scratch => self.empty_state(number),
            Base::Stage(base) => match &self.states[base] {
                Some(state) => {
                    let lines = Vec::new();
                    StageState { number, cmd_set: false, step: 1, base: Some(base), lines, ..state.clone() }
                }
                None => return Err(Error::Internal(format!("plan: stage {base} was not dispatched"))),
            },
            Base::Image(image) => self.image_state(number, &image.0, &image.1)?,
            Base::Context { name, .. } => self.context_state(number, &name)?,
        };
        if !state.scope.env.iter().any(|(name, _)| name == "PATH") {
            state.scope.env.push(("PATH".to_owned(), DEFAULT_PATH.to_owned()));
            state.config.config.env.get_or_insert_default().push(format!("PATH={DEFAULT_PATH}"));
        }
        Ok(state)
    }

    fn empty_state(&self, number: usize) -> StageState {
        let mut config = ImageConfig {
            architecture: self.platform.architecture.clone(),
            os: self.platform.os.clone(),
            variant: self.platform.variant.clone(),
            ..ImageConfig::default()
        };
        "/".clone_into(&mut config.config.working_dir);
        let scope = StageScope::default();
        StageState {
            number,
            config,
            platform: self.platform.clone(),
            scope,
            result: None,
            base: None,
            lines: Vec::new(),
            cmd_set: false,
            step: 1,
            steps: 1,
        }
    }

    fn image_state(&mut self, number: usize, reference: &Reference, platform: &Platform) -> Result<StageState> {
        let from = self.stages.stages[number].from;
        let span = from.image.span;
        let (reference, image) = self.find_image(reference, platform, span)?;
        Ok(self.state_of(number, image, reference.to_string(), platform, span))
    }

    /// The image that a reference means, or that the policy puts in its place.
    fn find_image(&self, reference: &Reference, platform: &Platform, span: Span) -> Result<(Reference, Image)> {
        let allowed = self.request.policy.image(reference).map_err(|reason| Error::at(span, reason))?;
        let image = self.images.image(&allowed, platform).map_err(|error| error.of_image(&allowed, span))?;
        Ok((allowed, image))
    }

    /// The state of a stage that begins with an image.
    fn state_of(&mut self, number: usize, image: Image, name: String, platform: &Platform, span: Span) -> StageState {
        let vertex = self.image_vertex(&image, name, platform, span, Some(number));
        let mut config = image.config;
        if self.request.edits.drop_inherited_labels {
            config.config.labels = None;
        }
        let scope = StageScope::from_config(config.config.env.as_deref().unwrap_or_default());
        StageState { scope, result: Some(vertex), config, platform: platform.clone(), ..self.empty_state(number) }
    }

    /// The vertex of an image: one per image and platform, however often it is named. It is the first step of a stage
    /// that goes on from it.
    fn image_vertex(
        &mut self,
        image: &Image,
        name: String,
        platform: &Platform,
        span: Span,
        stage: Option<usize>,
    ) -> VertexId {
        let key = (name, platform.to_string());
        if let Some(vertex) = self.image_vertices.get(&key) {
            return *vertex;
        }
        let prefix = labels::prefix(self.request, platform, None);
        let name = match stage {
            Some(stage) => format!("{} FROM {}", self.label(stage, 1, None, &prefix), key.0),
            None => format!("{prefix}FROM {}", key.0),
        };
        let operation = Operation::Image { layers: image.layers.clone() };
        let vertex = self.add(Vertex { name, step: String::new(), span, parent: None, operation });
        self.image_vertices.insert(key, vertex);
        vertex
    }

    fn run_triggers(&mut self, state: &mut StageState, triggers: &[String]) -> Result<()> {
        let from = self.stages.stages[state.number].instruction;
        for text in triggers {
            let instruction = kiln_grammar::parse_trigger(text).map_err(|diagnostic| {
                Error::at(from.span, format!("ONBUILD trigger {text:?} of the base image: {}", diagnostic.message))
            })?;
            state.steps += usize::from(makes_vertex(&instruction.kind));
            // The trigger's own spans are of another text: everything it says is about this FROM.
            let trigger = Instruction { span: from.span, ..instruction };
            self.dispatch(state, &trigger).map_err(|error| match error {
                Error::Dockerfile(diagnostic) => {
                    Error::at(from.span, format!("ONBUILD trigger {text:?} of the base image: {}", diagnostic.message))
                }
                other => other,
            })?;
        }
        Ok(())
    }

    fn add(&mut self, vertex: Vertex) -> VertexId {
        self.vertices.push(vertex);
        self.vertices.len() - 1
    }

    /// Adds the vertex of an instruction that makes a layer, and its history line.
    fn add_layer(
        &mut self,
        state: &mut StageState,
        instruction: &Instruction,
        operation: Operation,
        created_by: String,
    ) {
        state.step += 1;
        let stage = &self.stages.stages[state.number];
        let prefix = labels::prefix(self.request, &state.platform, Some(&state.scope));
        let label = self.label(state.number, state.step, Some(state.steps), &prefix);
        let name = format!("{label} {}", one_line(&instruction.text));
        let step = self.step(&format!("{prefix}{}", stage.name), &state.step.to_string());
        let parent = state.result;
        let vertex = self.add(Vertex { name, step, span: instruction.span, parent, operation });
        state.result = Some(vertex);
        push_history(state, created_by, Some(vertex));
    }

    /// A step's identity across builds: which Dockerfile of which context, which stage, which place in it.
    fn step(&self, stage: &str, place: &str) -> String {
        let place = place.replace('#', "%23");
        format!("{}#{}#{stage}#{place}", self.request.context.identity(), self.request.dockerfile_name)
    }

    /// `[name  2/14]`, or `[ 2/14]` when there is only one stage; with the platform before it when there are several.
    fn label(&self, stage: usize, step: usize, steps: Option<usize>, prefix: &str) -> String {
        let steps = steps.unwrap_or_else(|| {
            1 + self.stages.stages[stage].body.iter().filter(|instruction| makes_vertex(&instruction.kind)).count()
        });
        let width = steps.to_string().len();
        let step = format!("{step:>width$}");
        match (&self.stages.stages[stage], self.stages.stages.len()) {
            (_, 1) => format!("[{prefix}{step}/{steps}]"),
            (stage, _) if stage.named => format!("[{prefix}{} {step}/{steps}]", stage.name),
            _ => format!("[{prefix}stage-{stage} {step}/{steps}]"),
        }
    }

    fn expand(&self, word: &Word, scope: &StageScope) -> Result<String> {
        Ok(kiln_grammar::expand::expand(word, self.escape, scope)?)
    }
}

fn push_history(state: &mut StageState, created_by: String, vertex: Option<VertexId>) {
    let line = History {
        created: None,
        created_by: Some(created_by),
        author: None,
        comment: Some(history::COMMENT.to_owned()),
        empty_layer: vertex.is_none(),
    };
    state.lines.push((line, vertex));
}

fn makes_vertex(kind: &InstructionKind) -> bool {
    matches!(
        kind,
        InstructionKind::Run(_) | InstructionKind::Copy(_) | InstructionKind::Add(_) | InstructionKind::Workdir(_)
    )
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
