//! The API's endpoints: which path and method mean what.

mod blobs;
mod listing;
mod manifests;
mod notification;
mod uploads;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Query;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use percent_encoding::percent_decode_str;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::OwnedSemaphorePermit;

use crate::access::{Action, Caller, Need};
use crate::failure::{Code, Failure};
use crate::front::Front;
use crate::metrics::Endpoint;
use crate::name::{Reference, RepositoryName, parse_digest};
use crate::registry::Registry;

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const DOCKER_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// Bytes of a refused request's body that are read, so that its client gets to read the answer.
const DRAINED: usize = 8 << 20;

/// What a path names. The names in it are not checked yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target<'a> {
    Version,
    Catalog,
    Tags { name: &'a str },
    Referrers { name: &'a str, digest: &'a str },
    Manifest { name: &'a str, reference: &'a str },
    Blob { name: &'a str, digest: &'a str },
    Uploads { name: &'a str },
    Upload { name: &'a str, id: &'a str },
}

impl<'a> Target<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix("/v2")?;
        let path = match path {
            "" | "/" => return Some(Self::Version),
            "/_catalog" => return Some(Self::Catalog),
            _ => path.strip_prefix('/')?,
        };
        if let Some(name) = path.strip_suffix("/tags/list") {
            return Some(Self::Tags { name });
        }
        // A repository may be called `…/blobs` or `uploads`, so the end of the path decides.
        if let Some(name) = path.strip_suffix("/blobs/uploads/").or_else(|| path.strip_suffix("/blobs/uploads")) {
            return Some(Self::Uploads { name });
        }
        let (rest, last) = path.rsplit_once('/')?;
        if let Some(name) = rest.strip_suffix("/blobs/uploads") {
            return Some(Self::Upload { name, id: last });
        }
        let (name, kind) = rest.rsplit_once('/')?;
        match kind {
            "blobs" => Some(Self::Blob { name, digest: last }),
            "manifests" => Some(Self::Manifest { name, reference: last }),
            "referrers" => Some(Self::Referrers { name, digest: last }),
            _ => None,
        }
    }

    /// What a request with this method needs its sender to have.
    fn need(self, method: &Method) -> Need<'a> {
        let action = match *method {
            Method::GET | Method::HEAD => Action::Pull,
            Method::DELETE => Action::Delete,
            _ => Action::Push,
        };
        match self {
            Self::Version => Need::Presence,
            Self::Catalog => Need::Catalog,
            // Asking how far an upload came, and giving it up, are parts of pushing.
            Self::Uploads { name } | Self::Upload { name, .. } => Need::Repository(name, Action::Push),
            Self::Tags { name } | Self::Referrers { name, .. } => Need::Repository(name, action),
            Self::Manifest { name, .. } | Self::Blob { name, .. } => Need::Repository(name, action),
        }
    }

    fn endpoint(self) -> Endpoint {
        match self {
            Self::Version => Endpoint::version,
            Self::Catalog => Endpoint::catalog,
            Self::Tags { .. } => Endpoint::tags,
            Self::Referrers { .. } => Endpoint::referrers,
            Self::Manifest { .. } => Endpoint::manifest,
            Self::Blob { .. } => Endpoint::blob,
            Self::Uploads { .. } | Self::Upload { .. } => Endpoint::upload,
        }
    }
}

/// A request, but for its body.
struct Call<'a> {
    front: &'a Arc<Front>,
    registry: &'a Arc<Registry>,
    caller: &'a Caller,
    peer: SocketAddr,
    parts: &'a Parts,
}

impl Call<'_> {
    /// A header's value, when it is text.
    fn header(&self, name: &HeaderName) -> Option<&str> {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Bytes of the body, as its head says.
    fn content_length(&self) -> Option<u64> {
        self.header(&header::CONTENT_LENGTH).and_then(|text| text.parse().ok())
    }

    /// The right to send bytes, when others finished theirs.
    async fn upload_turn(&self) -> Result<UploadTurn<'_>, Failure> {
        let permit = self.front.limits.upload().await?;
        self.front.metrics.uploads.inc();
        Ok(UploadTurn { gauge: &self.front.metrics.uploads, _permit: permit })
    }

    fn parameters(&self) -> Result<Parameters, Failure> {
        Query::try_from_uri(&self.parts.uri)
            .map(|Query(pairs)| Parameters(pairs))
            .map_err(|error| Failure::new(Code::Unsupported).status(StatusCode::BAD_REQUEST).detail(error.to_string()))
    }
}

