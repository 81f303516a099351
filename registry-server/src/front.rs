//! The way of a request through the server: counted, admitted, its sender known, then answered by the API, the page or
//! one of the small endpoints, and logged.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::Config;
use crate::access::{Access, Caller, Need};
use crate::access_log::{AccessLog, Entry};
use crate::database;
use crate::error::Error;
use crate::failure::{Code, Failure};
use crate::limits::Limits;
use crate::metrics::{Endpoint, Metrics};
use crate::page;
use crate::registry::Registry;
use crate::routes;
use crate::upstream::Upstreams;
use crate::webhook::Webhooks;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Bytes of the largest form that `/token` reads.
const LARGEST_FORM: usize = 64 << 10;

/// Everything that requests need.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) registry: Arc<Registry>,
    pub(crate) access: Access,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) webhooks: Webhooks,
    pub(crate) upstreams: Upstreams,
    pub(crate) config: Config,
    headers: Vec<(HeaderName, HeaderValue)>,
    log: Option<AccessLog>,
}

impl Front {
    pub(crate) fn open(config: &Config, registry: Arc<Registry>) -> Result<Self, Error> {
        let metrics = Arc::new(Metrics::new());
        Ok(Self {
            upstreams: Upstreams::open(&config.upstreams, Arc::clone(&registry), Arc::clone(&metrics))?,
            webhooks: Webhooks::open(&config.webhooks, Arc::clone(&registry.database), Arc::clone(&metrics))?,
            registry,
            access: Access::open(config)?,
            limits: Limits::new(&config.limits),
            metrics,
            config: config.clone(),
            headers: config.http.headers.iter().map(|line| parse_header(line)).collect::<Result<_, _>>()?,
            log: AccessLog::open(config.log.access.as_deref())?,
        })
    }

    /// Reads files again that changed. Blocks.
    pub(crate) fn refresh(&self) {
        self.access.refresh();
    }

    /// Answers a request from this address.
    pub(crate) async fn answer(self: &Arc<Self>, peer: SocketAddr, request: Request) -> Response {
        let begun = Instant::now();
        let peer = self.client(peer, request.headers());
        let received = Arc::new(AtomicU64::new(0));
        let request = request.map(|inner| Body::new(Counted { inner, count: Arc::clone(&received) }));
        let (mut parts, body) = request.into_parts();
        let asked = parts.uri.clone();
        let is_ours = self.config.http.prefix.take_from(&mut parts.uri);
        self.metrics.in_flight.inc();
        let mut endpoint = if is_ours { endpoint(parts.uri.path()) } else { Endpoint::elsewhere };
        let mut user: Option<Arc<str>> = None;
        let mut response = match self.limits.admit(peer.ip(), begun) {
            Ok(()) => self.dispatch(peer, &parts, body, &mut endpoint, &mut user).await,
            Err(failure) => {
                self.metrics.refuse();
                failure.into_response()
            }
        };
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        self.config.http.prefix.put_into(response.headers_mut());
        for (name, value) in &self.headers {
            response.headers_mut().insert(name, value.clone());
        }
        self.metrics.in_flight.dec();
        let (status, duration) = (response.status().as_u16(), begun.elapsed());
        let sent = if parts.method == Method::HEAD { 0 } else { response.body().size_hint().exact().unwrap_or(0) };
        let sent = sent.max(content_length(&response).filter(|_| parts.method != Method::HEAD).unwrap_or(0));
        let received = received.load(Ordering::Relaxed);
        self.metrics.count(endpoint, parts.method.as_str(), status, duration);
        self.metrics.received.inc_by(received);
        self.metrics.sent.inc_by(sent);
        if let Some(log) = &self.log {
            let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            log.write(Entry {
                time: jiff::Timestamp::now().to_string(),
                client: peer,
                user: user.as_deref().map(str::to_owned),
                method: parts.method.to_string(),
                target: asked.to_string(),
                status,
                received,
                sent,
                milliseconds: (duration.as_secs_f64() * 1e6).round() / 1e3,
                agent: parts.headers.get(header::USER_AGENT).map(text),
            });
        }
        response
    }

