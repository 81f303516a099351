//! Where a copy goes, by docker's rules (docker cp's manual, "corner cases").

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) name: OsString,
    pub(super) is_directory: bool,
    /// `dir/.`: not the directory, but what is in it.
    pub(super) contents: bool,
}

/// Which directory it is unpacked in, and what its topmost entry is called there; `None` keeps the directory's own.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) directory: PathBuf,
    pub(super) name: Option<OsString>,
}

/// `is_directory` says what is at the place: `None` is nothing.
pub(super) fn find(text: &str, is_directory: Option<bool>, source: &Source) -> Result<Destination, String> {
    let path = Path::new(text);
    let inside = || Destination { directory: path.to_owned(), name: (!source.contents).then(|| source.name.clone()) };
    let beside = || {
        let name = path.file_name().map(OsString::from).ok_or_else(|| format!("{text:?} has no name"))?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Destination { directory: directory.to_owned(), name: Some(name) })
    };
    match (is_directory, source.is_directory) {
        (Some(true), _) => Ok(inside()),
        (Some(false), true) => Err(format!("cannot copy a directory to the file {text:?}")),
        (Some(false), false) if text.ends_with('/') => Err(format!("{text:?} is not a directory")),
        (None, false) if text.ends_with('/') => Err(format!("no such directory: {text:?}")),
        (Some(false) | None, _) => beside(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_rules() {
        let source = |directory: bool, contents: bool| Source { name: "s".into(), is_directory: directory, contents };
        let goes = |directory: &str, name: Option<&str>| {
            Ok(Destination { directory: directory.into(), name: name.map(OsString::from) })
        };
        let file = source(false, false);
        assert_eq!(find("/a/b", None, &file), goes("/a", Some("b")));
        assert_eq!(find("/a/b", Some(false), &file), goes("/a", Some("b")));
        assert_eq!(find("/a/b", Some(true), &file), goes("/a/b", Some("s")));
        assert!(find("/a/b/", None, &file).is_err() && find("/a/b/", Some(false), &file).is_err());
        for contents in [false, true] {
            let directory = source(true, contents);
            assert_eq!(find("b", None, &directory), goes(".", Some("b")));
            assert!(find("b", Some(false), &directory).is_err());
        }
        assert_eq!(find("/b", Some(true), &source(true, false)), goes("/b", Some("s")));
        assert_eq!(find("/b", Some(true), &source(true, true)), goes("/b", None));
    }
}
