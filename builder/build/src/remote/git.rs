//! Files of a git repository, by the program `git`: it knows the protocols, the credentials and the servers' habits.

use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use kiln_store::DiffId;
use kiln_store::changeset::Bytes;
use kiln_store::layer_writer::{Attributes, Content};

use super::location::is_commit_prefix;
use super::{Fetched, GitSource, Site, Writer};
use crate::{Error, Result};

/// Bytes of git's own words that an error shows, at most.
const MESSAGE_LIMIT: usize = 2000;

pub(super) fn fetch(site: &Site<'_>, source: &GitSource, checksum: Option<&str>) -> Result<Fetched> {
    let wanted = checksum.or(source.commit.as_deref());
    if let Some(wanted) = wanted.filter(|wanted| !is_commit_prefix(wanted)) {
        return Err(wrong(source, format!("{wanted:?} is not a commit: expected hex digits")));
    }
    let commit = resolve(source, wanted)?;
    if let (Some(commit), Some(wanted)) = (&commit, wanted) {
        check(source, commit, wanted)?;
    }
    let words = |commit: &str| {
        let options = format!("{:?} {}", source.keep_git_dir, source.skip_submodules);
        site.key("git", &[&source.url, commit, source.subdirectory.as_deref().unwrap_or_default(), &options])
    };
    if let Some(commit) = &commit
        && let Some(fetched) = site.recall(&words(commit), |fetched: &Fetched| fetched.layer)?
    {
        return Ok(fetched);
    }
    let staging = site.store.stage()?;
    let checkout = Checkout { source, directory: staging.scratch("git")? };
    let found = checkout.make(commit.as_deref(), wanted)?;
    if let Some(wanted) = wanted {
        check(source, &found, wanted)?;
    }
    let fetched = Fetched { layer: checkout.layer(site)?, name: None };
    site.remember(words(&found), &fetched, fetched.layer)?;
    Ok(fetched)
}

fn check(source: &GitSource, commit: &str, wanted: &str) -> Result<()> {
    if commit.starts_with(&wanted.to_ascii_lowercase()) {
        return Ok(());
    }
    let what = source.reference.as_deref().unwrap_or("HEAD");
    Err(wrong(source, format!("expected {what} to be commit {wanted}, and it is {commit}")))
}

/// The commit that the reference has at the remote; `None` when only fetching tells (the beginning of a commit).
fn resolve(source: &GitSource, wanted: Option<&str>) -> Result<Option<String>> {
    let reference = match (&source.reference, wanted) {
        (Some(reference), _) => reference.as_str(),
        (None, Some(commit)) if is_whole_commit(commit) => commit,
        (None, Some(_)) => return Ok(None),
        (None, None) => "HEAD",
    };
    if is_whole_commit(reference) {
        return Ok(Some(reference.to_ascii_lowercase()));
    }
    let listed =
        run(source, git(None).args(["ls-remote", "--", &source.url, reference, &format!("{reference}^{{}}")]))?;
    let mut found: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
    // A tag's own object is not the commit that it names; a branch goes before a tag of the same name.
    let rank = |name: &str| match name {
        name if name == reference => 0,
        name if name == format!("refs/heads/{reference}") => 1,
        name if name.ends_with("^{}") => 2,
        name if name == format!("refs/tags/{reference}") => 3,
        _ => 4,
    };
    let peeled: Vec<String> =
        found.iter().filter_map(|(_, name)| name.strip_suffix("^{}").map(str::to_owned)).collect();
    found.retain(|(_, name)| !peeled.iter().any(|tag| tag == name));
    found.sort_by_key(|(_, name)| rank(name));
    match found.first() {
        Some((commit, _)) => Ok(Some((*commit).to_owned())),
        None if is_commit_prefix(reference) => Ok(None),
        None => Err(wrong(source, format!("the repository has no branch, tag or commit {reference:?}"))),
    }
}

fn is_whole_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && is_commit_prefix(text)
}

/// A git command that asks nobody, runs no hook, and talks only to servers.
fn git(directory: Option<&Path>) -> Command {
    let mut command = Command::new("git");
    command.args([
        "-c",
        "core.hooksPath=/dev/null",
        "-c",
        "protocol.file.allow=never",
        "-c",
        "protocol.ext.allow=never",
    ]);
    command.args(["-c", "advice.detachedHead=false", "-c", "init.defaultBranch=main", "-c", "gc.auto=0"]);
    command.args(["-c", "safe.directory=*", "-c", "core.fsmonitor=false"]);
    command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_OPTIONAL_LOCKS", "0").env("LC_ALL", "C");
    if std::env::var_os("GIT_SSH_COMMAND").is_none() {
        command.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes");
    }
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"] {
        command.env_remove(variable);
    }
    if let Some(directory) = directory {
        command.arg("-C").arg(directory);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs it; returns what it wrote.
fn run(source: &GitSource, command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => wrong(source, "the program git is not installed".to_owned()),
        _ => wrong(source, format!("start git: {error}")),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().chars().filter(|c| *c == '\n' || !c.is_control()).take(MESSAGE_LIMIT).collect();
    Err(wrong(source, format!("git: {said}")))
}

fn wrong(source: &GitSource, reason: String) -> Error {
    Error::Remote { address: source.url.clone(), reason }
}

struct Checkout<'a> {
    source: &'a GitSource,
    directory: PathBuf,
}

