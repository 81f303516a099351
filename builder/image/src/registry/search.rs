//! Finding repositories by a word: as Docker Hub's search does it, which other registries may have, too; else in what
//! a registry says it has.

use serde::Deserialize;

use super::Options;
use super::catalog::repositories;
use super::routes::Registries;
use super::session::{Session, limited_body};
use crate::image::DOCUMENT_LIMIT;
use crate::reference::{DEFAULT_REGISTRY, split_registry};
use crate::{Error, Result, credentials};

/// Where docker.io is searched.
const DOCKER_HUB: &str = "index.docker.io";

/// A repository that was found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Match {
    /// As it is pulled.
    pub name: String,
    /// What its owner says of it.
    #[serde(default)]
    pub description: Option<String>,
    /// How many like it.
    #[serde(default)]
    pub star_count: u64,
    /// Docker's own.
    #[serde(default)]
    pub is_official: bool,
    /// Built by Docker Hub.
    #[serde(default)]
    pub is_automated: bool,
}

/// The repositories, `limit` at most, that `[REGISTRY/]WORD` finds.
///
/// # Errors
/// The registry cannot be reached, or has neither a search nor a catalog for us.
pub async fn search(term: &str, limit: usize, options: &Options) -> Result<Vec<Match>> {
    let (registry, word) = split_registry(term);
    let mut found = match asked(registry, word, limit, options).await? {
        Some(found) => found,
        None => {
            let names = repositories(registry, options).await?;
            let names = names.into_iter().filter(|name| name.contains(word));
            let only = |name| Match { name, description: None, star_count: 0, is_official: false, is_automated: false };
            names.map(only).collect()
        }
    };
    found.truncate(limit);
    if registry != DEFAULT_REGISTRY {
        let prefix = format!("{registry}/");
        found.iter_mut().filter(|found| !found.name.starts_with(&prefix)).for_each(|found| {
            found.name.insert_str(0, &prefix);
        });
    }
    Ok(found)
}

/// What the registry's own search says; `None` when it has none.
async fn asked(registry: &str, word: &str, limit: usize, options: &Options) -> Result<Option<Vec<Match>>> {
    #[derive(Deserialize)]
    struct Answer {
        results: Vec<Match>,
    }
    let hub = registry == DEFAULT_REGISTRY;
    let credential = match &options.credential {
        Some(credential) => Some(credential.clone()),
        None if hub => None,
        None => credentials::find_in(options.authentication_file.as_deref(), registry)?,
    };
    let insecure = options.insecure || Registries::load()?.is_insecure(registry);
    let options = Options { insecure, ..options.clone() };
    let host = if hub { DOCKER_HUB } else { registry };
    let session = Session::open(host, credential, Vec::new(), &options).await?;
    let mut url = session.url("/v1/search")?;
    url.query_pairs_mut().append_pair("q", word).append_pair("n", &limit.to_string());
    let response = match session.send("GET", |http| http.get(url.clone())).await {
        Ok(response) if response.status().is_success() => response,
        Ok(_) | Err(Error::Denied { .. }) if !hub => return Ok(None),
        answer => super::session::success("GET", answer?).await?,
    };
    let bytes = limited_body(response, usize::try_from(DOCUMENT_LIMIT).unwrap_or(usize::MAX)).await?;
    match serde_json::from_slice::<Answer>(&bytes) {
        Ok(answer) => Ok(Some(answer.results)),
        // A page for people, perhaps.
        Err(_) if !hub => Ok(None),
        Err(error) => Err(Error::json("what Docker Hub found")(error)),
    }
}