/// An upload that is under way.
struct UploadTurn<'a> {
    gauge: &'a Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Drop for UploadTurn<'_> {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// The parameters of a request's query, decoded.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }
}

/// Answers a request to the API; says what it was for, and who sent it.
pub(crate) async fn answer(
    front: &Arc<Front>,
    peer: SocketAddr,
    parts: &Parts,
    body: &mut Body,
    endpoint: &mut Endpoint,
    user: &mut Option<Arc<str>>,
) -> Response {
    let result = admit(front, peer, parts, body, endpoint, user).await;
    let mut response = match result {
        Ok(response) => response,
        Err(failure) => {
            if !parts.headers.contains_key(header::EXPECT) {
                drain(body).await;
            }
            failure.into_response()
        }
    };
    response.headers_mut().insert(DOCKER_VERSION, HeaderValue::from_static("registry/2.0"));
    response
}

/// Finds out what is asked for and whether the sender may.
async fn admit(
    front: &Arc<Front>,
    peer: SocketAddr,
    parts: &Parts,
    body: &mut Body,
    endpoint: &mut Endpoint,
    user: &mut Option<Arc<str>>,
) -> Result<Response, Failure> {
    let not_found =
        || Failure::new(Code::Unsupported).status(StatusCode::NOT_FOUND).detail("there is no such endpoint");
    let path = percent_decode_str(parts.uri.path()).decode_utf8().map_err(|_| not_found())?;
    let path = front.upstreams.rewrite(parts, &path).map_or(path, Cow::Owned);
    let target = Target::parse(&path).ok_or_else(not_found)?;
    *endpoint = target.endpoint();
    let caller = front.identify(parts).await?;
    user.clone_from(&caller.name);
    front.authorise(parts, &caller, target.need(&parts.method))?;
    let call = Call { front, registry: &front.registry, caller: &caller, peer, parts };
    let response = match mirror(&call, &target).await? {
        Some(response) => response,
        None => route(&call, &target, body).await?,
    };
    if front.webhooks.are_wanted()
        && let Target::Manifest { name, reference } = target
    {
        notification::tell(&call, name, reference, response.headers()).await?;
    }
    Ok(response)
}

/// Fetches what an upstream's repository lacks; the answer, where it is not to be found here even then.
async fn mirror(call: &Call<'_>, target: &Target<'_>) -> Result<Option<Response>, Failure> {
    let (Target::Manifest { name, .. }
    | Target::Blob { name, .. }
    | Target::Tags { name }
    | Target::Uploads { name }
    | Target::Upload { name, .. }) = *target
    else {
        return Ok(None);
    };
    let repository = name.parse::<RepositoryName>()?;
    let Some(mirrored) = call.front.upstreams.find(&repository) else { return Ok(None) };
    let reads = call.parts.method == Method::GET || call.parts.method == Method::HEAD;
    match *target {
        Target::Manifest { reference, .. } if reads => {
            if let Some(reference) = Reference::parse(reference)? {
                mirrored.manifest(&reference).await?;
            }
            Ok(None)
        }
        Target::Blob { digest, .. } if reads => mirrored.blob(call.parts, parse_digest(digest)?).await,
        Target::Tags { .. } if reads => mirrored.tags(call.parts).await,
        // What is here may be thrown away; it comes again.
        Target::Manifest { .. } | Target::Blob { .. } if call.parts.method == Method::DELETE => Ok(None),
        _ => Err(mirrored.refuse()),
    }
}

