//! Takes over the data directory of a `distribution` registry: every manifest with what it refers to, every tag, every
//! digest verified. What is there already is left alone, so that an interrupted import is simply run again.

mod layout;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use kiln_store::Digest;
use kiln_store::digest::Hasher;
use serde::Serialize;

use crate::Config;
use crate::blocking::blocking;
use crate::database::{self, Push};
use crate::error::{Error, chain};
use crate::failure::Failure;
use crate::manifest::{LARGEST_MANIFEST, Manifest};
use crate::name::{RepositoryName, Tag};
use crate::registry::Registry;
use crate::{Result, database::Batch};
use layout::{Layout, Revision};

/// Bytes that are copied at once.
const COPIED: usize = 256 << 10;

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// Repositories that hold something now.
    pub repositories: u64,
    /// Manifests that were taken over, once for each repository.
    pub manifests: u64,
    /// Tags that were taken over.
    pub tags: u64,
    /// Blobs that were copied.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What could not be taken over, and why.
    pub skipped: Vec<Skipped>,
}

/// Something that was not taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// `repository@digest` or `repository:tag`.
    pub name: String,
    /// Why not.
    pub reason: String,
}

/// Copies what the `distribution` registry in `source` holds into the directory of `config`, which no server may have
/// open. Must be called on a tokio runtime.
///
/// # Errors
/// [`Error::NoDistribution`] when `source` is no such directory, [`Error::InUse`] when a server is running, and
/// whatever keeps the disk from being written. What is wrong with a single image is in the report.
pub async fn import(config: &Config, source: &Path) -> Result<ImportReport> {
    let layout = Arc::new(Layout::open(source)?);
    let mut run = Run { registry: Arc::new(Registry::open(config)?), layout, report: ImportReport::default() };
    for name in run.layout.repositories()? {
        match name.parse::<RepositoryName>() {
            Ok(repository) => run.import_repository(&repository).await?,
            Err(_) => run.skip(name, "this is no repository name"),
        }
    }
    Ok(run.report)
}

struct Run {
    registry: Arc<Registry>,
    layout: Arc<Layout>,
    report: ImportReport,
}

/// A manifest with everything that it refers to in place.
struct Complete {
    digest: Digest,
    bytes: Vec<u8>,
    manifest: Manifest,
    /// With their sizes in bytes.
    blobs: Vec<(Digest, u64)>,
    /// Those that were copied now.
    copied: (u64, u64),
}

/// Why a manifest is not taken over.
enum Obstacle {
    /// Something is wrong with it.
    Unusable(String),
    /// Something is wrong here.
    Fault(Error),
}

impl From<Error> for Obstacle {
    fn from(error: Error) -> Self {
        Self::Fault(error)
    }
}

impl Run {
    fn skip(&mut self, name: String, reason: impl Into<String>) {
        self.report.skipped.push(Skipped { name, reason: reason.into() });
    }

    async fn import_repository(&mut self, repository: &RepositoryName) -> Result<()> {
        let before = self.report.manifests;
        let mut tags = self.layout.tags(repository)?;
        for revision in self.layout.revisions(repository)? {
            let (these, rest) = tags.into_iter().partition(|tag| tag.digest == revision.digest);
            tags = rest;
            self.import_manifest(repository, revision, these).await?;
        }
        for tag in tags {
            self.skip(format!("{repository}:{}", tag.name), format!("there is no manifest {}", tag.digest));
        }
        self.report.repositories += u64::from(self.report.manifests > before);
        Ok(())
    }

    async fn import_manifest(
        &mut self,
        repository: &RepositoryName,
        revision: Revision,
        tags: Vec<layout::TagLink>,
    ) -> Result<()> {
        let (layout, registry) = (Arc::clone(&self.layout), Arc::clone(&self.registry));
        let name = repository.clone();
        let copy = move || complete(&layout, &registry, &name, &revision.digest);
        let complete = match blocking(copy).await {
            Ok(complete) => complete,
            Err(Obstacle::Fault(error)) => return Err(error),
            Err(Obstacle::Unusable(reason)) => {
                for tag in tags {
                    self.skip(format!("{repository}:{}", tag.name), reason.clone());
                }
                self.skip(format!("{repository}@{}", revision.digest), reason);
                return Ok(());
            }
        };
        let (mut named, mut unnamed) = (Vec::new(), Vec::new());
        for tag in tags {
            match Tag::parse(&tag.name) {
                Some(parsed) => named.push((parsed, tag.pushed_at)),
                None => unnamed.push(tag.name),
            }
        }
        self.report.manifests += 1;
        self.report.tags += named.len() as u64;
        self.report.blobs += complete.copied.0;
        self.report.bytes += complete.copied.1;
        for name in unnamed {
            self.skip(format!("{repository}:{name}"), "this is no tag");
        }
        let name = repository.clone();
        let store = move |batch: &mut Batch<'_>| store(batch, &name, &complete, revision.pushed_at, &named);
        self.registry.database.change("take a manifest over", store).await
    }
}

