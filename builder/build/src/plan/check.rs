//! The checks that need values, base images or the ignore file; those of the text alone are in the grammar.

mod base;
mod scope;

use kiln_grammar::ast::{Dockerfile, Instruction, InstructionKind, Transfer, TransferSource, Word};
use kiln_grammar::diagnostic::nearest;
use kiln_grammar::expand::{Reference as Variable, expand, references, references_in_heredoc};
use kiln_grammar::ignore::IgnorePatterns;
use kiln_grammar::lint::{Check, Findings, Settings};
use kiln_grammar::{Diagnostic, Span};
use kiln_image::{ImageConfig, Reference};

use crate::{Error, Request, Result};
use base::Bases;
use scope::{Scope, Scopes};

/// Overrides the check directive.
const SETTINGS_ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";
/// Settings of the build itself, which a stage may use without declaring them.
const ALWAYS_KNOWN: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// What is known of base images without asking anybody.
pub trait KnownImages {
    /// The config of an image that is here.
    fn config(&self, reference: &Reference) -> Option<ImageConfig>;
}

/// The settings of the checks: the build argument's, else the directive's.
///
/// # Errors
/// Settings that cannot be read.
pub fn settings(dockerfile: &Dockerfile, request: &Request) -> Result<Settings> {
    let directive = dockerfile.directives.check.as_ref();
    if let Some(text) = request.build_args.get(SETTINGS_ARGUMENT) {
        let start = Span::default();
        return Settings::parse(text)
            .map_err(|reason| Error::at_with_help(start, format!("{SETTINGS_ARGUMENT}: {reason}"), HELP));
    }
    let Some(directive) = directive else { return Ok(Settings::default()) };
    Settings::parse(&directive.value).map_err(|reason| Error::at_with_help(directive.span, reason, HELP))
}

const HELP: &str = "write it as `skip=<check>,<check>;error=true`, or `skip=all`";

/// What all checks find: those of the text, and those of this build.
pub fn findings(dockerfile: &Dockerfile, request: &Request, images: &dyn KnownImages) -> Findings {
    let mut findings = kiln_grammar::lint::check(dockerfile);
    let mut checker = Checker {
        escape: dockerfile.directives.escape,
        bases: Bases::read(dockerfile, request, &mut findings),
        ignore: ignore_patterns(request).filter(|patterns| !patterns.is_empty() && !patterns.has_exceptions()),
        scopes: Scopes::default(),
        findings: &mut findings,
    };
    checker.check(dockerfile, images);
    findings
}

/// The ignore file's; a malformed one is an error of the build.
fn ignore_patterns(request: &Request) -> Option<IgnorePatterns> {
    let (_, text) = request.context.directory()?.ignore.as_ref()?;
    IgnorePatterns::parse(text).ok()
}

struct Checker<'a> {
    escape: char,
    bases: Bases,
    /// With an exception in it nobody can tell what a directory has left.
    ignore: Option<IgnorePatterns>,
    scopes: Scopes,
    findings: &'a mut Findings,
}

