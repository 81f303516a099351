//! What the collector removed, or would remove.

use serde::{Deserialize, Serialize};

/// Removals that a report lists at most; the others are only counted.
const MOST_LISTED: usize = 10_000;

/// The outcome of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionReport {
    /// Nothing was removed; this is what would be.
    pub dry_run: bool,
    /// What went, in the order it did; of very many only the first.
    pub removed: Vec<Removed>,
    /// Tags that went.
    pub tags: u64,
    /// Manifests that went from a repository.
    pub manifests: u64,
    /// Blobs that went from a repository.
    pub blobs: u64,
    /// Abandoned uploads.
    pub uploads: u64,
    /// Files that belonged to nothing: what a crash left.
    pub files: u64,
    /// Bytes that the disk got back.
    pub bytes: u64,
}

/// One thing that went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// What it was.
    pub kind: RemovedKind,
    /// From which repository, where it had one.
    pub repository: Option<String>,
    /// Its tag, digest or file name.
    pub name: String,
    /// Bytes that the disk got back by this alone.
    pub bytes: u64,
}

/// What went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RemovedKind {
    /// A tag, by a rule.
    Tag,
    /// A manifest that nothing led to any more.
    Manifest,
    /// A blob that no manifest of the repository referred to.
    Blob,
    /// An upload that nobody went on with.
    Upload,
    /// A file that no repository knew of.
    File,
}

impl RemovedKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tag => "tag",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Upload => "upload",
            Self::File => "file",
        }
    }
}

impl CollectionReport {
    pub(super) fn add(&mut self, kind: RemovedKind, repository: Option<&str>, name: String, bytes: u64) {
        let count = match kind {
            RemovedKind::Tag => &mut self.tags,
            RemovedKind::Manifest => &mut self.manifests,
            RemovedKind::Blob => &mut self.blobs,
            RemovedKind::Upload => &mut self.uploads,
            RemovedKind::File => &mut self.files,
        };
        *count += 1;
        self.bytes += bytes;
        if self.removed.len() < MOST_LISTED {
            self.removed.push(Removed { kind, repository: repository.map(str::to_owned), name, bytes });
        }
    }
}
