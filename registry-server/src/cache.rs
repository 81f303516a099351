//! Answers of the database to the questions that every pull asks, kept in memory: a manifest by its reference, a
//! blob's size in a repository. All writes go through this process, which forgets a repository's answers before it
//! acknowledges a change to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kiln_store::Digest;

use crate::name::RepositoryName;

/// Bytes that all answers together may take.
const CAPACITY: usize = 16 << 20;
/// Bytes of the largest manifest that is kept.
const LARGEST: usize = 256 << 10;
/// Bytes that an answer takes besides its own content, about.
const OVERHEAD: usize = 256;

/// A manifest as a repository serves it.
#[derive(Debug, Clone)]
pub(crate) struct StoredManifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: Arc<str>,
    pub(crate) bytes: Bytes,
    /// When it was last of use (seconds since 1970), if no tag keeps it.
    pub(crate) idle_since: Option<i64>,
}

/// A blob that a repository links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KnownBlob {
    /// In bytes.
    pub(crate) size: u64,
    /// When it was last of use (seconds since 1970), if no manifest keeps it.
    pub(crate) idle_since: Option<i64>,
}

/// The cache.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<Contents>);

#[derive(Debug, Default)]
struct Contents {
    /// Counts the changes, so that an answer read before one is not kept after it.
    generation: u64,
    repositories: HashMap<RepositoryName, Answers>,
    size: usize,
}

#[derive(Debug, Default)]
struct Answers {
    manifests: HashMap<String, StoredManifest>,
    blobs: HashMap<Digest, KnownBlob>,
    size: usize,
}

/// Proof of when an answer was asked for; taken before the database is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Generation(u64);

impl Cache {
    pub(crate) fn generation(&self) -> Generation {
        Generation(self.contents().generation)
    }

    pub(crate) fn manifest(&self, repository: &RepositoryName, reference: &str) -> Option<StoredManifest> {
        self.contents().repositories.get(repository)?.manifests.get(reference).cloned()
    }

    pub(crate) fn blob(&self, repository: &RepositoryName, digest: &Digest) -> Option<KnownBlob> {
        self.contents().repositories.get(repository)?.blobs.get(digest).copied()
    }

    pub(crate) fn keep_manifest(
        &self,
        asked: Generation,
        repository: &RepositoryName,
        reference: String,
        manifest: &StoredManifest,
    ) {
        if manifest.bytes.len() <= LARGEST {
            self.contents().keep(asked, repository, manifest.bytes.len() + OVERHEAD, |answers| {
                answers.manifests.insert(reference, manifest.clone());
            });
        }
    }

    pub(crate) fn keep_blob(&self, asked: Generation, repository: &RepositoryName, digest: &Digest, blob: KnownBlob) {
        self.contents().keep(asked, repository, OVERHEAD, |answers| {
            answers.blobs.insert(*digest, blob);
        });
    }

    /// Drops what is known about repositories that changed.
    pub(crate) fn forget<'a>(&self, repositories: impl IntoIterator<Item = &'a RepositoryName>) {
        let mut contents = self.contents();
        contents.generation += 1;
        for repository in repositories {
            if let Some(answers) = contents.repositories.remove(repository) {
                contents.size -= answers.size;
            }
        }
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn keep(&mut self, asked: Generation, repository: &RepositoryName, size: usize, keep: impl FnOnce(&mut Answers)) {
        if asked.0 != self.generation {
            return;
        }
        if self.size + size > CAPACITY {
            // Starting over is cheap: an answer costs some microseconds to get again.
            self.repositories.clear();
            self.size = 0;
        }
        let answers = self.repositories.entry(repository.clone()).or_default();
        keep(answers);
        answers.size += size;
        self.size += size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_from_before_a_change_is_not_kept() {
        let cache = Cache::default();
        let repository: RepositoryName = "a/b".parse().unwrap();
        let digest = Digest::of(b"x");
        let before = cache.generation();
        let blob = KnownBlob { size: 1, idle_since: None };
        cache.keep_blob(before, &repository, &digest, blob);
        assert_eq!(cache.blob(&repository, &digest), Some(blob));
        cache.forget([&repository]);
        assert_eq!(cache.blob(&repository, &digest), None);
        cache.keep_blob(before, &repository, &digest, blob);
        assert_eq!(cache.blob(&repository, &digest), None);
    }

    #[test]
    fn its_size_is_bounded() {
        let cache = Cache::default();
        let manifest = StoredManifest {
            digest: Digest::of(b""),
            media_type: "a/b".into(),
            bytes: vec![0; LARGEST].into(),
            idle_since: None,
        };
        for number in 0..200 {
            let repository: RepositoryName = format!("r{}", number % 7).parse().unwrap();
            cache.keep_manifest(cache.generation(), &repository, number.to_string(), &manifest);
            assert!(cache.manifest(&repository, &number.to_string()).is_some());
            assert!(cache.contents().size <= CAPACITY);
        }
    }
}
