//! The web page: what there is, for people. It is HTML from the server and needs no script; the one there is copies a
//! command. Everything that somebody pushed is foreign text, which `maud` escapes.

mod document;
mod image;
mod repositories;
mod repository;
mod summary;
mod text;

use std::sync::Arc;

use axum::extract::Query;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use percent_encoding::percent_decode_str;

use crate::access::{Action, Caller};
use crate::failure::{Code, Failure};
use crate::front::Front;
use crate::name::{Reference, RepositoryName};

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/copy.js");
const ICON: &str = include_str!("page/icon.svg");
/// Nothing but our own style, icon and script; no frames, no plugins, no forms to elsewhere.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

/// A request for a page.
struct View<'a> {
    front: &'a Arc<Front>,
    parts: &'a Parts,
    caller: &'a Caller,
}

/// Why there is no page.
enum Refusal {
    /// There is no such thing, or this reader may not see it.
    NotFound,
    /// A reader who has not signed in may not see it.
    SignIn,
    Failed(Failure),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<crate::error::Error> for Refusal {
    fn from(error: crate::error::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Answers a request for a page; says who asked.
pub(crate) async fn answer(front: &Arc<Front>, parts: &Parts, user: &mut Option<Arc<str>>) -> Response {
    let mut response = match serve(front, parts, user).await {
        Ok(response) => response,
        Err(failure) => failure.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn serve(front: &Arc<Front>, parts: &Parts, user: &mut Option<Arc<str>>) -> Result<Response, Failure> {
    let not_found = || Failure::new(Code::Unsupported).status(StatusCode::NOT_FOUND);
    if !front.config.page.enabled {
        return Err(not_found().detail("there is no such endpoint"));
    }
    if parts.method != Method::GET && parts.method != Method::HEAD {
        let allowed = HeaderValue::from_static("GET, HEAD");
        return Err(Failure::new(Code::Unsupported).header(header::ALLOW, allowed));
    }
    match parts.uri.path() {
        "/page.css" => return Ok(asset("text/css; charset=utf-8", STYLE)),
        "/copy.js" => return Ok(asset("text/javascript; charset=utf-8", SCRIPT)),
        "/icon.svg" => return Ok(asset("image/svg+xml", ICON)),
        _ => {}
    }
    let caller = front.identify(parts).await.map_err(|_| front.access.ask_browser())?;
    user.clone_from(&caller.name);
    let view = View { front, parts, caller: &caller };
    match view.page().await {
        Ok(markup) => Ok(html_response(StatusCode::OK, markup)),
        Err(Refusal::Failed(failure)) => Err(failure),
        Err(Refusal::SignIn) => Err(front.access.ask_browser()),
        Err(Refusal::NotFound) => {
            let body = html! {
                h1 { "Not found" }
                p { "There is no such repository or image here, or you may not see it." }
                p { a href=(format!("{}/", view.prefix())) { "All repositories" } }
            };
            Ok(html_response(StatusCode::NOT_FOUND, view.document("Not found", &body)))
        }
    }
}

impl View<'_> {
    async fn page(&self) -> Result<Markup, Refusal> {
        let path = percent_decode_str(self.parts.uri.path()).decode_utf8().map_err(|_| Refusal::NotFound)?;
        if path == "/" {
            return self.repositories().await;
        }
        if path == "/sign-in" {
            return if self.is_stranger() { Err(Refusal::SignIn) } else { self.repositories().await };
        }
        let named = path.strip_prefix("/r/").ok_or(Refusal::NotFound)?;
        // As in a reference: the digest after `@`, the tag after `:`.
        let (name, reference) = match (named.split_once('@'), named.split_once(':')) {
            (Some((name, digest)), _) => (name, Some(digest)),
            (None, Some((name, tag))) => (name, Some(tag)),
            (None, None) => (named, None),
        };
        let name: RepositoryName = name.parse().map_err(|_| Refusal::NotFound)?;
        if !self.may_see(name.as_str()) {
            return Err(if self.is_stranger() { Refusal::SignIn } else { Refusal::NotFound });
        }
        match reference {
            None => self.repository(name).await,
            Some(text) => {
                let reference = Reference::parse(text).ok().flatten().ok_or(Refusal::NotFound)?;
                self.image(name, reference).await
            }
        }
    }

    /// Whether the reader could sign in, but has not.
    fn is_stranger(&self) -> bool {
        !self.front.access.is_open() && self.caller.name.is_none()
    }

    fn may_see(&self, repository: &str) -> bool {
        self.caller.may(Action::Pull, repository) || self.caller.sees(repository)
    }

    /// What every path of a link begins with.
    fn prefix(&self) -> &str {
        self.front.config.http.prefix.as_str()
    }

    /// The path of a repository's page.
    fn place(&self, repository: &RepositoryName) -> String {
        format!("{}/r/{}", self.prefix(), repository.as_str())
    }

    /// A parameter of the query, decoded.
    fn parameter(&self, name: &str) -> Option<String> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&self.parts.uri).ok()?;
        pairs.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The host that references begin with.
    fn host(&self) -> String {
        let origin = self.front.access.origin(&self.parts.headers, &self.parts.uri);
        origin.split_once("://").map_or(origin.clone(), |(_, host)| host.to_owned())
    }
}

fn html_response(status: StatusCode, markup: Markup) -> Response {
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    (status, [(header::CONTENT_TYPE, kind)], markup.into_string()).into_response()
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("max-age=3600")),
    ];
    (headers, text).into_response()
}
