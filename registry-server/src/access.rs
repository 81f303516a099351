//! Who asks, and what they may do.
//!
//! Without users everyone may do everything. With users of one's own, a request shows a password (Basic) or a token
//! that [`issue`] gave for one (Bearer); either way the rights are looked up when it is used, so that a change of the
//! users' file holds at once. With a token service elsewhere, its tokens say what they permit.

mod issue;
mod password;
mod rights;
mod signature;
mod token;
mod users;

use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub use password::{hash_password, robot_secret};
pub(crate) use rights::Action;

use crate::config::{Config, Prefix};
use crate::error::Error;
use crate::failure::{Code, Failure};
use crate::reloaded::Reloaded;
use password::Passwords;
use rights::Rights;
use token::{Grant, Issuer, ServiceKeys};
use users::Users;

/// How access is decided.
#[derive(Debug)]
pub(crate) struct Access {
    mode: Mode,
    external_url: Option<String>,
    prefix: Prefix,
    /// Whether this server itself speaks TLS.
    secure: bool,
}

#[derive(Debug)]
enum Mode {
    Open,
    Users(Box<Own>),
    Service { keys: Reloaded<ServiceKeys>, realm: String, service: String },
}

/// Users of one's own.
#[derive(Debug)]
struct Own {
    users: Reloaded<Users>,
    passwords: Passwords,
    /// Of tokens, where they are used.
    issuer: Option<Issuer>,
}

/// Whoever sent a request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The user's name, where there is one.
    pub(crate) name: Option<Arc<str>>,
    permission: Permission,
}

#[derive(Debug, Clone)]
enum Permission {
    Everything,
    /// Those of a user, or of everyone who did not sign in.
    Rights(Arc<Rights>),
    /// What a token of ours is for, as far as its user still may.
    Token {
        grants: Arc<[Grant]>,
        rights: Arc<Rights>,
    },
    /// What a service elsewhere granted.
    Granted(Arc<[Grant]>),
    /// Nothing was shown that could be believed.
    Nothing,
}

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need<'a> {
    /// To be known, or to have been told that one need not be.
    Presence,
    Catalog,
    Repository(&'a str, Action),
}

impl Access {
    pub(crate) fn open(config: &Config) -> Result<Self, Error> {
        let (users, htpasswd) = (config.access.users.clone(), config.access.htpasswd.clone());
        let mode = if users.is_some() || htpasswd.is_some() {
            let files = users.iter().chain(&htpasswd).cloned().collect();
            let users = Reloaded::open(files, move || Users::read(users.as_deref(), htpasswd.as_deref()))?;
            let issuer = config.access.tokens.then(|| Issuer::open(&config.data, config.access.token_lifetime.0));
            Mode::Users(Box::new(Own { users, passwords: Passwords::default(), issuer: issuer.transpose()? }))
        } else if let Some(path) = config.token_service.keys.clone() {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            let (service, issuer) = (text(&config.token_service.service), text(&config.token_service.issuer));
            let audience = service.clone();
            let read = {
                let path = path.clone();
                move || ServiceKeys::read(&path, &issuer, &audience)
            };
            Mode::Service { keys: Reloaded::open(vec![path], read)?, realm: text(&config.token_service.realm), service }
        } else {
            Mode::Open
        };
        let external_url = config.http.external_url.as_ref().map(|url| url.trim_end_matches('/').to_owned());
        let (prefix, secure) = (config.http.prefix.clone(), config.tls.certificate.is_some());
        Ok(Self { mode, external_url, prefix, secure })
    }

    /// Reads the files again that changed. Blocks.
    pub(crate) fn refresh(&self) {
        match &self.mode {
            Mode::Open => {}
            Mode::Users(own) => own.users.refresh(),
            Mode::Service { keys, .. } => keys.refresh(),
        }
    }