    /// Who asks, as far as proxies that are believed tell: the last of those that are named who is no such proxy.
    fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        // Nobody has this address but those who come through a socket in the file system.
        let is_believed = |address: IpAddr| address.is_unspecified() || self.config.http.proxies.contains(&address);
        if !is_believed(peer.ip()) {
            return peer;
        }
        let lines = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let named: Vec<&str> = lines.flat_map(|line| line.split(',')).collect();
        let mut client = peer;
        for text in named.iter().rev() {
            let Ok(address) = text.trim().parse::<IpAddr>() else { break };
            client = SocketAddr::new(address.to_canonical(), 0);
            if !is_believed(client.ip()) {
                break;
            }
        }
        client
    }

    /// By the path: the API, or something of the server's own.
    async fn dispatch(
        self: &Arc<Self>,
        peer: SocketAddr,
        parts: &Parts,
        mut body: Body,
        endpoint: &mut Endpoint,
        user: &mut Option<Arc<str>>,
    ) -> Response {
        match endpoint {
            Endpoint::health => self.health().await,
            Endpoint::token => self.issue(parts, body).await.unwrap_or_else(IntoResponse::into_response),
            Endpoint::metrics => self.metrics(parts, user).await.unwrap_or_else(IntoResponse::into_response),
            Endpoint::elsewhere => Failure::new(Code::Unsupported).status(StatusCode::NOT_FOUND).into_response(),
            Endpoint::page => page::answer(self, parts, user).await,
            _ => routes::answer(self, peer, parts, &mut body, endpoint, user).await,
        }
    }

    async fn issue(&self, parts: &Parts, body: Body) -> Result<Response, Failure> {
        let form = Limited::new(body, LARGEST_FORM).collect().await.map_err(|_| {
            Failure::new(Code::SizeInvalid).status(StatusCode::PAYLOAD_TOO_LARGE).detail("the form is too large")
        })?;
        self.access.issue(parts, &String::from_utf8_lossy(&form.to_bytes())).await
    }

    /// 200 while the database and the disk answer.
    async fn health(&self) -> Response {
        let answered = self.registry.database.read(|connection| {
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
        });
        match answered.await {
            Ok(_) => (StatusCode::OK, "ok\n").into_response(),
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the registry's database does not answer\n").into_response(),
        }
    }

    async fn metrics(&self, parts: &Parts, user: &mut Option<Arc<str>>) -> Result<Response, Failure> {
        let config = &self.config.metrics;
        if !config.enabled {
            return Err(Failure::new(Code::Unsupported).status(StatusCode::NOT_FOUND));
        }
        if !config.public {
            let caller = self.access.identify(parts).await?;
            user.clone_from(&caller.name);
            if !self.access.is_open() && caller.name.is_none() {
                return Err(self.access.ask_browser());
            }
        }
        let contents = self.registry.database.read(database::contents).await?;
        let dropped = self.log.as_ref().map_or(0, |log| log.dropped.load(Ordering::Relaxed));
        let text = self.metrics.text(contents, dropped);
        let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
        Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
    }

    /// Who sent a request to the API or the page.
    pub(crate) async fn identify(&self, parts: &Parts) -> Result<Caller, Failure> {
        self.access.identify(parts).await
    }

    pub(crate) fn authorise(&self, parts: &Parts, caller: &Caller, need: Need<'_>) -> Result<(), Failure> {
        self.access.authorise(parts, caller, need)
    }
}

fn parse_header(line: &str) -> Result<(HeaderName, HeaderValue), Error> {
    let parsed = || Some((line.split_once(':')?.0.trim().parse().ok()?, line.split_once(':')?.1.trim().parse().ok()?));
    parsed().ok_or_else(|| Error::Config {
        place: "`http.headers`".to_owned(),
        reason: format!("{line:?} is not \"Name: value\""),
    })
}

/// What a path is for, before the API looks closer.
fn endpoint(path: &str) -> Endpoint {
    match path {
        // The others are Kubernetes' words for it, as zot has them.
        "/healthz" | "/livez" | "/readyz" | "/startupz" => Endpoint::health,
        "/metrics" => Endpoint::metrics,
        "/token" => Endpoint::token,
        _ if path != "/v2" && !path.starts_with("/v2/") => Endpoint::page,
        _ => Endpoint::other,
    }
}

fn content_length(response: &Response) -> Option<u64> {
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A request's body, whose bytes are counted as they are read.
struct Counted {
    inner: Body,
    count: Arc<AtomicU64>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.count.fetch_add(frame.data_ref().map_or(0, Bytes::len) as u64, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
