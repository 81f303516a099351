//! Random projects and random edits of them.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

/// Files of the context, `c0` and on; and the files that its directory `d` may have.
pub const FILES: usize = 3;
/// Paths in images that steps write, `/p0` and on.
pub const PATHS: usize = 3;

/// A context with a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Text and mode of `c0`, `c1`, …
    pub files: Vec<(String, u32)>,
    /// What is in `d`, besides `d/keep`.
    pub directory: BTreeMap<usize, String>,
    /// `--build-arg V=…`.
    pub argument: Option<u8>,
    /// The last one is built.
    pub stages: Vec<Stage>,
    /// Stages are called by this letter and their number.
    pub letter: char,
    /// A line that says nothing.
    pub comment: u8,
}

/// A stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    pub base: Base,
    pub steps: Vec<Step>,
}

/// What a stage begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    Busybox,
    Scratch,
    /// One of those before it, if there is any.
    Stage(usize),
}

/// An instruction. Numbers of stages mean one of those before; what cannot be done is left out of the Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `COPY cN /pN`
    CopyFile { file: usize, to: usize },
    /// `COPY d /tN/`
    CopyDirectory { to: usize },
    /// `COPY --from=sN /pN /pN`
    CopyFrom { stage: usize, from: usize, to: usize },
    /// `RUN echo … > /pN`
    Write { text: u8, to: usize },
    /// `RUN` that copies the first letter of one path to another: mostly the same, whatever the rest is.
    First { from: usize, to: usize },
    /// `RUN` that counts the bytes in `/tN`.
    Count { directory: usize, to: usize },
    /// `RUN echo $V $E > /pN`
    Variables { to: usize },
    /// `RUN --mount=type=bind,source=cN …`
    Mounted { file: usize, to: usize },
    /// `RUN --mount=type=bind,from=sN,source=/pN …`, which counts its bytes.
    MountedFrom { stage: usize, from: usize, to: usize },
    /// `ARG V=…`
    Argument(u8),
    /// `ENV E=…`
    Environment(u8),
    /// `LABEL l=…`
    Label(u8),
    /// `WORKDIR /wN`
    Workdir(u8),
}

/// What a developer does between two builds.
#[derive(Debug, Clone)]
pub enum Edit {
    Write {
        file: usize,
        text: String,
    },
    Mode {
        file: usize,
        mode: u32,
    },
    /// Nothing but its time.
    Touch {
        file: usize,
    },
    WriteBelow {
        name: usize,
        text: String,
    },
    RemoveBelow {
        name: usize,
    },
    Argument(Option<u8>),
    Replace {
        stage: usize,
        at: usize,
        step: Step,
    },
    Insert {
        stage: usize,
        at: usize,
        step: Step,
    },
    Remove {
        stage: usize,
        at: usize,
    },
    Swap {
        stage: usize,
        at: usize,
    },
    Base {
        stage: usize,
        base: Base,
    },
    /// Other names for the stages.
    Rename(char),
    /// Other order of stages that may not need one another.
    SwapStages(usize),
    Comment(u8),
    /// To the project of an earlier build.
    Back(usize),
}

fn text() -> impl Strategy<Value = String> {
    "[ab]{0,3}"
}

fn mode() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0o644), Just(0o600), Just(0o755)]
}

fn step() -> impl Strategy<Value = Step> {
    let (file, path, stage, small) = (0..FILES, 0..PATHS, 0..4_usize, 0..3_u8);
    prop_oneof![
        (file.clone(), path.clone()).prop_map(|(file, to)| Step::CopyFile { file, to }),
        (0..2_usize).prop_map(|to| Step::CopyDirectory { to }),
        (stage.clone(), path.clone(), path.clone()).prop_map(|(stage, from, to)| Step::CopyFrom { stage, from, to }),
        (small.clone(), path.clone()).prop_map(|(text, to)| Step::Write { text, to }),
        (path.clone(), 1..PATHS).prop_map(|(from, by)| Step::First { from, to: (from + by) % PATHS }),
        (0..2_usize, path.clone()).prop_map(|(directory, to)| Step::Count { directory, to }),
        path.clone().prop_map(|to| Step::Variables { to }),
        (file, path.clone()).prop_map(|(file, to)| Step::Mounted { file, to }),
        (stage, path.clone(), path).prop_map(|(stage, from, to)| Step::MountedFrom { stage, from, to }),
        small.clone().prop_map(Step::Argument),
        small.clone().prop_map(Step::Environment),
        small.clone().prop_map(Step::Label),
        small.prop_map(Step::Workdir),
    ]
}