impl Checker<'_> {
    fn check(&mut self, dockerfile: &Dockerfile, images: &dyn KnownImages) {
        let mut stage: Option<Scope> = None;
        let mut number = 0;
        for instruction in &dockerfile.instructions {
            if let InstructionKind::From(from) = &instruction.kind {
                if let Some(done) = stage.take() {
                    self.scopes.push(done);
                }
                let base = self.bases.get(number);
                stage = Some(base.scope(from, &self.scopes, images, self.findings));
                number += 1;
            } else if let Some(scope) = &mut stage {
                self.variables(instruction, scope);
                self.instruction(&instruction.kind, scope);
            }
        }
    }

    /// UndefinedVar: one of each name is enough for an instruction.
    fn variables(&mut self, instruction: &Instruction, scope: &Scope) {
        if scope.open {
            return;
        }
        let mut told: Vec<String> = Vec::new();
        for variable in self.used(&instruction.kind) {
            let known = variable.has_default
                || ALWAYS_KNOWN.contains(&variable.name.as_str())
                || scope.has(&self.scopes, &variable.name);
            if known || told.contains(&variable.name) {
                continue;
            }
            if self.findings.is_full() {
                return;
            }
            let names = scope.names(&self.scopes);
            let finding = Diagnostic::finding(
                Check::UndefinedVar,
                format!("the variable `{}` is not set here", variable.name),
                variable.span,
            )
            .with_label("becomes empty");
            let finding = match nearest(&variable.name, &names) {
                Some(near) => finding.with_help(format!("did you mean `${near}`?")),
                None if self.bases.is_global(&variable.name) => finding.with_help(format!(
                    "an ARG before the first FROM is for FROM alone: repeat `ARG {}` in this stage",
                    variable.name
                )),
                None => {
                    finding.with_help(format!("declare it with `ARG {0}`, or set it with `ENV {0}=…`", variable.name))
                }
            };
            self.findings.push(finding);
            told.push(variable.name);
        }
    }

    fn used(&self, kind: &InstructionKind) -> Vec<Variable> {
        let mut used = Vec::new();
        let mut add = |word: &Word| used.extend(references(word, self.escape));
        match kind {
            InstructionKind::Arg(all) => all.iter().filter_map(|arg| arg.default.as_ref()).for_each(add),
            InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => pairs.iter().for_each(|pair| {
                add(&pair.key);
                add(&pair.value);
            }),
            InstructionKind::Expose(words) | InstructionKind::Volume(words) => words.iter().for_each(add),
            InstructionKind::User(word) | InstructionKind::Workdir(word) | InstructionKind::StopSignal(word) => {
                add(word);
            }
            InstructionKind::Run(run) => run.mounts.iter().chain(&run.network).chain(&run.security).for_each(add),
            InstructionKind::Copy(transfer) | InstructionKind::Add(transfer) => {
                let words = transfer.chown.iter().chain(&transfer.chmod).chain(&transfer.exclude);
                words.chain(&transfer.checksum).for_each(&mut add);
                for source in &transfer.sources {
                    if let TransferSource::Path(word) = source {
                        add(word);
                    }
                }
                add(&transfer.destination);
                used.extend(self.used_in_heredocs(transfer));
            }
            _ => {}
        }
        used
    }

    fn used_in_heredocs(&self, transfer: &Transfer) -> Vec<Variable> {
        let expanded = transfer.sources.iter().filter_map(|source| match source {
            TransferSource::Heredoc(heredoc) if heredoc.expand => Some(heredoc),
            _ => None,
        });
        expanded
            .flat_map(|heredoc| references_in_heredoc(&Word { raw: heredoc.body.clone(), span: heredoc.span }, '\\'))
            .collect()
    }

    fn instruction(&mut self, kind: &InstructionKind, scope: &mut Scope) {
        match kind {
            InstructionKind::Arg(all) => {
                for declaration in all {
                    let value = declaration.default.as_ref().map(|word| self.value(word, scope));
                    let value = value.unwrap_or_else(|| self.bases.global(&declaration.name.raw));
                    let value = self.bases.given(&declaration.name.raw).or(value);
                    if !scope.has_env(&self.scopes, &declaration.name.raw) {
                        scope.set(declaration.name.raw.clone(), value, false);
                    }
                }
            }
            InstructionKind::Env(pairs) => {
                let values: Vec<Option<String>> = pairs.iter().map(|pair| self.value(&pair.value, scope)).collect();
                for (pair, value) in pairs.iter().zip(values) {
                    scope.set(pair.key.raw.clone(), value, true);
                }
            }
            InstructionKind::Workdir(word) => self.working_directory(word, scope),
            InstructionKind::Copy(transfer) => self.ignored("COPY", transfer, scope),
            InstructionKind::Add(transfer) => self.ignored("ADD", transfer, scope),
            _ => {}
        }
    }

    /// What a word becomes, when everything in it is known.
    fn value(&self, word: &Word, scope: &Scope) -> Option<String> {
        let known = |variable: &Variable| scope.value(&self.scopes, &variable.name).is_some();
        if scope.open && !references(word, self.escape).iter().all(known) {
            return None;
        }
        expand(word, self.escape, &scope.variables(&self.scopes)).ok()
    }

    /// WorkdirRelativePath: the first of a stage stands for all that follow.
    fn working_directory(&mut self, word: &Word, scope: &mut Scope) {
        if std::mem::replace(&mut scope.has_working_directory, true) {
            return;
        }
        let relative = self.value(word, scope).is_some_and(|path| !path.starts_with('/'));
        if relative {
            self.findings.push(
                Diagnostic::finding(
                    Check::WorkdirRelativePath,
                    format!("the working directory `{}` depends on the base image's", word.raw),
                    word.span,
                )
                .with_label("expected an absolute path")
                .with_help(format!("write `WORKDIR /{}`", word.raw.trim_start_matches("./"))),
            );
        }
    }

    /// CopyIgnoredFile
    fn ignored(&mut self, keyword: &str, transfer: &Transfer, scope: &Scope) {
        let Some(ignore) = &self.ignore else { return };
        if transfer.from.is_some() {
            return;
        }
        for source in &transfer.sources {
            let TransferSource::Path(word) = source else { continue };
            let Some(text) = self.value(word, scope) else { continue };
            if text.contains("://") || text.starts_with("git@") {
                continue;
            }
            let path = in_context(&text);
            if !path.is_empty() && ignore.is_ignored(&path) {
                self.findings.push(
                    Diagnostic::finding(
                        Check::CopyIgnoredFile,
                        format!("{keyword} of `{path}`, which the ignore file leaves out of the context"),
                        word.span,
                    )
                    .with_label("is not there")
                    .with_help("take it out of the ignore file, or add an exception: a line with `!` before its path"),
                );
            }
        }
    }
}

/// A path as the ignore file's patterns know it: below the context, without empty and `.` names.
fn in_context(text: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in text.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    names.join("/")
}
