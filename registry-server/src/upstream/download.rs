//! A blob on its way from an upstream: one download, which any number of clients read while it grows.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Method;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use kiln_store::Digest;
use tokio::sync::watch;

use super::Upstream;
use super::remote::Trouble;
use crate::failure::Failure;
use crate::name::RepositoryName;
use crate::registry::Registry;
use crate::upload::UploadId;

/// How often a download that broke off is continued.
const ATTEMPTS: u32 = 4;
/// How long a reader sleeps that has caught up.
const PAUSE: Duration = Duration::from_millis(10);
/// Bytes that a reader takes at once.
const CHUNK: usize = 128 << 10;

/// A download under way.
#[derive(Debug, Clone)]
pub(super) struct Download {
    file: Arc<File>,
    /// Bytes of the whole blob, where the upstream said so.
    pub(super) size: Option<u64>,
    /// How it ended, once it did: whether the blob is here now, verified.
    end: watch::Receiver<Option<bool>>,
}

impl Download {
    /// Begins it. What was begun goes on without its first client.
    pub(super) async fn begin(
        upstream: &Arc<Upstream>,
        registry: &Arc<Registry>,
        repository: &RepositoryName,
        remote: &str,
        digest: Digest,
    ) -> Result<Self, Begin> {
        let first = upstream.remote.blob(Method::GET, remote, &digest.to_string(), 0).await.map_err(Begin::Trouble)?;
        let size = first.content_length();
        let id = registry.uploads.create(repository, digest.algorithm()).await.map_err(Begin::Failure)?;
        let upload = registry.uploads.write(repository, id, Some(digest.algorithm())).await.map_err(Begin::Failure)?;
        let file = Arc::new(upload.reader().map_err(|error| Begin::Failure(error.into()))?);
        drop(upload);
        let (ended, end) = watch::channel(None);
        let task = Task {
            upstream: Arc::clone(upstream),
            registry: Arc::clone(registry),
            repository: repository.clone(),
            remote: remote.to_owned(),
            digest,
            id,
        };
        tokio::spawn(async move {
            let stored = task.run(first).await;
            task.upstream.downloads().remove(&digest);
            let _ = ended.send(Some(stored)); // all readers may have gone
        });
        Ok(Self { file, size, end })
    }

    /// Waits for its end: whether the blob is here.
    pub(super) async fn finish(mut self) -> bool {
        self.end.wait_for(Option::is_some).await.is_ok_and(|end| *end == Some(true))
    }

    /// The blob as it comes. Its last byte is given out only when all of them were verified.
    pub(super) fn body(self, size: u64) -> Body {
        Body::from_stream(self.chunks(size))
    }

    fn chunks(self, size: u64) -> impl Stream<Item = io::Result<Bytes>> {
        stream::try_unfold((self, 0_u64), move |(download, offset)| async move {
            loop {
                if offset == size {
                    return Ok(None);
                }
                let end = *download.end.borrow();
                if end == Some(false) || download.end.has_changed().is_err() && end.is_none() {
                    return Err(io::Error::other("the upstream's blob did not arrive"));
                }
                let readable = if end == Some(true) { size } else { size - 1 };
                let wanted = usize::try_from(readable - offset).unwrap_or(CHUNK).min(CHUNK);
                let file = Arc::clone(&download.file);
                let read = tokio::task::spawn_blocking(move || {
                    let mut buffer = vec![0; wanted];
                    let count = file.read_at(&mut buffer, offset)?;
                    buffer.truncate(count);
                    io::Result::Ok(buffer)
                });
                let bytes = read.await.map_err(io::Error::other)??;
                if !bytes.is_empty() {
                    let next = offset + bytes.len() as u64;
                    return Ok(Some((Bytes::from(bytes), (download, next))));
                }
                if end == Some(true) {
                    return Err(io::Error::other("the upstream's blob is shorter than it said"));
                }
                tokio::time::sleep(PAUSE).await;
            }
        })
    }
}

/// Why a download could not begin.
pub(super) enum Begin {
    Trouble(Trouble),
    Failure(Failure),
}

/// What a download needs.
struct Task {
    upstream: Arc<Upstream>,
    registry: Arc<Registry>,
    repository: RepositoryName,
    remote: String,
    digest: Digest,
    id: UploadId,
}

impl Task {
    /// Whether the blob was stored. What broke off is continued at its byte.
    async fn run(&self, first: reqwest::Response) -> bool {
        let mut response = Some(first);
        for attempt in 0..ATTEMPTS {
            let body = match response.take() {
                Some(response) => response,
                None => {
                    tokio::time::sleep(Duration::from_millis(200) * 4_u32.pow(attempt)).await;
                    match self.resume().await {
                        Ok(response) => response,
                        Err(()) => continue,
                    }
                }
            };
            match self.receive(body).await {
                Ok(()) => return true,
                Err(Step::Again) => {}
                Err(Step::Never) => return false,
            }
        }
        drop(self.registry.uploads.cancel(&self.repository, self.id).await);
        false
    }

    async fn resume(&self) -> Result<reqwest::Response, ()> {
        let length = self.registry.uploads.length(&self.repository, self.id).await.map_err(|_| ())?;
        let asked = self.upstream.remote.blob(Method::GET, &self.remote, &self.digest.to_string(), length).await;
        asked.map_err(|trouble| {
            tracing::warn!(repository = self.repository.as_str(), digest = %self.digest, ?trouble, "continue a blob");
        })
    }

    async fn receive(&self, response: reqwest::Response) -> Result<(), Step> {
        let uploads = &self.registry.uploads;
        let algorithm = Some(self.digest.algorithm());
        let upload = uploads.write(&self.repository, self.id, algorithm).await.map_err(|_| Step::Never)?;
        let mut body = Body::from_stream(response.bytes_stream());
        let received = upload.receive(&mut body, None, &self.registry.transfers.begin()).await;
        let received = received.map_err(|_| Step::Again)?;
        // Wrong bytes end the upload by themselves.
        let verified = received.verify(self.digest).await.map_err(|_| Step::Never)?;
        self.registry.store_blob(&self.repository, verified).await.map_err(|_| Step::Never)
    }
}

/// What to do after an attempt that did not succeed.
enum Step {
    Again,
    Never,
}
