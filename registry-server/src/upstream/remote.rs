//! Asking another registry, with the credentials it wants.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::header::{ACCEPT, RANGE, WWW_AUTHENTICATE};
use axum::http::{Method, StatusCode};
use reqwest::{Client, RequestBuilder, Response, Url};
use serde::Deserialize;

use crate::config;
use crate::error::{Error, chain};
use crate::outbound;

/// Manifests that are understood here.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json, \
                         application/vnd.docker.distribution.manifest.v2+json";
/// How long a token is taken to be good when its service does not say.
const SHORTEST_LIFE: Duration = Duration::from_secs(60);
/// Bytes of the largest answer that is no manifest and no blob.
const LARGEST_ANSWER: usize = 1 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The upstream says there is no such thing, or not for us.
    Unknown,
    /// It does not answer, or not sensibly: a reason for the log.
    Unreachable(String),
}

/// One upstream registry.
#[derive(Debug)]
pub(super) struct Remote {
    base: Url,
    http: Client,
    username: Option<String>,
    password_file: Option<PathBuf>,
    /// What was accepted last time, by repository, and until when.
    authorizations: Mutex<HashMap<String, (String, Instant)>>,
}

#[derive(Deserialize)]
struct Token {
    // Services send one of the two, or both.
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Remote {
    pub(super) fn open(config: &config::Upstream) -> Result<Self, Error> {
        let base = outbound::url(config.url.trim_end_matches('/'))?;
        let http = outbound::client(&base, config.timeout.0, config.authority.as_deref())?;
        Ok(Self {
            base,
            http,
            username: config.username.clone(),
            password_file: config.password_file.clone(),
            authorizations: Mutex::default(),
        })
    }

    /// A manifest's head, or the whole of it.
    pub(super) async fn manifest(&self, method: Method, name: &str, reference: &str) -> Result<Response, Trouble> {
        self.ask(name, &format!("manifests/{reference}"), |request| request.header(ACCEPT, MANIFESTS), method).await
    }

    /// A blob from this byte on.
    pub(super) async fn blob(&self, method: Method, name: &str, digest: &str, from: u64) -> Result<Response, Trouble> {
        let part = |request: RequestBuilder| match from {
            0 => request,
            _ => request.header(RANGE, format!("bytes={from}-")),
        };
        let response = self.ask(name, &format!("blobs/{digest}"), part, method).await?;
        if from > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(Trouble::Unreachable("it does not continue a blob where it broke off".to_owned()));
        }
        Ok(response)
    }

    pub(super) async fn tags(&self, name: &str, query: &str) -> Result<Vec<u8>, Trouble> {
        let response = self.ask(name, &format!("tags/list{query}"), |request| request, Method::GET).await?;
        read(response, LARGEST_ANSWER).await
    }

    /// Sends a request; where the upstream asks who we are, tells it and sends it again.
    async fn ask(
        &self,
        name: &str,
        rest: &str,
        prepare: impl Fn(RequestBuilder) -> RequestBuilder,
        method: Method,
    ) -> Result<Response, Trouble> {
        let url = format!("{}/v2/{name}/{rest}", self.base.as_str().trim_end_matches('/'));
        let send = async |authorization: Option<&str>| {
            let mut request = prepare(self.http.request(method.clone(), &url));
            if let Some(authorization) = authorization {
                request = request.header(axum::http::header::AUTHORIZATION, authorization);
            }
            request.send().await.map_err(|error| Trouble::Unreachable(outbound::reason(error)))
        };
        let mut response = send(self.authorization(name).as_deref()).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(authorization) = self.authorize(name, &response).await?
        {
            response = send(Some(&authorization)).await?;
        }
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Trouble::Unknown),
            status => Err(Trouble::Unreachable(format!("it answered {status}"))),
        }
    }

    fn authorization(&self, name: &str) -> Option<String> {
        let known = self.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name).filter(|(_, until)| *until > Instant::now()).map(|(text, _)| text.clone())
    }

    /// What the challenge asks for; `None` where there is nothing to show.
    async fn authorize(&self, name: &str, response: &Response) -> Result<Option<String>, Trouble> {
        let headers = response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        for header in headers {
            for challenge in http_auth::parse_challenges(header).unwrap_or_default() {
                let parameter = |name: &str| {
                    let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.to_unescaped())
                };
                let (authorization, life) = if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let Some(realm) = parameter("realm") else { continue };
                    self.token(name, &realm, parameter("service")).await?
                } else if challenge.scheme.eq_ignore_ascii_case("basic") {
                    let Some((user, password)) = self.credentials()? else { return Ok(None) };
                    (basic(&user, &password), Duration::from_secs(3600))
                } else {
                    continue;
                };
                let mut known = self.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
                known.retain(|_, (_, until)| *until > Instant::now());
                known.insert(name.to_owned(), (authorization.clone(), Instant::now() + life));
                return Ok(Some(authorization));
            }
        }
        Ok(None)
    }

    /// A token to pull with, and how long it is good.
    async fn token(&self, name: &str, realm: &str, service: Option<String>) -> Result<(String, Duration), Trouble> {
        let mut url = outbound::url(realm).map_err(|error| Trouble::Unreachable(chain(&error)))?;
        url.query_pairs_mut().append_pair("scope", &format!("repository:{name}:pull"));
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", &service);
        }
        let mut request = self.http.get(url);
        if let Some((user, password)) = self.credentials()? {
            request = request.header(axum::http::header::AUTHORIZATION, basic(&user, &password));
        }
        let response = request.send().await.map_err(|error| Trouble::Unreachable(outbound::reason(error)))?;
        if response.status().is_client_error() && response.status() != StatusCode::TOO_MANY_REQUESTS {
            return Err(Trouble::Unknown);
        }
        let bytes = read(response, LARGEST_ANSWER).await?;
        let nonsense = |reason: &str| Trouble::Unreachable(format!("its token service answered nonsense: {reason}"));
        let token: Token = serde_json::from_slice(&bytes).map_err(|error| nonsense(&error.to_string()))?;
        let text = token.token.or(token.access_token).ok_or_else(|| nonsense("no token"))?;
        let life = token.expires_in.map_or(SHORTEST_LIFE, Duration::from_secs);
        // Not to its very end: the clock runs while a request is on its way.
        Ok((format!("Bearer {text}"), life * 3 / 4))
    }

    fn credentials(&self) -> Result<Option<(String, String)>, Trouble> {
        let Some(user) = &self.username else { return Ok(None) };
        let Some(path) = &self.password_file else { return Ok(Some((user.clone(), String::new()))) };
        let text = std::fs::read_to_string(path)
            .map_err(|error| Trouble::Unreachable(chain(&Error::io("read", path)(error))))?;
        Ok(Some((user.clone(), text.trim_end_matches(['\n', '\r']).to_owned())))
    }
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {text}")
}

/// A body of at most so many bytes.
pub(super) async fn read(mut response: Response, most: usize) -> Result<Vec<u8>, Trouble> {
    let mut bytes = Vec::new();
    let broken = |error: reqwest::Error| Trouble::Unreachable(outbound::reason(error));
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if bytes.len() + chunk.len() > most {
            return Err(Trouble::Unreachable(format!("its answer has more than {most} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
