//! FROM: what it goes on from, and the checks of its image and its platform.

use std::collections::HashMap;

use kiln_grammar::Diagnostic;
use kiln_grammar::ast::{ArgDeclaration, Dockerfile, From, InstructionKind, Word};
use kiln_grammar::diagnostic::nearest;
use kiln_grammar::expand::{Variables, expand, references};
use kiln_grammar::lint::{Check, Findings};
use kiln_image::{Platform, Reference};

use super::KnownImages;
use super::scope::{Scope, Scopes};
use crate::Request;
use crate::plan::variables::GlobalScope;

/// The bases of all stages, and the variables before the first.
pub(super) struct Bases {
    bases: Vec<Base>,
    globals: GlobalScope,
    given: HashMap<String, String>,
    platform: Platform,
}

/// What one FROM means.
enum Base {
    Scratch,
    Stage(usize),
    Image(Box<Reference>, Option<Platform>),
    Unknown,
}

/// A base with what is around it.
pub(super) struct BaseOf<'a> {
    base: &'a Base,
    platform: &'a Platform,
}

impl Bases {
    /// Reads every FROM.
    pub(super) fn read(dockerfile: &Dockerfile, request: &Request, findings: &mut Findings) -> Self {
        let escape = dockerfile.directives.escape;
        let given: HashMap<String, String> =
            request.build_args.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let automatic = GlobalScope::platform(request, &request.platform, "default");
        let declared = || {
            let before = dockerfile.instructions.iter().map_while(|instruction| match &instruction.kind {
                InstructionKind::Arg(declarations) => Some(declarations),
                _ => None,
            });
            before.flatten()
        };
        let defaults = declare(automatic.clone(), declared(), escape, &HashMap::new());
        let globals = declare(automatic, declared(), escape, &given);
        let mut reader = Reader { escape, globals: &globals, defaults: &defaults, names: HashMap::new(), findings };
        let stages = dockerfile.instructions.iter().filter_map(|instruction| match &instruction.kind {
            InstructionKind::From(from) => Some(from),
            _ => None,
        });
        let bases = stages.enumerate().map(|(number, from)| reader.read(number, from)).collect();
        Self { bases, globals, given, platform: request.platform.clone() }
    }

    pub(super) fn get(&self, stage: usize) -> BaseOf<'_> {
        BaseOf { base: self.bases.get(stage).unwrap_or(&Base::Unknown), platform: &self.platform }
    }

    pub(super) fn is_global(&self, name: &str) -> bool {
        self.globals.0.contains_key(name)
    }

    pub(super) fn global(&self, name: &str) -> Option<String> {
        self.globals.get(name)
    }

    /// `--build-arg`
    pub(super) fn given(&self, name: &str) -> Option<String> {
        self.given.get(name).cloned()
    }
}

fn declare<'d>(
    mut scope: GlobalScope,
    declarations: impl Iterator<Item = &'d ArgDeclaration>,
    escape: char,
    given: &HashMap<String, String>,
) -> GlobalScope {
    for ArgDeclaration { name, default } in declarations {
        let default = match default {
            Some(word) => expand(word, escape, &scope).ok(),
            None => scope.get(&name.raw),
        };
        scope.0.insert(name.raw.clone(), given.get(&name.raw).cloned().or(default));
    }
    scope
}

struct Reader<'a> {
    escape: char,
    globals: &'a GlobalScope,
    defaults: &'a GlobalScope,
    /// The last stage of each name so far.
    names: HashMap<String, usize>,
    findings: &'a mut Findings,
}

