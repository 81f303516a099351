//! Bearer tokens: JSON Web Tokens with the claims of the docker token protocol.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::rights::Action;
use super::signature;
use crate::error::Error;

/// The issuer of our own tokens, who is their audience too.
const OURSELVES: &str = "kiln-registry";
/// Seconds that two clocks may differ by.
const LEEWAY: u64 = 60;

/// What a token says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// Who it was given to; empty for those who did not sign in.
    #[serde(rename = "sub", default)]
    pub(crate) subject: String,
    #[serde(default)]
    pub(crate) access: Vec<Grant>,
    #[serde(rename = "iss")]
    issuer: String,
    #[serde(rename = "exp")]
    expires: u64,
    // With a type of their own a claim of the wrong type is an error, not an absent claim.
    #[serde(rename = "nbf", default, skip_serializing_if = "Option::is_none")]
    not_before: Option<u64>,
    #[serde(rename = "iat", default, skip_serializing_if = "Option::is_none")]
    issued: Option<u64>,
    #[serde(rename = "aud")]
    audience: serde_json::Value,
}

/// One thing that a token permits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    /// `repository`, or `registry` for the catalog.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) actions: Vec<String>,
}

impl Grant {
    /// One scope of a request for a token: `repository:team/app:pull,push`.
    pub(crate) fn parse(scope: &str) -> Option<Self> {
        let (kind, rest) = scope.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        // `repository(plugin)` is a repository, too.
        let kind = kind.split_once('(').map_or(kind, |(kind, _)| kind);
        let actions = actions.split(',').filter(|action| !action.is_empty()).map(str::to_owned).collect();
        Some(Self { kind: kind.to_owned(), name: name.to_owned(), actions })
    }

    pub(crate) fn permits(&self, action: Action, repository: &str) -> bool {
        self.kind == "repository" && self.name == repository && self.has(action.name())
    }

    pub(crate) fn is_catalog(&self) -> bool {
        self.kind == "registry" && self.name == "catalog"
    }

    pub(crate) fn has(&self, action: &str) -> bool {
        self.actions.iter().any(|found| found == action || found == "*")
    }
}

/// The tokens that this registry issues.
pub(crate) struct Issuer {
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
    lifetime: Duration,
}

impl Issuer {
    /// With the key of this directory, made when it is missing: tokens outlive a restart.
    pub(crate) fn open(directory: &Path, lifetime: Duration) -> Result<Self, Error> {
        signature::install();
        let key = read_or_make_key(&directory.join("token.key"))?;
        Ok(Self {
            signing: EncodingKey::from_secret(&key),
            verifying: DecodingKey::from_secret(&key),
            validation: validation(Algorithm::HS256, OURSELVES, OURSELVES),
            lifetime,
        })
    }

    pub(crate) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// A token, and when it was issued in seconds since 1970.
    pub(crate) fn issue(&self, subject: &str, access: Vec<Grant>) -> Result<(String, u64), Error> {
        let now = jsonwebtoken::get_current_timestamp();
        let claims = Claims {
            subject: subject.to_owned(),
            access,
            issuer: OURSELVES.to_owned(),
            expires: now + self.lifetime.as_secs(),
            not_before: Some(now),
            issued: Some(now),
            audience: OURSELVES.into(),
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing);
        Ok((token.map_err(|error| Error::Token(error.to_string()))?, now))
    }

    /// What a token says, if it is one of ours and still good.
    pub(crate) fn read(&self, token: &str) -> Option<Claims> {
        jsonwebtoken::decode(token, &self.verifying, &self.validation).ok().map(|data| data.claims)
    }
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

fn validation(algorithm: Algorithm, issuer: &str, audience: &str) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    validation.validate_nbf = true;
    validation.leeway = LEEWAY;
    validation
}

fn read_or_make_key(path: &Path) -> Result<Vec<u8>, Error> {
    match fs::read(path) {
        Ok(key) if key.len() >= 32 => return Ok(key),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("read", path)(error)),
    }
    let mut key = vec![0; 32];
    getrandom::fill(&mut key).map_err(|error| Error::Random(error.into()))?;
    let unfinished = path.with_extension("key.new");
    let write = || {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&unfinished)?;
        file.write_all(&key)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    };
    write().map_err(Error::io("write", path))?;
    Ok(key)
}

/// The tokens of a service elsewhere, by its public keys.
#[derive(Debug)]
pub(crate) struct ServiceKeys {
    keys: Vec<(Option<String>, DecodingKey)>,
    issuer: String,
    audience: String,
}

