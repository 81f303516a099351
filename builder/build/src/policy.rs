//! Source policies as BuildKit reads them (`--source-policy-file`): what a build may use, and what it uses instead.
//!
//! Rules are tried in their order. `ALLOW` and `DENY` decide, the last one that matches; `CONVERT` replaces the source
//! and begins again with the first rule.

use std::collections::BTreeMap;

use kiln_image::Reference;
use serde::Deserialize;

use crate::remote::{Fetch, Location, Remote};

/// Sources that are replaced more often than this are replaced in a circle.
const MOST_CONVERSIONS: usize = 50;
/// What an image is called in a policy: this, and its full reference.
const IMAGE: &str = "docker-image://";
/// Likewise a git repository: this, its address without a scheme, and `#` with what is wanted of it.
const GIT: &str = "git://";
/// The checksum that a rule gives to what is fetched.
const CHECKSUM: &str = "http.checksum";

/// The rules of a build; by default there are none.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Policy {
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, Deserialize)]
struct Rule {
    #[serde(default)]
    action: Action,
    selector: Selector,
    #[serde(default)]
    updates: Option<Updates>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Action {
    #[default]
    Allow,
    Deny,
    Convert,
}

/// What a rule is about. Constraints and regular expressions are refused: a rule that is half understood allows what it
/// should not.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selector {
    identifier: String,
    #[serde(default, alias = "match_type")]
    match_type: MatchType,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum MatchType {
    /// `*` is any text and `?` any character.
    #[default]
    Wildcard,
    Exact,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Updates {
    #[serde(default)]
    identifier: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

/// What is used.
#[derive(Debug, PartialEq, Eq)]
struct Decision {
    identifier: String,
    attrs: BTreeMap<String, String>,
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// It is no such JSON, or asks for what is not supported.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let policy: Self = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        for rule in &policy.rules {
            let attrs = rule.updates.iter().flat_map(|updates| updates.attrs.keys());
            if let Some(unknown) = attrs.into_iter().find(|name| *name != CHECKSUM) {
                return Err(format!("the attribute {unknown:?} is not supported; {CHECKSUM} is"));
            }
        }
        Ok(policy)
    }

    /// The image that is used for one that was named.
    ///
    /// # Errors
    /// It is denied, or its replacement is no image.
    pub(crate) fn image(&self, reference: &Reference) -> Result<Reference, String> {
        if self.rules.is_empty() {
            return Ok(reference.clone());
        }
        let decision = self.decide(&format!("{IMAGE}{reference}"))?;
        let Some(text) = decision.identifier.strip_prefix(IMAGE) else {
            return Err(format!("the source policy puts {} in the place of an image", decision.identifier));
        };
        Reference::parse(text).map_err(|error| format!("the source policy: {error}"))
    }

    /// What is fetched for what was named.
    ///
    /// # Errors
    /// It is denied, or its replacement cannot be fetched.
    pub(crate) fn fetch(&self, mut fetch: Fetch) -> Result<Fetch, String> {
        if self.rules.is_empty() {
            return Ok(fetch);
        }
        let identifier = match &fetch.source {
            Remote::Http(url) => url.clone(),
            Remote::Git(git) => {
                let address = git.url.split_once("://").map_or(git.url.as_str(), |(_, rest)| rest);
                let wanted = git.reference.as_deref().map(|reference| format!("#{reference}")).unwrap_or_default();
                format!("{GIT}{address}{wanted}")
            }
        };
        let decision = self.decide(&identifier)?;
        if decision.identifier != identifier {
            let location = Location::parse_remote(&decision.identifier);
            fetch.source = match location.map_err(|reason| format!("the source policy: {reason}"))? {
                Some(Location::Http(url)) => Remote::Http(url),
                Some(Location::Git(git)) => Remote::Git(git),
                _ => return Err(format!("the source policy puts {} in the place of a URL", decision.identifier)),
            };
        }
        if let Some(checksum) = decision.attrs.get(CHECKSUM) {
            fetch.checksum = Some(checksum.clone());
        }
        Ok(fetch)
    }

    fn decide(&self, identifier: &str) -> Result<Decision, String> {
        let mut decision = Decision { identifier: identifier.to_owned(), attrs: BTreeMap::new() };
        for _ in 0..MOST_CONVERSIONS {
            let before = decision.identifier.clone();
            if self.pass(&mut decision) {
                return Err(format!("the source policy denies {}", decision.identifier));
            }
            if decision.identifier == before {
                return Ok(decision);
            }
        }
        Err(format!("the source policy replaces {identifier} in a circle"))
    }

    /// Tries every rule until one replaces the source; tells whether the source is denied.
    fn pass(&self, decision: &mut Decision) -> bool {
        let mut denied = false;
        for rule in &self.rules {
            let Some(parts) = rule.selector.matches(&decision.identifier) else { continue };
            match (rule.action, &rule.updates) {
                (Action::Allow, _) => denied = false,
                (Action::Deny, _) => denied = true,
                (Action::Convert, Some(updates)) => {
                    decision.attrs.extend(updates.attrs.clone());
                    let next = fill(&updates.identifier, &parts);
                    if !next.is_empty() && next != decision.identifier {
                        decision.identifier = next;
                        return false;
                    }
                }
                (Action::Convert, None) => {}
            }
        }
        denied
    }
}

impl Selector {
    /// What its wildcards stand for, when it matches.
    fn matches<'a>(&self, text: &'a str) -> Option<Vec<&'a str>> {
        match self.match_type {
            MatchType::Exact => (self.identifier == text).then(Vec::new),
            MatchType::Wildcard => wildcard(&self.identifier, text),
        }
    }
}

