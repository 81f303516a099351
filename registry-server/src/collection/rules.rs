//! What is kept, and for how long.

use serde::{Deserialize, Serialize};

use crate::pattern::Patterns;
use crate::period::Period;

/// What the collector removes, and what nobody may.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Collection {
    /// How often the collector runs; nothing runs by itself when it is `0s`.
    pub interval: Period,
    /// How long a blob or manifest stays after the last time it was of use: pushed, mounted, asked for by a push, or
    /// referred to. A push whose parts come further apart than this may have to send some again.
    pub grace: Period,
    /// Uploads that nobody wrote to for so long are removed.
    pub uploads: Period,
    /// Manifests that lost their last tag to another push (or never had one) are removed after this. Without it they
    /// stay: clients may know them by digest. What was only there for a deleted tag, index or subject always goes.
    pub untagged: Option<Period>,
    /// Rules by which tags are removed. The first that matches a tag decides; tags that none matches stay.
    pub retention: Vec<Retention>,
    /// Tags that neither a client nor a rule removes. They may move.
    pub protected: Vec<TagPatterns>,
    /// Tags that, once pushed, always mean the same manifest: protected, and never moved.
    pub immutable: Vec<TagPatterns>,
}

/// Tags of which only some are kept: those that are among the newest, young enough, or pulled.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "WrittenRetention")]
pub struct Retention {
    /// Where it applies.
    #[serde(flatten)]
    pub scope: TagPatterns,
    /// So many of a repository's tags that the rule matches are kept, the most recently pushed ones.
    pub keep_last: Option<usize>,
    /// Tags that were pushed within this time are kept.
    pub keep_for: Option<Period>,
    /// So many of a repository's tags that the rule matches are kept, the most recently pulled ones. A push counts as
    /// the first pull.
    pub keep_pulled_last: Option<usize>,
    /// Tags that were pulled, or pushed, within this time are kept.
    pub keep_pulled_for: Option<Period>,
}

/// Tags of repositories.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TagPatterns {
    /// Repositories; all of them when it is not said.
    #[serde(default = "everything")]
    pub repositories: Patterns,
    /// Tags in them.
    pub tags: Patterns,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRetention {
    #[serde(default = "everything")]
    repositories: Patterns,
    #[serde(default = "everything")]
    tags: Patterns,
    keep_last: Option<usize>,
    keep_for: Option<Period>,
    keep_pulled_last: Option<usize>,
    keep_pulled_for: Option<Period>,
}

impl TryFrom<WrittenRetention> for Retention {
    type Error = &'static str;
    fn try_from(written: WrittenRetention) -> Result<Self, Self::Error> {
        let WrittenRetention { repositories, tags, keep_last, keep_for, keep_pulled_last, keep_pulled_for } = written;
        if keep_last.or(keep_pulled_last).is_none() && keep_for.or(keep_pulled_for).is_none() {
            return Err("a retention rule needs one of `keep_last`, `keep_for`, `keep_pulled_last` and \
                        `keep_pulled_for`, or it would remove every tag");
        }
        Ok(Self { scope: TagPatterns { repositories, tags }, keep_last, keep_for, keep_pulled_last, keep_pulled_for })
    }
}

fn everything() -> Patterns {
    Patterns::everything()
}

impl Default for Collection {
    fn default() -> Self {
        Self {
            interval: Period::hours(1),
            grace: Period::hours(1),
            uploads: Period::days(7),
            untagged: None,
            retention: Vec::new(),
            protected: Vec::new(),
            immutable: Vec::new(),
        }
    }
}

impl Collection {
    /// Whether the tag may not be removed.
    pub(crate) fn is_protected(&self, repository: &str, tag: &str) -> bool {
        self.protected.iter().chain(&self.immutable).any(|patterns| patterns.matches(repository, tag))
    }

    /// Whether the tag may not be moved to another manifest.
    pub(crate) fn is_immutable(&self, repository: &str, tag: &str) -> bool {
        self.immutable.iter().any(|patterns| patterns.matches(repository, tag))
    }
}

impl TagPatterns {
    pub(crate) fn matches(&self, repository: &str, tag: &str) -> bool {
        self.repositories.matches(repository) && self.tags.matches(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_checked() {
        let text = r#"{"grace": "30m", "untagged": "30d",
            "retention": [{"repositories": "ci/**", "keep_last": 10, "keep_for": "14d"}],
            "protected": [{"tags": ["latest", "stable"]}],
            "immutable": [{"repositories": "release/*", "tags": "v*"}]}"#;
        let rules: Collection = serde_json::from_str(text).unwrap();
        assert_eq!((rules.grace, rules.interval), (Period::seconds(1_800), Period::hours(1)));
        assert!(rules.is_protected("any/where", "latest") && !rules.is_immutable("any/where", "latest"));
        assert!(rules.is_protected("release/x", "v1") && rules.is_immutable("release/x", "v1"));
        assert!(!rules.is_protected("ci/x", "v1"));
        for wrong in [r#"{"retention": [{"tags": "*"}]}"#, r#"{"protected": [{}]}"#] {
            assert!(serde_json::from_str::<Collection>(wrong).is_err(), "{wrong}");
        }
    }
}
