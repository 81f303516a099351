//! `[registry/]path[:tag][@digest]`, by the distribution project's reference grammar, with docker's defaults.

use std::fmt;
use std::str::FromStr;

use kiln_store::Digest;

use crate::{Error, Result};

/// The registry of a name that names none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The namespace of docker's official images.
const OFFICIAL_NAMESPACE: &str = "library/";
/// The tag of a name without tag and digest.
const DEFAULT_TAG: &str = "latest";
/// Characters of a repository's path, at most.
const PATH_LIMIT: usize = 255;
/// Characters of a tag, at most.
const TAG_LIMIT: usize = 128;

/// A checked reference, normalised: `busybox` is `docker.io/library/busybox:latest`.
/// `Display` is the full form; serde likewise; `FromStr` parses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses.
    ///
    /// # Errors
    /// Text that is no reference; says which part is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        parse(text).map_err(|reason| Error::Reference { text: text.to_owned(), reason })
    }
    /// `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }
    /// `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }
    /// The tag; `latest` when neither tag nor digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }
    /// The digest.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
    /// As docker shows it: without `docker.io/library/`. With the tag.
    pub fn familiar(&self) -> String {
        self.with_suffixes(self.familiar_name())
    }
    /// `familiar` without tag and digest: the REPOSITORY column.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        let short = self.repository.strip_prefix(OFFICIAL_NAMESPACE).filter(|rest| !rest.contains('/'));
        let short = short.unwrap_or(&self.repository);
        // What would be taken for a registry's name is shown behind docker.io's.
        if split_registry(short) == (DEFAULT_REGISTRY, short) { short.to_owned() } else { self.name() }
    }
    /// `docker.io/library/busybox`: neither tag nor digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
    /// The full name without digest, with the tag: the key in the store. A reference that has only a digest keeps
    /// it, so that an image pulled by digest has a name too.
    pub fn tagged_name(&self) -> String {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => format!("{}:{tag}", self.name()),
            (None, Some(digest)) => format!("{}@{digest}", self.name()),
            (None, None) => self.name(),
        }
    }
    /// The same repository, by digest only.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    fn with_suffixes(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(&digest.to_string());
        }
        name
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffixes(self.name()))
    }
}

impl FromStr for Reference {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl serde::Serialize for Reference {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Reference {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

fn parse(text: &str) -> std::result::Result<Reference, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if is_image_id(text) {
        return Err("a repository name cannot be 64 hexadecimal digits, which is an image id".to_owned());
    }
    let (named, digest) = match text.split_once('@') {
        Some((named, digest)) => (named, Some(parse_digest(digest)?)),
        None => (text, None),
    };
    let (registry, remainder) = split_registry(named);
    let (path, tag) = match remainder.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (remainder, None),
    };
    check_registry(registry)?;
    if path.chars().any(char::is_uppercase) {
        return Err(format!("repository name must be lowercase; did you mean {:?}?", lowered(registry, path, text)));
    }
    let mut repository = path.to_owned();
    if registry == DEFAULT_REGISTRY && !path.contains('/') {
        repository.insert_str(0, OFFICIAL_NAMESPACE);
    }
    check_path(path, &repository)?;
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let tag = match (tag, &digest) {
        (None, None) => Some(DEFAULT_TAG),
        _ => tag,
    };
    Ok(Reference { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
}

/// The reference as it was probably meant: its name in lower case, all else as written. A first component that is taken
/// for a registry only because of its upper case is not one then.
fn lowered(registry: &str, path: &str, text: &str) -> String {
    let name = if text.starts_with(registry) { format!("{registry}/{path}") } else { path.to_owned() };
    format!("{}{}", name.to_lowercase(), text.strip_prefix(&name).unwrap_or_default())
}

fn is_image_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The first component is a registry when it cannot be the start of a path on docker.io: it has a dot, a colon or
/// an upper-case letter, or is `localhost`.
pub(crate) fn split_registry(named: &str) -> (&str, &str) {
    match named.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.chars().any(|letter| letter.is_ascii_uppercase()) =>
        {
            (if first == "index.docker.io" { DEFAULT_REGISTRY } else { first }, rest)
        }
        _ => (DEFAULT_REGISTRY, named),
    }
}

fn parse_digest(text: &str) -> std::result::Result<Digest, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is no digest; one is an algorithm, a colon and lower-case hexadecimal digits (sha256:…)")
    })
}

fn check_registry(registry: &str) -> std::result::Result<(), String> {
    let (host, port) = if registry.starts_with('[') {
        match registry.find(']') {
            Some(end) => (&registry[..=end], registry[end + 1..].strip_prefix(':')),
            None => return Err(format!("the registry {registry:?} lacks the closing bracket of its IPv6 address")),
        }
    } else {
        match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        }
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err() || !port.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(format!("the registry {registry:?} has no valid port after its colon"));
    }
    let length = host.len() + port.map_or(0, |port| port.len() + 1);
    if length != registry.len() || !(is_bracketed_address(host) || is_host_name(host)) {
        return Err(format!("the registry {registry:?} is no host name or address"));
    }
    Ok(())
}

fn is_bracketed_address(host: &str) -> bool {
    host.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
}

