//! Where `distribution` keeps what: `docker/registry/v2` with blobs, and repositories whose files hold digests.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kiln_store::Digest;
use kiln_store::digest::Algorithm;

use crate::error::Error;
use crate::name::RepositoryName;

/// Bytes of the longest file that holds a digest.
const LONGEST_LINK: u64 = 256;
/// Components of the deepest repository name that is looked for.
const DEEPEST: usize = 128;

/// The directory.
#[derive(Debug)]
pub(super) struct Layout {
    /// `…/docker/registry/v2`.
    root: PathBuf,
}

/// A manifest of a repository.
#[derive(Debug, Clone, Copy)]
pub(super) struct Revision {
    pub(super) digest: Digest,
    /// Seconds since 1970.
    pub(super) pushed_at: i64,
}

/// A tag of a repository.
#[derive(Debug, Clone)]
pub(super) struct TagLink {
    pub(super) name: String,
    pub(super) digest: Digest,
    /// Seconds since 1970.
    pub(super) pushed_at: i64,
}

impl Layout {
    /// `source` is the registry's root directory, or the `v2` inside it.
    pub(super) fn open(source: &Path) -> Result<Self, Error> {
        let candidates = [source.join("docker/registry/v2"), source.to_path_buf()];
        let root =
            candidates.into_iter().find(|root| root.join("repositories").is_dir() && root.join("blobs").is_dir());
        Ok(Self { root: root.ok_or_else(|| Error::NoDistribution(source.to_path_buf()))? })
    }

    /// Where the blob is or would be.
    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join("blobs").join(digest.algorithm().name()).join(&hex[..2]).join(&hex).join("data")
    }

    fn repository(&self, name: &RepositoryName) -> PathBuf {
        self.root.join("repositories").join(name.as_str())
    }

    /// The names of all repositories, in order. They are not checked.
    pub(super) fn repositories(&self) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        let mut waiting = vec![(self.root.join("repositories"), String::new(), 0)];
        while let Some((directory, name, depth)) = waiting.pop() {
            if directory.join("_manifests").is_dir() {
                names.push(name.clone());
            }
            for entry in entries(&directory)? {
                if depth < DEEPEST && !entry.starts_with('_') && directory.join(&entry).is_dir() {
                    let name = if name.is_empty() { entry.clone() } else { format!("{name}/{entry}") };
                    waiting.push((directory.join(entry), name, depth + 1));
                }
            }
        }
        names.sort();
        Ok(names)
    }

    /// The repository's manifests.
    pub(super) fn revisions(&self, repository: &RepositoryName) -> Result<Vec<Revision>, Error> {
        let mut revisions = Vec::new();
        for algorithm in Algorithm::ALL {
            let directory = self.repository(repository).join("_manifests/revisions").join(algorithm.name());
            for hex in entries(&directory)? {
                // A deleted manifest leaves its directory without the link.
                let link = read_link(&directory.join(hex).join("link"))?;
                revisions.extend(link.map(|(digest, pushed_at)| Revision { digest, pushed_at }));
            }
        }
        Ok(revisions)
    }

    /// Whether the repository holds a manifest of this digest.
    pub(super) fn has_revision(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        let revisions = self.repository(repository).join("_manifests/revisions");
        revisions.join(digest.algorithm().name()).join(digest.hex()).join("link").exists()
    }

    /// The repository's tags.
    pub(super) fn tags(&self, repository: &RepositoryName) -> Result<Vec<TagLink>, Error> {
        let directory = self.repository(repository).join("_manifests/tags");
        let mut tags = Vec::new();
        for name in entries(&directory)? {
            let link = read_link(&directory.join(&name).join("current/link"))?;
            tags.extend(link.map(|(digest, pushed_at)| TagLink { name, digest, pushed_at }));
        }
        Ok(tags)
    }
}

/// Names in a directory, in order; none when there is no directory. A name that is no text names nothing here.
fn entries(directory: &Path) -> Result<Vec<String>, Error> {
    let listed = match fs::read_dir(directory) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", directory)(error)),
    };
    let mut names = Vec::new();
    for entry in listed {
        names.extend(entry.map_err(Error::io("list", directory))?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// The digest in a file, and when it was written. `None` when there is no file, or no digest in it.
fn read_link(path: &Path) -> Result<Option<(Digest, i64)>, Error> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let written_at = file.metadata().map_err(Error::io("examine", path))?.mtime();
    let mut text = Vec::new();
    file.take(LONGEST_LINK).read_to_end(&mut text).map_err(Error::io("read", path))?;
    let digest = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
    Ok(digest.map(|digest| (digest, written_at)))
}
