//! Blobs from a registry: a stream that goes on where the connection broke off.

use std::io::{self, BufRead, Read};

use futures_util::StreamExt;
use kiln_store::Blobs;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode, Url};
use tokio::sync::mpsc;
use tokio_util::bytes::{Buf, Bytes};

use super::TransferProgress;
use super::repository::Repository;
use super::session::success;
use crate::manifest::Descriptor;
use crate::{Error, Result};

/// Pieces between the network and whoever takes them.
pub(super) const DEPTH: usize = 4;

/// The bytes of a blob as they come: exactly as many as its descriptor says, or an error at the end. They have not
/// been compared with its digest. Dropping it ends the transfer.
pub(crate) struct Download {
    pieces: mpsc::Receiver<Result<Bytes>>,
}

impl Download {
    /// Starts fetching.
    pub(crate) fn start(repository: &Repository, blob: &Descriptor) -> Self {
        let (to, pieces) = mpsc::channel(DEPTH);
        let (repository, blob) = (repository.clone(), blob.clone());
        tokio::spawn(async move {
            if let Err(error) = fetch(&repository, &blob, &to).await {
                // Nobody is there to be told when the receiver is gone.
                let _ = to.send(Err(error)).await;
            }
        });
        Self { pieces }
    }

    /// The next piece; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        self.pieces.recv().await.transpose()
    }

    /// For a thread that may block.
    pub(crate) fn into_reader(self) -> Pieces {
        Pieces::of(self.pieces)
    }
}

/// Pieces as a stream for a thread that may block.
pub(crate) struct Pieces {
    pieces: mpsc::Receiver<Result<Bytes>>,
    piece: Bytes,
}

impl Pieces {
    pub(super) fn of(pieces: mpsc::Receiver<Result<Bytes>>) -> Self {
        Self { pieces, piece: Bytes::new() }
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece.map_err(io::Error::other)?,
                None => break,
            }
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, count: usize) {
        self.piece.advance(count);
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// Fetches a blob into a directory of blobs, verified.
pub(crate) async fn download(
    repository: &Repository,
    blob: &Descriptor,
    blobs: &Blobs,
    progress: &dyn TransferProgress,
) -> Result<()> {
    let mut writer = blobs.writer(blob.digest.algorithm())?;
    let mut download = Download::start(repository, blob);
    while let Some(piece) = download.next().await? {
        let length = piece.len() as u64;
        writer.write_lent(piece).map_err(Error::stream("write a blob"))?;
        progress.advance(&blob.digest, length);
    }
    writer.commit(Some(&blob.digest), false)?;
    Ok(())
}

/// How far it is.
struct Progress {
    received: u64,
    /// Attempts in a row that brought nothing.
    fruitless: u32,
}

async fn fetch(repository: &Repository, blob: &Descriptor, to: &mpsc::Sender<Result<Bytes>>) -> Result<()> {
    let url = repository.url(&format!("blobs/{}", blob.digest))?;
    let mut progress = Progress { received: 0, fruitless: 0 };
    loop {
        let before = progress.received;
        let Err(error) = fetch_rest(repository, &url, blob, to, &mut progress).await else { return Ok(()) };
        let broken = match &error {
            Error::Transport { source, .. } => !source.is_builder() && !source.is_redirect(),
            Error::Incomplete { .. } => true,
            _ => false,
        };
        progress.fruitless = if progress.received > before { 1 } else { progress.fruitless + 1 };
        match repository.session.patience.pause(progress.fruitless, None) {
            Some(pause) if broken => tokio::time::sleep(pause).await,
            _ => return Err(error),
        }
    }
}

/// Fetches what has not been received yet.
async fn fetch_rest(
    repository: &Repository,
    url: &Url,
    blob: &Descriptor,
    to: &mpsc::Sender<Result<Bytes>>,
    progress: &mut Progress,
) -> Result<()> {
    let begun = progress.received;
    let request = |http: &reqwest::Client| {
        let request = http.get(url.clone());
        if begun == 0 { request } else { request.header(RANGE, format!("bytes={begun}-")) }
    };
    let response = repository.session.send("GET", request).await?;
    if response.status() == StatusCode::NOT_FOUND {
        return Err(Error::NotFound { what: format!("blob {}", blob.digest) });
    }
    // Nothing follows what came.
    if begun > 0 && response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
        let reason = format!("shorter than its {} bytes", blob.size);
        return Err(Error::invalid(format!("blob {}", blob.digest), reason));
    }
    let response = success("GET", response).await?;
    let mut repeated = if continues_at(&response, begun) { 0 } else { begun };
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let mut chunk = chunk.map_err(|source| Error::Transport {
            action: "GET".to_owned(),
            url: url.to_string(),
            source: source.without_url(),
        })?;
        let known = usize::try_from(repeated).unwrap_or(usize::MAX).min(chunk.len());
        repeated -= known as u64;
        let fresh = chunk.split_off(known);
        progress.received += fresh.len() as u64;
        if progress.received > blob.size {
            let reason = format!("longer than its {} bytes", blob.size);
            return Err(Error::invalid(format!("blob {}", blob.digest), reason));
        }
        if !fresh.is_empty() && to.send(Ok(fresh)).await.is_err() {
            return Ok(());
        }
    }
    if progress.received < blob.size {
        let (digest, expected) = (Box::new(blob.digest), blob.size);
        return Err(Error::Incomplete { digest, received: progress.received, expected });
    }
    Ok(())
}

/// Whether an answer to a request for a range is that range; it may also be the whole.
fn continues_at(response: &Response, begun: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.trim().starts_with(&format!("bytes {begun}-")))
}
