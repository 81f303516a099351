//! The way of a request's body into an upload: gathered into chunks, which a blocking thread writes and hashes while
//! the next one gathers. Two chunks are all that is in memory, however long the body is.

use std::mem;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use http_body_util::BodyExt;
use kiln_store::Digest;
use tokio::task::JoinHandle;

use super::{Upload, VerifiedUpload};
use crate::blocking::blocking;
use crate::error::Error;
use crate::failure::{Code, Failure};
use crate::transfer::Transfer;

/// A client that sends nothing for so long is gone; what came stays.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the upload is while its body comes.
enum State {
    /// Here.
    Idle(Upload),
    /// With the blocking thread, which gives it back with the emptied buffer.
    Writing(JoinHandle<(Upload, Vec<u8>, Result<(), Error>)>),
}

/// An upload with the last bytes of its body, which are not in the file yet.
#[derive(Debug)]
pub(crate) struct Received {
    upload: Upload,
    rest: Vec<u8>,
}

impl Upload {
    /// Takes a body of exactly `expected` bytes, where that is known.
    ///
    /// # Errors
    /// `SIZE_INVALID` when it was longer or shorter: then the upload is as before. When the client goes away, the
    /// upload keeps what came.
    pub(crate) async fn receive(
        self,
        body: &mut Body,
        expected: Option<u64>,
        transfer: &Transfer,
    ) -> Result<Received, Failure> {
        let (start, largest) = (self.length, self.largest);
        let too_large = |length: u64| largest != 0 && start.saturating_add(length) > largest;
        let refuse = || {
            let failure = Failure::new(Code::SizeInvalid).status(StatusCode::PAYLOAD_TOO_LARGE);
            failure.detail(format!("a blob may have {largest} bytes"))
        };
        if too_large(body.size_hint().exact().unwrap_or(0)) {
            return Err(refuse());
        }
        let mut state = State::Idle(self);
        let mut buffer = Vec::new();
        let mut spare = Vec::new();
        let mut received = 0;
        let outcome = loop {
            let frame = match tokio::time::timeout(PATIENCE, body.frame()).await {
                Ok(None) => break Ok(()),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(_))) | Err(_) => {
                    break Err(Failure::new(Code::BlobUploadInvalid).detail("the body broke off"));
                }
            };
            let Ok(mut bytes) = frame.into_data() else { continue };
            received += bytes.len() as u64;
            if expected.is_some_and(|expected| received > expected) {
                break Ok(());
            }
            if too_large(received) {
                break Err(refuse());
            }
            while !bytes.is_empty() {
                let chunk = transfer.chunk();
                let taken = bytes.len().min(chunk.saturating_sub(buffer.len()));
                grow(&mut buffer, taken, chunk);
                buffer.extend_from_slice(&bytes.split_to(taken));
                if buffer.len() >= chunk {
                    state = state.write(&mut buffer, &mut spare, chunk).await?;
                }
            }
        };
        let (upload, _) = state.join(spare).await?;
        let received_all = Received { upload, rest: buffer };
        match (outcome, expected) {
            (Err(failure), _) => {
                received_all.flush().await?;
                Err(failure)
            }
            (Ok(()), Some(expected)) if received != expected => {
                received_all.take_back(start).await?;
                Err(Failure::new(Code::SizeInvalid).detail(format!("expected {expected} bytes, received {received}")))
            }
            (Ok(()), _) => Ok(received_all),
        }
    }
}

impl State {
    /// Has the bytes written when those before them are, and leaves an empty buffer in their place.
    async fn write(self, bytes: &mut Vec<u8>, spare: &mut Vec<u8>, chunk: usize) -> Result<Self, Failure> {
        let (upload, mut empty) = self.join(mem::take(spare)).await?;
        empty.clear();
        empty.shrink_to(chunk);
        Ok(Self::Writing(spawn_append(upload, mem::replace(bytes, empty))))
    }

    /// The upload and a buffer, once it is back.
    async fn join(self, spare: Vec<u8>) -> Result<(Upload, Vec<u8>), Failure> {
        match self {
            Self::Idle(upload) => Ok((upload, spare)),
            Self::Writing(handle) => {
                let (upload, buffer, result) = handle.await.map_err(|_| Error::Interrupted)?;
                result?;
                Ok((upload, buffer))
            }
        }
    }
}

/// Makes room for `more` bytes: twice what there was, but never more than for a chunk.
fn grow(buffer: &mut Vec<u8>, more: usize, chunk: usize) {
    if buffer.capacity() - buffer.len() < more {
        let wanted = (buffer.len() + more).max(buffer.capacity().saturating_mul(2).min(chunk));
        buffer.reserve_exact(wanted - buffer.len());
    }
}

fn spawn_append(mut upload: Upload, bytes: Vec<u8>) -> JoinHandle<(Upload, Vec<u8>, Result<(), Error>)> {
    tokio::task::spawn_blocking(move || {
        let result = upload.append(&bytes);
        (upload, bytes, result)
    })
}

impl Received {
    /// Writes the last bytes; returns the upload's length.
    pub(crate) async fn flush(self) -> Result<u64, Failure> {
        let Self { mut upload, rest } = self;
        if rest.is_empty() {
            return Ok(upload.length);
        }
        let write = move || upload.append(&rest).map(|()| upload.length);
        Ok(blocking(write).await?)
    }

    /// Writes the last bytes, checks all of them against the digest, and flushes them to disk.
    pub(crate) async fn verify(self, expected: Digest) -> Result<VerifiedUpload, Failure> {
        let Self { mut upload, rest } = self;
        let verify = move || {
            upload.append(&rest)?;
            upload.verify(expected)
        };
        blocking(verify).await
    }

    async fn take_back(self, length: u64) -> Result<(), Failure> {
        let Self { mut upload, .. } = self;
        let truncate = move || if upload.length == length { Ok(()) } else { upload.truncate(length) };
        Ok(blocking(truncate).await?)
    }
}
