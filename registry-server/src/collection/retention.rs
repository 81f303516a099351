//! Which tags the rules remove: a pure function of a repository's tags.

use super::rules::Collection;
use crate::period::Period;

/// A tag as the rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PushedTag {
    pub(crate) name: String,
    /// Seconds since 1970.
    pub(crate) pushed_at: i64,
    /// When it was pushed, or what it means was last pulled; seconds since 1970.
    pub(crate) used_at: i64,
}

/// The tags of a repository that the rules remove at `now`.
pub(super) fn expired<'a>(rules: &Collection, repository: &str, tags: &'a [PushedTag], now: i64) -> Vec<&'a PushedTag> {
    let mut expired = Vec::new();
    let mut undecided: Vec<&PushedTag> = tags.iter().filter(|tag| !rules.is_protected(repository, &tag.name)).collect();
    for rule in &rules.retention {
        let (mut matched, rest): (Vec<_>, Vec<_>) =
            undecided.into_iter().partition(|tag| rule.scope.matches(repository, &tag.name));
        undecided = rest;
        // The newest first; of two pushed in the same second, the one whose name comes last.
        matched.sort_by(|one, other| (other.pushed_at, &other.name).cmp(&(one.pushed_at, &one.name)));
        let mut used: Vec<_> = matched.iter().map(|tag| (tag.used_at, tag.name.as_str())).collect();
        used.sort_by(|one, other| other.cmp(one));
        used.truncate(rule.keep_pulled_last.unwrap_or(0));
        let is_kept = |tag: &PushedTag| {
            let within = |period: Option<Period>, at: i64| period.is_some_and(|period| now - at <= period.as_seconds());
            within(rule.keep_for, tag.pushed_at)
                || within(rule.keep_pulled_for, tag.used_at)
                || used.iter().any(|(_, name)| *name == tag.name)
        };
        expired.extend(matched.into_iter().skip(rule.keep_last.unwrap_or(0)).filter(|tag| !is_kept(tag)));
    }
    expired
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 60 * 60;

    fn removed(rules: &str, repository: &str, tags: &[(&str, i64)]) -> Vec<String> {
        let rules: Collection = serde_json::from_str(rules).unwrap();
        let now = 1_000 * DAY;
        let tags: Vec<PushedTag> = tags
            .iter()
            .map(|(name, days)| {
                // Some were pulled, half as long ago.
                let pulled = if days % 20 == 0 { days / 2 } else { *days };
                PushedTag { name: (*name).to_owned(), pushed_at: now - days * DAY, used_at: now - pulled * DAY }
            })
            .collect();
        let mut names: Vec<String> =
            expired(&rules, repository, &tags, now).into_iter().map(|tag| tag.name.clone()).collect();
        names.sort();
        names
    }

    const TAGS: &[(&str, i64)] = &[("v1", 40), ("v2", 30), ("v3", 1), ("pr-1", 50), ("pr-2", 2), ("latest", 90)];

    #[test]
    fn without_rules_everything_stays() {
        assert!(removed("{}", "a", TAGS).is_empty());
    }

    #[test]
    fn the_last_and_the_young_stay() {
        let rules = r#"{"retention": [{"tags": "v*", "keep_last": 1}, {"tags": "pr-*", "keep_for": "7d"}]}"#;
        assert_eq!(removed(rules, "a", TAGS), ["pr-1", "v1", "v2"]);
        let either = r#"{"retention": [{"tags": "v*", "keep_last": 1, "keep_for": "35d"}]}"#;
        assert_eq!(removed(either, "a", TAGS), ["v1"]);
        let none = r#"{"retention": [{"tags": "v*", "keep_last": 0}]}"#;
        assert_eq!(removed(none, "a", TAGS), ["v1", "v2", "v3"]);
    }

    #[test]
    fn what_is_pulled_stays() {
        let tags = &[("a", 40), ("b", 60), ("c", 80), ("d", 41), ("e", 42), ("new", 1)];
        assert_eq!(removed(r#"{"retention": [{"keep_pulled_for": "30d"}]}"#, "a", tags), ["c", "d", "e"]);
        assert_eq!(removed(r#"{"retention": [{"keep_pulled_last": 2}]}"#, "a", tags), ["b", "c", "d", "e"]);
        let any = r#"{"retention": [{"keep_last": 1, "keep_for": "41d", "keep_pulled_last": 3}]}"#;
        assert_eq!(removed(any, "a", tags), ["c", "e"]);
    }

    #[test]
    fn the_first_rule_that_matches_decides_and_protection_comes_before() {
        let rules = r#"{"retention": [{"repositories": "b", "keep_last": 0}, {"tags": "v1", "keep_for": "60d"},
            {"tags": ["v*", "latest"], "keep_for": "10d"}], "protected": [{"tags": "latest"}],
            "immutable": [{"repositories": "b", "tags": "v*"}]}"#;
        assert_eq!(removed(rules, "a", TAGS), ["v2"]);
        assert_eq!(removed(rules, "b", TAGS), ["pr-1", "pr-2"]);
    }

    #[test]
    fn tags_of_the_same_second_are_counted_by_name() {
        let rules = r#"{"retention": [{"keep_last": 1}]}"#;
        assert_eq!(removed(rules, "a", &[("a", 1), ("c", 1), ("b", 1)]), ["a", "b"]);
    }
}
