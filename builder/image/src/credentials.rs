//! docker's and podman's credential files and helpers: reading for pull and push, writing for login.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde_json::{Map, Value, json};

use crate::reference::DEFAULT_REGISTRY;
use crate::whole_file::WholeFile;
use crate::{Error, Result};

/// The key that docker keeps its own registry under.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// The user name that marks an identity token in a helper.
const TOKEN_USER: &str = "<token>";
/// What the names of helpers begin with.
const HELPER: &str = "docker-credential-";
/// Bytes of a credential file, at most.
const FILE_LIMIT: u64 = 8 << 20;

/// What a user proves itself with. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user name and a password (or an access token in its place).
    Password {
        /// The user's name.
        username: String,
        /// The secret.
        password: String,
    },
    /// An OAuth2 refresh token.
    IdentityToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { username, .. } => {
                f.debug_struct("Password").field("username", username).finish_non_exhaustive()
            }
            Self::IdentityToken(_) => f.debug_struct("IdentityToken").finish_non_exhaustive(),
        }
    }
}

/// The credential for a registry: see [`find_in`].
///
/// # Errors
/// A file or helper that does not work; having none is no error.
pub fn find(registry: &str) -> Result<Option<Credential>> {
    find_in(None, registry)
}

/// The credential for a registry or a repository of one: from `file` or `$REGISTRY_AUTH_FILE` when there is one, then
/// from docker's `config.json` and podman's `auth.json`, and the helpers that these name. What is kept for a longer
/// part of the name (`quay.io/team/app`, `quay.io/team`) comes before what is kept for the registry.
///
/// # Errors
/// A file or helper that does not work; having none is no error.
pub fn find_in(file: Option<&Path>, name: &str) -> Result<Option<Credential>> {
    for file in files(file) {
        if !file.is_file() {
            continue;
        }
        let config = read_config(&file)?;
        for key in keys(&config, name) {
            let bytes = serde_json::to_vec(&config).map_err(Error::json(file.display().to_string()))?;
            let found = docker_credential::get_credential_from_reader(bytes.as_slice(), key);
            if let Some(found) = answer(found, helper_of(&config, key), &file)? {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}

/// The files that may hold credentials, in the order in which they are asked.
fn files(given: Option<&Path>) -> Vec<PathBuf> {
    if let Some(given) = given {
        return vec![given.to_path_buf()];
    }
    let chosen = std::env::var_os("REGISTRY_AUTH_FILE").filter(|file| !file.is_empty()).map(PathBuf::from);
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(|runtime| Path::new(&runtime).join("containers/auth.json"));
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".config/containers/auth.json"));
    chosen.into_iter().chain(config_file()).chain(runtime).chain(home).collect()
}

/// What a file may keep the credential for a name under: a repository's or a namespace's only if it is there.
fn keys<'a>(config: &Map<String, Value>, name: &'a str) -> Vec<&'a str> {
    let registry = name.split('/').next().unwrap_or(name);
    let known = |key: &str| config.get("auths").and_then(|auths| auths.get(key)).is_some();
    let mut keys = Vec::new();
    let mut part = name;
    while part.len() > registry.len() {
        if known(part) {
            keys.push(part);
        }
        part = part.rsplit_once('/').map_or(registry, |(parent, _)| parent);
    }
    // podman keeps docker's own registry by its name, docker by an address.
    if registry != key_of(registry) && known(registry) {
        keys.push(registry);
    }
    keys.push(key_of(registry));
    keys
}

fn answer(
    found: std::result::Result<DockerCredential, CredentialRetrievalError>,
    helper: Option<String>,
    file: &Path,
) -> Result<Option<Credential>> {
    use CredentialRetrievalError as Failure;
    let failed = |what: String, reason: String| Err(Error::Credentials { what, reason });
    match (found, helper) {
        (Ok(DockerCredential::UsernamePassword(username, password)), _) => {
            Ok(Some(Credential::Password { username, password }))
        }
        (Ok(DockerCredential::IdentityToken(token)), _) => Ok(Some(Credential::IdentityToken(token))),
        (Err(Failure::NoCredentialConfigured | Failure::ConfigNotFound), _) => Ok(None),
        (Err(Failure::HelperFailure { stdout, .. }), _) if stdout.contains("credentials not found") => Ok(None),
        (Err(Failure::HelperFailure { helper, stdout, stderr }), _) => failed(helper, complaint(&stdout, &stderr)),
        (Err(Failure::HelperCommunicationError), Some(helper)) => {
            let reason = format!("it cannot be run, but {} names it: is it installed, and in PATH?", file.display());
            failed(format!("{HELPER}{helper}"), reason)
        }
        (Err(failure), _) => failed(file.display().to_string(), failure.to_string()),
    }
}

