//! Standing in for other registries: what is asked for below an upstream's prefix is fetched from there once, kept, and
//! served from here. While the upstream is down, what is here is served.

mod download;
mod remote;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::request::Parts;
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, body::Body};
use kiln_store::Digest;
use kiln_store::digest::Hasher;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::blocking::blocking;
use crate::config;
use crate::database;
use crate::error::Error;
use crate::failure::{Code, Failure};
use crate::manifest::Manifest;
use crate::metrics::Metrics;
use crate::name::{Reference, RepositoryName};
use crate::registry::Registry;
use download::{Begin, Download};
use remote::{Remote, Trouble};

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// Tags of which it is remembered when they were asked for.
const MOST_CHECKED: usize = 16_384;

/// All upstreams.
#[derive(Debug)]
pub(crate) struct Upstreams {
    all: Vec<Arc<Upstream>>,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
}

/// A registry that this one stands in for.
#[derive(Debug)]
struct Upstream {
    prefix: String,
    hosts: Vec<String>,
    fresh: Duration,
    remote: Remote,
    /// When the upstream was last asked for a tag.
    checked: Mutex<HashMap<String, Instant>>,
    /// Questions for manifests under way: whoever has the same waits for the answer.
    questions: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    downloads: Mutex<HashMap<Digest, Arc<OnceCell<Download>>>>,
}

/// A repository whose upstream is known.
pub(crate) struct Mirrored<'a> {
    all: &'a Upstreams,
    upstream: &'a Arc<Upstream>,
    repository: &'a RepositoryName,
    /// Its name there.
    remote: &'a str,
}

impl Upstreams {
    pub(crate) fn open(
        config: &[config::Upstream],
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        let open = |config: &config::Upstream| {
            let prefix = config.prefix.trim_matches('/');
            prefix.parse::<RepositoryName>().map_err(|_| Error::Config {
                place: "the configuration".to_owned(),
                reason: format!("`upstream.prefix` is {prefix:?}, which no repository's name can begin with"),
            })?;
            Ok(Arc::new(Upstream {
                prefix: prefix.to_owned(),
                hosts: config.hosts.clone(),
                fresh: config.fresh.0,
                remote: Remote::open(config)?,
                checked: Mutex::default(),
                questions: Mutex::default(),
                downloads: Mutex::default(),
            }))
        };
        Ok(Self { all: config.iter().map(open).collect::<Result<_, Error>>()?, registry, metrics })
    }

    /// The path with the prefix, where a client asked for an upstream's host instead.
    pub(crate) fn rewrite(&self, parts: &Parts, path: &str) -> Option<String> {
        if self.all.is_empty() {
            return None;
        }
        let rest = path.strip_prefix("/v2/").filter(|rest| rest.contains('/'))?;
        let query = parts.uri.query().unwrap_or_default();
        let asked = query.split('&').find_map(|pair| pair.strip_prefix("ns="));
        let host = parts.headers.get(header::HOST).and_then(|value| value.to_str().ok());
        let named = |upstream: &&Arc<Upstream>| {
            upstream.hosts.iter().any(|name| Some(name.as_str()) == asked || Some(name.as_str()) == host)
        };
        let upstream = self.all.iter().find(named)?;
        Some(format!("/v2/{}/{rest}", upstream.prefix))
    }

    /// The upstream of a repository, where it has one.
    pub(crate) fn find<'a>(&'a self, repository: &'a RepositoryName) -> Option<Mirrored<'a>> {
        self.all.iter().find_map(|upstream| {
            let remote = repository.as_str().strip_prefix(upstream.prefix.as_str())?.strip_prefix('/')?;
            Some(Mirrored { all: self, upstream, repository, remote })
        })
    }
}

impl Upstream {
    fn downloads(&self) -> MutexGuard<'_, HashMap<Digest, Arc<OnceCell<Download>>>> {
        self.downloads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_fresh(&self, question: &str) -> bool {
        let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        checked.get(question).is_some_and(|at| at.elapsed() < self.fresh)
    }

    fn note(&self, question: &str) {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked.len() >= MOST_CHECKED {
            checked.clear();
        }
        checked.insert(question.to_owned(), Instant::now());
    }
}

