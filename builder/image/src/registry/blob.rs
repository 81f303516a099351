//! Moving blobs: streamed, verified, resumed where they broke off.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use kiln_store::blob::BlobWriter;
use kiln_store::{Blobs, Digest};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Body, Response, StatusCode, Url};
use tokio_util::io::ReaderStream;

use super::TransferProgress;
use super::session::{ATTEMPTS, Session, pause, success};
use crate::manifest::Descriptor;
use crate::{Error, Result};

/// Bytes of one piece of an upload.
const CHUNK: usize = 512 << 10;
/// How often an upload's progress is told.
const TICK: Duration = Duration::from_millis(100);

/// Fetches a blob into the store.
pub(super) async fn download(
    session: &Session,
    repository: &str,
    blob: &Descriptor,
    blobs: &Blobs,
    progress: &dyn TransferProgress,
) -> Result<()> {
    let url = session.url(&format!("{repository}/blobs/{}", blob.digest))?;
    let mut writer = blobs.writer(blob.digest.algorithm())?;
    let mut attempt = 1;
    while let Err(error) = download_rest(session, &url, blob, &mut writer, progress).await {
        let broken = matches!(&error, Error::Transport { source, .. } if !source.is_builder() && !source.is_redirect());
        match pause(attempt, None) {
            Some(pause) if broken && attempt < ATTEMPTS => tokio::time::sleep(pause).await,
            _ => return Err(error),
        }
        attempt += 1;
    }
    writer.commit(Some(&blob.digest), false)?;
    Ok(())
}

/// Fetches what the writer does not have yet.
async fn download_rest(
    session: &Session,
    url: &Url,
    blob: &Descriptor,
    writer: &mut BlobWriter,
    progress: &dyn TransferProgress,
) -> Result<()> {
    let begun = writer.written();
    let response = session
        .send("GET", |http| {
            let request = http.get(url.clone());
            if begun == 0 { request } else { request.header(RANGE, format!("bytes={begun}-")) }
        })
        .await?;
    if response.status() == StatusCode::NOT_FOUND {
        return Err(Error::NotFound { what: format!("blob {}", blob.digest) });
    }
    let response = success("GET", response).await?;
    let mut repeated = if continues_at(&response, begun) { 0 } else { begun };
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|source| Error::Transport {
            action: "GET".to_owned(),
            url: url.to_string(),
            source: source.without_url(),
        })?;
        let known = usize::try_from(repeated).unwrap_or(usize::MAX).min(chunk.len());
        repeated -= known as u64;
        let fresh = &chunk[known..];
        if writer.written() + fresh.len() as u64 > blob.size {
            return Err(Error::invalid(
                format!("blob {}", blob.digest),
                format!("longer than its {} bytes", blob.size),
            ));
        }
        writer.write_all(fresh).map_err(Error::stream("write a blob"))?;
        progress.advance(&blob.digest, fresh.len() as u64);
    }
    if writer.written() < blob.size {
        let reason = format!("{} bytes instead of {}", writer.written(), blob.size);
        return Err(Error::invalid(format!("blob {}", blob.digest), reason));
    }
    Ok(())
}

/// Whether an answer to a request for a range is that range; it may also be the whole.
fn continues_at(response: &Response, begun: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.trim().starts_with(&format!("bytes {begun}-")))
}

/// Whether the registry has a blob.
pub(super) async fn exists(session: &Session, repository: &str, digest: &Digest) -> Result<bool> {
    let url = session.url(&format!("{repository}/blobs/{digest}"))?;
    let response = session.send("HEAD", |http| http.head(url.clone())).await?;
    if response.status() == StatusCode::NOT_FOUND {
        return Ok(false);
    }
    success("HEAD", response).await.map(|_| true)
}

/// Sends a blob of the store, unless the registry can take it from its repository `from`.
pub(super) async fn upload(
    session: &Session,
    repository: &str,
    blob: &Descriptor,
    from: Option<&str>,
    blobs: &Blobs,
    progress: &dyn TransferProgress,
) -> Result<()> {
    let mut attempt = 1;
    loop {
        let sent = AtomicU64::new(0);
        let failure = match start_upload(session, repository, blob, from).await? {
            None => return Ok(()),
            Some(location) => match send_content(session, location, blob, blobs, progress, &sent).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            },
        };
        let passing = match &failure {
            Error::Transport { .. } => true,
            Error::Registry { status, .. } => *status >= 500 || matches!(*status, 404 | 429),
            Error::Denied { .. } => attempt == 1,
            _ => false,
        };
        match pause(attempt, None) {
            Some(pause) if passing && attempt < ATTEMPTS => tokio::time::sleep(pause).await,
            _ => return Err(failure),
        }
        attempt += 1;
    }
}

/// Opens an upload, and says where it goes; `None` when the registry has mounted the blob instead.
async fn start_upload(
    session: &Session,
    repository: &str,
    blob: &Descriptor,
    from: Option<&str>,
) -> Result<Option<Url>> {
    let mut url = session.url(&format!("{repository}/blobs/uploads/"))?;
    if let Some(from) = from {
        url.query_pairs_mut().append_pair("mount", &blob.digest.to_string()).append_pair("from", from);
    }
    let response = session.send("POST", |http| http.post(url.clone()).header(CONTENT_LENGTH, 0)).await?;
    let response = success("POST", response).await?;
    if response.status() == StatusCode::CREATED && from.is_some() {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.and_then(|location| response.url().join(location).ok());
    let missing =
        || Error::invalid(format!("registry's answer to an upload to {repository}"), "it has no valid Location");
    location.map(Some).ok_or_else(missing)
}

/// Sends the whole blob in one request, telling the progress meanwhile.
async fn send_content(
    session: &Session,
    mut location: Url,
    blob: &Descriptor,
    blobs: &Blobs,
    progress: &dyn TransferProgress,
    sent: &AtomicU64,
) -> Result<()> {
    location.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
    let file = blobs.get(&blob.digest)?.ok_or(kiln_store::Error::BlobMissing(blob.digest))?;
    let counter = Arc::new(AtomicU64::new(0));
    let request = session.send_once("PUT", |http| {
        let request = http
            .put(location.clone())
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, blob.size);
        // A request that is made again, after a challenge, reads the file from its beginning.
        match file.try_clone().and_then(|mut file| std::io::Seek::rewind(&mut file).map(|()| file)) {
            Ok(file) => request.body(counted_body(file, &counter)),
            Err(_) => request,
        }
    });
    tokio::pin!(request);
    let mut ticks = tokio::time::interval(TICK);
    let response = loop {
        tokio::select! {
            response = &mut request => break response?,
            _ = ticks.tick() => tell(&counter, sent, blob, progress),
        }
    };
    success("PUT", response).await?;
    counter.store(blob.size, Ordering::Relaxed);
    tell(&counter, sent, blob, progress);
    Ok(())
}

fn counted_body(file: std::fs::File, counter: &Arc<AtomicU64>) -> Body {
    let counter = Arc::clone(counter);
    counter.store(0, Ordering::Relaxed);
    let chunks = ReaderStream::with_capacity(tokio::fs::File::from_std(file), CHUNK);
    Body::wrap_stream(chunks.inspect_ok(move |chunk| {
        counter.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    }))
}

/// Tells what was sent since the last time; what is sent again is not told again.
fn tell(counter: &AtomicU64, sent: &AtomicU64, blob: &Descriptor, progress: &dyn TransferProgress) {
    let now = counter.load(Ordering::Relaxed);
    let before = sent.fetch_max(now, Ordering::Relaxed);
    if now > before {
        progress.advance(&blob.digest, now - before);
    }
}
