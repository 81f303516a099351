//! What a build of a project would do: by the rules of the cache as people are told them, with nothing of kiln's code.
//! A step is found when its instruction, what it lies on and what it reads are what they were once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::project::{Base, Project, Step};

/// The files of an image that steps made: text and mode.
type Files = BTreeMap<String, (String, u32)>;

/// A stage's name, empty for the only one, and which of its steps.
pub type Place = (String, usize);

/// A project as kiln should see it.
pub struct Model {
    pub dockerfile: String,
    /// What the target needs, and what it is found by.
    pub needed: BTreeMap<Place, u64>,
}

/// A stage while and after its instructions are worked through.
#[derive(Debug, Clone, Default)]
struct State {
    files: Files,
    directories: BTreeSet<String>,
    /// Stands for the stack of layers.
    chain: u64,
    environment: Option<u8>,
    argument: Option<u8>,
    directory: String,
    has_shell: bool,
    /// Its own vertices and their keys.
    vertices: Vec<(Place, u64)>,
    /// Stages whose results it needs.
    inputs: BTreeSet<usize>,
}

/// An instruction that makes a layer.
struct Change {
    text: String,
    key: u64,
    files: Files,
    directories: BTreeSet<String>,
}

fn hash(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

impl Model {
    pub fn of(project: &Project) -> Self {
        let mut dockerfile = format!("# {}\n", project.comment);
        let mut states: Vec<State> = Vec::new();
        for (number, stage) in project.stages.iter().enumerate() {
            let (base, mut state) = begin(project, stage.base, number, &states);
            let name = format!("{}{number}", project.letter);
            writeln!(dockerfile, "FROM {base} AS {name}").expect("written");
            let mut changes = Vec::new();
            for step in &stage.steps {
                match state.take(*step, project, &states) {
                    Taken::Change(change) => {
                        writeln!(dockerfile, "{}", change.text).expect("written");
                        state.chain = hash((state.chain, &change.files, &change.directories));
                        state.files.extend(change.files);
                        state.directories.extend(change.directories);
                        changes.push(change.key);
                    }
                    Taken::Setting(text) => writeln!(dockerfile, "{text}").expect("written"),
                    Taken::Impossible => {}
                }
            }
            let own = if project.stages.len() == 1 { String::new() } else { name };
            state.vertices = changes.into_iter().enumerate().map(|(at, key)| ((own.clone(), at), key)).collect();
            states.push(state);
        }
        Self { dockerfile, needed: needed(&states) }
    }
}

fn needed(states: &[State]) -> BTreeMap<Place, u64> {
    let mut stages = BTreeSet::new();
    let mut open = vec![states.len() - 1];
    while let Some(stage) = open.pop() {
        if stages.insert(stage) {
            open.extend(&states[stage].inputs);
        }
    }
    stages.into_iter().flat_map(|stage| states[stage].vertices.iter().cloned()).collect()
}

fn begin(project: &Project, base: Base, number: usize, states: &[State]) -> (String, State) {
    match base {
        Base::Stage(stage) if number > 0 => {
            let stage = stage % number;
            let state = State { inputs: BTreeSet::from([stage]), vertices: Vec::new(), ..states[stage].clone() };
            (format!("{}{stage}", project.letter), state)
        }
        Base::Scratch => ("scratch".to_owned(), State::default()),
        Base::Busybox | Base::Stage(_) => {
            let chain = hash("busybox");
            ("busybox".to_owned(), State { chain, has_shell: true, ..State::default() })
        }
    }
}

enum Taken {
    Change(Change),
    Setting(String),
    Impossible,
}

impl State {
    fn take(&mut self, step: Step, project: &Project, states: &[State]) -> Taken {
        let other = |stage: usize| (!states.is_empty()).then(|| stage % states.len());
        match step {
            Step::Argument(value) => {
                self.argument = Some(project.argument.unwrap_or(value));
                Taken::Setting(format!("ARG V={value}"))
            }
            Step::Environment(value) => {
                self.environment = Some(value);
                Taken::Setting(format!("ENV E={value}"))
            }
            Step::Label(value) => Taken::Setting(format!("LABEL l={value}")),
            Step::Workdir(number) => {
                self.directory = format!("/w{number}");
                let text = format!("WORKDIR {}", self.directory);
                let key = hash(("workdir", self.chain, &self.directory));
                let new = Some(self.directory.clone()).filter(|path| !self.directories.contains(path));
                self.change(text, key, Files::new(), new.into_iter().collect())
            }
            Step::CopyFile { file, to } => {
                let (text, mode) = &project.files[file];
                let line = format!("COPY c{file} /p{to}");
                self.copy(line, to, &format!("c{file}"), (text.clone(), *mode))
            }
            Step::CopyFrom { stage, from, to } => {
                let Some(stage) = other(stage) else { return Taken::Impossible };
                let Some(file) = states[stage].files.get(&format!("/p{from}")) else { return Taken::Impossible };
                self.inputs.insert(stage);
                let line = format!("COPY --from={}{stage} /p{from} /p{to}", project.letter);
                self.copy(line, to, &format!("p{from}"), file.clone())
            }
            Step::CopyDirectory { to } => {
                let file = |(name, text): (&usize, &String)| (format!("/t{to}/f{name}"), (text.clone(), 0o644));
                let mut files: Files = project.directory.iter().map(file).collect();
                files.insert(format!("/t{to}/keep"), (String::new(), 0o644));
                let key = hash(("copy", self.chain, to, &files));
                self.change(format!("COPY d /t{to}/"), key, files, BTreeSet::from([format!("/t{to}")]))
            }
            _ => self.run(step, project, states),
        }
    }

    /// Found by its name, too: another file of the same text is another step.
    fn copy(&self, line: String, to: usize, name: &str, file: (String, u32)) -> Taken {
        let key = hash(("copy", self.chain, to, name, &file));
        self.change(line, key, Files::from([(format!("/p{to}"), file)]), BTreeSet::new())
    }

    fn run(&mut self, step: Step, project: &Project, states: &[State]) -> Taken {
        if !self.has_shell {
            return Taken::Impossible;
        }
        let read = |path: usize| self.files.get(&format!("/p{path}")).map_or("", |(text, _)| text.as_str());
        let mut mounted = None;
        let mut mount = String::new();
        let (command, to, text) = match step {
            Step::Write { text, to } => (format!("echo {text} > /p{to}"), to, format!("{text}\n")),
            Step::First { from, to } => {
                let command = format!("cat /p{from} 2>/dev/null | head -c 1 > /p{to}");
                (command, to, read(from).chars().take(1).collect())
            }
            Step::Count { directory, to } => {
                let inside = format!("/t{directory}/");
                let below = self.files.iter().filter(|(path, _)| path.starts_with(&inside));
                let count: usize = below.map(|(_, (text, _))| text.len()).sum();
                (format!("cat /t{directory}/* 2>/dev/null | wc -c > /p{to}"), to, format!("{count}\n"))
            }
            Step::Variables { to } => {
                let words: Vec<String> = self.argument.iter().chain(&self.environment).map(u8::to_string).collect();
                (format!("echo $V $E > /p{to}"), to, format!("{}\n", words.join(" ")))
            }
            Step::Mounted { file, to } => {
                mount = format!("--mount=type=bind,source=c{file},target=/m ");
                mounted = Some(project.files[file].clone());
                (format!("cat /m > /p{to}"), to, project.files[file].0.clone())
            }
            Step::MountedFrom { stage, from, to } => {
                if states.is_empty() {
                    return Taken::Impossible;
                }
                let stage = stage % states.len();
                let Some(file) = states[stage].files.get(&format!("/p{from}")) else { return Taken::Impossible };
                mount = format!("--mount=type=bind,from={}{stage},source=/p{from},target=/m ", project.letter);
                mounted = Some(file.clone());
                self.inputs.insert(stage);
                (format!("cat /m | wc -c > /p{to}"), to, format!("{}\n", file.0.len()))
            }
            _ => return Taken::Impossible,
        };
        let key = hash(("run", self.chain, &command, self.argument, self.environment, &self.directory, &mounted));
        let path = format!("/p{to}");
        // What is written to keeps its mode.
        let mode = self.files.get(&path).map_or(0o644, |(_, mode)| *mode);
        self.change(format!("RUN {mount}{command}"), key, Files::from([(path, (text, mode))]), BTreeSet::new())
    }

    #[allow(clippy::unused_self, reason = "a change of this state")]
    fn change(&self, text: String, key: u64, files: Files, directories: BTreeSet<String>) -> Taken {
        Taken::Change(Change { text, key, files, directories })
    }
}