impl ServiceKeys {
    /// Reads PEM (keys or certificates, one after the other), or a JWK set.
    pub(crate) fn read(path: &PathBuf, issuer: &str, audience: &str) -> Result<Self, Error> {
        signature::install();
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        let keys = if text.trim_start().starts_with('{') { from_jwk_set(&text) } else { from_pem(&text) };
        let invalid = |reason: String| Error::Config { place: path.display().to_string(), reason };
        let keys = keys.map_err(invalid)?;
        if keys.is_empty() {
            return Err(invalid("there is no public key".to_owned()));
        }
        Ok(Self { keys, issuer: issuer.to_owned(), audience: audience.to_owned() })
    }

    /// What a token says, if one of the keys signed it and it is still good.
    pub(crate) fn verify(&self, token: &str) -> Option<Claims> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        // The key decides what algorithms are possible, never the token: a public key is no HMAC secret.
        let fits = |(id, key): &&(Option<String>, DecodingKey)| {
            key.family() == header.alg.family() && (id.is_none() || header.kid.is_none() || *id == header.kid)
        };
        let validation = validation(header.alg, &self.issuer, &self.audience);
        let read = |key: &DecodingKey| jsonwebtoken::decode(token, key, &validation).ok().map(|data| data.claims);
        self.keys.iter().filter(fits).find_map(|(_, key)| read(key))
    }
}

fn from_jwk_set(text: &str) -> Result<Vec<(Option<String>, DecodingKey)>, String> {
    let set: JwkSet = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let public = set
        .keys
        .iter()
        .filter(|key| !matches!(key.algorithm, AlgorithmParameters::OctetKey(_) | AlgorithmParameters::Other(_)));
    let keys = public.map(|jwk| {
        let key = DecodingKey::from_jwk(jwk).map_err(|error| error.to_string())?;
        Ok((jwk.common.key_id.clone(), key))
    });
    keys.collect()
}

fn from_pem(text: &str) -> Result<Vec<(Option<String>, DecodingKey)>, String> {
    const BEGIN: &str = "-----BEGIN ";
    let blocks = text.split(BEGIN).skip(1).map(|block| format!("{BEGIN}{block}"));
    let keys = blocks.map(|block| {
        if block.lines().next().is_some_and(|label| label.contains("PRIVATE")) {
            return Err("a private key has no business here".to_owned());
        }
        let bytes = block.as_bytes();
        let key = DecodingKey::from_rsa_pem(bytes)
            .or_else(|_| DecodingKey::from_ec_pem(bytes))
            .or_else(|_| DecodingKey::from_ed_pem(bytes));
        let key = key.map_err(|error| format!("neither an RSA, nor an EC, nor an Ed25519 public key: {error}"))?;
        Ok((None, key))
    });
    keys.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_name_a_repository_and_actions() {
        let grant = Grant::parse("repository:team/app:pull,push").unwrap();
        assert!(grant.permits(Action::Pull, "team/app") && grant.permits(Action::Push, "team/app"));
        assert!(!grant.permits(Action::Delete, "team/app") && !grant.permits(Action::Pull, "team"));
        assert!(Grant::parse("repository(plugin):a:*").unwrap().permits(Action::Delete, "a"));
        assert!(Grant::parse("registry:catalog:*").unwrap().is_catalog());
        assert!(Grant::parse("repository").is_none() && Grant::parse("repository:a").is_none());
    }

    #[test]
    fn a_token_is_good_for_this_directory_until_it_expires() {
        let directory = tempfile::tempdir().unwrap();
        let issuer = Issuer::open(directory.path(), Duration::from_secs(300)).unwrap();
        let (token, _) = issuer.issue("alice", vec![Grant::parse("repository:a:pull").unwrap()]).unwrap();
        let again = Issuer::open(directory.path(), Duration::from_secs(300)).unwrap();
        let claims = again.read(&token).unwrap();
        assert_eq!((claims.subject.as_str(), claims.access.len()), ("alice", 1));
        let elsewhere = tempfile::tempdir().unwrap();
        let stranger = Issuer::open(elsewhere.path(), Duration::from_secs(300)).unwrap();
        assert!(stranger.read(&token).is_none());
        // Unsigned, cut, and changed.
        let mut parts: Vec<&str> = token.split('.').collect();
        parts[0] = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
        assert!(issuer.read(&parts.join(".")).is_none());
        assert!(issuer.read(&token[..token.len() - 1]).is_none() && issuer.read("").is_none());
        let mut old = claims;
        old.expires = 1_000;
        let old = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &old, &issuer.signing).unwrap();
        assert!(issuer.read(&old).is_none());
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(directory.path().join("token.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
