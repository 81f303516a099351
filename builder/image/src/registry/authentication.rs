//! Answering a registry's challenge: basic authentication, and bearer tokens from the server that it names
//! (the distribution project's "Token Authentication Specification").

use http_auth::ChallengeRef;
use oci_distribution::token_cache::RegistryToken;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Client, StatusCode, Url};

use super::session::{host, limited_body, message_of, transport};
use crate::credentials::Credential;
use crate::{Error, Result};

/// Bytes of a token server's answer, at most.
const TOKEN_LIMIT: usize = 1 << 20;
/// How we call ourselves to token servers.
const CLIENT_ID: &str = "kiln";
/// What a refused password means.
pub(super) const WRONG_PASSWORD: &str = "invalid user name or password";

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// The challenge that is best answered: a bearer token before a password.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<Self> = texts
            .filter_map(|text| http_auth::parse_challenges(text).ok())
            .flatten()
            .filter_map(|challenge| Self::from_parsed(&challenge))
            .collect();
        let bearer = challenges.iter().position(|challenge| *challenge != Self::Basic);
        challenges.into_iter().nth(bearer.unwrap_or(0))
    }

    fn from_parsed(challenge: &ChallengeRef<'_>) -> Option<Self> {
        let parameter = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        if challenge.scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !challenge.scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        Some(Self::Bearer { realm: parameter("realm")?, service: parameter("service"), scope: parameter("scope") })
    }
}

/// The `Authorization` header that answers a challenge.
pub(super) async fn answer(
    http: &Client,
    registry: &Url,
    challenge: Challenge,
    credential: Option<&Credential>,
    scopes: &[String],
) -> Result<HeaderValue> {
    match (challenge, credential) {
        (Challenge::Basic, Some(Credential::Password { username, password })) => basic(username, password),
        (Challenge::Basic, _) => {
            let message = format!("it wants a user name and a password: `kiln login {}`", host(registry));
            Err(denied(registry, &message))
        }
        (Challenge::Bearer { realm, service, scope }, credential) => {
            let realm = checked_realm(registry, &realm)?;
            let mut wanted = scopes.to_vec();
            wanted.extend(scope.filter(|scope| !scopes.contains(scope)));
            let token = fetch_token(http, registry, realm, service.as_deref(), &wanted, credential).await?;
            secret_header(&format!("Bearer {}", token.token()))
        }
    }
}

fn denied(registry: &Url, message: &str) -> Error {
    Error::Denied { what: host(registry), message: message.to_owned() }
}

/// Secrets that go to a secure registry do not go to an insecure token server.
fn checked_realm(registry: &Url, realm: &str) -> Result<Url> {
    let realm = Url::parse(realm).map_err(|_| denied(registry, "its challenge names no valid token server"))?;
    let secure_enough = realm.scheme() == "https" || (realm.scheme() == "http" && registry.scheme() == "http");
    if secure_enough { Ok(realm) } else { Err(denied(registry, "its token server is not secure")) }
}

async fn fetch_token(
    http: &Client,
    registry: &Url,
    mut realm: Url,
    service: Option<&str>,
    scopes: &[String],
    credential: Option<&Credential>,
) -> Result<RegistryToken> {
    let request = if let Some(Credential::IdentityToken(token)) = credential {
        let mut form = realm.clone();
        form.set_query(None);
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", service.unwrap_or_default())
            .append_pair("client_id", CLIENT_ID)
            .append_pair("scope", &scopes.join(" "))
            .append_pair("refresh_token", token);
        let body = form.query().unwrap_or_default().to_owned();
        http.post(realm.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
    } else {
        let mut query = realm.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        for scope in scopes {
            query.append_pair("scope", scope);
        }
        if let Some(Credential::Password { username, .. }) = credential {
            query.append_pair("account", username);
        }
        drop(query);
        let request = http.get(realm.clone());
        match credential {
            Some(Credential::Password { username, password }) => {
                request.header(AUTHORIZATION, basic(username, password)?)
            }
            _ => request,
        }
    };
    let url = realm.origin().ascii_serialization();
    let response = request.send().await.map_err(|source| transport("get a token from", &realm, source))?;
    let status = response.status();
    let body = limited_body(response, TOKEN_LIMIT).await?;
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(Error::json(format!("the token of {url}")));
    }
    let message = message_of(&body);
    if matches!(status.as_u16(), 400 | 401 | 403) {
        return Err(denied(
            registry,
            match credential {
                Some(Credential::Password { .. }) if status == StatusCode::UNAUTHORIZED => WRONG_PASSWORD,
                Some(Credential::IdentityToken(_)) if message.is_empty() => {
                    "the login is no longer valid: log in again"
                }
                _ if message.is_empty() => "the credential was refused",
                _ => message.trim_start_matches(": "),
            },
        ));
    }
    Err(Error::Registry { action: "get a token from".to_owned(), url, status: status.as_u16(), message })
}

fn basic(username: &str, password: &str) -> Result<HeaderValue> {
    use base64::Engine;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    secret_header(&format!("Basic {pair}"))
}

/// A header that no log shows.
fn secret_header(text: &str) -> Result<HeaderValue> {
    let mut header = HeaderValue::from_str(text)
        .map_err(|_| Error::invalid("token", "it has characters that no header can have"))?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(values: &[&'static str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(value));
        }
        Challenge::of(&headers)
    }

    #[test]
    fn bearer_is_preferred_and_its_parts_are_read() {
        let bearer = r#"Bearer realm="https://auth.example/token",service="r",scope="repository:a/b:pull,push""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.example/token".to_owned(),
            service: Some("r".to_owned()),
            scope: Some("repository:a/b:pull,push".to_owned()),
        };
        assert_eq!(challenge(&[r#"Basic realm="x""#, bearer]), Some(expected));
        assert_eq!(challenge(&[r#"basic realm="x""#]), Some(Challenge::Basic));
        assert_eq!(challenge(&["Negotiate"]), None);
        assert_eq!(challenge(&["Bearer service=\"no realm\""]), None);
        assert_eq!(challenge(&["\"\"garbage,,="]), None);
    }

    #[test]
    fn a_secure_registry_has_a_secure_token_server() {
        let registry = Url::parse("https://r.example/v2/").expect("url");
        assert!(checked_realm(&registry, "https://auth.example/token").is_ok());
        assert!(checked_realm(&registry, "http://auth.example/token").is_err());
        assert!(checked_realm(&registry, "file:///etc/passwd").is_err());
    }
}