impl Reader<'_> {
    fn read(&mut self, number: usize, from: &From) -> Base {
        self.undeclared(&from.image);
        self.default_image(&from.image);
        let platform = from.platform.as_ref().and_then(|word| self.platform(word, from));
        let base = self.base(from, platform);
        if let Some(name) = &from.name {
            self.names.insert(name.value.to_lowercase(), number);
        }
        base
    }

    fn base(&self, from: &From, platform: Option<Platform>) -> Base {
        let Ok(name) = expand(&from.image, self.escape, self.globals) else { return Base::Unknown };
        if let Some(stage) = self.names.get(&name.to_lowercase()) {
            return Base::Stage(*stage);
        }
        match Reference::parse(&name) {
            _ if name == "scratch" => Base::Scratch,
            Ok(reference) => Base::Image(Box::new(reference), platform),
            Err(_) => Base::Unknown,
        }
    }

    /// UndefinedArgInFrom
    fn undeclared(&mut self, word: &Word) {
        for variable in references(word, self.escape) {
            if variable.has_default || self.globals.0.contains_key(&variable.name) {
                continue;
            }
            if self.findings.is_full() {
                return;
            }
            let names: Vec<&str> = self.globals.0.keys().take(1_000).map(String::as_str).collect();
            let finding = Diagnostic::finding(
                Check::UndefinedArgInFrom,
                format!("FROM uses `{}`, which no ARG before the first FROM declares", variable.name),
                variable.span,
            )
            .with_label("becomes empty");
            self.findings.push(match nearest(&variable.name, &names) {
                Some(near) => finding.with_help(format!("did you mean `${near}`?")),
                None => finding.with_help(format!("write `ARG {}=<default>` before the first FROM", variable.name)),
            });
        }
    }

    /// InvalidDefaultArgInFrom
    fn default_image(&mut self, word: &Word) {
        if references(word, self.escape).is_empty() {
            return;
        }
        let Ok(name) = expand(word, self.escape, self.defaults) else { return };
        let is_stage = self.names.contains_key(&name.to_lowercase());
        if !is_stage && name != "scratch" && Reference::parse(&name).is_err() {
            self.findings.push(
                Diagnostic::finding(
                    Check::InvalidDefaultArgInFrom,
                    format!("without build arguments `{}` becomes `{name}`, which names no image", word.raw),
                    word.span,
                )
                .with_label("has no valid default")
                .with_help("give its ARG a default that names an image"),
            );
        }
    }

    /// RedundantTargetPlatform and FromPlatformFlagConstDisallowed
    fn platform(&mut self, word: &Word, from: &From) -> Option<Platform> {
        self.undeclared(word);
        let platform = expand(word, self.escape, self.globals).ok().and_then(|text| Platform::parse(&text).ok());
        let variables = references(word, self.escape);
        match variables.as_slice() {
            [] => self.constant(word, from, platform.as_ref()),
            [only] if only.name == "TARGETPLATFORM" && only.span == word.span => self.findings.push(
                Diagnostic::finding(
                    Check::RedundantTargetPlatform,
                    format!("`{}` is what FROM takes anyway", word.raw),
                    word.span,
                )
                .with_label("redundant")
                .with_help("remove the flag"),
            ),
            _ => {}
        }
        platform
    }

    fn constant(&mut self, word: &Word, from: &From, platform: Option<&Platform>) {
        let Some(platform) = platform else { return };
        let name = from.name.as_ref().map(|name| name.value.to_lowercase()).unwrap_or_default();
        if name.contains(&platform.os) || name.contains(&platform.architecture) {
            return;
        }
        self.findings.push(
            Diagnostic::finding(
                Check::FromPlatformFlagConstDisallowed,
                format!("the platform `{}` is fixed", word.raw),
                word.span,
            )
            .with_label("this stage is built for no other platform")
            .with_help("use `$BUILDPLATFORM`, remove the flag, or say the platform in the stage's name"),
        );
    }
}

impl BaseOf<'_> {
    /// The variables that the stage begins with.
    pub(super) fn scope(
        &self,
        from: &From,
        scopes: &Scopes,
        images: &dyn KnownImages,
        findings: &mut Findings,
    ) -> Scope {
        let mut scope = match self.base {
            Base::Stage(stage) => return scopes.inherit(*stage),
            Base::Scratch => Scope::default(),
            Base::Unknown => Scope::open(),
            Base::Image(reference, platform) => match images.config(reference) {
                None => Scope::open(),
                Some(config) => {
                    let wanted = platform.as_ref().unwrap_or(self.platform);
                    wrong_platform(from, wanted, &config.platform(), findings);
                    let mut scope = Scope::default();
                    // its triggers may set anything
                    scope.open = config.config.on_build.as_ref().is_some_and(|triggers| !triggers.is_empty());
                    for line in config.config.env.iter().flatten() {
                        let (name, value) = line.split_once('=').unwrap_or((line, ""));
                        scope.set(name.to_owned(), Some(value.to_owned()), true);
                    }
                    scope
                }
            },
        };
        if !scope.has(scopes, "PATH") {
            scope.set("PATH".to_owned(), None, true);
        }
        scope
    }
}

/// InvalidBaseImagePlatform
fn wrong_platform(from: &From, wanted: &Platform, actual: &Platform, findings: &mut Findings) {
    if (&wanted.os, &wanted.architecture) == (&actual.os, &actual.architecture) {
        return;
    }
    findings.push(
        Diagnostic::finding(
            Check::InvalidBaseImagePlatform,
            format!("the base image is for {actual}, and the build for {wanted}"),
            from.image.span,
        )
        .with_label(format!("for {actual}"))
        .with_help(format!("build with `--platform {actual}`, or take an image that is made for {wanted}")),
    );
}