/// What a helper that failed complains about; it may do so on either stream. A document is none: it may be a secret.
fn complaint(stdout: &str, stderr: &str) -> String {
    let said = [stderr, stdout].map(str::trim).into_iter().find(|text| !text.is_empty() && !text.contains('{'));
    said.unwrap_or("it failed, and does not say why").to_owned()
}

/// Where a credential was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// In this file, readable to whoever can read the file.
    File(PathBuf),
    /// In this helper.
    Helper(String),
}

/// Keeps a credential as `docker login` does: in the helper that the file names for the registry, or in the file itself
/// (mode 0600). What else is in it stays as it is. The file is `file`, `$REGISTRY_AUTH_FILE`, or docker's `config.json`.
///
/// # Errors
/// The file or the helper cannot be written.
pub fn save(file: Option<&Path>, registry: &str, credential: &Credential) -> Result<Kept> {
    let path = kept_in(file)?;
    let mut config = read_config(&path)?;
    let key = key_of(registry);
    let (username, secret) = match credential {
        Credential::Password { username, password } => (username.as_str(), password.as_str()),
        Credential::IdentityToken(token) => (TOKEN_USER, token.as_str()),
    };
    let helper = helper_of(&config, key);
    let entry = match (&helper, credential) {
        (Some(helper), _) => {
            let message = json!({"ServerURL": key, "Username": username, "Secret": secret});
            run_helper(helper, "store", message.to_string().as_bytes())?;
            json!({})
        }
        (None, Credential::Password { .. }) => json!({"auth": STANDARD.encode(format!("{username}:{secret}"))}),
        (None, Credential::IdentityToken(_)) => json!({"identitytoken": secret}),
    };
    auths(&mut config, &path)?.insert(key.to_owned(), entry);
    write_config(&path, &config)?;
    Ok(helper.map_or(Kept::File(path), Kept::Helper))
}

/// The registries that [`save`] has kept credentials for.
///
/// # Errors
/// The file cannot be read.
pub fn kept(file: Option<&Path>) -> Result<Vec<String>> {
    let config = read_config(&kept_in(file)?)?;
    let auths = config.get("auths").and_then(Value::as_object);
    let name = |key: &String| if key == DOCKER_HUB_KEY { DEFAULT_REGISTRY.to_owned() } else { key.clone() };
    Ok(auths.into_iter().flat_map(Map::keys).map(name).collect())
}

/// Forgets what [`save`] kept; `false` when there was nothing.
///
/// # Errors
/// The file or the helper cannot be written.
pub fn remove(file: Option<&Path>, registry: &str) -> Result<bool> {
    let path = kept_in(file)?;
    let mut config = read_config(&path)?;
    let keys: Vec<String> = auths(&mut config, &path)?.keys().filter(|key| names(key, registry)).cloned().collect();
    for key in &keys {
        if let Some(helper) = helper_of(&config, key) {
            run_helper(&helper, "erase", key.as_bytes())?;
        }
        auths(&mut config, &path)?.shift_remove(key);
    }
    if !keys.is_empty() {
        write_config(&path, &config)?;
    }
    Ok(!keys.is_empty())
}

/// The files that have a credential for a registry, if any, or name a helper that has.
///
/// # Errors
/// A file or helper that does not work.
pub fn holders(registry: &str) -> Result<Vec<PathBuf>> {
    let mut holders = Vec::new();
    for file in files(None) {
        if file.is_file() && find_in(Some(&file), registry)?.is_some() {
            holders.push(file);
        }
    }
    Ok(holders)
}

/// Whether an entry is that of a registry: older clients kept it under an address.
fn names(key: &str, registry: &str) -> bool {
    let address = key.strip_prefix("https://").or(key.strip_prefix("http://"));
    let host = address.map(|address| address.split('/').next().unwrap_or(address));
    key == registry || key == key_of(registry) || (host == Some(registry) && registry != DEFAULT_REGISTRY)
}

