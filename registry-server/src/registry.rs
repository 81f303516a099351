//! The open directory: its lock, its blobs, its database, its uploads.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::sync::Arc;

use kiln_store::{Blobs, Digest};
use tokio::sync::Semaphore;

use crate::cache::{Cache, StoredManifest};
use crate::database::{self, Database};
use crate::error::Error;
use crate::failure::Failure;
use crate::name::{Reference, RepositoryName};
use crate::transfer::Transfers;
use crate::upload::{self, Uploads, VerifiedUpload};

/// Large manifests that are received at once.
const LARGE_MANIFESTS: usize = 8;

/// One registry.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) blobs: Blobs,
    pub(crate) database: Arc<Database>,
    pub(crate) uploads: Uploads,
    pub(crate) transfers: Transfers,
    /// Taken by manifests too large to have thousands of them in memory at once.
    pub(crate) large_manifests: Semaphore,
    cache: Arc<Cache>,
    /// Accept image manifests whose blobs are not here.
    pub(crate) sparse: bool,
    /// Held until everything above is closed.
    _lock: File,
}

impl Registry {
    /// Opens the directory, or makes it. One process at a time has it.
    pub(crate) fn open(root: &Path, sparse: bool) -> Result<Self, Error> {
        fs::create_dir_all(root).map_err(Error::io("create directory", root))?;
        let path = root.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(Error::io("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse(root.to_path_buf())),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
        }
        let uploads = Uploads::open(&root.join("uploads"))?;
        uploads.purge(upload::EXPIRY)?;
        let blobs = Blobs::open(&root.join("blobs"), &root.join("uploads"))?;
        for directory in [root, &root.join("blobs")] {
            let flush = File::open(directory).and_then(|file| file.sync_all());
            flush.map_err(Error::io("flush directory", directory))?;
        }
        let cache = Arc::new(Cache::default());
        let database = Database::open(&root.join("registry.db"), blobs.clone(), Arc::clone(&cache))?;
        Ok(Self {
            blobs,
            database: Arc::new(database),
            uploads,
            transfers: Transfers::default(),
            large_manifests: Semaphore::new(LARGE_MANIFESTS),
            cache,
            sparse,
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

    /// The size in bytes of a blob that the repository links.
    pub(crate) async fn blob_size(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<u64>, Error> {
        if let Some(size) = self.cache.blob(repository, digest) {
            return Ok(Some(size));
        }
        let asked = self.cache.generation();
        let (name, wanted) = (repository.clone(), *digest);
        let found = self.database.read(move |connection| database::blob_size(connection, &name, &wanted)).await?;
        if let Some(size) = found {
            self.cache.keep_blob(asked, repository, digest, size);
        }
        Ok(found)
    }

    /// Makes a blob of a verified upload and links it into the repository. When this returns, it is durable.
    pub(crate) async fn store_blob(&self, repository: &RepositoryName, upload: VerifiedUpload) -> Result<(), Failure> {
        let id = upload.id;
        let (blobs, name) = (self.blobs.clone(), repository.clone());
        let store = move |batch: &mut database::Batch<'_>| {
            let digest = upload.digest;
            // Its bytes were flushed; the directory is, once for the batch.
            blobs.adopt(upload.path.clone(), &digest, true, false)?;
            batch.flush_directory_of(&blobs.path(&digest));
            database::link_blob(batch, &name, &digest, upload.size).map_err(Error::database("link a blob"))?;
            Ok(())
        };
        let result = self.database.write(store).await;
        self.uploads.forget(id);
        result
    }
}
