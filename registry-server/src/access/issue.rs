//! `/token`: the docker token protocol, by GET with a password in the header, and by POST with one in a form.

use axum::Json;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::rights::Action;
use super::token::{Grant, Issuer};
use super::{Access, Caller, Credentials, Mode};
use crate::failure::{Code, Failure};

/// Scopes that one token may have.
const MOST_SCOPES: usize = 100;

impl Access {
    /// Answers a request for a token. `form` is the body of a POST.
    pub(crate) async fn issue(&self, parts: &Parts, form: &str) -> Result<Response, Failure> {
        let issuer = match &self.mode {
            Mode::Users(own) => own.issuer.as_ref(),
            _ => None,
        };
        let none = || Failure::new(Code::Unsupported).status(StatusCode::NOT_FOUND).detail("no tokens are issued here");
        let issuer = issuer.ok_or_else(none)?;
        let posted = parts.method == axum::http::Method::POST;
        let fields = fields(if posted { form } else { parts.uri.query().unwrap_or_default() });
        let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let credentials = if posted {
            if field("grant_type").as_deref() != Some("password") {
                let error = json!({"error": "unsupported_grant_type"});
                return Ok((StatusCode::BAD_REQUEST, Json(error)).into_response());
            }
            let (Some(name), Some(password)) = (field("username"), field("password")) else {
                return Ok((StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_request"}))).into_response());
            };
            Some((name, password))
        } else {
            match Credentials::of(&parts.headers) {
                None => None,
                Some(Credentials::Basic { name, password }) => Some((name, password)),
                Some(_) => return Err(self.ask_browser()),
            }
        };
        let caller = match credentials {
            None => self.unknown(),
            Some((name, password)) => {
                let caller = self.sign_in(&name, password).await?;
                caller.ok_or_else(|| self.ask_browser().coded(Code::WrongPassword))?
            }
        };
        let scopes = fields.iter().filter(|(key, _)| key == "scope").flat_map(|(_, value)| value.split(' '));
        let asked: Vec<Grant> = scopes.filter_map(Grant::parse).take(MOST_SCOPES).collect();
        respond(issuer, &caller, asked)
    }
}

/// A token for as much of what was asked for as the caller may.
fn respond(issuer: &Issuer, caller: &Caller, asked: Vec<Grant>) -> Result<Response, Failure> {
    let granted: Vec<Grant> = asked.into_iter().filter_map(|grant| restrict(caller, grant)).collect();
    let scope: Vec<String> =
        granted.iter().map(|grant| format!("{}:{}:{}", grant.kind, grant.name, grant.actions.join(","))).collect();
    let (token, issued) = issuer.issue(caller.name.as_deref().unwrap_or_default(), granted)?;
    let issued = jiff::Timestamp::from_second(i64::try_from(issued).unwrap_or_default()).unwrap_or_default();
    let answer = json!({
        "token": token,
        "access_token": token,
        "expires_in": issuer.lifetime().as_secs(),
        "issued_at": issued.to_string(),
        "scope": scope.join(" "),
    });
    let uncached = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((uncached, Json(answer)).into_response())
}

fn restrict(caller: &Caller, grant: Grant) -> Option<Grant> {
    if grant.is_catalog() && caller.name.is_some() {
        return Some(Grant { actions: vec!["*".to_owned()], ..grant });
    }
    if grant.kind != "repository" {
        return None;
    }
    let allowed = Action::ALL.into_iter().filter(|action| grant.has(action.name()) && caller.may(*action, &grant.name));
    let actions: Vec<String> = allowed.map(|action| action.name().to_owned()).collect();
    (!actions.is_empty()).then_some(Grant { actions, ..grant })
}

/// The fields of a query or a form, decoded.
fn fields(text: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decode(name), decode(value))).collect()
}

/// See [`crate::invariants`].
#[cfg(any(test, fuzzing))]
pub(super) fn check_fields(text: &str) {
    for (_, value) in fields(text) {
        let _ = Grant::parse(&value);
    }
}
