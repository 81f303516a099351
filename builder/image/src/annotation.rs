//! Annotations that a build is asked for: key-value pairs of manifests, of indexes, and of what names either.

use std::collections::BTreeMap;

use crate::{Error, Platform, Result};

/// What an annotation is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// An image's manifest.
    Manifest,
    /// The index.
    Index,
    /// What names a manifest, in the index or in a layout.
    ManifestDescriptor,
    /// What names the index in a layout.
    IndexDescriptor,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "manifest" => Self::Manifest,
            "index" => Self::Index,
            "manifest-descriptor" => Self::ManifestDescriptor,
            "index-descriptor" => Self::IndexDescriptor,
            _ => return None,
        })
    }
}

/// One annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// What it is of.
    pub level: Level,
    /// Only of the image for this platform.
    pub platform: Option<Platform>,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl Annotation {
    /// Parses `--annotation`: `[LEVEL[[PLATFORM]],…:]KEY=VALUE`, of the manifest when no level is said.
    ///
    /// # Errors
    /// There is no key or no value, or no such level.
    pub fn parse(text: &str) -> Result<Vec<Self>> {
        let wrong = |reason: &str| Error::invalid(format!("annotation {text:?}"), reason);
        let (left, value) = text.split_once('=').ok_or_else(|| wrong("expected KEY=VALUE"))?;
        let (levels, key) = left.split_once(':').unwrap_or(("manifest", left));
        if key.is_empty() {
            return Err(wrong("it has no key"));
        }
        let one = |level: &str| {
            let (level, platform) = qualified(level)?;
            let unknown =
                || wrong("expected manifest, index, manifest-descriptor or index-descriptor before the colon");
            let level = Level::parse(level).ok_or_else(unknown)?;
            Ok(Self { level, platform, key: key.to_owned(), value: value.to_owned() })
        };
        levels.split(',').map(one).collect()
    }

    /// Reads an option of an output: `annotation[-LEVEL][[PLATFORM]].KEY`. `None` when it is another option.
    pub fn of_option(name: &str, value: &str) -> Option<Result<Self>> {
        let rest = name.strip_prefix("annotation")?;
        // A platform has no dot, so the first one ends the level.
        let (level, key) = rest.split_once('.')?;
        let parsed = qualified(level.strip_prefix('-').unwrap_or(level));
        Some(parsed.and_then(|(level, platform)| {
            let level = if level.is_empty() { Some(Level::Manifest) } else { Level::parse(level) };
            let unknown = || Error::invalid(format!("option {name:?}"), "there is no such kind of annotation");
            let (key, value) = (key.to_owned(), value.to_owned());
            Ok(Self { level: level.ok_or_else(unknown)?, platform, key, value })
        }))
    }
}

/// `manifest[linux/amd64]`
fn qualified(text: &str) -> Result<(&str, Option<Platform>)> {
    match text.split_once('[') {
        None => Ok((text, None)),
        Some((level, platform)) => Ok((level, Some(Platform::parse(platform.strip_suffix(']').unwrap_or(platform))?))),
    }
}

/// Those of a level, for an image of a platform when there is one.
pub(crate) fn of(all: &[Annotation], level: Level, platform: Option<&Platform>) -> BTreeMap<String, String> {
    let is_meant = |annotation: &&Annotation| {
        annotation.level == level
            && annotation.platform.as_ref().is_none_or(|wanted| platform.is_some_and(|platform| wanted == platform))
    };
    all.iter().filter(is_meant).map(|annotation| (annotation.key.clone(), annotation.value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_say_what_they_are_of() {
        let levels = |text| {
            let all = Annotation::parse(text).expect(text);
            all.into_iter().map(|one| (one.level, one.platform.map(|p| p.to_string()))).collect::<Vec<_>>()
        };
        assert_eq!(levels("a=b"), [(Level::Manifest, None)]);
        assert_eq!(
            levels("index,manifest[linux/arm64]:a=b"),
            [(Level::Index, None), (Level::Manifest, Some("linux/arm64".to_owned()))]
        );
        let one = &Annotation::parse("url=https://x:1/?a=b").expect("a value may be anything")[0];
        assert_eq!((one.key.as_str(), one.value.as_str()), ("url", "https://x:1/?a=b"));
        for wrong in ["a", "=b", "what:a=b", "index[x/y/z/w]:a=b"] {
            assert!(Annotation::parse(wrong).is_err(), "{wrong}");
        }
        let option = |name| Annotation::of_option(name, "v").expect(name).expect(name);
        assert_eq!(option("annotation.org.x").key, "org.x");
        assert_eq!(option("annotation-index.k").level, Level::Index);
        assert_eq!(option("annotation-manifest-descriptor[linux/arm/v7].k").level, Level::ManifestDescriptor);
        assert!(Annotation::of_option("compression", "gzip").is_none());
        assert!(Annotation::of_option("annotation-what.k", "v").is_some_and(|parsed| parsed.is_err()));
    }
}
