//! end-8, end-12 and the catalog: tags, referrers and repositories, a page at a time.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kiln_store::Digest;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::{Call, Parameters, header_value};
use crate::database::{self, Page};
use crate::failure::{Code, Failure};
use crate::manifest::OCI_INDEX;
use crate::name::RepositoryName;

const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
/// Names in one page at most, and without an `n`.
const MOST_NAMES: usize = 10_000;

pub(super) async fn tags(call: &Call<'_>, repository: RepositoryName) -> Result<Response, Failure> {
    let parameters = call.parameters()?;
    let count = count(&parameters)?;
    let last = parameters.first("last").unwrap_or_default().to_owned();
    let name = repository.clone();
    let page =
        call.registry.database.read(move |connection| database::list_tags(connection, &name, &last, count)).await?;
    let page = page.ok_or_else(|| Failure::new(Code::NameUnknown))?;
    let next = next_names(&format!("/v2/{repository}/tags/list"), &page, count);
    Ok((next, Json(json!({"name": repository.as_str(), "tags": page.items}))).into_response())
}

pub(super) async fn catalog(call: &Call<'_>) -> Result<Response, Failure> {
    let parameters = call.parameters()?;
    let count = count(&parameters)?;
    let last = parameters.first("last").unwrap_or_default().to_owned();
    let caller = call.caller.clone();
    let list = move |connection: &_| {
        database::list_repositories(connection, &last, count, |repository| caller.sees(repository))
    };
    let page = call.registry.database.read(list).await?;
    let next = next_names("/v2/_catalog", &page, count);
    Ok((next, Json(json!({"repositories": page.items}))).into_response())
}

/// The manifests about a manifest, which need not exist.
pub(super) async fn referrers(
    call: &Call<'_>,
    repository: RepositoryName,
    subject: Digest,
) -> Result<Response, Failure> {
    let parameters = call.parameters()?;
    let artifact_type = parameters.first("artifactType").filter(|text| !text.is_empty()).map(str::to_owned);
    let last = parameters.first("last").unwrap_or_default().to_owned();
    let page = {
        let (repository, artifact_type) = (repository.clone(), artifact_type.clone());
        let list = move |connection: &_| {
            database::list_referrers(connection, &repository, &subject, artifact_type.as_deref(), &last)
        };
        call.registry.database.read(list).await?
    };
    let mut headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static(OCI_INDEX))];
    if artifact_type.is_some() {
        headers.push((OCI_FILTERS_APPLIED, HeaderValue::from_static("artifactType")));
    }
    if page.more
        && let Some(last) = page.items.last().and_then(|descriptor| descriptor["digest"].as_str())
    {
        let filter =
            artifact_type.map(|text| format!("&artifactType={}", utf8_percent_encode(&text, NON_ALPHANUMERIC)));
        let query = format!("last={last}{}", filter.unwrap_or_default());
        headers.push(link(&format!("/v2/{repository}/referrers/{subject}?{query}")));
    }
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": page.items});
    let mut response = index.to_string().into_response();
    for (name, value) in headers {
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

/// The `n` parameter.
fn count(parameters: &Parameters) -> Result<usize, Failure> {
    let Some(text) = parameters.first("n") else { return Ok(MOST_NAMES) };
    let count: u64 = text.parse().map_err(|_| {
        Failure::new(Code::Unsupported).status(StatusCode::BAD_REQUEST).detail(format!("n={text} is no count"))
    })?;
    Ok(usize::try_from(count).unwrap_or(MOST_NAMES).min(MOST_NAMES))
}

/// The `Link` header to the page after this one. Names need no escapes in a query.
fn next_names(path: &str, page: &Page<String>, count: usize) -> Option<[(HeaderName, HeaderValue); 1]> {
    let last = page.items.last().filter(|_| page.more)?;
    Some([link(&format!("{path}?n={count}&last={last}"))])
}

fn link(target: &str) -> (HeaderName, HeaderValue) {
    (header::LINK, header_value(&format!("<{target}>; rel=\"next\"")))
}
