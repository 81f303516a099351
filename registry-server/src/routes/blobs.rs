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
use kiln_store::digest::Hasher;
use tokio::task::JoinHandle;

use super::{Call, DOCKER_CONTENT_DIGEST, header_value, is_head, is_known_to_client};
use crate::blocking::blocking;
use crate::database;
use crate::direct::{self, FileParts};
use crate::error::{Error, chain};
use crate::failure::{Code, Failure};
use crate::integrity::{FileIdentity, is_whole};
use crate::name::RepositoryName;
use crate::range::{ByteRange, Requested};
use crate::registry::Registry;
use crate::transfer::{Buffer, Transfer};

pub(super) async fn get(call: &Call<'_>, repository: RepositoryName, digest: Digest) -> Result<Response, Failure> {
    let blob = call.registry.blob(&repository, &digest).await?;
    let blob = blob.ok_or_else(|| Failure::new(Code::BlobUnknown))?;
    // A push that asks whether a blob is here will not send it.
    if is_head(call) && !call.registry.need_blob(&repository, &digest, blob).await? {
        return Err(Failure::new(Code::BlobUnknown));
    }
    let size = blob.size;
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
            let asked = call.header(&header::RANGE).unwrap_or_default();
            return Err(Failure::new(Code::RangeInvalid)
                .detail(format!("{asked} is no part of the {size} bytes that the blob has"))
                .header(header::CONTENT_RANGE, header_value(&format!("bytes */{size}"))));
        }
    };
    let body = if is_head(call) { Body::empty() } else { read(call, digest, range, size).await? };
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
    let delete = move |batch: &mut database::Batch<'_>| database::delete_blob(batch, &repository, &digest);
    call.registry.database.write_even_when_full(delete).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Bytes of the longest answer that is rather copied than sent from its file.
const COPIED: u64 = 32 << 10;
/// Bytes that are read at once to have them in memory.
const READ: usize = 64 << 10;

/// A blob's file while it is read.
struct Source {
    file: Arc<File>,
    digest: Digest,
    identity: FileIdentity,
    /// Hashes what is read, from the first byte to the last, if nobody did that before.
    hasher: Option<Hasher>,
    registry: Arc<Registry>,
}

/// A part of a blob's file: at once when it is small, else as it is asked for. Bytes that are not those of the digest
/// are never sent to the end.
async fn read(call: &Call<'_>, digest: Digest, range: ByteRange, size: u64) -> Result<Body, Failure> {
    let registry = Arc::clone(call.registry);
    let transfer = call.registry.transfers.begin();
    // One that is alone has a processor for reading ahead; many have none to spare, nor memory.
    let direct = range.length() > COPIED && !transfer.is_alone();
    let parts = call.parts.extensions.get::<FileParts>().filter(|_| direct).cloned();
    let first = move || {
        let Some(source) = Source::open(registry, digest, range, size)? else { return Ok(Opened::Missing) };
        Ok(match parts.filter(|_| source.hasher.is_none()) {
            Some(parts) => Opened::Direct(source, parts, transfer),
            None => {
                let (source, bytes) = source.read(range, transfer.buffer(range.length()));
                Opened::Read(source, bytes, transfer)
            }
        })
    };
    let damaged = || Failure::new(Code::BlobUnknown).detail("the blob is damaged and was put aside");
    let opened: Result<_, Error> = blocking(first).await;
    let (source, bytes, transfer) = match opened? {
        Opened::Read(source, bytes, transfer) => (source, bytes, transfer),
        Opened::Direct(source, parts, transfer) => {
            return Ok(Body::from_stream(source.place(range, parts, transfer)));
        }
        Opened::Missing => {
            tracing::error!(%digest, "a blob's file is missing");
            call.registry.put_aside(&digest, None).await?;
            return Err(damaged());
        }
    };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            source.report(&error).await;
            return Err(damaged());
        }
        Err(error) => return Err(Error::io("read blob", call.registry.blobs.path(&digest))(error).into()),
    };
    if bytes.len() as u64 == range.length() {
        return Ok(Body::from(bytes));
    }
    let rest = ByteRange { start: range.start + bytes.len() as u64, end: range.end };
    Ok(Body::from_stream(chunks(bytes, source, rest, transfer)))
}

/// A blob's file that was just opened.
enum Opened {
    Missing,
    /// It was verified before and goes from its file into the connection.
    Direct(Source, FileParts, Transfer),
    /// With its first bytes.
    Read(Source, io::Result<Bytes>, Transfer),
}