    /// Whether everyone may do everything.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.mode, Mode::Open)
    }

    /// Who sent the request. Wrong credentials are an error, none are not.
    pub(crate) async fn identify(&self, parts: &Parts) -> Result<Caller, Failure> {
        if self.is_open() {
            return Ok(Caller::unrestricted());
        }
        match Credentials::of(&parts.headers) {
            None => Ok(self.unknown()),
            Some(Credentials::Basic { name, password }) => {
                let Some(caller) = self.sign_in(&name, password).await? else {
                    return Err(self.challenge(parts, Need::Presence, None).coded(Code::WrongPassword));
                };
                Ok(caller)
            }
            Some(Credentials::Bearer(token)) => {
                let caller = self.read_token(token);
                caller.ok_or_else(|| self.challenge(parts, Need::Presence, Some("invalid_token")))
            }
            Some(Credentials::Other) => {
                Err(self.challenge(parts, Need::Presence, None).detail("credentials of a kind that is not known here"))
            }
        }
    }

    /// A request without credentials.
    fn unknown(&self) -> Caller {
        match &self.mode {
            // With tokens, even the permission to come without a name is in a token, once it was asked for.
            Mode::Users(own) => {
                Caller { name: None, permission: Permission::Rights(Arc::clone(&own.users.current().anonymous)) }
            }
            _ => Caller { name: None, permission: Permission::Nothing },
        }
    }

    /// The user whose password this is.
    async fn sign_in(&self, name: &str, password: String) -> Result<Option<Caller>, Failure> {
        let Mode::Users(own) = &self.mode else { return Ok(None) };
        let users = own.users.current();
        let account = users.account(name);
        let right = own.passwords.check(account.map(|account| account.secret.clone()), password).await?;
        Ok(account.filter(|_| right).map(|account| Caller {
            name: Some(name.into()),
            permission: Permission::Rights(Arc::clone(&account.rights)),
        }))
    }

    fn read_token(&self, token: &str) -> Option<Caller> {
        match &self.mode {
            Mode::Users(own) => {
                let claims = own.issuer.as_ref()?.read(token)?;
                let users = own.users.current();
                let (name, rights) = if claims.subject.is_empty() {
                    (None, Arc::clone(&users.anonymous))
                } else {
                    (Some(claims.subject.as_str().into()), Arc::clone(&users.account(&claims.subject)?.rights))
                };
                Some(Caller { name, permission: Permission::Token { grants: claims.access.into(), rights } })
            }
            Mode::Service { keys, .. } => {
                let claims = keys.current().verify(token)?;
                let name = (!claims.subject.is_empty()).then(|| claims.subject.as_str().into());
                Some(Caller { name, permission: Permission::Granted(claims.access.into()) })
            }
            Mode::Open => None,
        }
    }

    /// Whether the caller may; otherwise what he is answered, which is the same whether the repository exists or not.
    pub(crate) fn authorise(&self, parts: &Parts, caller: &Caller, need: Need<'_>) -> Result<(), Failure> {
        if caller.meets(need) {
            return Ok(());
        }
        let could = match (&caller.permission, need) {
            (Permission::Token { rights, .. }, Need::Repository(name, action)) => rights.permit(action, name),
            (Permission::Granted(_) | Permission::Token { .. }, _) => true,
            _ => false,
        };
        if could {
            // Another token would do.
            return Err(self.challenge(parts, need, Some("insufficient_scope")));
        }
        match &caller.name {
            Some(name) => Err(Failure::new(Code::Denied).detail(format!("{name} may not do this here"))),
            None => Err(self.challenge(parts, need, None)),
        }
    }

    /// 401, and how to get further.
    fn challenge(&self, parts: &Parts, need: Need<'_>, error: Option<&str>) -> Failure {
        let origin = self.origin(&parts.headers, &parts.uri);
        let mut challenge = match &self.mode {
            Mode::Users(own) if own.issuer.is_some() => {
                let service = origin.split_once("://").map_or(origin.as_str(), |(_, host)| host);
                let prefix = self.prefix.as_str();
                format!("Bearer realm=\"{origin}{prefix}/token\",service=\"{service}\"")
            }
            Mode::Service { realm, service, .. } => format!("Bearer realm=\"{realm}\",service=\"{service}\""),
            _ => return unauthorized(BASIC),
        };
        match need {
            Need::Presence => {}
            Need::Catalog => challenge.push_str(",scope=\"registry:catalog:*\""),
            Need::Repository(name, action) => {
                let actions = match action {
                    Action::Pull => "pull",
                    Action::Push => "pull,push",
                    Action::Delete => "delete",
                };
                challenge.push_str(&format!(",scope=\"repository:{name}:{actions}\""));
            }
        }
        if let Some(error) = error {
            challenge.push_str(&format!(",error=\"{error}\""));
        }
        unauthorized(&challenge)
    }

    /// 401 for a browser, which asks its user for a password.
    pub(crate) fn ask_browser(&self) -> Failure {
        unauthorized(BASIC)
    }

    /// The address by which the client knows this server: `https://registry.example.com`.
    pub(crate) fn origin(&self, headers: &HeaderMap, uri: &Uri) -> String {
        if let Some(url) = &self.external_url {
            return url.clone();
        }
        let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).or_else(|| uri.host());
        // It goes into a header and into pages.
        let plain = |host: &&str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
        let host = host.filter(plain).unwrap_or("localhost");
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{host}")
    }
}