fn is_host_name(host: &str) -> bool {
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

fn check_path(path: &str, repository: &str) -> std::result::Result<(), String> {
    if path.is_empty() {
        return Err("the repository name is missing".to_owned());
    }
    if repository.len() > PATH_LIMIT {
        return Err(format!("the repository name is longer than {PATH_LIMIT} characters"));
    }
    for component in path.split('/') {
        check_component(component)?;
    }
    Ok(())
}

/// `path-component := alpha-numeric (separator alpha-numeric)*`, `separator := [_.] | "__" | "-"+`.
fn check_component(component: &str) -> std::result::Result<(), String> {
    if component.is_empty() {
        return Err("the repository name has an empty component (a slash at an end, or two together)".to_owned());
    }
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if let Some(wrong) =
        component.chars().find(|letter| !letter.is_ascii() || !(allowed(*letter as u8) || "._-".contains(*letter)))
    {
        return Err(format!(
            "the repository name has the character {wrong:?}; allowed are a-z, 0-9 and the separators . _ - /"
        ));
    }
    let separators_are_whole = component
        .split(|letter: char| letter.is_ascii_alphanumeric())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-'));
    let edges = component.bytes().next().is_some_and(allowed) && component.bytes().last().is_some_and(allowed);
    if separators_are_whole && edges {
        return Ok(());
    }
    Err(format!(
        "the repository name's component {component:?} must begin and end with a letter or digit, \
         with one of \".\", \"_\", \"__\" or dashes between them"
    ))
}

fn check_tag(tag: &str) -> std::result::Result<(), String> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if tag.is_empty() {
        return Err("the tag after the colon is missing".to_owned());
    }
    if tag.len() > TAG_LIMIT {
        return Err(format!("the tag is longer than {TAG_LIMIT} characters"));
    }
    let mut bytes = tag.bytes();
    if bytes.next().is_some_and(word) && bytes.all(|byte| word(byte) || byte == b'.' || byte == b'-') {
        return Ok(());
    }
    Err(format!("the tag {tag:?} may have only A-Z, a-z, 0-9, _ . and -, and begin with none of the last two"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// Proves: reference-grammar
    #[test]
    fn names_are_normalised_as_docker_does() {
        let cases = [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("busybox:1", "docker.io/library/busybox:1", "busybox:1"),
            ("a/b", "docker.io/a/b:latest", "a/b:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("index.docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x/y:Z_1", "localhost:5000/x/y:Z_1", "localhost:5000/x/y:Z_1"),
            ("quay.io/a/b__c/d--e.f:v1.0", "quay.io/a/b__c/d--e.f:v1.0", "quay.io/a/b__c/d--e.f:v1.0"),
            ("HOST/x", "HOST/x:latest", "HOST/x:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
            ("docker.io/localhost/c", "docker.io/localhost/c:latest", "docker.io/localhost/c:latest"),
        ];
        for (text, full, familiar) in cases {
            let reference = Reference::parse(text).expect(text);
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.tagged_name(), full);
            assert_eq!(reference.familiar(), familiar);
            assert_eq!(Reference::parse(full).expect(full), reference);
        }
    }

    #[test]
    fn digests_stand_beside_or_instead_of_tags() {
        let both = Reference::parse(&format!("a:1@sha256:{HEX}")).expect("both");
        assert_eq!(both.tagged_name(), "docker.io/library/a:1");
        assert_eq!(both.to_string(), format!("docker.io/library/a:1@sha256:{HEX}"));
        let only = Reference::parse(&format!("a@sha256:{HEX}")).expect("digest");
        assert_eq!(only.tag(), None);
        assert_eq!(only.tagged_name(), format!("docker.io/library/a@sha256:{HEX}"));
    }

    /// Proves: reference-grammar
    #[test]
    fn errors_name_the_wrong_part() {
        let long = "a".repeat(256);
        let tag = format!("a:{}", "t".repeat(129));
        let digest = format!("a@sha256:{}", &HEX[1..]);
        let cases = [
            ("", "empty"),
            (HEX, "image id"),
            ("Busybox", "must be lowercase; did you mean \"busybox\""),
            ("Upper/Case:V1", "did you mean \"upper/case:V1\""),
            ("localhost:5000/A/b", "did you mean \"localhost:5000/a/b\""),
            ("a/", "empty component"),
            ("a//b", "empty component"),
            ("a..b", "component \"a..b\""),
            ("-a", "component \"-a\""),
            ("a___b", "component"),
            ("a b", "character ' '"),
            ("a:", "tag after the colon is missing"),
            ("a:-x", "tag \"-x\""),
            ("localhost:99999/x", "port"),
            ("a_b.c/x", "registry \"a_b.c\""),
            ("x.y/", "repository name is missing"),
            (long.as_str(), "longer than 255"),
            (tag.as_str(), "longer than 128"),
            (digest.as_str(), "is no digest"),
        ];
        for (text, part) in cases {
            let message = Reference::parse(text).expect_err(text).to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_parses_parses_again_to_the_same(text in "[a-zA-Z0-9./:@_\\[\\] -]{0,40}") {
            if let Ok(reference) = Reference::parse(&text) {
                let full = Reference::parse(&reference.to_string()).expect("full form");
                let familiar = Reference::parse(&reference.familiar()).expect("familiar form");
                proptest::prop_assert_eq!(&full, &reference);
                proptest::prop_assert_eq!(&familiar, &reference);
            }
        }

        #[test]
        fn any_text_is_answered(text in ".*") {
            let _ = Reference::parse(&text);
        }
    }
}
