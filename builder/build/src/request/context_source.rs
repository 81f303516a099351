//! Where the files of a build come from.

use std::path::PathBuf;

use kiln_image::Reference;
use kiln_store::DiffId;

use crate::remote::Remote;

/// The build context.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ContextSource {
    /// Nothing.
    #[default]
    Empty,
    /// A directory of the host.
    Directory(ContextDirectory),
    /// Files that were fetched, or came in an archive. No ignore file holds for them, as with BuildKit.
    Layers {
        /// Where they came from.
        name: String,
        /// Lowest first.
        layers: Vec<DiffId>,
    },
}

/// A directory of the host, less what its ignore file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextDirectory {
    /// The directory.
    pub path: PathBuf,
    /// The text of the ignore file that applies, with its name.
    pub ignore: Option<(String, String)>,
}

impl ContextSource {
    /// The directory, when it is one.
    pub fn directory(&self) -> Option<&ContextDirectory> {
        match self {
            Self::Directory(directory) => Some(directory),
            Self::Empty | Self::Layers { .. } => None,
        }
    }

    /// What tells one context from another, across builds.
    pub(crate) fn identity(&self) -> String {
        match self {
            Self::Empty => "/".to_owned(),
            Self::Directory(directory) => {
                std::path::absolute(&directory.path).unwrap_or_default().display().to_string()
            }
            Self::Layers { name, .. } => name.clone(),
        }
    }
}

/// A context with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory of the host.
    Directory(ContextDirectory),
    /// `docker-image://`
    Image(Reference),
    /// `oci-layout://`: a directory, and the tag or digest in it.
    Layout(PathBuf, Option<String>),
    /// A URL or a repository, fetched when it is used.
    Remote(Remote),
}

/// The name by which a context is known: what means the same image has the same name.
pub fn context_name(text: &str) -> String {
    match Reference::parse(text) {
        Ok(reference) => {
            let name = reference.familiar();
            name.strip_suffix(":latest").map_or(name.clone(), str::to_owned)
        }
        Err(_) => text.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::context_name;

    #[test]
    fn names_of_the_same_image_are_the_same() {
        assert_eq!(context_name("docker.io/library/busybox:latest"), "busybox");
        assert_eq!(context_name("busybox"), "busybox");
        assert_eq!(context_name("busybox:1"), "busybox:1");
        assert_eq!(context_name("Base"), "base");
    }
}
