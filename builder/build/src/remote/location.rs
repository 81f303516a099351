//! Where a context, or a source of ADD, can be, by how it is written.

use std::path::PathBuf;

/// A place that files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A path of the host.
    Path(PathBuf),
    /// Standard input.
    Stdin,
    /// A file behind HTTP.
    Http(String),
    /// A git repository.
    Git(GitSource),
}

/// A git repository, and what of it is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitSource {
    /// As git takes it: without the part from `#` or the query.
    pub url: String,
    /// Branch, tag or commit; the remote's HEAD when not given.
    pub reference: Option<String>,
    /// A directory of it.
    pub subdirectory: Option<String>,
    /// The commit that must be found, or its beginning.
    pub commit: Option<String>,
    /// `.git` stays.
    pub keep_git_dir: Option<bool>,
    /// Without its submodules.
    pub skip_submodules: bool,
}

impl Location {
    /// Reads `-`, a URL, a git repository's address, or a path.
    ///
    /// # Errors
    /// The address of a repository that is malformed.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Stdin);
        }
        match Self::parse_remote(text)? {
            Some(remote) => Ok(remote),
            None => Ok(Self::Path(PathBuf::from(text))),
        }
    }

    /// The same, of what is not on this host; `None` when it is.
    ///
    /// # Errors
    /// The address of a repository that is malformed.
    pub fn parse_remote(text: &str) -> Result<Option<Self>, String> {
        if let Some(git) = GitSource::parse(text)? {
            return Ok(Some(Self::Git(git)));
        }
        let is_url = ["http://", "https://"].iter().any(|scheme| has_prefix(text, scheme));
        Ok(is_url.then(|| Self::Http(text.to_owned())))
    }
}

fn has_prefix(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

impl GitSource {
    /// Reads `git://…`, `ssh://…`, `user@host:path`, `github.com/…` and `http(s)://….git`, each with `#ref:directory` or
    /// a query; `None` for anything else.
    fn parse(text: &str) -> Result<Option<Self>, String> {
        let (address, fragment) = match text.split_once('#') {
            Some((address, fragment)) => (address, Some(fragment)),
            None => (text, None),
        };
        let (plain, query) = match address.split_once('?') {
            Some((plain, query)) => (plain, Some(query)),
            None => (address, None),
        };
        let web = has_prefix(plain, "http://") || has_prefix(plain, "https://");
        let is_git = if web {
            plain.ends_with(".git")
        } else {
            has_prefix(plain, "git://")
                || has_prefix(plain, "ssh://")
                || plain.starts_with("github.com/")
                || is_scp_like(plain)
        };
        if !is_git {
            return Ok(None);
        }
        let url = if plain.starts_with("github.com/") { format!("https://{plain}") } else { plain.to_owned() };
        let mut source = Self { url, ..Self::default() };
        if let Some(query) = query {
            source.read_query(query)?;
        }
        if let Some(fragment) = fragment {
            if query.is_some() {
                return Err(format!("{text:?} has both a query and a fragment; expected one of them"));
            }
            let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
            source.reference = non_empty(reference);
            source.subdirectory = non_empty(directory);
        }
        source.check()?;
        Ok(Some(source))
    }

    fn read_query(&mut self, query: &str) -> Result<(), String> {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value);
            let flag = || match value.as_str() {
                "" | "1" | "true" => Ok(true),
                "0" | "false" => Ok(false),
                other => Err(format!("{key}={other}: expected true or false")),
            };
            match key {
                "ref" => self.reference = non_empty(&value),
                "branch" => self.reference = non_empty(&value).map(|name| format!("refs/heads/{name}")),
                "tag" => self.reference = non_empty(&value).map(|name| format!("refs/tags/{name}")),
                "commit" | "checksum" => self.commit = non_empty(&value),
                "subdir" => self.subdirectory = non_empty(&value),
                "keep-git-dir" => self.keep_git_dir = Some(flag()?),
                "submodules" => self.skip_submodules = !flag()?,
                other => {
                    return Err(format!(
                        "unknown key {other:?} of a git address; expected ref, branch, tag, commit, subdir, \
                         keep-git-dir or submodules"
                    ));
                }
            }
        }
        Ok(())
    }

    /// What would be an option to git, or no commit.
    fn check(&self) -> Result<(), String> {
        for part in [Some(&self.url), self.reference.as_ref()].into_iter().flatten() {
            if part.starts_with('-') || part.chars().any(char::is_control) {
                return Err(format!("{part:?} is neither the address nor a reference of a git repository"));
            }
        }
        match &self.commit {
            Some(commit) if !is_commit_prefix(commit) => {
                Err(format!("{commit:?} is not a commit: expected hex digits"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether text can be the beginning of a commit's name.
pub(crate) fn is_commit_prefix(text: &str) -> bool {
    (4..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `user@host:path`, and no scheme.
fn is_scp_like(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let name = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    match rest.split_once(':') {
        Some((host, path)) => name(user) && name(host) && !path.is_empty() && !path.starts_with("//"),
        None => false,
    }
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// `%41` and `+` of a query.
fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(text: &str) -> GitSource {
        match Location::parse(text) {
            Ok(Location::Git(source)) => source,
            other => panic!("{text}: {other:?}"),
        }
    }

    /// Proves: D1.11-8, D1.11-9, D1.12-6
    #[test]
    fn addresses_of_repositories() {
        let source = git("https://example.com/a.git#v1:sub/dir");
        assert_eq!(source.url, "https://example.com/a.git");
        assert_eq!((source.reference.as_deref(), source.subdirectory.as_deref()), (Some("v1"), Some("sub/dir")));
        assert_eq!(git("https://example.com/a.git#:sub").reference, None);
        assert_eq!(git("git@example.com:a/b.git").url, "git@example.com:a/b.git");
        assert_eq!(git("github.com/a/b").url, "https://github.com/a/b");
        assert_eq!(git("git://example.com/a").reference, None);
        let source = git("https://h/a.git?branch=b%2Fc&subdir=s&keep-git-dir=true&submodules=false&commit=abcdef1");
        assert_eq!(source.reference.as_deref(), Some("refs/heads/b/c"));
        assert_eq!(source.keep_git_dir, Some(true));
        assert!(source.skip_submodules);
        assert_eq!(source.commit.as_deref(), Some("abcdef1"));
    }

    /// Proves: D1.11-9
    #[test]
    fn addresses_that_are_wrong_or_no_repositories() {
        for wrong in ["https://h/a.git?x=y", "https://h/a.git?ref=a#b", "git://h/a#-x", "git://h/a?commit=zzzz"] {
            assert!(Location::parse(wrong).is_err(), "{wrong}");
        }
        for path in ["a@b", "dir", "./git@h:p", "a/b:c@d", "C:x"] {
            assert_eq!(Location::parse(path), Ok(Location::Path(path.into())), "{path}");
        }
        assert_eq!(Location::parse("http://h/a.tar.gz?x=1"), Ok(Location::Http("http://h/a.tar.gz?x=1".into())));
        assert_eq!(Location::parse("-"), Ok(Location::Stdin));
    }
}
