//! Requests to one registry: authenticated, repeated when that may help, with answers that are bounded.

use std::time::Duration;

use futures_util::StreamExt;
use oci_distribution::errors::OciEnvelope;
use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use tokio::sync::Mutex;

use super::Options;
use super::authentication::{self, Challenge};
use super::endpoint::Endpoint;
use crate::credentials::Credential;
use crate::{Error, Result};

/// How often a request is made before its failure is final, if nobody says.
const ATTEMPTS: u32 = 3;
/// Pause before the second attempt, if nobody says; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// A registry that asks for a longer pause than this is not waited for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Bytes of an error message, at most.
const MESSAGE_LIMIT: usize = 64 << 10;

/// A registry, and how we are known to it.
pub(super) struct Session {
    endpoint: Endpoint,
    credential: Option<Credential>,
    authorization: Mutex<Authorization>,
    /// How often what fails is tried, and when.
    pub(super) patience: Patience,
}

/// The header of the day. `generation` tells whether somebody has renewed it since a request was made.
#[derive(Default)]
struct Authorization {
    generation: u64,
    header: Option<HeaderValue>,
    scopes: Vec<String>,
    /// What was answered with the header.
    challenge: Option<Challenge>,
}

impl Session {
    /// Finds the registry. `scopes` is what will be done, for token servers: `repository:a/b:pull`.
    pub(super) async fn open(
        registry: &str,
        credential: Option<Credential>,
        scopes: Vec<String>,
        options: &Options,
    ) -> Result<Self> {
        let endpoint = Endpoint::find(registry, options).await?;
        let authorization = Mutex::new(Authorization { scopes, ..Authorization::default() });
        Ok(Self { endpoint, credential, authorization, patience: Patience::of(options) })
    }

    /// An address below `/v2/`.
    pub(super) fn url(&self, path: &str) -> Result<Url> {
        let wrong = |error: <Url as std::str::FromStr>::Err| Error::invalid(path.to_owned(), error.to_string());
        self.endpoint.base.join(path).map_err(wrong)
    }

    /// Asks for nothing but being let in.
    pub(super) async fn check(&self) -> Result<()> {
        let base = self.endpoint.base.clone();
        let response = self.send("GET", |http| http.get(base.clone())).await?;
        // A server that lets everybody in would take any password: then the password says nothing, as with docker.
        success("GET", response).await.map(drop)
    }

    /// Makes a request, again when the connection or the server fails in a way that may pass.
    pub(super) async fn send(&self, action: &str, build: impl Fn(&Client) -> RequestBuilder) -> Result<Response> {
        let mut attempt = 1;
        loop {
            let outcome = self.send_once(action, &build).await;
            let pause = match &outcome {
                Ok(response) if may_pass(response.status()) => self.patience.pause(attempt, Some(response)),
                Err(Error::Transport { source, .. }) if !source.is_builder() && !source.is_redirect() => {
                    self.patience.pause(attempt, None)
                }
                _ => return outcome,
            };
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return outcome,
            }
            attempt += 1;
        }
    }

    /// Makes a request whose body cannot be had twice; only a challenge is answered by making it again, and the
    /// body with it.
    pub(super) async fn send_once(&self, action: &str, build: impl Fn(&Client) -> RequestBuilder) -> Result<Response> {
        let mut authenticated = false;
        loop {
            let request = build(&self.endpoint.http).build();
            let mut request = request.map_err(|source| transport(action, &self.endpoint.base, source))?;
            let url = request.url().clone();
            let own = url.origin() == self.endpoint.base.origin();
            let mut generation = 0;
            if own {
                let authorization = self.authorization.lock().await;
                generation = authorization.generation;
                if let Some(header) = &authorization.header {
                    request.headers_mut().insert(AUTHORIZATION, header.clone());
                }
            }
            let response =
                self.endpoint.http.execute(request).await.map_err(|source| transport(action, &url, source))?;
            // Where a redirection led, nobody is to be told who we are.
            let asked_elsewhere = response.url().origin() != self.endpoint.base.origin();
            if response.status() != StatusCode::UNAUTHORIZED || !own || asked_elsewhere {
                return Ok(response);
            }
            if authenticated {
                return Err(self.refused(action, response).await);
            }
            let Some(challenge) = Challenge::of(response.headers()) else { return Ok(response) };
            self.authenticate(challenge, generation).await?;
            authenticated = true;
        }
    }

    /// Why a registry that was told who we are does not let us.
    async fn refused(&self, action: &str, response: Response) -> Error {
        let basic = self.authorization.lock().await.challenge == Some(Challenge::Basic);
        match success(action, response).await {
            Err(Error::Denied { what, .. }) if basic => {
                Error::Denied { what, message: authentication::WRONG_PASSWORD.to_owned() }
            }
            Err(Error::Denied { what, message }) if self.credential.is_none() => {
                let host = host(&self.endpoint.base);
                Error::Denied { what, message: format!("{message} (`kiln login {host}`)") }
            }
            Err(error) => error,
            Ok(_) => Error::invalid(shown(&self.endpoint.base), "it refused, and then did not"),
        }
    }

    async fn authenticate(&self, challenge: Challenge, generation: u64) -> Result<()> {
        let mut authorization = self.authorization.lock().await;
        if authorization.generation != generation {
            return Ok(());
        }
        let Endpoint { http, base } = &self.endpoint;
        let scopes = &authorization.scopes;
        let header = authentication::answer(http, base, challenge.clone(), self.credential.as_ref(), scopes).await?;
        authorization.generation += 1;
        authorization.header = Some(header);
        authorization.challenge = Some(challenge);
        Ok(())
    }

    /// The bearer token that a registry's token server gives; `None` where there is none.
    pub(super) async fn token(&self, url: &Url) -> Result<Option<String>> {
        let response = self.send("GET", |http| http.get(url.clone())).await?;
        if response.status() != StatusCode::NOT_FOUND {
            success("GET", response).await?;
        }
        let authorization = self.authorization.lock().await;
        let header = authorization.header.as_ref().and_then(|header| header.to_str().ok());
        Ok(header.and_then(|header| header.strip_prefix("Bearer ")).map(str::to_owned))
    }

    /// Asks the token server, where there is one, for a further right, once; without it things go on as they were.
    pub(super) async fn widen(&self, scope: String) {
        let mut authorization = self.authorization.lock().await;
        if authorization.scopes.contains(&scope) {
            return;
        }
        authorization.scopes.push(scope);
        let Some(challenge @ Challenge::Bearer { .. }) = authorization.challenge.clone() else { return };
        let (Endpoint { http, base }, scopes) = (&self.endpoint, &authorization.scopes);
        match authentication::answer(http, base, challenge, self.credential.as_ref(), scopes).await {
            Ok(header) => {
                authorization.generation += 1;
                authorization.header = Some(header);
            }
            Err(error) => {
                tracing::debug!(%error, "ask for a further right");
                authorization.scopes.pop();
            }
        }
    }
}

