//! The checks: what is legal in a Dockerfile and better written otherwise. Names and levels are BuildKit's.
//!
//! Those that need nothing but the text are here; those that need values, base images or the context are in the
//! build's `check`.

mod casing;
mod instructions;
mod settings;
mod stages;

pub use settings::Settings;

use crate::ast::Dockerfile;
use crate::diagnostic::Diagnostic;

/// A check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each variant is the check of its name, and its row of RULES says what it is about")]
pub enum Check {
    StageNameCasing,
    FromAsCasing,
    NoEmptyContinuation,
    ConsistentInstructionCasing,
    DuplicateStageName,
    ReservedStageName,
    JSONArgsRecommended,
    MaintainerDeprecated,
    UndefinedArgInFrom,
    WorkdirRelativePath,
    UndefinedVar,
    MultipleInstructionsDisallowed,
    LegacyKeyValueFormat,
    InvalidBaseImagePlatform,
    RedundantTargetPlatform,
    SecretsUsedInArgOrEnv,
    InvalidDefaultArgInFrom,
    FromPlatformFlagConstDisallowed,
    CopyIgnoredFile,
    InvalidDefinitionDescription,
    ExposeProtoCasing,
    ExposeInvalidFormat,
}

/// When a check is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Unless it is skipped.
    Warning,
    /// Only when it is asked for.
    Experimental,
}

/// A row of the table of checks.
#[derive(Debug)]
pub struct Rule {
    /// Which.
    pub check: Check,
    /// Its name in directives, options and output.
    pub name: &'static str,
    /// When it is made.
    pub level: Level,
    /// What it says in general.
    pub description: &'static str,
}

const fn rule(check: Check, name: &'static str, description: &'static str) -> Rule {
    Rule { check, name, level: Level::Warning, description }
}

const fn experimental(check: Check, name: &'static str, description: &'static str) -> Rule {
    Rule { level: Level::Experimental, ..rule(check, name, description) }
}

/// Every check.
pub const RULES: [Rule; 22] = [
    rule(Check::StageNameCasing, "StageNameCasing", "A stage's name is written in lower case"),
    rule(Check::FromAsCasing, "FromAsCasing", "AS is written in the case of its FROM"),
    rule(Check::NoEmptyContinuation, "NoEmptyContinuation", "No empty line stands within an instruction"),
    rule(
        Check::ConsistentInstructionCasing,
        "ConsistentInstructionCasing",
        "All keywords of a file are written in the same case",
    ),
    rule(Check::DuplicateStageName, "DuplicateStageName", "No two stages have the same name"),
    rule(Check::ReservedStageName, "ReservedStageName", "A stage is not named like something that is no stage"),
    rule(
        Check::JSONArgsRecommended,
        "JSONArgsRecommended",
        "CMD and ENTRYPOINT in exec form receive signals; in shell form the shell does",
    ),
    rule(Check::MaintainerDeprecated, "MaintainerDeprecated", "An image's author is named by a label"),
    rule(Check::UndefinedArgInFrom, "UndefinedArgInFrom", "Variables of FROM are declared before the first FROM"),
    rule(
        Check::WorkdirRelativePath,
        "WorkdirRelativePath",
        "A stage's first WORKDIR is absolute, since its base image's may change",
    ),
    rule(Check::UndefinedVar, "UndefinedVar", "A variable is set before it is used"),
    rule(
        Check::MultipleInstructionsDisallowed,
        "MultipleInstructionsDisallowed",
        "Of several CMD, ENTRYPOINT or HEALTHCHECK in a stage only the last counts",
    ),
    rule(Check::LegacyKeyValueFormat, "LegacyKeyValueFormat", "Keys and values are joined by `=`"),
    rule(
        Check::InvalidBaseImagePlatform,
        "InvalidBaseImagePlatform",
        "A base image is for the platform that is built for",
    ),
    rule(
        Check::RedundantTargetPlatform,
        "RedundantTargetPlatform",
        "FROM is for the target's platform without being told",
    ),
    rule(
        Check::SecretsUsedInArgOrEnv,
        "SecretsUsedInArgOrEnv",
        "Secrets are mounted: what ARG and ENV hold can be read in the image",
    ),
    rule(
        Check::InvalidDefaultArgInFrom,
        "InvalidDefaultArgInFrom",
        "FROM names an image even when no build argument is given",
    ),
    rule(
        Check::FromPlatformFlagConstDisallowed,
        "FromPlatformFlagConstDisallowed",
        "FROM's platform is not fixed, or the stage's name tells it",
    ),
    rule(Check::CopyIgnoredFile, "CopyIgnoredFile", "What is copied is not left out by the ignore file"),
    experimental(
        Check::InvalidDefinitionDescription,
        "InvalidDefinitionDescription",
        "A comment right above an ARG or a stage begins with its name and says what it is for",
    ),
    rule(Check::ExposeProtoCasing, "ExposeProtoCasing", "EXPOSE's protocol is written in lower case"),
    rule(Check::ExposeInvalidFormat, "ExposeInvalidFormat", "EXPOSE names the container's ports and nothing else"),
];