/// Writes the rows of a manifest and its blobs.
fn store(
    batch: &mut Batch<'_>,
    repository: &RepositoryName,
    complete: &Complete,
    pushed_at: i64,
    tags: &[(Tag, i64)],
) -> rusqlite::Result<()> {
    for (digest, size) in &complete.blobs {
        database::link_blob(batch, repository, digest, *size)?;
    }
    let Complete { digest, manifest, bytes, .. } = complete;
    database::put(batch.connection, repository, &Push { digest, manifest, bytes, tags: &[] }, pushed_at)?;
    for (tag, pushed_at) in tags {
        let push = Push { digest, manifest, bytes, tags: std::slice::from_ref(tag) };
        database::put(batch.connection, repository, &push, *pushed_at)?;
    }
    batch.changed(repository);
    Ok(())
}

/// Reads a manifest and copies the blobs it refers to. Blocks.
fn complete(
    layout: &Layout,
    registry: &Registry,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Complete, Obstacle> {
    let bytes = read_manifest(layout, digest)?;
    let manifest = Manifest::parse(&bytes, None).map_err(|failure| Obstacle::Unusable(reason(&failure)))?;
    let mut complete = Complete { digest: *digest, bytes, manifest, blobs: Vec::new(), copied: (0, 0) };
    for wanted in complete.manifest.references.clone() {
        if !complete.manifest.blobs.contains(&wanted) && layout.has_revision(repository, &wanted) {
            continue; // an image of an index, which comes as a manifest
        }
        match copy_blob(layout, registry, &wanted)? {
            Some((size, copied)) => {
                complete.blobs.push((wanted, size));
                complete.copied.0 += u64::from(copied);
                complete.copied.1 += if copied { size } else { 0 };
            }
            None if complete.manifest.blobs.contains(&wanted) => {
                return Err(Obstacle::Unusable(format!("its blob {wanted} is missing")));
            }
            // An index may lack images, and a layer may be elsewhere.
            None => {}
        }
    }
    Ok(complete)
}

fn reason(failure: &Failure) -> String {
    format!("it is no manifest that this registry serves: {failure}")
}

fn read_manifest(layout: &Layout, digest: &Digest) -> Result<Vec<u8>, Obstacle> {
    let path = layout.blob(digest);
    let missing = || Obstacle::Unusable("its bytes are missing".to_owned());
    let file = File::open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => missing(),
        _ => Obstacle::Fault(Error::io("open blob", &path)(error)),
    })?;
    let mut bytes = Vec::new();
    file.take(LARGEST_MANIFEST as u64 + 1).read_to_end(&mut bytes).map_err(Error::io("read blob", &path))?;
    if bytes.len() > LARGEST_MANIFEST {
        return Err(Obstacle::Unusable("it is too large".to_owned()));
    }
    let mut hasher = Hasher::new(digest.algorithm());
    hasher.update(&bytes);
    match hasher.finish() == *digest {
        true => Ok(bytes),
        false => Err(Obstacle::Unusable("its bytes have another digest".to_owned())),
    }
}

/// The blob's size in bytes, and whether it had to be copied; `None` when it is not there.
fn copy_blob(layout: &Layout, registry: &Registry, digest: &Digest) -> Result<Option<(u64, bool)>, Obstacle> {
    if let Some(size) = registry.blobs.size(digest).map_err(Error::from)? {
        return Ok(Some((size, false)));
    }
    let path = layout.blob(digest);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open blob", &path)(error).into()),
    };
    let mut writer = registry.blobs.writer(digest.algorithm()).map_err(Error::from)?;
    let mut buffer = vec![0; COPIED];
    loop {
        let count = file.read(&mut buffer).map_err(Error::io("read blob", &path))?;
        if count == 0 {
            break;
        }
        let to = registry.blobs.path(digest);
        writer.write_all(buffer.get(..count).unwrap_or_default()).map_err(Error::io("write blob", to))?;
    }
    match writer.commit(Some(digest), true) {
        Ok((_, size)) => Ok(Some((size, true))),
        Err(error @ kiln_store::Error::DigestMismatch { .. }) => {
            Err(Obstacle::Unusable(format!("its blob is damaged: {}", chain(&error))))
        }
        Err(error) => Err(Error::from(error).into()),
    }
}
