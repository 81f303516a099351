//! end-3, 7, 9: manifests read, pushed and deleted, by tag or digest.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use kiln_store::Digest;
use kiln_store::digest::{Algorithm, Hasher};

use super::{Call, DOCKER_CONTENT_DIGEST, header_value, is_head, is_known_to_client};
use crate::blocking::blocking;
use crate::database;
use crate::failure::{Code, Failure};
use crate::manifest::Manifest;
use crate::name::{Reference, RepositoryName, Tag};

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
/// Tags that one request may set, as the specification has it "at least 10".
const MOST_TAGS: usize = 100;
/// Bytes of a manifest that are received without waiting for others.
const SMALL_MANIFEST: usize = 64 << 10;
/// How long a manifest's body may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn get(call: &Call<'_>, repository: RepositoryName, reference: &str) -> Result<Response, Failure> {
    let unknown = || Failure::new(Code::ManifestUnknown);
    let reference = Reference::parse(reference)?.ok_or_else(unknown)?;
    let manifest = call.registry.manifest(&repository, &reference).await?.ok_or_else(unknown)?;
    // A push of an index that asks whether its image is here will not send it; a pull by digest is a use, too, which
    // it must not fail for.
    match call.registry.need_manifest(&repository, &manifest).await {
        Ok(false) => return Err(unknown()),
        Err(failure) if is_head(call) => return Err(failure),
        _ => {}
    }
    // Some clients only ask whether what they have is still the newest: for them that is the pull.
    call.registry.pulls.note(&repository, &manifest.digest);
    let etag = format!("\"{}\"", manifest.digest);
    let headers = [
        (DOCKER_CONTENT_DIGEST, header_value(&manifest.digest.to_string())),
        (header::ETAG, header_value(&etag)),
        (header::CONTENT_TYPE, header_value(&manifest.media_type)),
    ];
    if is_known_to_client(call, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let length = [(header::CONTENT_LENGTH, HeaderValue::from(manifest.bytes.len()))];
    let body = if is_head(call) { Body::empty() } else { Body::from(manifest.bytes) };
    Ok((headers, length, body).into_response())
}

pub(super) async fn put(
    call: &Call<'_>,
    body: &mut Body,
    repository: RepositoryName,
    reference: &str,
) -> Result<Response, Failure> {
    let invalid_tag = |text: &str| Failure::new(Code::ManifestInvalid).detail(format!("{text:?} is no tag"));
    let reference = Reference::parse(reference)?.ok_or_else(|| invalid_tag(reference))?;
    let parameters = call.parameters()?;
    let added = parameters.all("tag").map(|text| Tag::parse(text).ok_or_else(|| invalid_tag(text)));
    let added: Vec<Tag> = added.take(MOST_TAGS + 1).collect::<Result<_, _>>()?;
    if added.len() > MOST_TAGS {
        let failure = Failure::new(Code::Unsupported).status(StatusCode::URI_TOO_LONG);
        return Err(failure.detail(format!("at most {MOST_TAGS} tags at once")));
    }
    let bytes = read_body(call, body).await?;
    let content_type = call.parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.map(str::to_owned);
    let check = {
        let (bytes, reference) = (bytes.clone(), reference.clone());
        move || check(&bytes, &reference, content_type.as_deref())
    };
    let (digest, manifest) = blocking(check).await?;

    let mut headers = vec![
        (header::LOCATION, header_value(&format!("/v2/{repository}/manifests/{digest}"))),
        (DOCKER_CONTENT_DIGEST, header_value(&digest.to_string())),
    ];
    headers.extend(manifest.subject.map(|subject| (OCI_SUBJECT, header_value(&subject.to_string()))));
    let names: Vec<&str> = added.iter().map(Tag::as_str).collect();
    headers.extend((!names.is_empty()).then(|| (OCI_TAG, header_value(&names.join(", ")))));

    let sparse = call.registry.sparse;
    let rules = Arc::clone(&call.registry.collection);
    let store = move |batch: &mut database::Batch<'_>| {
        let mut tags = added;
        if let Reference::Tag(tag) = reference {
            tags.push(tag);
        }
        let push = database::Push { digest: &digest, manifest: &manifest, bytes: &bytes, tags: &tags };
        database::put_manifest(batch, &repository, &push, &rules, sparse)
    };
    call.registry.database.write(store).await?;
    let mut response = StatusCode::CREATED.into_response();
    response.headers_mut().extend(headers);
    Ok(response)
}

pub(super) async fn delete(call: &Call<'_>, repository: RepositoryName, reference: &str) -> Result<Response, Failure> {
    let reference = Reference::parse(reference)?.ok_or_else(|| Failure::new(Code::ManifestUnknown))?;
    let rules = Arc::clone(&call.registry.collection);
    let delete = move |batch: &mut database::Batch<'_>| match &reference {
        Reference::Tag(tag) => database::delete_tag(batch, &repository, tag, &rules),
        Reference::Digest(digest) => database::delete_manifest(batch, &repository, digest, &rules),
    };
    call.registry.database.write_even_when_full(delete).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// The digest of the bytes, which is the reference when that is one, and what they say.
fn check(bytes: &[u8], reference: &Reference, content_type: Option<&str>) -> Result<(Digest, Manifest), Failure> {
    let algorithm = match reference {
        Reference::Tag(_) => Algorithm::Sha256,
        Reference::Digest(digest) => digest.algorithm(),
    };
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    let digest = hasher.finish();
    match reference {
        Reference::Digest(expected) if *expected != digest => {
            Err(Failure::new(Code::DigestInvalid).detail(format!("the content has digest {digest}, not {expected}")))
        }
        _ => Ok((digest, Manifest::parse(bytes, content_type)?)),
    }
}

async fn read_body(call: &Call<'_>, body: &mut Body) -> Result<Bytes, Failure> {
    let largest = call.registry.largest_manifest;
    let too_large = || {
        let detail = format!("a manifest may have {largest} bytes");
        Failure::new(Code::SizeInvalid).status(StatusCode::PAYLOAD_TOO_LARGE).detail(detail)
    };
    if call.content_length().is_some_and(|length| length > largest as u64) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let broken = || Failure::new(Code::ManifestInvalid).detail("the body broke off");
    let read = async {
        let mut permit = None;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| broken())?.into_data() else { continue };
            if bytes.len() + data.len() > largest {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
            if bytes.len() > SMALL_MANIFEST && permit.is_none() {
                permit = call.registry.large_manifests.acquire().await.ok();
            }
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, read).await.map_err(|_| broken())??;
    Ok(bytes.into())
}