/// What became of a request that was not answered.
pub(super) fn transport(action: &str, url: &Url, source: reqwest::Error) -> Error {
    if let Some(reason) = kiln_trust::refused(&source) {
        return Error::Untrusted { url: shown(url), host: host(url), reason };
    }
    Error::Transport { action: action.to_owned(), url: shown(url), source: source.without_url() }
}

/// A registry as references name it.
pub(super) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// An address as messages show it: a query may hold signatures.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    let _ = url.set_password(None);
    url.to_string()
}

fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED || status == StatusCode::TOO_MANY_REQUESTS
}

/// How often what fails is tried, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    attempts: u32,
    first_pause: Duration,
}

impl Patience {
    fn of(options: &Options) -> Self {
        Self {
            attempts: options.retries.map_or(ATTEMPTS, |retries| retries.saturating_add(1)),
            first_pause: options.retry_delay.unwrap_or(FIRST_PAUSE),
        }
    }

    /// How long to wait before the next attempt; `None` when there is none, or the server wants more patience than we
    /// have.
    pub(super) fn pause(self, attempt: u32, response: Option<&Response>) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        let asked = response
            .and_then(|response| response.headers().get(RETRY_AFTER))
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let doubled = self.first_pause.saturating_mul(2_u32.saturating_pow(attempt - 1));
        let own = doubled.min(LONGEST_PAUSE.max(self.first_pause));
        match asked {
            Some(asked) if asked > LONGEST_PAUSE => None,
            asked => Some(asked.unwrap_or(own).max(own)),
        }
    }
}

/// Turns an answer that is no success into an error, with what the registry said.
pub(super) async fn success(action: &str, response: Response) -> Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let url = shown(response.url());
    let message = message_of(&limited_body(response, MESSAGE_LIMIT).await.unwrap_or_default());
    match status.as_u16() {
        401 | 403 => {
            let message = message.trim_start_matches(": ");
            let message = if message.is_empty() { "the registry refused it" } else { message };
            Err(Error::Denied { what: url, message: message.to_owned() })
        }
        code => {
            let reason = status.canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default();
            let message = if message.is_empty() { reason } else { message };
            Err(Error::Registry { action: action.to_owned(), url, status: code, message })
        }
    }
}

/// The whole body, unless it is longer than `limit` bytes.
pub(super) async fn limited_body(response: Response, limit: usize) -> Result<Vec<u8>> {
    let url = response.url().clone();
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|source| transport("read the answer of", &url, source))?;
        if body.len() + chunk.len() > limit {
            return Err(Error::invalid(format!("answer of {}", shown(&url)), format!("longer than {limit} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What a registry says of a failure, beginning with ": "; nothing when it says nothing that can be read.
pub(super) fn message_of(body: &[u8]) -> String {
    let Ok(envelope) = serde_json::from_slice::<OciEnvelope>(body) else { return String::new() };
    let said = envelope.errors.into_iter().map(|error| {
        let code = serde_json::to_value(&error.code).ok().and_then(|code| code.as_str().map(str::to_lowercase));
        let text = if error.message.is_empty() { code.unwrap_or_default() } else { error.message };
        text.chars().filter(|letter| !letter.is_control()).collect::<String>()
    });
    said.filter(|text| !text.is_empty()).map(|text| format!(": {text}")).collect()
}
