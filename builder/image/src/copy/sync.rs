//! What there is to copy, when whole repositories are mirrored: skopeo's `sync`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde::Deserialize;

use super::Location;
use super::files::MANIFEST_FILE;
use crate::credentials::Credential;
use crate::registry::Options;
use crate::{Error, Reference, Result, remote};

/// Bytes of a list of repositories, at most.
const FILE_LIMIT: u64 = 16 << 20;
/// Directories within a mirror, at most.
const DEPTH_LIMIT: usize = 16;

/// An image to copy.
#[derive(Debug, Clone)]
pub struct Item {
    /// Where it is.
    pub from: Location,
    /// What it is called, from the registry's name or the mirror's directory on: `registry.example/team/app:1`.
    pub name: String,
    /// How its registry is reached.
    pub options: Options,
}

impl Item {
    /// Where it goes, below a registry's name or a directory: by the last part of its name, or, `scoped`, by all of it.
    ///
    /// # Errors
    /// The name that results is none.
    pub fn to(&self, destination: &Destination, scoped: bool) -> Result<Location> {
        let name = if scoped { &self.name } else { self.name.rsplit('/').next().unwrap_or(&self.name) };
        match destination {
            Destination::Directory(directory) => Ok(Location::Directory(directory.join(name))),
            Destination::Registry(prefix) => {
                // A port is no part of a repository's path.
                let (path, last) = name.rsplit_once('/').map_or(("", name), |(path, last)| (path, last));
                let path = path.replace(':', "-");
                let parts = [prefix.trim_end_matches('/'), &path, last];
                let full = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
                Reference::parse(&full).map(Location::Registry)
            }
        }
    }
}

/// Where a mirror is.
#[derive(Debug, Clone)]
pub enum Destination {
    /// Repositories below a name.
    Registry(String),
    /// Directories of images.
    Directory(PathBuf),
}

/// A repository's tags, or the one that is named.
///
/// # Errors
/// There is no such repository.
pub async fn of_repository(text: &str, options: &Options) -> Result<Vec<Item>> {
    let name = text.strip_prefix("docker://").unwrap_or(text);
    let reference = Reference::parse(name)?;
    let is_one = reference.digest().is_some() || name.rsplit('/').next().is_some_and(|last| last.contains(':'));
    let references = if is_one { vec![reference] } else { tagged(&reference, options, |_| true).await? };
    Ok(references.into_iter().map(|reference| item(reference, options)).collect())
}

async fn tagged(repository: &Reference, options: &Options, keeps: impl Fn(&str) -> bool) -> Result<Vec<Reference>> {
    let tags = remote::tags(repository, options).await?;
    let kept = tags.iter().filter(|tag| keeps(tag));
    kept.map(|tag| Reference::parse(&format!("{}:{tag}", repository.name()))).collect()
}

fn item(reference: Reference, options: &Options) -> Item {
    Item { name: reference.to_string(), from: Location::Registry(reference), options: options.clone() }
}

/// The images in a mirror's directory, however deep.
///
/// # Errors
/// The directory cannot be read.
pub fn of_directory(directory: &Path) -> Result<Vec<Item>> {
    let mut found = Vec::new();
    let mut open = vec![(directory.to_path_buf(), 0)];
    while let Some((path, depth)) = open.pop() {
        if path.join(MANIFEST_FILE).is_file() {
            let name = path.strip_prefix(directory).ok().filter(|name| !name.as_os_str().is_empty());
            let name = name.or(path.file_name().map(Path::new)).unwrap_or(&path);
            let name = name.to_string_lossy().into_owned();
            found.push(Item { from: Location::Directory(path), name, options: Options::default() });
            continue;
        }
        for entry in std::fs::read_dir(&path).map_err(Error::io("list", &path))? {
            let entry = entry.map_err(Error::io("list", &path))?;
            // A link may lead anywhere, also back here.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) && depth < DEPTH_LIMIT {
                open.push((entry.path(), depth + 1));
            }
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// What skopeo's list of a registry says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Listed {
    /// Repositories with their tags and digests; none for all tags.
    #[serde(default)]
    images: BTreeMap<String, Option<Vec<String>>>,
    #[serde(default)]
    images_by_tag_regex: BTreeMap<String, String>,
    #[serde(default)]
    credentials: Option<Login>,
    #[serde(default)]
    tls_verify: Option<bool>,
    #[serde(default)]
    cert_dir: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Login {
    username: String,
    password: String,
}

/// The images that a file lists, as skopeo has it: registries, each with its repositories, and their tags.
///
/// # Errors
/// The file cannot be read or says something that cannot be meant; a repository is not there.
pub async fn of_list(path: &Path, options: &Options) -> Result<Vec<Item>> {
    let wrong = |reason: String| Error::invalid(path.display().to_string(), reason);
    if std::fs::metadata(path).map_err(Error::io("examine", path))?.len() > FILE_LIMIT {
        return Err(wrong(format!("longer than {FILE_LIMIT} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let listed: BTreeMap<String, Listed> = serde_norway::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let mut found = Vec::new();
    for (registry, listed) in listed {
        let mut options = options.clone();
        options.insecure |= listed.tls_verify == Some(false);
        options.certificates = listed.cert_dir.or(options.certificates);
        if let Some(Login { username, password }) = listed.credentials {
            options.credential = Some(Credential::Password { username, password });
        }
        for (repository, tags) in listed.images {
            let name = format!("{registry}/{repository}");
            let tags = tags.unwrap_or_default();
            if tags.is_empty() {
                let all = tagged(&Reference::parse(&name)?, &options, |_| true).await?;
                found.extend(all.into_iter().map(|reference| item(reference, &options)));
            }
            for tag in tags {
                let sign = if tag.contains(':') { '@' } else { ':' };
                found.push(item(Reference::parse(&format!("{name}{sign}{tag}"))?, &options));
            }
        }
        for (repository, pattern) in listed.images_by_tag_regex {
            let pattern = Regex::new(&pattern).map_err(|error| wrong(error.to_string()))?;
            let repository = Reference::parse(&format!("{registry}/{repository}"))?;
            let matching = tagged(&repository, &options, |tag| pattern.is_match(tag)).await?;
            found.extend(matching.into_iter().map(|reference| item(reference, &options)));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_skopeos() {
        let reference = Reference::parse("r.example:5000/team/app:1").expect("a name");
        let item = item(reference, &Options::default());
        let to = |destination: &Destination, scoped| item.to(destination, scoped).expect("a place").to_string();
        let registry = Destination::Registry("mirror.example/all/".to_owned());
        assert_eq!(to(&registry, false), "docker://mirror.example/all/app:1");
        assert_eq!(to(&registry, true), "docker://mirror.example/all/r.example-5000/team/app:1");
        let directory = Destination::Directory("d".into());
        assert_eq!(to(&directory, false), "dir:d/app:1");
        assert_eq!(to(&directory, true), "dir:d/r.example:5000/team/app:1");
    }
}
