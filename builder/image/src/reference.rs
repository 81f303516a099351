//! `[registry/]path[:tag][@digest]`, by the distribution project's reference grammar, with docker's defaults.

use kiln_store::Digest;

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
    pub fn parse(text: &str) -> crate::Result<Self> {
        let _ = text;
        todo!()
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
        todo!()
    }
    /// `familiar` without tag and digest: the REPOSITORY column.
    pub fn familiar_name(&self) -> String {
        todo!()
    }
    /// The full name without digest, with the tag: the key in the store.
    pub fn tagged_name(&self) -> String {
        todo!()
    }
}
