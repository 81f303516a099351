//! Blobs to a registry: mounted where it has them, streamed from a file, from another registry, or as they are made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream;
use kiln_store::Digest;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Body, Response, StatusCode, Url};
use tokio::sync::mpsc;
use tokio_util::bytes::Bytes;

use super::TransferProgress;
use super::content::Content;
use super::mount::Mount;
use super::repository::Repository;
use super::session::success;
use crate::manifest::Descriptor;
use crate::{Error, Result};

/// How often an upload's progress is told.
const TICK: Duration = Duration::from_millis(100);
const OCTETS: &str = "application/octet-stream";

/// Whether the registry has a blob.
pub(crate) async fn exists(repository: &Repository, digest: &Digest) -> Result<bool> {
    let url = repository.url(&format!("blobs/{digest}"))?;
    let response = repository.session.send("HEAD", |http| http.head(url.clone())).await?;
    if response.status() == StatusCode::NOT_FOUND {
        return Ok(false);
    }
    success("HEAD", response).await.map(|_| true)
}

/// Sends a blob, unless the registry can take it from another of its repositories, perhaps from `from`.
pub(crate) async fn upload(
    repository: &Repository,
    blob: &Descriptor,
    from: Option<&str>,
    content: &Content,
    progress: &dyn TransferProgress,
) -> Result<()> {
    let mut opened = open(repository, &blob.digest, from).await?;
    if opened.is_none() {
        return Ok(());
    }
    let mut attempt = 1;
    let told = AtomicU64::new(0);
    loop {
        let location = match opened.take() {
            Some(location) => location,
            None => start(repository).await?,
        };
        let Err(failure) = send_content(repository, location, blob, content, progress, &told).await else {
            return Ok(());
        };
        let passing = match &failure {
            Error::Transport { .. } => true,
            Error::Registry { status, .. } => *status >= 500 || matches!(*status, 404 | 429),
            Error::Denied { .. } => attempt == 1,
            _ => false,
        };
        match repository.session.patience.pause(attempt, None) {
            Some(pause) if passing => tokio::time::sleep(pause).await,
            _ => return Err(failure),
        }
        attempt += 1;
    }
}

/// Opens an upload of a blob, and says where it goes; `None` when the registry has it from another repository.
pub(super) async fn open(repository: &Repository, digest: &Digest, from: Option<&str>) -> Result<Option<Url>> {
    match repository.mount(digest, from).await {
        Mount::Done => Ok(None),
        Mount::Opened(location) => Ok(Some(location)),
        Mount::Refused => start(repository).await.map(Some),
    }
}

/// Opens an upload, and says where it goes.
pub(super) async fn start(repository: &Repository) -> Result<Url> {
    let url = repository.url("blobs/uploads/")?;
    let response = repository.session.send("POST", |http| http.post(url.clone()).header(CONTENT_LENGTH, 0)).await?;
    location_of(repository, &success("POST", response).await?)
}

pub(super) fn location_of(repository: &Repository, response: &Response) -> Result<Url> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.and_then(|location| response.url().join(location).ok());
    let what = || format!("registry's answer to an upload to {}", repository.name);
    location.ok_or_else(|| Error::invalid(what(), "it has no valid Location"))
}

/// Sends the whole blob in one request, telling the progress meanwhile.
async fn send_content(
    repository: &Repository,
    mut location: Url,
    blob: &Descriptor,
    content: &Content,
    progress: &dyn TransferProgress,
    told: &AtomicU64,
) -> Result<()> {
    location.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
    let sent = Arc::new(AtomicU64::new(0));
    // A request that is made again, after a challenge, has its body from the beginning.
    let request = repository.session.send_once("PUT", |http| {
        let request = http.put(location.clone()).header(CONTENT_TYPE, OCTETS).header(CONTENT_LENGTH, blob.size);
        if blob.size == 0 { request } else { request.body(content.body(blob, &sent)) }
    });
    tokio::pin!(request);
    let mut ticks = tokio::time::interval(TICK);
    let response = loop {
        tokio::select! {
            response = &mut request => break response?,
            _ = ticks.tick() => tell(&sent, told, blob, progress),
        }
    };
    success("PUT", response).await?;
    sent.store(blob.size, Ordering::Relaxed);
    tell(&sent, told, blob, progress);
    Ok(())
}

/// Tells what was sent since the last time; what is sent again is not told again.
fn tell(sent: &AtomicU64, told: &AtomicU64, blob: &Descriptor, progress: &dyn TransferProgress) {
    let now = sent.load(Ordering::Relaxed);
    let before = told.fetch_max(now, Ordering::Relaxed);
    if now > before {
        progress.advance(&blob.digest, now - before);
    }
}

/// Sends pieces as they are made, of a blob whose digest nobody knows yet. Returns where the upload is finished.
pub(super) async fn stream_pieces(
    repository: &Repository,
    location: Url,
    pieces: mpsc::Receiver<Bytes>,
) -> Result<Url> {
    let pieces = std::sync::Mutex::new(Some(pieces));
    let request = repository.session.send_once("PATCH", |http| {
        let request = http.patch(location.clone()).header(CONTENT_TYPE, OCTETS);
        let pieces = pieces.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        // There is no second time for a stream: the registry refuses a body of nothing, and the blob is sent whole.
        let Some(pieces) = pieces else { return request };
        request.body(Body::wrap_stream(stream::unfold(pieces, |mut pieces| async move {
            let piece = pieces.recv().await?;
            Some((Ok::<_, std::io::Error>(piece), pieces))
        })))
    });
    let response = success("PATCH", request.await?).await?;
    location_of(repository, &response)
}

/// Finishes an upload of which everything was sent.
pub(super) async fn finish(repository: &Repository, mut location: Url, digest: &Digest) -> Result<()> {
    location.query_pairs_mut().append_pair("digest", &digest.to_string());
    let request = repository.session.send_once("PUT", |http| http.put(location.clone()).header(CONTENT_LENGTH, 0));
    success("PUT", request.await?).await.map(drop)
}
