//! Patterns of repository and tag names: `*` and `?` stay within a path component, `**` crosses components,
//! `{a,b}` and `[0-9]` choose.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Patterns of which one must match. In a configuration: a string or a list of strings.
#[derive(Debug, Clone)]
pub struct Patterns {
    /// Every name matches.
    everything: bool,
    texts: Vec<String>,
    set: GlobSet,
}

impl Patterns {
    /// Compiles them.
    ///
    /// # Errors
    /// The first one that is no pattern, and why.
    pub fn new<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Result<Self, globset::Error> {
        let texts: Vec<String> = texts.into_iter().map(Into::into).collect();
        let mut set = GlobSetBuilder::new();
        for text in &texts {
            set.add(GlobBuilder::new(text).literal_separator(true).build()?);
        }
        Ok(Self { everything: false, set: set.build()?, texts })
    }

    /// Those that match every name.
    pub fn everything() -> Self {
        Self { everything: true, set: GlobSet::empty(), texts: vec!["**".to_owned()] }
    }

    /// Whether one of them matches the whole name.
    pub fn matches(&self, name: &str) -> bool {
        self.everything || self.set.is_match(name)
    }

    /// As they were written.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }
}

impl PartialEq for Patterns {
    fn eq(&self, other: &Self) -> bool {
        self.texts == other.texts
    }
}

impl Serialize for Patterns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.texts.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a pattern or a list of patterns")]
        enum Text {
            One(String),
            Many(Vec<String>),
        }
        let texts = match Text::deserialize(deserializer)? {
            Text::One(text) => vec![text],
            Text::Many(texts) => texts,
        };
        if texts.is_empty() {
            return Err(D::Error::custom("an empty list of patterns matches nothing"));
        }
        Self::new(texts).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stay_in_a_component_unless_doubled() {
        let patterns = Patterns::new(["team/*", "ci/**"]).unwrap();
        for (name, matches) in
            [("team/app", true), ("team/app/x", false), ("team", false), ("ci/a/b/c", true), ("cix/a", false)]
        {
            assert_eq!(patterns.matches(name), matches, "{name}");
        }
        assert!(Patterns::new(["**"]).unwrap().matches("a/b"));
        assert!(Patterns::new(["v[0-9]*.{0,1}"]).unwrap().matches("v12.1"));
    }

    #[test]
    fn a_configuration_has_one_or_several() {
        let parse = |text| serde_json::from_str::<Patterns>(text);
        assert_eq!(parse(r#""a*""#).unwrap(), parse(r#"["a*"]"#).unwrap());
        assert!(parse("[]").is_err() && parse(r#""[""#).is_err() && parse("1").is_err());
    }
}
