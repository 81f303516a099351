//! `--pid`, `--ipc`, `--uts`, `--cgroupns`: which of the kernel's namespaces a container has for itself.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Whose namespace a container is in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// Its own.
    #[default]
    Own,
    /// The host's.
    Host,
    /// Another container's, by name or id.
    Container(String),
}

/// Those that are chosen by name; the network has options of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// `--pid`
    pub pid: Namespace,
    /// `--ipc`
    pub ipc: Namespace,
    /// `--uts`
    pub uts: Namespace,
    /// `--cgroupns`
    pub cgroup: Namespace,
}

impl Namespace {
    /// Parses docker's word for the namespace of a flag, which is `--pid` and so on.
    ///
    /// # Errors
    /// A word that the flag does not take.
    pub fn parse(flag: &str, text: &str) -> Result<Self> {
        match (flag, text.split_once(':')) {
            (_, None) if text == "host" => Ok(Self::Host),
            (_, None) if text.is_empty() || text == "private" => Ok(Self::Own),
            ("--ipc", None) if text == "shareable" => Ok(Self::Own),
            ("--ipc" | "--pid", Some(("container", name))) if !name.is_empty() => Ok(Self::Container(name.to_owned())),
            _ => Err(Error::Invalid(format!("{flag}: invalid mode {text:?}; expected host or private"))),
        }
    }

    /// docker's word for it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Own => String::new(),
            Self::Host => "host".to_owned(),
            Self::Container(name) => format!("container:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let parse = |flag: &str, text: &str| Namespace::parse(flag, text).ok();
        assert_eq!(parse("--pid", "host"), Some(Namespace::Host));
        assert_eq!(parse("--uts", ""), Some(Namespace::Own));
        assert_eq!(parse("--ipc", "shareable"), Some(Namespace::Own));
        assert_eq!(parse("--ipc", "container:a"), Some(Namespace::Container("a".to_owned())));
        assert_eq!(parse("--pid", "container:a"), Some(Namespace::Container("a".to_owned())));
        for (flag, text) in [("--pid", "container:"), ("--uts", "container:a"), ("--ipc", "none:"), ("--pid", "x")] {
            assert_eq!(parse(flag, text), None, "{flag} {text}");
        }
    }
}
