//! end-4, 5, 6, 11, 13, 14: uploads started, continued, finished, asked about and cancelled; blobs mounted.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kiln_store::Digest;
use kiln_store::digest::Algorithm;

use super::{Call, DOCKER_CONTENT_DIGEST, header_value};
use crate::access::Action;
use crate::database;
use crate::failure::{Code, Failure};
use crate::name::{RepositoryName, parse_digest};
use crate::range::ByteRange;
use crate::upload::{Upload, UploadId};

const DOCKER_UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// Starts an upload; or finishes one at once (`digest`), or mounts a blob (`mount`, `from`).
pub(super) async fn post(call: &Call<'_>, body: &mut Body, repository: RepositoryName) -> Result<Response, Failure> {
    let parameters = call.parameters()?;
    if let Some(mount) = parameters.first("mount")
        && let Some(digest) = mount_blob(call, &repository, mount, parameters.first("from")).await?
    {
        return Ok(created(&repository, &digest));
    }
    let uploads = &call.registry.uploads;
    if let Some(digest) = parameters.first("digest") {
        let digest = parse_digest(digest)?;
        let id = uploads.create(&repository, digest.algorithm()).await?;
        let upload = uploads.write(&repository, id, Some(digest.algorithm())).await?;
        let result = finish(call, body, &repository, upload, digest, None).await;
        if result.is_err() {
            // Nobody was told the upload's address, so nobody can continue it.
            drop(uploads.cancel(&repository, id).await);
        }
        return result;
    }
    let algorithm = match parameters.first("digest-algorithm") {
        None => Algorithm::Sha256,
        Some(name) => Algorithm::from_name(name).ok_or_else(|| {
            let detail = format!("the digest algorithm {name} is not supported");
            Failure::new(Code::Unsupported).status(StatusCode::BAD_REQUEST).detail(detail)
        })?,
    };
    let id = uploads.create(&repository, algorithm).await?;
    Ok((StatusCode::ACCEPTED, progress(&repository, id, 0)).into_response())
}

/// The digest when it could be mounted. Otherwise the client is to upload, whatever the reason.
async fn mount_blob(
    call: &Call<'_>,
    repository: &RepositoryName,
    mount: &str,
    from: Option<&str>,
) -> Result<Option<Digest>, Failure> {
    let Ok(digest) = parse_digest(mount) else { return Ok(None) };
    let Ok(from) = from.filter(|from| !from.is_empty()).map(str::parse::<RepositoryName>).transpose() else {
        return Ok(None);
    };
    // A blob may come only from where the client could have pulled it.
    match &from {
        Some(from) if !call.caller.may(Action::Pull, from.as_str()) => return Ok(None),
        None if !call.caller.sees_everything() => return Ok(None),
        _ => {}
    }
    let repository = repository.clone();
    let mount = move |batch: &mut database::Batch<'_>| database::mount_blob(batch, &repository, &digest, from.as_ref());
    Ok(call.registry.database.write(mount).await?.then_some(digest))
}

/// How far an upload came.
pub(super) async fn status(call: &Call<'_>, repository: &RepositoryName, id: UploadId) -> Result<Response, Failure> {
    let length = call.registry.uploads.length(repository, id).await?;
    Ok((StatusCode::NO_CONTENT, progress(repository, id, length)).into_response())
}

/// Appends a chunk (`Content-Range`) or a stream.
pub(super) async fn patch(
    call: &Call<'_>,
    body: &mut Body,
    repository: RepositoryName,
    id: UploadId,
) -> Result<Response, Failure> {
    let upload = call.registry.uploads.write(&repository, id, None).await?;
    let expected = expected_length(call, &repository, &upload)?;
    let length = upload.receive(body, expected, &call.registry.transfers.begin()).await?.flush().await?;
    Ok((StatusCode::ACCEPTED, progress(&repository, id, length)).into_response())
}

/// Finishes an upload, with or without a last chunk.
pub(super) async fn put(
    call: &Call<'_>,
    body: &mut Body,
    repository: RepositoryName,
    id: UploadId,
) -> Result<Response, Failure> {
    let parameters = call.parameters()?;
    let digest = parameters.first("digest");
    let digest = parse_digest(digest.ok_or_else(|| Failure::new(Code::DigestInvalid).detail("`digest` is missing"))?)?;
    let upload = call.registry.uploads.write(&repository, id, Some(digest.algorithm())).await?;
    let expected = expected_length(call, &repository, &upload)?;
    finish(call, body, &repository, upload, digest, expected).await
}

pub(super) async fn cancel(call: &Call<'_>, repository: &RepositoryName, id: UploadId) -> Result<Response, Failure> {
    call.registry.uploads.cancel(repository, id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn finish(
    call: &Call<'_>,
    body: &mut Body,
    repository: &RepositoryName,
    upload: Upload,
    digest: Digest,
    expected: Option<u64>,
) -> Result<Response, Failure> {
    let id = upload.id;
    let verified = upload.receive(body, expected, &call.registry.transfers.begin()).await?.verify(digest).await;
    if verified.is_err() {
        call.registry.uploads.forget(id);
    }
    call.registry.store_blob(repository, verified?).await?;
    Ok(created(repository, &digest))
}

/// The length of the chunk, where `Content-Range` promises one. It must begin where the upload ends.
fn expected_length(call: &Call<'_>, repository: &RepositoryName, upload: &Upload) -> Result<Option<u64>, Failure> {
    let Some(text) = call.parts.headers.get(header::CONTENT_RANGE) else { return Ok(None) };
    let length = upload.length();
    let range = text.to_str().ok().and_then(ByteRange::parse_content_range).filter(|range| range.start == length);
    let Some(range) = range else {
        let failure = Failure::new(Code::BlobUploadInvalid)
            .status(StatusCode::RANGE_NOT_SATISFIABLE)
            .detail(format!("the next byte is number {length}"));
        let headers = progress(repository, upload.id, length);
        return Err(headers.into_iter().fold(failure, |failure, (name, value)| failure.header(name, value)));
    };
    if call.content_length().is_some_and(|length| length != range.length()) {
        return Err(Failure::new(Code::SizeInvalid).detail("Content-Range and Content-Length disagree"));
    }
    Ok(Some(range.length()))
}

/// Where an upload goes on, and what it has.
fn progress(repository: &RepositoryName, id: UploadId, length: u64) -> [(HeaderName, HeaderValue); 3] {
    let last = length.saturating_sub(1); // of nothing it is written 0-0, too
    [
        (header::LOCATION, header_value(&format!("/v2/{repository}/blobs/uploads/{id}"))),
        (header::RANGE, header_value(&format!("0-{last}"))),
        (DOCKER_UPLOAD_UUID, header_value(&id.to_string())),
    ]
}

fn created(repository: &RepositoryName, digest: &Digest) -> Response {
    let headers = [
        (header::LOCATION, header_value(&format!("/v2/{repository}/blobs/{digest}"))),
        (DOCKER_CONTENT_DIGEST, header_value(&digest.to_string())),
    ];
    (StatusCode::CREATED, headers).into_response()
}
