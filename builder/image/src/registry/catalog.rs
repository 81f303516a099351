//! What repositories a registry has, as far as it tells.

use super::repository::next_page;
use super::routes::Registries;
use super::session::{Session, limited_body, success};
use super::{Options, PAGE_SIZE};
use crate::image::DOCUMENT_LIMIT;
use crate::{Error, Result, credentials};

/// Pages, at most.
const PAGE_LIMIT: usize = 10_000;

/// Every repository of a registry, sorted.
///
/// # Errors
/// The registry cannot be reached, or does not tell.
pub async fn repositories(registry: &str, options: &Options) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Page {
        #[serde(default)]
        repositories: Option<Vec<String>>,
    }
    let credential = match &options.credential {
        Some(credential) => Some(credential.clone()),
        None => credentials::find_in(options.authentication_file.as_deref(), registry)?,
    };
    let insecure = options.insecure || Registries::load()?.is_insecure(registry);
    let options = Options { insecure, ..options.clone() };
    let session = Session::open(registry, credential, vec!["registry:catalog:*".to_owned()], &options).await?;
    let what = || format!("the catalog of {registry}");
    let mut url = session.url("_catalog")?;
    url.query_pairs_mut().append_pair("n", &PAGE_SIZE.to_string());
    let mut found = Vec::new();
    for page in 0.. {
        if page == PAGE_LIMIT {
            return Err(Error::invalid(what(), "the list does not end"));
        }
        let response = success("GET", session.send("GET", |http| http.get(url.clone())).await?).await?;
        let next = next_page(&url, response.headers());
        let bytes = limited_body(response, usize::try_from(DOCUMENT_LIMIT).unwrap_or(usize::MAX)).await?;
        let page: Page = serde_json::from_slice(&bytes).map_err(Error::json(what()))?;
        found.extend(page.repositories.unwrap_or_default());
        match next {
            Some(next) if next != url => url = next,
            _ => break,
        }
    }
    found.sort();
    Ok(found)
}