fn base() -> impl Strategy<Value = Base> {
    prop_oneof![3 => Just(Base::Busybox), 1 => Just(Base::Scratch), 3 => (0..4_usize).prop_map(Base::Stage)]
}

/// Any project.
pub fn project() -> impl Strategy<Value = Project> {
    let stage = (base(), vec(step(), 1..6)).prop_map(|(base, steps)| Stage { base, steps });
    let context = (vec((text(), mode()), FILES), btree_map(0..3_usize, text(), 0..3));
    (context, prop::option::of(0..3_u8), vec(stage, 1..5)).prop_map(|((files, directory), argument, stages)| Project {
        files,
        directory,
        argument,
        stages,
        letter: 's',
        comment: 0,
    })
}

/// Any edit.
pub fn edit() -> impl Strategy<Value = Edit> {
    let at = || (0..4_usize, 0..6_usize);
    prop_oneof![
        3 => (0..FILES, text()).prop_map(|(file, text)| Edit::Write { file, text }),
        1 => (0..FILES, mode()).prop_map(|(file, mode)| Edit::Mode { file, mode }),
        1 => (0..FILES).prop_map(|file| Edit::Touch { file }),
        2 => (0..3_usize, text()).prop_map(|(name, text)| Edit::WriteBelow { name, text }),
        1 => (0..3_usize).prop_map(|name| Edit::RemoveBelow { name }),
        1 => prop::option::of(0..3_u8).prop_map(Edit::Argument),
        3 => (at(), step()).prop_map(|((stage, at), step)| Edit::Replace { stage, at, step }),
        2 => (at(), step()).prop_map(|((stage, at), step)| Edit::Insert { stage, at, step }),
        1 => at().prop_map(|(stage, at)| Edit::Remove { stage, at }),
        1 => at().prop_map(|(stage, at)| Edit::Swap { stage, at }),
        1 => (0..4_usize, base()).prop_map(|(stage, base)| Edit::Base { stage, base }),
        1 => prop_oneof![Just('s'), Just('t')].prop_map(Edit::Rename),
        1 => (0..4_usize).prop_map(Edit::SwapStages),
        1 => (0..9_u8).prop_map(Edit::Comment),
        1 => (0..8_usize).prop_map(Edit::Back),
    ]
}

impl Project {
    /// The project after an edit; `earlier` are those that were built before.
    pub fn edited(&self, edit: &Edit, earlier: &[Project]) -> Self {
        let mut project = self.clone();
        match edit {
            Edit::Write { file, text } => project.files[*file].0.clone_from(text),
            Edit::Mode { file, mode } => project.files[*file].1 = *mode,
            Edit::Touch { .. } => {}
            Edit::WriteBelow { name, text } => drop(project.directory.insert(*name, text.clone())),
            Edit::RemoveBelow { name } => drop(project.directory.remove(name)),
            Edit::Argument(value) => project.argument = *value,
            Edit::Rename(letter) => project.letter = *letter,
            Edit::Comment(comment) => project.comment = *comment,
            Edit::Back(number) => return earlier[number % earlier.len()].clone(),
            Edit::SwapStages(stage) => {
                let count = project.stages.len();
                project.stages.swap(stage % count, (stage + 1) % count);
            }
            Edit::Base { stage, base } => {
                let stage = stage % project.stages.len();
                project.stages[stage].base = *base;
            }
            Edit::Replace { stage, at, .. }
            | Edit::Insert { stage, at, .. }
            | Edit::Remove { stage, at }
            | Edit::Swap { stage, at } => {
                let stage = stage % project.stages.len();
                edit_steps(&mut project.stages[stage].steps, *at, edit);
            }
        }
        project
    }
}

fn edit_steps(steps: &mut Vec<Step>, at: usize, edit: &Edit) {
    let count = steps.len();
    match edit {
        Edit::Replace { step, .. } if count > 0 => steps[at % count] = *step,
        Edit::Insert { step, .. } => steps.insert(at % (count + 1), *step),
        Edit::Remove { .. } if count > 0 => drop(steps.remove(at % count)),
        Edit::Swap { .. } if count > 1 => steps.swap(at % count, (at + 1) % count),
        _ => {}
    }
}
