//! end-2 and end-10: blobs read, whole or in part, and deleted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use kiln_store::Digest;
use tokio::task::JoinHandle;

use super::{Call, DOCKER_CONTENT_DIGEST, header_value, is_head, is_known_to_client};
use crate::blocking::blocking;
use crate::database;
use crate::error::Error;
use crate::failure::{Code, Failure};
use crate::name::RepositoryName;
use crate::range::{ByteRange, Requested};
use crate::transfer::{Buffer, Transfer};

pub(super) async fn get(call: &Call<'_>, repository: RepositoryName, digest: Digest) -> Result<Response, Failure> {
    let size = call.registry.blob_size(&repository, &digest).await?;
    let size = size.ok_or_else(|| Failure::new(Code::BlobUnknown))?;
    let etag = format!("\"{digest}\"");
    let headers = [
        (DOCKER_CONTENT_DIGEST, header_value(&digest.to_string())),
        (header::ETAG, header_value(&etag)),
        (header::CACHE_CONTROL, header_value("max-age=31536000, immutable")),
        (header::ACCEPT_RANGES, header_value("bytes")),
    ];
    if is_known_to_client(call, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let same = call.header(&header::IF_RANGE).is_none_or(|tag| tag == etag);
    let range =
        call.header(&header::RANGE).filter(|_| same).map_or(Requested::All, |text| Requested::parse(text, size));
    let (status, range, content_range) = match range {
        Requested::All => (StatusCode::OK, ByteRange { start: 0, end: size }, None),
        Requested::Part(range) => {
            let text = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            (StatusCode::PARTIAL_CONTENT, range, Some(text))
        }
        Requested::Unsatisfiable => {
            return Err(Failure::new(Code::SizeInvalid)
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, header_value(&format!("bytes */{size}"))));
        }
    };
    let body = if is_head(call) { Body::empty() } else { read(call, digest, range).await? };
    let content = [
        (header::CONTENT_TYPE, header_value("application/octet-stream")),
        (header::CONTENT_LENGTH, range.length().into()),
    ];
    let mut response = (status, headers, content, body).into_response();
    if let Some(text) = content_range {
        response.headers_mut().insert(header::CONTENT_RANGE, header_value(&text));
    }
    Ok(response)
}

pub(super) async fn delete(call: &Call<'_>, repository: RepositoryName, digest: Digest) -> Result<Response, Failure> {
    call.registry.database.write(move |batch| database::delete_blob(batch, &repository, &digest)).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// A part of a blob's file: at once when it is small, else as it is asked for.
async fn read(call: &Call<'_>, digest: Digest, range: ByteRange) -> Result<Body, Failure> {
    let blobs = call.registry.blobs.clone();
    let transfer = call.registry.transfers.begin();
    let buffer = transfer.buffer(range.length());
    let first = move || -> Result<_, Failure> {
        let Some(file) = blobs.get(&digest)? else {
            tracing::error!(%digest, "a blob's file is missing");
            return Err(Failure::new(Code::BlobUnknown));
        };
        let bytes = read_chunk(&file, range.start, buffer).map_err(Error::io("read blob", blobs.path(&digest)))?;
        Ok((file, bytes))
    };
    let (file, bytes) = blocking(first).await?;
    if bytes.len() as u64 == range.length() {
        return Ok(Body::from(bytes));
    }
    let rest = ByteRange { start: range.start + bytes.len() as u64, end: range.end };
    Ok(Body::from_stream(chunks(bytes, Arc::new(file), rest, transfer)))
}

/// The first chunk and those that follow it; one is read ahead while another is sent.
fn chunks(first: Bytes, file: Arc<File>, rest: ByteRange, transfer: Transfer) -> impl Stream<Item = io::Result<Bytes>> {
    let ahead = read_ahead(&file, rest, &transfer);
    stream::unfold((Some(first), ahead, file, rest, transfer), |(first, ahead, file, rest, transfer)| async move {
        if let Some(first) = first {
            return Some((Ok(first), (None, ahead, file, rest, transfer)));
        }
        let chunk = ahead?.await.map_err(io::Error::other).flatten();
        // After an error nothing is left to be read.
        let sent = chunk.as_ref().map_or(rest.length(), |chunk| chunk.len() as u64);
        let rest = ByteRange { start: rest.start + sent, ..rest };
        let ahead = read_ahead(&file, rest, &transfer);
        Some((chunk, (None, ahead, file, rest, transfer)))
    })
}

fn read_ahead(file: &Arc<File>, range: ByteRange, transfer: &Transfer) -> Option<JoinHandle<io::Result<Bytes>>> {
    if range.length() == 0 {
        return None;
    }
    let (file, buffer) = (Arc::clone(file), transfer.buffer(range.length()));
    Some(tokio::task::spawn_blocking(move || read_chunk(&file, range.start, buffer)))
}

fn read_chunk(file: &File, offset: u64, mut buffer: Buffer) -> io::Result<Bytes> {
    file.read_exact_at(buffer.as_mut_slice(), offset)?;
    Ok(Bytes::from_owner(buffer))
}