impl Checkout<'_> {
    fn git<const N: usize>(&self, arguments: [&str; N]) -> Result<String> {
        run(self.source, git(Some(&self.directory)).args(arguments))
    }

    /// Fetches as little as the server allows, and checks out; returns the commit.
    fn make(&self, commit: Option<&str>, wanted: Option<&str>) -> Result<String> {
        self.git(["init", "--quiet"])?;
        self.git(["remote", "add", "--", "origin", &self.source.url])?;
        let reference = self.source.reference.as_deref();
        let target = match (commit, reference.or(wanted)) {
            (Some(commit), _) => {
                // A server may give single commits, or only what a name leads to; the last way gets everything.
                let named = || reference.map_or(Ok(String::new()), |name| self.shallow(name));
                let shallow = self.shallow(commit).or_else(|_| named());
                let there = || self.git(["cat-file", "-e", &format!("{commit}^{{commit}}")]);
                if shallow.and_then(|_| there()).is_err() {
                    self.everything()?;
                }
                commit.to_owned()
            }
            (None, prefix) => {
                self.everything()?;
                prefix.unwrap_or("HEAD").to_owned()
            }
        };
        self.git(["checkout", "--quiet", "--force", "--detach", &target, "--"])?;
        if !self.source.skip_submodules && self.directory.join(".gitmodules").is_file() {
            self.git(["submodule", "update", "--quiet", "--init", "--recursive"])?;
        }
        Ok(self.git(["rev-parse", "HEAD"])?.trim().to_owned())
    }

    fn shallow(&self, name: &str) -> Result<String> {
        self.git(["fetch", "--quiet", "--depth=1", "--no-tags", "--force", "--", "origin", name])
    }

    fn everything(&self) -> Result<String> {
        let all = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
        self.git(["fetch", "--quiet", "--force", "--", "origin", all[0], all[1]])
    }

    /// The checked-out files as a layer: owned by root, 0644 and 0755, of the commit's time.
    fn layer(&self, site: &Site<'_>) -> Result<DiffId> {
        let time = self.git(["log", "-1", "--format=%ct"])?.trim().parse().unwrap_or(0);
        let root = match &self.source.subdirectory {
            None => self.directory.clone(),
            Some(subdirectory) => self.subdirectory(subdirectory)?,
        };
        let keep_git_dir = self.source.keep_git_dir == Some(true);
        site.layer(|writer| put_tree(writer, &root, keep_git_dir, time))
    }

    /// A directory of the checkout; no symlink leads out of it.
    fn subdirectory(&self, written: &str) -> Result<PathBuf> {
        let missing = || wrong(self.source, format!("the repository has no directory {written:?}"));
        if Path::new(written).components().any(|part| matches!(part, Component::ParentDir)) {
            return Err(missing());
        }
        let top = std::fs::canonicalize(&self.directory).map_err(|_| missing())?;
        let path = top.join(written.trim_start_matches('/'));
        let real = std::fs::canonicalize(path).map_err(|_| missing())?;
        if real.starts_with(&top) && real.is_dir() { Ok(real) } else { Err(missing()) }
    }
}

fn put_tree(writer: &mut Writer<'_>, root: &Path, keep_git_dir: bool, time: i64) -> Result<()> {
    let is_hidden = |entry: &walkdir::DirEntry| !keep_git_dir && entry.depth() > 0 && entry.file_name() == ".git";
    let walk = walkdir::WalkDir::new(root).min_depth(1).sort_by_file_name().into_iter();
    for entry in walk.filter_entry(|entry| !is_hidden(entry)) {
        let entry = entry.map_err(|error| Error::io("read the checkout", root, std::io::Error::from(error)))?;
        let io = |error| Error::io("read", entry.path(), error);
        let path = entry.path().strip_prefix(root).unwrap_or(entry.path());
        let attributes = |mode| Attributes { uid: 0, gid: 0, mode, mtime: (time, 0) };
        let kind = entry.file_type();
        if kind.is_dir() {
            writer.put_directory(path, attributes(0o755), &[])?;
        } else if kind.is_symlink() {
            let target = std::fs::read_link(entry.path()).map_err(io)?;
            writer.put_file(path, Content::Symlink(&target), attributes(0o777), &[])?;
        } else if kind.is_file() {
            let mut file = std::fs::File::open(entry.path()).map_err(io)?;
            let executable = file.metadata().map_err(io)?.permissions().mode() & 0o100 != 0;
            writer.put_file(
                path,
                Content::File(Bytes::Stream(&mut file)),
                attributes(if executable { 0o755 } else { 0o644 }),
                &[],
            )?;
        }
    }
    Ok(())
}
