//! Where an image is: skopeo's transports.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::{Error, Reference, Result};

/// Where an image comes from or goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// `docker://NAME`: a registry.
    Registry(Reference),
    /// `containers-storage:NAME`, or a name alone: the store. Also an id, when it is a source.
    Store(String),
    /// `oci:DIRECTORY[:NAME]`: an OCI layout.
    Layout {
        /// The directory.
        path: PathBuf,
        /// Which of its images.
        name: Option<String>,
    },
    /// `dir:DIRECTORY`: skopeo's directory of one image's files.
    Directory(PathBuf),
    /// `oci-archive:FILE[:NAME]`, `docker-archive:FILE[:NAME]`: a tar. What is written is both at once.
    Archive {
        /// The file.
        path: PathBuf,
        /// Which of its images.
        name: Option<String>,
        /// It is docker's: its names are references.
        docker: bool,
    },
}

impl Location {
    /// Parses `TRANSPORT:…`, or the name of an image of the store.
    ///
    /// # Errors
    /// A transport that does not exist, or a name that is none.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |reason: &str| Error::invalid(text.to_owned(), reason);
        if let Some(name) = text.strip_prefix("docker://") {
            return Reference::parse(name).map(Self::Registry);
        }
        let Some((transport, rest)) = text.split_once(':') else { return Ok(Self::Store(text.to_owned())) };
        match transport {
            "containers-storage" | "store" if !rest.is_empty() => Ok(Self::Store(rest.to_owned())),
            "oci" | "oci-archive" | "docker-archive" | "dir" if rest.is_empty() => Err(wrong("it names no path")),
            "oci" => {
                let (path, name) = split_name(rest);
                Ok(Self::Layout { path, name })
            }
            "oci-archive" | "docker-archive" => {
                let (path, name) = split_name(rest);
                let docker = transport == "docker-archive";
                if let Some(name) = name.as_ref().filter(|_| docker) {
                    Reference::parse(name)?;
                }
                Ok(Self::Archive { path, name, docker })
            }
            "dir" => Ok(Self::Directory(PathBuf::from(rest))),
            "docker-daemon" | "ostree" | "sif" | "tarball" | "atomic" | "docker" => {
                Err(wrong("there are docker://, oci:, oci-archive:, docker-archive:, dir: and containers-storage:"))
            }
            _ => Ok(Self::Store(text.to_owned())),
        }
    }

    /// The repository here, when the other place is another repository of the same registry.
    pub(crate) fn mountable_at(&self, to: &Self) -> Option<String> {
        match (self, to) {
            (Self::Registry(from), Self::Registry(to))
                if from.registry() == to.registry() && from.repository() != to.repository() =>
            {
                Some(from.repository().to_owned())
            }
            _ => None,
        }
    }

    /// Whether the text names its transport.
    pub fn is_explicit(text: &str) -> bool {
        let files = ["oci:", "oci-archive:", "docker-archive:", "dir:"];
        let mut transports = ["docker://", "containers-storage:", "store:"].iter().chain(&files);
        transports.any(|transport| text.starts_with(transport))
    }
}

/// A path ends at its first colon.
fn split_name(text: &str) -> (PathBuf, Option<String>) {
    match text.split_once(':') {
        Some((path, name)) => (PathBuf::from(path), Some(name.to_owned()).filter(|name| !name.is_empty())),
        None => (PathBuf::from(text), None),
    }
}

impl FromStr for Location {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut with_name = |transport: &str, path: &PathBuf, name: &Option<String>| {
            write!(f, "{transport}:{}", path.display())?;
            name.as_ref().map_or(Ok(()), |name| write!(f, ":{name}"))
        };
        match self {
            Self::Layout { path, name } => with_name("oci", path, name),
            Self::Archive { path, name, docker: true } => with_name("docker-archive", path, name),
            Self::Archive { path, name, docker: false } => with_name("oci-archive", path, name),
            Self::Directory(path) => write!(f, "dir:{}", path.display()),
            Self::Registry(reference) => write!(f, "docker://{}", reference.familiar()),
            Self::Store(name) => write!(f, "containers-storage:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_and_names() {
        let parsed = |text: &str| Location::parse(text).expect(text);
        assert_eq!(parsed("docker://busybox").to_string(), "docker://busybox:latest");
        assert_eq!(parsed("busybox:1"), Location::Store("busybox:1".to_owned()));
        assert_eq!(parsed("localhost:5000/x:1"), Location::Store("localhost:5000/x:1".to_owned()));
        assert_eq!(parsed("containers-storage:x"), Location::Store("x".to_owned()));
        let layout = Location::Layout { path: "d".into(), name: Some("a/b:1".to_owned()) };
        assert_eq!(parsed("oci:d:a/b:1"), layout);
        assert_eq!(parsed("oci:d:"), Location::Layout { path: "d".into(), name: None });
        let archive = Location::Archive { path: "f.tar".into(), name: Some("x:1".to_owned()), docker: true };
        assert_eq!(parsed("docker-archive:f.tar:x:1"), archive);
        assert_eq!(parsed("dir:a:b").to_string(), "dir:a:b");
        for wrong in ["docker://", "oci:", "dir:", "docker-archive:x:UPPER", "docker-daemon:x"] {
            assert!(Location::parse(wrong).is_err(), "{wrong}");
        }
    }
}