impl Mirrored<'_> {
    /// What a client is answered that would change the repository.
    pub(crate) fn refuse(&self) -> Failure {
        let detail = format!("{} is a copy of an upstream's repository", self.repository.as_str());
        Failure::new(Code::Unsupported).detail(detail)
    }

    /// Sees to it that the manifest is here as the upstream has it.
    ///
    /// # Errors
    /// When the upstream has none, or does not answer and there is none here.
    pub(crate) async fn manifest(&self, reference: &Reference) -> Result<(), Failure> {
        let question = format!("{}:{reference}", self.remote);
        if self.is_settled(&question, reference).await? {
            return Ok(());
        }
        let turn = {
            let mut questions = self.upstream.questions.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(questions.entry(question.clone()).or_default())
        };
        let guard = turn.lock().await;
        let result =
            if self.is_settled(&question, reference).await? { Ok(()) } else { self.ask(&question, reference).await };
        drop(guard);
        let mut questions = self.upstream.questions.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::strong_count(&turn) <= 2 {
            questions.remove(&question);
        }
        result
    }

    async fn is_settled(&self, question: &str, reference: &Reference) -> Result<bool, Failure> {
        let known = self.all.registry.manifest(self.repository, reference).await?.is_some();
        Ok(known && (matches!(reference, Reference::Digest(_)) || self.upstream.is_fresh(question)))
    }

    async fn ask(&self, question: &str, reference: &Reference) -> Result<(), Failure> {
        let known = self.all.registry.manifest(self.repository, reference).await?;
        match self.fetch(reference, known.as_ref().map(|manifest| manifest.digest)).await {
            Ok(()) => {
                self.all.metrics.upstream("ok");
                self.upstream.note(question);
                Ok(())
            }
            Err(Begin::Failure(failure)) => Err(failure),
            Err(Begin::Trouble(Trouble::Unknown)) => {
                self.all.metrics.upstream("unknown");
                Err(Failure::new(Code::ManifestUnknown))
            }
            Err(Begin::Trouble(Trouble::Unreachable(reason))) if known.is_some() => {
                self.all.metrics.upstream("stale");
                tracing::warn!(repository = self.repository.as_str(), reason, "the upstream does not answer");
                // It is not asked again for every client that comes meanwhile.
                self.upstream.note(question);
                Ok(())
            }
            Err(Begin::Trouble(Trouble::Unreachable(reason))) => Err(self.unreachable(&reason)),
        }
    }

    fn unreachable(&self, reason: &str) -> Failure {
        self.all.metrics.upstream("failed");
        tracing::warn!(repository = self.repository.as_str(), reason, "the upstream does not answer");
        Failure::new(Code::Unknown).status(StatusCode::BAD_GATEWAY).detail("the upstream registry does not answer")
    }

    /// Fetches the manifest, unless the upstream says that it is still the one that is known.
    async fn fetch(&self, reference: &Reference, known: Option<Digest>) -> Result<(), Begin> {
        let text = reference.to_string();
        let remote = &self.upstream.remote;
        if let Some(known) = known {
            let head = remote.manifest(Method::HEAD, self.remote, &text).await.map_err(Begin::Trouble)?;
            let digest = head.headers().get(DOCKER_CONTENT_DIGEST).and_then(|value| value.to_str().ok());
            if digest.is_some_and(|digest| digest == known.to_string()) {
                return Ok(());
            }
        }
        let response = remote.manifest(Method::GET, self.remote, &text).await.map_err(Begin::Trouble)?;
        let header =
            |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (kind, promised) = (header(header::CONTENT_TYPE), header(DOCKER_CONTENT_DIGEST));
        let bytes = remote::read(response, self.all.registry.largest_manifest).await.map_err(Begin::Trouble)?;
        let expected = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(_) => promised.and_then(|text| text.parse::<Digest>().ok()),
        };
        let check = move || {
            let algorithm = expected.map_or(kiln_store::digest::Algorithm::Sha256, |digest| digest.algorithm());
            let mut hasher = Hasher::new(algorithm);
            hasher.update(&bytes);
            let digest = hasher.finish();
            if expected.is_some_and(|expected| expected != digest) {
                return Err(Failure::new(Code::Unknown)
                    .status(StatusCode::BAD_GATEWAY)
                    .detail("the upstream's manifest is not that of its digest"));
            }
            let manifest =
                Manifest::parse(&bytes, kind.as_deref()).map_err(|failure| failure.status(StatusCode::BAD_GATEWAY))?;
            Ok((digest, manifest, bytes))
        };
        let (digest, manifest, bytes) = blocking(check).await.map_err(Begin::Failure)?;
        let (repository, tag) = (self.repository.clone(), reference.clone());
        let rules = Arc::clone(&self.all.registry.collection);
        let store = move |batch: &mut database::Batch<'_>| {
            let tags = match tag {
                Reference::Tag(tag) => vec![tag],
                Reference::Digest(_) => Vec::new(),
            };
            let push = database::Push { digest: &digest, manifest: &manifest, bytes: &bytes, tags: &tags };
            database::put_manifest(batch, &repository, &push, &rules, true)
        };
        self.all.registry.database.write(store).await.map_err(Begin::Failure)
    }

    /// The answer to a request for a blob that is not here yet; `None` when it is.
    pub(crate) async fn blob(&self, parts: &Parts, digest: Digest) -> Result<Option<Response>, Failure> {
        if self.all.registry.blob(self.repository, &digest).await?.is_some() {
            return Ok(None);
        }
        if parts.method == Method::HEAD {
            let asked = self.upstream.remote.blob(Method::HEAD, self.remote, &digest.to_string(), 0).await;
            let response = asked.map_err(|trouble| self.no_blob(trouble))?;
            let length = response.headers().get(header::CONTENT_LENGTH).cloned();
            return Ok(Some(self.respond(digest, length, Body::empty())));
        }
        let cell = Arc::clone(self.upstream.downloads().entry(digest).or_default());
        let begin = || Download::begin(self.upstream, &self.all.registry, self.repository, self.remote, digest);
        let download = match cell.get_or_try_init(begin).await {
            Ok(download) => download.clone(),
            Err(begin) => {
                self.upstream.downloads().remove(&digest);
                return Err(match begin {
                    Begin::Failure(failure) => failure,
                    Begin::Trouble(trouble) => self.no_blob(trouble),
                });
            }
        };
        self.all.metrics.upstream("ok");
        match download.size {
            // A part of it can only be served when all of it is here.
            Some(size) if !parts.headers.contains_key(header::RANGE) && size > 0 => {
                let body = download.body(size);
                Ok(Some(self.respond(digest, Some(size.into()), body)))
            }
            _ if download.finish().await => Ok(None),
            _ => Err(self.unreachable("a blob did not arrive")),
        }
    }

    fn no_blob(&self, trouble: Trouble) -> Failure {
        match trouble {
            Trouble::Unknown => {
                self.all.metrics.upstream("unknown");
                Failure::new(Code::BlobUnknown)
            }
            Trouble::Unreachable(reason) => self.unreachable(&reason),
        }
    }

    fn respond(&self, digest: Digest, length: Option<axum::http::HeaderValue>, body: Body) -> Response {
        let mut response = (StatusCode::OK, body).into_response();
        let headers = response.headers_mut();
        let text = |text: String| axum::http::HeaderValue::from_str(&text).ok();
        headers.extend(text(digest.to_string()).map(|value| (DOCKER_CONTENT_DIGEST, value)));
        headers.extend(text(format!("\"{digest}\"")).map(|value| (header::ETAG, value)));
        headers.extend(length.map(|value| (header::CONTENT_LENGTH, value)));
        headers.insert(header::CONTENT_TYPE, axum::http::HeaderValue::from_static("application/octet-stream"));
        response
    }

    /// The upstream's tags; `None` when it does not answer, so that those that are here are listed.
    pub(crate) async fn tags(&self, parts: &Parts) -> Result<Option<Response>, Failure> {
        let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let bytes = match self.upstream.remote.tags(self.remote, &query).await {
            Ok(bytes) => bytes,
            Err(Trouble::Unknown) => return Err(Failure::new(Code::NameUnknown)),
            Err(Trouble::Unreachable(_)) => return Ok(None),
        };
        let Ok(mut list) = serde_json::from_slice::<Value>(&bytes) else { return Ok(None) };
        if !list["tags"].is_array() {
            return Ok(None);
        }
        list["name"] = self.repository.as_str().into();
        Ok(Some(Json(list).into_response()))
    }
}
