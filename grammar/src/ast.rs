//! The syntax tree: what was written, nothing expanded yet.

use std::time::Duration;

use crate::diagnostic::Diagnostic;
use crate::span::{Span, Spanned};

/// A parsed Dockerfile.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    /// Parser directives at the head of the file.
    pub directives: Directives,
    /// Every instruction in order; the first that is not ARG is FROM.
    pub instructions: Vec<Instruction>,
    /// Things that are legal and doubtful (empty continuation lines, legacy forms).
    pub warnings: Vec<Diagnostic>,
}

/// `# syntax=`, `# escape=`, `# check=`.
#[derive(Debug, Clone)]
pub struct Directives {
    /// The frontend image that was asked for; kiln ignores it.
    pub syntax: Option<Spanned<String>>,
    /// The escape character: `\` or a backtick.
    pub escape: char,
    /// The text of the check directive.
    pub check: Option<Spanned<String>>,
}

/// One instruction.
#[derive(Debug, Clone)]
pub struct Instruction {
    /// From the keyword to the last byte, heredoc bodies included.
    pub span: Span,
    /// The keyword as written.
    pub keyword: Spanned<String>,
    /// The logical line: continuations joined, comments dropped, heredoc bodies not included; what history shows.
    pub text: String,
    /// The comment lines directly above, without `#`.
    pub comments: Vec<Spanned<String>>,
    /// What it says.
    pub kind: InstructionKind,
}

impl Instruction {
    /// What the comments above say that an ARG or a stage is for: the line that starts with its name.
    pub fn description(&self, name: &str) -> Option<&str> {
        self.comments.iter().find_map(|comment| {
            let rest = comment.value.strip_prefix(name)?;
            (rest.starts_with(char::is_whitespace) && !rest.trim().is_empty()).then(|| rest.trim())
        })
    }
}

/// The instructions.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "each variant is the instruction of its name")]
pub enum InstructionKind {
    From(From),
    Arg(Vec<ArgDeclaration>),
    Run(Run),
    Cmd(Command),
    Entrypoint(Command),
    Copy(Transfer),
    Add(Transfer),
    Env(Vec<Pair>),
    Label(Vec<Pair>),
    Maintainer(String),
    Expose(Vec<Word>),
    User(Word),
    Workdir(Word),
    Volume(Vec<Word>),
    StopSignal(Word),
    Shell(Vec<String>),
    HealthCheck(HealthCheck),
    OnBuild(OnBuild),
}

/// One word as written: quotes, escapes and variables still in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The text.
    pub raw: String,
    /// Its place.
    pub span: Span,
}

/// `key=value` of ENV and LABEL.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The key.
    pub key: Word,
    /// The value. In the legacy form (`ENV key the rest`) the rest of the line.
    pub value: Word,
    /// Written without `=`.
    pub legacy: bool,
}

/// One declaration of an ARG.
#[derive(Debug, Clone)]
pub struct ArgDeclaration {
    /// The name.
    pub name: Word,
    /// The default; `ARG X=` has an empty one.
    pub default: Option<Word>,
}

/// `FROM [--platform=…] image [AS name]`.
#[derive(Debug, Clone)]
pub struct From {
    /// `--platform`.
    pub platform: Option<Word>,
    /// Image, stage or `scratch`.
    pub image: Word,
    /// `AS`, as written.
    pub as_keyword: Option<Spanned<String>>,
    /// The stage's name, as written.
    pub name: Option<Spanned<String>>,
}

/// A command in shell or exec form.
#[derive(Debug, Clone)]
pub enum Command {
    /// One string for the shell.
    Shell(Spanned<String>),
    /// An argument vector.
    Exec(Vec<String>),
}

/// `RUN`.
#[derive(Debug, Clone)]
pub struct Run {
    /// `--mount=…`, each an unexpanded comma list (see [`crate::mount`]).
    pub mounts: Vec<Word>,
    /// `--network=…`.
    pub network: Option<Word>,
    /// `--security=…`.
    pub security: Option<Word>,
    /// `--device=…`.
    pub devices: Vec<Word>,
    /// The command without heredoc bodies (their markers stay in it).
    pub command: Command,
    /// Heredocs in the order of their markers.
    pub heredocs: Vec<Heredoc>,
}

/// A here-document.
#[derive(Debug, Clone)]
pub struct Heredoc {
    /// The delimiter without quotes: the file's name in COPY.
    pub name: String,
    /// Whether variables expand (the delimiter was not quoted).
    pub expand: bool,
    /// `<<-`: leading tabs were stripped (already done in `body`).
    pub strip_tabs: bool,
    /// The descriptor before `<<`; 0 when not given.
    pub fd: u32,
    /// The body, each line with its newline.
    pub body: String,
    /// Where the body stands.
    pub span: Span,
}

/// COPY or ADD.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// `--from` (COPY only).
    pub from: Option<Word>,
    /// `--chown`.
    pub chown: Option<Word>,
    /// `--chmod`.
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// `--parents` (COPY only).
    pub parents: bool,
    /// `--exclude`.
    pub exclude: Vec<Word>,
    /// `--checksum` (ADD only).
    pub checksum: Option<Word>,
    /// `--keep-git-dir` (ADD only).
    pub keep_git_dir: Option<bool>,
    /// `--unpack` (ADD only).
    pub unpack: Option<bool>,
    /// The sources in order; a heredoc stands as [`TransferSource::Heredoc`].
    pub sources: Vec<TransferSource>,
    /// The destination.
    pub destination: Word,
}

/// One source of a COPY or ADD.
#[derive(Debug, Clone)]
pub enum TransferSource {
    /// A path, pattern or URL.
    Path(Word),
    /// A here-document.
    Heredoc(Heredoc),
}

/// HEALTHCHECK.
#[derive(Debug, Clone)]
pub enum HealthCheck {
    /// `HEALTHCHECK NONE`.
    None,
    /// `HEALTHCHECK [options] CMD …`.
    Test {
        /// `--interval`.
        interval: Option<Duration>,
        /// `--timeout`.
        timeout: Option<Duration>,
        /// `--start-period`.
        start_period: Option<Duration>,
        /// `--start-interval`.
        start_interval: Option<Duration>,
        /// `--retries`.
        retries: Option<u32>,
        /// The command.
        command: Command,
    },
}

/// ONBUILD.
#[derive(Debug, Clone)]
pub struct OnBuild {
    /// The trigger as it is stored in the image, heredoc bodies included.
    pub text: String,
    /// The trigger, parsed.
    pub instruction: Box<Instruction>,
}
