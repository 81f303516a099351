//! `# check=skip=A,B;error=true;experimental=C`, and the build argument of the same form.

use std::collections::BTreeSet;

use super::{Check, Level, RULES};
use crate::diagnostic::nearest;

/// Which checks count, and whether what they find fails the build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    skipped: Selection,
    experimental: Selection,
    /// Findings fail the build.
    pub error: bool,
    /// Names that no check has: each with what to say about it.
    pub unknown: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Selection {
    all: bool,
    checks: BTreeSet<Check>,
}

impl Settings {
    /// Parses the text of a directive or build argument; an empty one is the default.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut settings = Self::default();
        for option in text.split(';').map(str::trim).filter(|option| !option.is_empty()) {
            let Some((key, value)) = option.split_once('=') else {
                return Err(format!(
                    "the check option {option:?} has no value; expected `skip=`, `error=` or `experimental=`"
                ));
            };
            let value = value.trim();
            match key.trim() {
                "skip" => settings.skipped = Selection::parse(value, &mut settings.unknown),
                "experimental" => settings.experimental = Selection::parse(value, &mut settings.unknown),
                "error" => settings.error = boolean(value)?,
                key => {
                    let help = nearest(key, &["skip", "error", "experimental"]);
                    let help = help.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
                    return Err(format!("unknown check option {key:?}{help}"));
                }
            }
        }
        Ok(settings)
    }

    /// Whether what the check finds is shown.
    pub fn counts(&self, check: Check) -> bool {
        let asked = check.rule().level == Level::Warning || self.experimental.has(check);
        asked && !self.skipped.has(check)
    }
}

impl Selection {
    fn parse(text: &str, unknown: &mut Vec<String>) -> Self {
        if text == "all" {
            return Self { all: true, checks: BTreeSet::new() };
        }
        let mut checks = BTreeSet::new();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match Check::named(name) {
                Some(check) => {
                    checks.insert(check);
                }
                None => {
                    let names: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
                    let help = nearest(name, &names).map_or_else(String::new, |near| format!("; did you mean {near}?"));
                    unknown.push(format!("no check is called {name:?}{help}"));
                }
            }
        }
        Self { all: false, checks }
    }

    fn has(&self, check: Check) -> bool {
        self.all || self.checks.contains(&check)
    }
}

fn boolean(value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("the check option error is true or false, not {value:?}")),
    }
}
