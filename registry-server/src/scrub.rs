//! The scrub: every blob and every manifest is read and hashed. What is damaged is put aside, and never served.

use std::fs::{self, File};
use std::io;
use std::sync::Arc;

use kiln_store::Digest;
use serde::{Deserialize, Serialize};

use crate::blocking::blocking;
use crate::database;
use crate::error::Error;
use crate::integrity::{FileIdentity, is_whole};
use crate::registry::Registry;

/// Rows that are looked up at once.
const PAGE: usize = 200;

/// What a scrub found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubReport {
    /// Blobs that were read.
    pub blobs: u64,
    /// Manifests that were read.
    pub manifests: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// What is damaged.
    pub damaged: Vec<Damage>,
    /// What is wrong with the database's structure, in SQLite's words.
    pub database: Vec<String>,
}

/// A blob or manifest that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// What it should be.
    pub digest: String,
    /// `blob` or `manifest`.
    pub kind: String,
    /// What is wrong with it.
    pub reason: String,
    /// Where clients miss it.
    pub repositories: Vec<String>,
}

impl ScrubReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.database.is_empty()
    }
}

/// What became of one blob's file.
enum Finding {
    Whole(u64),
    Missing,
    Damaged(FileIdentity),
}

/// Reads everything once.
pub(crate) async fn scrub(registry: &Arc<Registry>) -> Result<ScrubReport, Error> {
    let mut report =
        ScrubReport { database: registry.database.read(database::quick_check).await?, ..Default::default() };
    for (digest, repositories) in registry.database.read(database::damaged_blobs).await? {
        let reason = "it was put aside before, and not pushed again since".to_owned();
        report.damaged.push(Damage { digest, kind: "blob".to_owned(), reason, repositories });
    }
    let mut last = 0;
    loop {
        let page = registry.database.read(move |connection| database::blobs_after(connection, last, PAGE)).await?;
        let Some((row, ..)) = page.last() else { break };
        last = *row;
        for (_, digest, size) in page {
            report.blobs += 1;
            scrub_blob(registry, &digest, size, &mut report).await?;
        }
    }
    let mut last = 0;
    loop {
        let page = registry.database.read(move |connection| database::manifests_after(connection, last, PAGE)).await?;
        let Some(checked) = page.last() else { break };
        last = checked.id;
        for manifest in page {
            report.manifests += 1;
            report.bytes += manifest.size;
            if !manifest.whole {
                let reason = "its bytes have another digest".to_owned();
                let digest = manifest.digest.to_string();
                report.damaged.push(Damage { digest, kind: "manifest".to_owned(), reason, repositories: Vec::new() });
            }
        }
    }
    for damage in &report.damaged {
        tracing::error!(digest = damage.digest, kind = damage.kind, reason = damage.reason, "found by the scrub");
    }
    Ok(report)
}

async fn scrub_blob(
    registry: &Arc<Registry>,
    digest: &Digest,
    size: u64,
    report: &mut ScrubReport,
) -> Result<(), Error> {
    let (this, wanted) = (Arc::clone(registry), *digest);
    let (reason, identity) = match blocking(move || examine(&this, &wanted, size)).await? {
        Finding::Whole(size) => {
            report.bytes += size;
            return Ok(());
        }
        Finding::Missing => ("its file is missing", None),
        Finding::Damaged(file) if file.size() != size => ("its file has the wrong size", Some(file)),
        Finding::Damaged(file) => ("its file has another digest", Some(file)),
    };
    // Unless it was deleted or pushed again meanwhile.
    if let Some(repositories) = registry.put_aside(digest, identity).await? {
        let kind = "blob".to_owned();
        report.damaged.push(Damage { digest: digest.to_string(), kind, reason: reason.to_owned(), repositories });
    }
    Ok(())
}

fn examine(registry: &Registry, digest: &Digest, size: u64) -> Result<Finding, Error> {
    let path = registry.blobs.path(digest);
    let Some(file) = registry.blobs.get(digest)? else { return Ok(Finding::Missing) };
    let identity = FileIdentity::of(&file.metadata().map_err(Error::io("examine blob", &path))?);
    if identity.size() == size && is_whole(&file, digest).map_err(Error::io("read blob", path))? {
        registry.integrity.note(digest, identity);
        return Ok(Finding::Whole(size));
    }
    Ok(Finding::Damaged(identity))
}

impl Registry {
    /// From now on nobody is served this blob, until it is pushed again; its file, if there is one, goes to
    /// `quarantine/`. `file` is what was found there: when it is another one by now, nothing happens. Returns the
    /// repositories that link the blob, `None` when nothing happened.
    pub(crate) async fn put_aside(
        &self,
        digest: &Digest,
        file: Option<FileIdentity>,
    ) -> Result<Option<Vec<String>>, Error> {
        let (wanted, path) = (*digest, self.blobs.path(digest));
        let quarantine = self.root.join("quarantine");
        let change = move |batch: &mut database::Batch<'_>| -> Result<_, Error> {
            let present = match fs::symlink_metadata(&path) {
                Ok(metadata) => Some(FileIdentity::of(&metadata)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(Error::io("examine blob", &path)(error)),
            };
            if present != file {
                return Ok(None);
            }
            let Some(repositories) = database::mark_damaged(batch, &wanted)? else { return Ok(None) };
            if file.is_some() {
                fs::create_dir_all(&quarantine).map_err(Error::io("create directory", &quarantine))?;
                let to = quarantine.join(format!("{}-{}", wanted.algorithm(), wanted.hex()));
                fs::rename(&path, &to).map_err(Error::io("put aside", &path))?;
                let flush = File::open(&quarantine).and_then(|directory| directory.sync_all());
                flush.map_err(Error::io("flush directory", &quarantine))?;
            }
            Ok(Some(repositories))
        };
        let repositories = self.database.write(change).await?;
        self.integrity.forget(digest);
        Ok(repositories)
    }
}