async fn route(call: &Call<'_>, target: &Target<'_>, body: &mut Body) -> Result<Response, Failure> {
    let name = |name: &str| name.parse::<RepositoryName>();
    if call.registry.read_only && !matches!(call.parts.method.as_str(), "GET" | "HEAD") {
        return Err(not_allowed("GET, HEAD").detail("the registry is read-only at present"));
    }
    let deletes = call.parts.method == Method::DELETE;
    if deletes && !call.front.config.deletion && matches!(target, Target::Manifest { .. } | Target::Blob { .. }) {
        return Err(not_allowed("GET, HEAD, PUT").detail("this registry deletes nothing for its clients"));
    }
    match (*target, call.parts.method.as_str()) {
        (Target::Version, "GET" | "HEAD") => Ok(axum::Json(serde_json::json!({})).into_response()),
        (Target::Catalog, "GET" | "HEAD") => listing::catalog(call).await,
        (Target::Tags { name: text }, "GET" | "HEAD") => listing::tags(call, name(text)?).await,
        (Target::Referrers { name: text, digest }, "GET" | "HEAD") => {
            listing::referrers(call, name(text)?, parse_digest(digest)?).await
        }
        (Target::Manifest { name: text, reference }, method) => {
            let repository = name(text)?;
            match method {
                "GET" | "HEAD" => manifests::get(call, repository, reference).await,
                "PUT" => manifests::put(call, body, repository, reference).await,
                "DELETE" => manifests::delete(call, repository, reference).await,
                _ => Err(not_allowed("GET, HEAD, PUT, DELETE")),
            }
        }
        (Target::Blob { name: text, digest }, method) => {
            let repository = name(text)?;
            match method {
                "GET" | "HEAD" => blobs::get(call, repository, parse_digest(digest)?).await,
                "DELETE" => blobs::delete(call, repository, parse_digest(digest)?).await,
                _ => Err(not_allowed("GET, HEAD, DELETE")),
            }
        }
        (Target::Uploads { name: text }, "POST") => {
            let _turn = call.upload_turn().await?;
            uploads::post(call, body, name(text)?).await
        }
        (Target::Upload { name: text, id }, method) => {
            let (repository, id) = (name(text)?, id.parse()?);
            match method {
                "GET" | "HEAD" => uploads::status(call, &repository, id).await,
                "PATCH" => {
                    let _turn = call.upload_turn().await?;
                    uploads::patch(call, body, repository, id).await
                }
                "PUT" => {
                    let _turn = call.upload_turn().await?;
                    uploads::put(call, body, repository, id).await
                }
                "DELETE" => uploads::cancel(call, &repository, id).await,
                _ => Err(not_allowed("GET, HEAD, PATCH, PUT, DELETE")),
            }
        }
        (Target::Uploads { .. }, _) => Err(not_allowed("POST")),
        (Target::Version | Target::Catalog | Target::Tags { .. } | Target::Referrers { .. }, _) => {
            Err(not_allowed("GET, HEAD"))
        }
    }
}

fn not_allowed(methods: &'static str) -> Failure {
    Failure::new(Code::Unsupported).header(header::ALLOW, HeaderValue::from_static(methods))
}

/// Reads on, up to a bound: a connection that is closed with unread bytes is reset, and the answer lost with it.
async fn drain(body: &mut Body) {
    let read = async {
        let mut left = DRAINED;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, bytes::Bytes::len);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    drop(tokio::time::timeout(Duration::from_secs(5), read).await);
}

/// The value of a header that was made of checked parts, so it is valid text.
fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// `Ok` when an `If-None-Match` header names this entity tag: the client has it.
fn is_known_to_client(call: &Call<'_>, etag: &str) -> bool {
    call.header(&header::IF_NONE_MATCH).is_some_and(|known| {
        known.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == "*" || tag == etag)
    })
}

fn is_head(call: &Call<'_>) -> bool {
    call.parts.method == Method::HEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_path_decides() {
        for (path, expected) in [
            ("/v2", Some(Target::Version)),
            ("/v2/", Some(Target::Version)),
            ("/v2/_catalog", Some(Target::Catalog)),
            ("/v2/a/b/tags/list", Some(Target::Tags { name: "a/b" })),
            ("/v2/a/manifests/latest", Some(Target::Manifest { name: "a", reference: "latest" })),
            ("/v2/a/blobs/sha256:00", Some(Target::Blob { name: "a", digest: "sha256:00" })),
            ("/v2/a/blobs/uploads/", Some(Target::Uploads { name: "a" })),
            ("/v2/a/blobs/uploads", Some(Target::Uploads { name: "a" })),
            ("/v2/a/blobs/uploads/0", Some(Target::Upload { name: "a", id: "0" })),
            ("/v2/a/blobs/uploads/manifests/x", Some(Target::Manifest { name: "a/blobs/uploads", reference: "x" })),
            ("/v2/a/referrers/sha256:00", Some(Target::Referrers { name: "a", digest: "sha256:00" })),
            ("/v2//tags/list", Some(Target::Tags { name: "" })),
            ("/v2x", None),
            ("/v1/", None),
            ("/", None),
            ("/v2/a", None),
            ("/v2/a/things/x", None),
        ] {
            assert_eq!(Target::parse(path), expected, "{path}");
        }
    }
}