fn key_of(registry: &str) -> &str {
    if registry == DEFAULT_REGISTRY { DOCKER_HUB_KEY } else { registry }
}

/// `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`.
fn config_file() -> Option<PathBuf> {
    let directory = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker"));
    directory.or_else(home).map(|directory| directory.join("config.json"))
}

/// The file that logins are kept in.
fn kept_in(file: Option<&Path>) -> Result<PathBuf> {
    let chosen = std::env::var_os("REGISTRY_AUTH_FILE").filter(|file| !file.is_empty()).map(PathBuf::from);
    let missing = || Error::Credentials {
        what: "config.json".to_owned(),
        reason: "neither DOCKER_CONFIG nor HOME is set".to_owned(),
    };
    let path = file.map(Path::to_path_buf).or(chosen).or_else(config_file).ok_or_else(missing)?;
    // A link to the real file stays a link.
    Ok(fs::canonicalize(&path).unwrap_or(path))
}

fn read_config(path: &Path) -> Result<Map<String, Value>> {
    let size = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    if size > FILE_LIMIT {
        return Err(Error::invalid(path.display().to_string(), format!("longer than {FILE_LIMIT} bytes")));
    }
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    serde_json::from_slice(&bytes).map_err(Error::json(path.display().to_string()))
}

fn auths<'a>(config: &'a mut Map<String, Value>, path: &Path) -> Result<&'a mut Map<String, Value>> {
    let entry = config.entry("auths").or_insert_with(|| json!({}));
    if entry.is_null() {
        *entry = json!({});
    }
    let wrong = || Error::invalid(path.display().to_string(), "\"auths\" is not an object");
    entry.as_object_mut().ok_or_else(wrong)
}

fn write_config(path: &Path, config: &Map<String, Value>) -> Result<()> {
    let failed = || Error::io("write", path);
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed())?;
    let mut file = WholeFile::new(path, 0o600).map_err(failed())?;
    let mut bytes = Vec::new();
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, tabs);
    serde::Serialize::serialize(config, &mut serializer).map_err(Error::json(path.display().to_string()))?;
    file.file().write_all(&bytes).and_then(|()| file.file().sync_all()).map_err(failed())?;
    file.place().map_err(failed())
}

fn helper_of(config: &Map<String, Value>, key: &str) -> Option<String> {
    let own = config.get("credHelpers").and_then(|helpers| helpers.get(key)).and_then(Value::as_str);
    let store = || config.get("credsStore").and_then(Value::as_str);
    own.filter(|name| !name.is_empty()).or_else(store).filter(|name| !name.is_empty()).map(str::to_owned)
}

fn run_helper(helper: &str, action: &str, input: &[u8]) -> Result<()> {
    let program = format!("{HELPER}{helper}");
    let failed = |reason: String| Error::Credentials { what: program.clone(), reason };
    if helper.contains('/') {
        return Err(failed("a helper's name has no slash".to_owned()));
    }
    let mut command = Command::new(&program);
    command.arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(format!("{error}: is it installed, and in PATH?")))?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input) {
            // What it says and how it ends counts, not whether it wanted to know.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written.map_err(|error| failed(error.to_string()))?,
        }
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = complaint(&String::from_utf8_lossy(&output.stdout), &String::from_utf8_lossy(&output.stderr));
    Err(failed(format!("{action} failed: {said}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_part_of_a_name_comes_first() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let auth = |user: &str| json!({"auth": STANDARD.encode(format!("{user}:secret"))});
        let config = json!({"auths": {"quay.io": auth("all"), "quay.io/team": auth("team"), "docker.io": auth("hub")}});
        fs::write(file.path(), config.to_string()).expect("written");
        let user = |name: &str| match find_in(Some(file.path()), name).expect(name) {
            Some(Credential::Password { username, .. }) => Some(username),
            _ => None,
        };
        assert_eq!(user("quay.io/team/app").as_deref(), Some("team"));
        assert_eq!(user("quay.io/teams/app").as_deref(), Some("all"));
        assert_eq!(user("docker.io/library/busybox").as_deref(), Some("hub"));
        assert_eq!(user("example.com/x"), None);
    }
}