impl Source {
    /// Opens the file, and reads all of it when only a part will be sent of what nobody has checked yet. `None` when
    /// there is no file.
    fn open(registry: Arc<Registry>, digest: Digest, range: ByteRange, size: u64) -> Result<Option<Self>, Error> {
        let path = registry.blobs.path(&digest);
        let Some(file) = registry.blobs.get(&digest)? else { return Ok(None) };
        let identity = FileIdentity::of(&file.metadata().map_err(Error::io("examine blob", &path))?);
        let known = registry.integrity.is_known(&digest, identity);
        let hasher = (!known).then(|| Hasher::new(digest.algorithm()));
        let mut source = Self { file: Arc::new(file), digest, identity, hasher, registry };
        let partial = range.length() != size;
        if !known && partial && is_whole(&source.file, &digest).map_err(Error::io("read blob", path))? {
            source.is_whole();
        }
        Ok(Some(source))
    }

    fn is_whole(&mut self) {
        self.hasher = None;
        self.registry.integrity.note(&self.digest, self.identity);
    }

    /// The next bytes of what is left; the last ones only when all of them are what they should be.
    fn read(mut self, left: ByteRange, mut buffer: Buffer) -> (Self, io::Result<Bytes>) {
        let result = self.file.read_exact_at(buffer.as_mut_slice(), left.start).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(io::ErrorKind::InvalidData, "the file is too short"),
            _ => error,
        });
        if result.is_ok()
            && let Some(hasher) = &mut self.hasher
        {
            hasher.update(buffer.as_ref());
            if buffer.as_ref().len() as u64 == left.length() {
                if hasher.clone().finish() != self.digest {
                    return (self, Err(io::Error::new(io::ErrorKind::InvalidData, "the file has another digest")));
                }
                self.is_whole();
            }
        }
        (self, result.map(|()| Bytes::from_owner(buffer)))
    }

    /// What stands for this part on the connection. A thread waits for the disk where that is needed.
    fn place(self, range: ByteRange, parts: FileParts, transfer: Transfer) -> impl Stream<Item = io::Result<Bytes>> {
        stream::try_unfold((self.file, range, parts, transfer), |(file, left, parts, transfer)| async move {
            if left.length() == 0 {
                return Ok(None);
            }
            let length = left.length().min(direct::LONGEST_PART as u64);
            if !direct::is_cached(&file, left.start, length) {
                let waiting = Arc::clone(&file);
                let read = tokio::task::spawn_blocking(move || read_through(&waiting, left.start, length));
                read.await.map_err(io::Error::other)?;
            }
            let bytes = parts.place(&file, left.start, length);
            let left = ByteRange { start: left.start + length, ..left };
            Ok(Some((bytes, (file, left, parts, transfer))))
        })
    }

    /// Puts a damaged file aside.
    async fn report(self, error: &io::Error) {
        tracing::error!(digest = %self.digest, error = chain(error), "a blob is damaged and not served");
        if let Err(error) = self.registry.put_aside(&self.digest, Some(self.identity)).await {
            tracing::error!(digest = %self.digest, error = chain(&error), "put a damaged blob aside");
        }
    }
}

/// Has bytes of a file come into memory. Blocks.
fn read_through(file: &File, offset: u64, length: u64) {
    let mut buffer = vec![0; READ];
    for start in (offset..offset.saturating_add(length)).step_by(READ) {
        // Whatever is wrong with the file is noticed when it is sent.
        while file.read_at(&mut buffer, start).is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {}
    }
}

type Reading = JoinHandle<(Source, io::Result<Bytes>)>;

/// The first chunk and those that follow it; one is read ahead while another is sent.
fn chunks(first: Bytes, source: Source, rest: ByteRange, transfer: Transfer) -> impl Stream<Item = io::Result<Bytes>> {
    let ahead = read_ahead(source, rest, &transfer);
    stream::unfold((Some(first), ahead, rest, transfer), |(first, ahead, rest, transfer)| async move {
        if let Some(first) = first {
            return Some((Ok(first), (None, ahead, rest, transfer)));
        }
        let (source, chunk) = match ahead?.await {
            Ok(read) => read,
            Err(error) => return Some((Err(io::Error::other(error)), (None, None, rest, transfer))),
        };
        match chunk {
            Ok(chunk) => {
                let rest = ByteRange { start: rest.start + chunk.len() as u64, ..rest };
                let ahead = read_ahead(source, rest, &transfer);
                Some((Ok(chunk), (None, ahead, rest, transfer)))
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    source.report(&error).await;
                }
                Some((Err(error), (None, None, rest, transfer)))
            }
        }
    })
}

fn read_ahead(source: Source, left: ByteRange, transfer: &Transfer) -> Option<Reading> {
    if left.length() == 0 {
        return None;
    }
    let buffer = transfer.buffer(left.length());
    Some(tokio::task::spawn_blocking(move || source.read(left, buffer)))
}
