//! Names in the API's paths, checked by the specification's grammar. None of them ever becomes a path on disk.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use kiln_store::Digest;

use crate::failure::{Code, Failure};

/// Bytes of the longest repository name.
const LONGEST_REPOSITORY: usize = 255;
/// Bytes of the longest tag.
const LONGEST_TAG: usize = 128;

/// A repository's name: components of `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, joined by `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RepositoryName(Arc<str>);

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Tag(String);

/// What a manifest is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    Tag(Tag),
    Digest(Digest),
}

impl RepositoryName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = Failure;
    fn from_str(text: &str) -> Result<Self, Failure> {
        if text.len() <= LONGEST_REPOSITORY && text.split('/').all(is_component) {
            return Ok(Self(text.into()));
        }
        Err(Failure::new(Code::NameInvalid).detail(text.chars().take(LONGEST_REPOSITORY).collect::<String>()))
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    alphanumeric(*first)
        && alphanumeric(*last)
        && bytes.split(|byte| alphanumeric(*byte)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-')
        })
}

impl Tag {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// `None` when the text is no tag.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let bytes = text.as_bytes();
        let valid = bytes.len() <= LONGEST_TAG
            && bytes.first().is_some_and(|first| word(*first))
            && bytes.iter().all(|byte| word(*byte) || matches!(byte, b'.' | b'-'));
        valid.then(|| Self(text.to_owned()))
    }
}

impl Reference {
    /// A text with a colon is a digest. `None` for what can be no tag, so names nothing.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, Failure> {
        if text.contains(':') {
            return Ok(Some(Self::Digest(parse_digest(text)?)));
        }
        Ok(Tag::parse(text).map(Self::Tag))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(&tag.0),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// The digest in a path or parameter.
pub(crate) fn parse_digest(text: &str) -> Result<Digest, Failure> {
    text.parse().map_err(|error: kiln_store::Error| Failure::new(Code::DigestInvalid).detail(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names_follow_the_grammar() {
        let longest = "a".repeat(LONGEST_REPOSITORY);
        for name in ["a", "library/busybox", "a.b_c__d---e/0/9x", "a/blobs/uploads", &longest] {
            assert!(name.parse::<RepositoryName>().is_ok(), "{name}");
        }
        let too_long = "a".repeat(LONGEST_REPOSITORY + 1);
        for name in [
            "", "/a", "a/", "a//b", "A", "a..b", "a___b", "a._b", "-a", "a-", "_a", "..", "a/../b", "a b", "é", "a\0",
            &too_long,
        ] {
            assert!(name.parse::<RepositoryName>().is_err(), "{name}");
        }
    }

    #[test]
    fn tags_follow_the_grammar() {
        let longest = "t".repeat(LONGEST_TAG);
        for tag in ["latest", "_", "V1.0-rc.1", &longest] {
            assert!(Tag::parse(tag).is_some(), "{tag}");
        }
        let too_long = "t".repeat(LONGEST_TAG + 1);
        for tag in ["", ".a", "-a", "a/b", "a b", "a:b", "é", &too_long] {
            assert!(Tag::parse(tag).is_none(), "{tag}");
        }
    }

    #[test]
    fn a_colon_makes_a_digest() {
        let digest = Digest::of(b"");
        assert_eq!(Reference::parse(&digest.to_string()).unwrap(), Some(Reference::Digest(digest)));
        assert!(Reference::parse("sha256:baddigeststring").is_err());
        assert!(Reference::parse("no tag").unwrap().is_none());
    }
}