/// Matches from the last `*` that can still take more: never more steps than the lengths multiplied.
fn wildcard<'a>(pattern: &str, text: &'a str) -> Option<Vec<&'a str>> {
    let pattern: Vec<char> = pattern.chars().collect();
    let offsets: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let characters: Vec<char> = text.chars().collect();
    let mut parts: Vec<(usize, usize)> = Vec::new();
    // Where the last `*` stands, what it begins with, and how many parts there were before it.
    let mut last: Option<(usize, usize, usize)> = None;
    let (mut at, mut position) = (0, 0);
    loop {
        match pattern.get(at) {
            Some('*') => {
                last = Some((at, position, parts.len()));
                parts.push((position, position));
                at += 1;
                continue;
            }
            Some('?') if position < characters.len() => {
                parts.push((position, position + 1));
                (at, position) = (at + 1, position + 1);
                continue;
            }
            Some(character) if characters.get(position) == Some(character) => {
                (at, position) = (at + 1, position + 1);
                continue;
            }
            None if position == characters.len() => {
                return Some(parts.iter().map(|(start, end)| &text[offsets[*start]..offsets[*end]]).collect());
            }
            _ => {}
        }
        // The last `*` takes one character more.
        let (star, start, count) = last?;
        let end = parts[count].1 + 1;
        if end > characters.len() {
            return None;
        }
        parts.truncate(count);
        parts.push((start, end));
        (at, position) = (star + 1, end);
    }
}

/// `${1}` is what the first wildcard stood for.
fn fill(template: &str, parts: &[&str]) -> String {
    let mut filled = template.to_owned();
    for (number, part) in parts.iter().enumerate().rev() {
        filled = filled.replace(&format!("${{{}}}", number + 1), part);
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Policy {
        Policy::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn wildcards_match_and_tell_what_they_took() {
        for (pattern, text, expected) in [
            ("a*c", "abbc", Some(&["bb"][..])),
            ("*", "", Some(&[""])),
            ("a?c", "abc", Some(&["b"])),
            ("*/lib/*:1", "x/lib/é:1", Some(&["x", "é"])),
            ("*b", "bab", Some(&["ba"])),
            ("abc", "abc", Some(&[])),
            ("abc", "abcd", None),
            ("a*d", "abc", None),
            ("a?", "a", None),
        ] {
            assert_eq!(wildcard(pattern, text).as_deref(), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn rules_allow_deny_and_convert() {
        let all = policy(
            r#"{"rules": [
                {"action": "DENY", "selector": {"identifier": "docker-image://*"}},
                {"action": "ALLOW", "selector": {"identifier": "docker-image://docker.io/library/*"}},
                {"action": "CONVERT", "selector": {"identifier": "docker-image://old.example/*:*"},
                 "updates": {"identifier": "docker-image://docker.io/library/${1}:${2}-slim"}},
                {"action": "CONVERT", "selector": {"identifier": "https://a.example/f", "matchType": "EXACT"},
                 "updates": {"attrs": {"http.checksum": "sha256:00"}}}
            ]}"#,
        );
        let image = |text: &str| all.image(&Reference::parse(text).unwrap()).map(|image| image.familiar());
        assert_eq!(image("busybox").unwrap(), "busybox:latest");
        assert!(image("other.example/x").unwrap_err().contains("denies docker-image://other.example/x:latest"));
        assert_eq!(image("old.example/debian:12").unwrap(), "debian:12-slim");
        let fetch = Fetch {
            source: Remote::Http("https://a.example/f".to_owned()),
            checksum: None,
            form: crate::remote::Form::File,
        };
        assert_eq!(all.fetch(fetch).unwrap().checksum.as_deref(), Some("sha256:00"));
    }

    #[test]
    fn circles_and_what_is_not_understood_are_refused() {
        let circle = policy(
            r#"{"rules": [
                {"action": "CONVERT", "selector": {"identifier": "docker-image://docker.io/library/a:*"},
                 "updates": {"identifier": "docker-image://docker.io/library/b:${1}"}},
                {"action": "CONVERT", "selector": {"identifier": "docker-image://docker.io/library/b:*"},
                 "updates": {"identifier": "docker-image://docker.io/library/a:${1}"}}
            ]}"#,
        );
        assert!(circle.image(&Reference::parse("a").unwrap()).unwrap_err().contains("circle"));
        for wrong in [
            "{",
            r#"{"rules": [{"action": "FORBID", "selector": {"identifier": "x"}}]}"#,
            r#"{"rules": [{"action": "DENY", "selector": {"identifier": "x", "matchType": "REGEX"}}]}"#,
            r#"{"rules": [{"action": "DENY", "selector": {"identifier": "x", "constraints": []}}]}"#,
            r#"{"rules": [{"action": "CONVERT", "selector": {"identifier": "x"}, "updates": {"attrs": {"a": "b"}}}]}"#,
        ] {
            assert!(Policy::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
