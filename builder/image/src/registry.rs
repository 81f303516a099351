//! Pulling from and pushing to registries (OCI distribution specification).

mod authentication;
mod catalog;
mod certificates;
pub(crate) mod content;
pub(crate) mod download;
mod endpoint;
#[cfg(any(test, fuzzing))]
mod invariants;
mod mount;
mod proxy;
mod pull;
mod push;
mod referrers;
mod remote_image;
pub(crate) mod repository;
mod routes;
mod search;
mod session;
pub(crate) mod upload;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kiln_store::{BlobPlaces, Digest, Store, layer::Compression};

use crate::credentials::Credential;
use crate::index::StoredIndex;
use crate::manifest::Form;
use crate::{Image, Platform, Reference, Result};

pub use catalog::repositories;
#[cfg(any(test, fuzzing))]
pub(crate) use invariants::check_answer;
pub use proxy::proxied;
pub use pull::Pulled;
pub use search::{Match, search};

/// Names asked for at once.
const PAGE_SIZE: usize = 1000;
pub use remote_image::{Documents, RemoteImage};

/// Blobs that move at once.
pub(crate) const PARALLEL: usize = 4;

/// What happens during a transfer, for whoever draws it.
pub trait TransferProgress: Send + Sync {
    /// A blob is about to move, or is known to be there already.
    fn begin(&self, blob: &Digest, size: u64, already_there: bool);
    /// Bytes moved since the last call.
    fn advance(&self, blob: &Digest, bytes: u64);
    /// It is done (verified, and unpacked when pulling).
    fn finish(&self, blob: &Digest);
}

/// Draws nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl TransferProgress for NoProgress {
    fn begin(&self, _: &Digest, _: u64, _: bool) {}
    fn advance(&self, _: &Digest, _: u64) {}
    fn finish(&self, _: &Digest) {}
}

/// How registries are talked to.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Use plain HTTP, or HTTPS without verification, with these registries; loopback ones always may.
    pub insecure: bool,
    /// Who we are, instead of what the credential files say.
    pub credential: Option<Credential>,
    /// The credential file, instead of docker's and podman's.
    pub authentication_file: Option<PathBuf>,
    /// A directory of certificates (`*.crt`, `*.cert`, `*.key`), instead of the registry's `certs.d`.
    pub certificates: Option<PathBuf>,
    /// Registries, by host and port, that are to be taken as `insecure` says, whatever it says of the others.
    pub insecure_registries: Vec<String>,
    /// Registries, perhaps with a path, that are asked first for what docker.io has.
    pub mirrors: Vec<String>,
    /// How often a failed request is made again.
    pub retries: Option<u32>,
    /// Pause before the first of these; it doubles.
    pub retry_delay: Option<Duration>,
    /// Where blobs were seen, so that a registry can take them from there; what has a store uses the store's.
    pub places: Option<Arc<BlobPlaces>>,
}

/// Fetches the image of `platform`, verifies and unpacks it, and points the reference at it.
pub async fn pull(
    store: &Store,
    reference: &Reference,
    platform: &Platform,
    options: &Options,
    progress: &dyn TransferProgress,
) -> Result<Image> {
    pull_with_digest(store, reference, platform, options, progress).await.map(|pulled| pulled.image)
}

/// [`pull`], also telling the digest that the registry's tag has (of the index, when it is one).
pub async fn pull_with_digest(
    store: &Store,
    reference: &Reference,
    platform: &Platform,
    options: &Options,
    progress: &dyn TransferProgress,
) -> Result<Pulled> {
    pull::pull(
        store,
        reference,
        std::slice::from_ref(reference),
        platform,
        &options.remembering(store.root()),
        progress,
    )
    .await
}

/// [`pull_with_digest`], under other names than the registry's.
pub async fn pull_as(
    store: &Store,
    reference: &Reference,
    names: &[Reference],
    platform: &Platform,
    options: &Options,
    progress: &dyn TransferProgress,
) -> Result<Pulled> {
    pull::pull(store, reference, names, platform, &options.remembering(store.root()), progress).await
}

/// Fetches every image of an index, and what else it names, and points the reference at the index. Of a reference that
/// is one image, that image, whatever it was made for. Returns the image, if it is one, and the registry's digest.
/// `names` is what it is called in the store.
pub async fn pull_all_platforms(
    store: &Store,
    reference: &Reference,
    names: &[Reference],
    options: &Options,
    progress: &dyn TransferProgress,
) -> Result<(Option<Digest>, Digest)> {
    pull::pull_all_platforms(store, reference, names, &options.remembering(store.root()), progress).await
}

/// Uploads an index of the store with its images. Returns its digest.
pub async fn push_index(
    store: &Store,
    index: &StoredIndex,
    reference: &Reference,
    options: &Options,
    progress: &dyn TransferProgress,
) -> Result<Digest> {
    crate::index::push(store, index, reference, &options.remembering(store.root()), progress).await
}

/// Uploads an image under a reference; what the registry has is not sent. Returns the manifest's digest.
pub async fn push(
    store: &Store,
    image: &Image,
    reference: &Reference,
    compression: Compression,
    options: &Options,
    progress: &dyn TransferProgress,
) -> Result<Digest> {
    push::push(store, image, reference, Form::of(compression), &options.remembering(store.root()), progress).await
}

/// [`push`], with every layer compressed as said, also those that came from elsewhere in another form.
pub async fn push_recompressed(
    store: &Store,
    image: &Image,
    reference: &Reference,
    compression: Compression,
    options: &Options,
    progress: &dyn TransferProgress,
) -> Result<Digest> {
    let form = Form { forced: true, ..Form::of(compression) };
    push::push(store, image, reference, form, &options.remembering(store.root()), progress).await
}

/// The bearer token for a repository: to read, or also to push. `None` where the registry asks for none.
///
/// # Errors
/// The registry or its token server refuses, or cannot be reached.
pub async fn token(repository: &Reference, push: bool, options: &Options) -> Result<Option<String>> {
    let access = if push { repository::Access::Push } else { repository::Access::Pull };
    let repository = repository::Repository::open(repository, access, &[], options).await?;
    repository.session.token(&repository.url("tags/list")?).await
}

/// Whether a registry accepts a credential: what `login` asks before it keeps it.
///
/// # Errors
/// The registry refuses it, or cannot be reached.
pub async fn check_credential(registry: &str, credential: &Credential, options: &Options) -> Result<()> {
    let session = session::Session::open(registry, Some(credential.clone()), Vec::new(), options).await?;
    session.check().await
}