impl Check {
    /// The check of a name; names are case-sensitive.
    pub fn named(name: &str) -> Option<Self> {
        RULES.iter().find(|rule| rule.name == name).map(|rule| rule.check)
    }

    /// Its row.
    pub fn rule(self) -> &'static Rule {
        // every check has a row, which a test holds to; the first is there whatever happens
        RULES.iter().find(|rule| rule.check == self).unwrap_or(&RULES[0])
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.rule().name
    }

    /// Where docker's documentation explains it; one has no page.
    pub fn url(self) -> String {
        if self == Self::InvalidBaseImagePlatform {
            return String::new();
        }
        let mut url = "https://docs.docker.com/go/dockerfile/rule/".to_owned();
        let mut before = None;
        let mut letters = self.name().chars().peekable();
        while let Some(letter) = letters.next() {
            let starts_word = letter.is_ascii_uppercase()
                && before.is_some_and(|before: char| {
                    before.is_ascii_lowercase() || letters.peek().is_some_and(char::is_ascii_lowercase)
                });
            if starts_word {
                url.push('-');
            }
            url.push(letter.to_ascii_lowercase());
            before = Some(letter);
        }
        url + "/"
    }
}

/// Findings of one Dockerfile, at most: whoever has more knows what to do.
const MOST_FINDINGS: usize = 5_000;

/// What was found so far.
#[derive(Debug, Default)]
pub struct Findings {
    list: Vec<Diagnostic>,
}

impl Findings {
    /// Adds one, unless there are too many.
    pub fn push(&mut self, finding: Diagnostic) {
        if self.list.len() < MOST_FINDINGS {
            self.list.push(finding);
        }
    }

    /// Whether more would be dropped.
    pub fn is_full(&self) -> bool {
        self.list.len() >= MOST_FINDINGS
    }

    /// In the order of the text, without those that the settings leave out.
    pub fn into_list(self, settings: &Settings) -> Vec<Diagnostic> {
        let mut list = self.list;
        list.retain(|finding| finding.check.is_none_or(|check| settings.counts(check)));
        list.sort_by_key(|finding| finding.span.start);
        list
    }
}

/// What the checks of the text find; which of them count is [`Settings`]' to say.
pub fn check(dockerfile: &Dockerfile) -> Findings {
    let mut findings = Findings::default();
    for warning in dockerfile.warnings.iter().filter(|warning| warning.check.is_some()) {
        findings.push(warning.clone());
    }
    casing::check(dockerfile, &mut findings);
    stages::check(dockerfile, &mut findings);
    instructions::check(dockerfile, &mut findings);
    findings
}

#[cfg(test)]
mod tests;