const BASIC: &str = "Basic realm=\"registry\", charset=\"UTF-8\"";

fn unauthorized(challenge: &str) -> Failure {
    let value = HeaderValue::from_str(challenge).unwrap_or(HeaderValue::from_static(BASIC));
    Failure::new(Code::Unauthorized).header(header::WWW_AUTHENTICATE, value)
}

impl Caller {
    pub(crate) fn unrestricted() -> Self {
        Self { name: None, permission: Permission::Everything }
    }

    pub(crate) fn may(&self, action: Action, repository: &str) -> bool {
        let granted = |grants: &[Grant]| grants.iter().any(|grant| grant.permits(action, repository));
        match &self.permission {
            Permission::Everything => true,
            Permission::Rights(rights) => rights.permit(action, repository),
            Permission::Token { grants, rights } => granted(grants) && rights.permit(action, repository),
            Permission::Granted(grants) => granted(grants),
            Permission::Nothing => false,
        }
    }

    /// Whether the repository is in the caller's lists.
    pub(crate) fn sees(&self, repository: &str) -> bool {
        match &self.permission {
            Permission::Token { rights, .. } => rights.permit(Action::Pull, repository),
            Permission::Granted(_) => self.meets(Need::Catalog),
            _ => self.may(Action::Pull, repository),
        }
    }

    /// Whether he sees every repository, so that no list needs a look at each.
    pub(crate) fn sees_everything(&self) -> bool {
        matches!(self.permission, Permission::Everything)
    }

    fn meets(&self, need: Need<'_>) -> bool {
        match (need, &self.permission) {
            (_, Permission::Everything) => true,
            (_, Permission::Nothing) => false,
            (Need::Repository(name, action), _) => self.may(action, name),
            (Need::Presence | Need::Catalog, Permission::Rights(_)) => self.name.is_some(),
            (Need::Presence, Permission::Token { .. } | Permission::Granted(_)) => true,
            (Need::Catalog, Permission::Token { grants, .. } | Permission::Granted(grants)) => {
                grants.iter().any(|grant| grant.is_catalog() && grant.has("*"))
            }
        }
    }
}

/// See [`crate::invariants`].
#[cfg(any(test, fuzzing))]
pub(crate) fn check_credentials(bytes: &[u8]) {
    static ISSUER: std::sync::OnceLock<Option<token::Issuer>> = std::sync::OnceLock::new();
    let text = String::from_utf8_lossy(bytes);
    issue::check_fields(&text);
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
    let issuer = ISSUER.get_or_init(|| {
        let directory = std::env::temp_dir().join(format!("kiln-issuer-{}", std::process::id()));
        std::fs::create_dir_all(&directory).ok()?;
        let issuer = token::Issuer::open(&directory, std::time::Duration::from_secs(60)).ok();
        let _ = std::fs::remove_dir_all(&directory);
        issuer
    });
    // Without one nothing would be checked.
    assert!(issuer.is_some(), "no issuer of tokens could be made");
    if let (Some(Credentials::Bearer(token)), Some(issuer)) = (Credentials::of(&headers), issuer) {
        assert!(issuer.read(token).is_none(), "a token that nobody issued");
    }
}

/// What the `Authorization` header holds.
enum Credentials<'a> {
    Basic { name: String, password: String },
    Bearer(&'a str),
    Other,
}

impl<'a> Credentials<'a> {
    fn of(headers: &'a HeaderMap) -> Option<Self> {
        let value = headers.get(header::AUTHORIZATION)?;
        let parse = || {
            let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
            let rest = rest.trim();
            if scheme.eq_ignore_ascii_case("bearer") {
                return Some(Self::Bearer(rest));
            }
            if !scheme.eq_ignore_ascii_case("basic") {
                return None;
            }
            let text = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
            let (name, password) = text.split_once(':')?;
            Some(Self::Basic { name: name.to_owned(), password: password.to_owned() })
        };
        Some(parse().unwrap_or(Self::Other))
    }
}
