//! The open directory: its lock, its blobs, its database, its uploads.

use std::fs::{self, File, TryLockError};
use std::path::PathBuf;
use std::sync::Arc;

use kiln_store::{Blobs, Digest};
use tokio::sync::Semaphore;

use crate::Config;
use crate::cache::{Cache, KnownBlob, StoredManifest};
use crate::collection::Collection;
use crate::database::{self, Database};
use crate::error::Error;
use crate::failure::Failure;
use crate::integrity::Integrity;
use crate::name::{Reference, RepositoryName};
use crate::pulls::Pulls;
use crate::transfer::Transfers;
use crate::upload::{Uploads, VerifiedUpload};

/// Large manifests that are received at once.
const LARGE_MANIFESTS: usize = 8;

/// One registry.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) root: PathBuf,
    pub(crate) blobs: Blobs,
    pub(crate) database: Arc<Database>,
    pub(crate) uploads: Uploads,
    pub(crate) transfers: Transfers,
    pub(crate) pulls: Pulls,
    /// Taken by manifests too large to have thousands of them in memory at once.
    pub(crate) large_manifests: Semaphore,
    cache: Arc<Cache>,
    /// Accept image manifests whose blobs are not here.
    pub(crate) sparse: bool,
    /// Refuse every change.
    pub(crate) read_only: bool,
    /// What is removed, and what may not be.
    pub(crate) collection: Arc<Collection>,
    /// Held while the collector runs, since twice at a time it would only be in its own way.
    pub(crate) collecting: tokio::sync::Mutex<()>,
    pub(crate) integrity: Integrity,
    /// Bytes of the largest manifest that is accepted.
    pub(crate) largest_manifest: usize,
    /// Held until everything above is closed.
    _lock: File,
}

impl Registry {
    /// Opens the directory, or makes it. One process at a time has it.
    pub(crate) fn open(config: &Config) -> Result<Self, Error> {
        let root = config.data.as_path();
        fs::create_dir_all(root).map_err(Error::io("create directory", root))?;
        let path = root.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(Error::io("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse(root.to_path_buf())),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
        }
        let uploads = Uploads::open(&root.join("uploads"), config.limits.blob.0)?;
        let blobs = Blobs::open(&root.join("blobs"), &root.join("uploads"))?;
        for directory in [root, &root.join("blobs")] {
            let flush = File::open(directory).and_then(|file| file.sync_all());
            flush.map_err(Error::io("flush directory", directory))?;
        }
        let cache = Arc::new(Cache::default());
        let database = Database::open(&root.join("registry.db"), blobs.clone(), Arc::clone(&cache))?;
        Ok(Self {
            root: root.to_path_buf(),
            blobs,
            database: Arc::new(database),
            uploads,
            transfers: Transfers::default(),
            pulls: Pulls::default(),
            large_manifests: Semaphore::new(LARGE_MANIFESTS),
            cache,
            sparse: config.accept_sparse,
            read_only: config.read_only,
            collection: Arc::new(config.collection.clone()),
            collecting: tokio::sync::Mutex::default(),
            integrity: Integrity::default(),
            largest_manifest: usize::try_from(config.limits.manifest.0).unwrap_or(usize::MAX),
            _lock: lock,
        })
    }

    /// The manifest that a reference means in the repository.
    pub(crate) async fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<StoredManifest>, Error> {
        let text = reference.to_string();
        if let Some(manifest) = self.cache.manifest(repository, &text) {
            return Ok(Some(manifest));
        }
        let asked = self.cache.generation();
        let (name, wanted) = (repository.clone(), reference.clone());
        let found = self.database.read(move |connection| database::manifest(connection, &name, &wanted)).await?;
        if let Some(manifest) = &found {
            self.cache.keep_manifest(asked, repository, text, manifest);
        }
        Ok(found)
    }

    /// A blob that the repository serves.
    pub(crate) async fn blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<KnownBlob>, Error> {
        if let Some(blob) = self.cache.blob(repository, digest) {
            return Ok(Some(blob));
        }
        let asked = self.cache.generation();
        let (name, wanted) = (repository.clone(), *digest);
        let found = self.database.read(move |connection| database::blob(connection, &name, &wanted)).await?;
        if let Some(blob) = found {
            self.cache.keep_blob(asked, repository, digest, blob);
        }
        Ok(found)
    }

    /// Somebody was told that the blob is here, and may count on it: the collector must not come first. `false` when
    /// it did.
    pub(crate) async fn need_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        blob: KnownBlob,
    ) -> Result<bool, Failure> {
        if !self.is_due(blob.idle_since) {
            return Ok(true);
        }
        let (name, wanted) = (repository.clone(), *digest);
        self.database.write_even_when_full(move |batch| database::need_blob(batch, &name, &wanted)).await
    }

    /// The same of a manifest.
    pub(crate) async fn need_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &StoredManifest,
    ) -> Result<bool, Failure> {
        if !self.is_due(manifest.idle_since) {
            return Ok(true);
        }
        let (name, wanted) = (repository.clone(), manifest.digest);
        self.database.write_even_when_full(move |batch| database::need_manifest(batch, &name, &wanted)).await
    }

    /// Whether a good part of the grace period has gone by, so that noting a new use is worth a write.
    fn is_due(&self, idle_since: Option<i64>) -> bool {
        !self.read_only && idle_since.is_some_and(|since| database::now() - since > self.grace() / 4)
    }

    /// In seconds.
    pub(crate) fn grace(&self) -> i64 {
        self.collection.grace.as_seconds()
    }

    /// Makes a blob of a verified upload and links it into the repository. When this returns, it is durable.
    pub(crate) async fn store_blob(&self, repository: &RepositoryName, upload: VerifiedUpload) -> Result<(), Failure> {
        let id = upload.id;
        let (blobs, name, grace) = (self.blobs.clone(), repository.clone(), self.grace());
        let store = move |batch: &mut database::Batch<'_>| {
            let digest = upload.digest;
            let path = blobs.path(&digest);
            // Its bytes were flushed; the directory is, once for the batch. A file of that name may be damaged, so it
            // is replaced in any case.
            fs::rename(&upload.path, &path).map_err(Error::io("store blob", &path))?;
            batch.placed(digest, &path);
            database::link_blob(batch, &name, &digest, upload.size).map_err(Error::database("link a blob"))?;
            if database::now() - upload.id.started() > grace / 4 {
                let since = upload.id.started() - grace;
                database::need_blobs_since(batch, &name, since).map_err(Error::database("keep a push's blobs"))?;
            }
            Ok(())
        };
        let result = self.database.write(store).await;
        self.uploads.forget(id);
        result
    }
}
