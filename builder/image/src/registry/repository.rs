//! One repository of one registry: its manifests and tags.

use std::sync::Arc;

use kiln_store::digest::{Algorithm, Hasher};
use kiln_store::{BlobPlaces, Digest};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LINK};
use reqwest::{StatusCode, Url};

use super::routes::{Registries, Route};
use super::session::{Session, limited_body, success};
use super::{Options, PAGE_SIZE};
use crate::image::DOCUMENT_LIMIT;
use crate::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::{Error, Reference, Result, credentials};

/// Pages of a listing, at most.
const PAGE_LIMIT: usize = 10_000;
/// The header that says that a manifest's subject was noted.
const SUBJECT: &str = "oci-subject";

/// A repository, and how we are known to its registry. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Repository {
    pub(super) session: Arc<Session>,
    pub(super) name: Arc<str>,
    /// The registry's host and port.
    pub(super) host: Arc<str>,
    pub(super) places: Option<Arc<BlobPlaces>>,
}

/// A manifest or index as a registry has it.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    /// The bytes, which have the digest.
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
    /// What the registry calls them.
    pub(crate) media_type: String,
}

/// What is to be done, for token servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Pull,
    Push,
    Delete,
}

impl Access {
    fn actions(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
            Self::Delete => "pull,push,delete",
        }
    }
}

impl Repository {
    /// The repository itself, never a mirror. `mounts` are others of the registry that blobs may be taken from.
    pub(crate) async fn open(
        reference: &Reference,
        access: Access,
        mounts: &[String],
        options: &Options,
    ) -> Result<Self> {
        let route = Registries::load()?.of_push(reference)?;
        Self::at(&route, access, mounts, options).await
    }

    /// The first of the mirrors, or the repository itself, that has the manifest.
    pub(crate) async fn find(reference: &Reference, options: &Options) -> Result<(Self, Fetched)> {
        let wanted = wanted(reference);
        let mut failure = None;
        let routes = Route::of_mirrors(reference, &options.mirrors).chain(Registries::load()?.of_pull(reference)?);
        for route in routes {
            let found = async {
                let repository = Self::at(&route, Access::Pull, &[], options).await?;
                let fetched = repository.manifest(&wanted).await?;
                Ok((repository, fetched))
            };
            match found.await {
                Ok(found) => return Ok(found),
                Err(error) => {
                    tracing::debug!(%error, "{} at {}", reference.familiar(), route.host);
                    failure = Some(error);
                }
            }
        }
        // What the registry itself says counts, and it comes last.
        match failure {
            Some(Error::NotFound { .. }) | None => Err(Error::NotFound { what: reference.familiar() }),
            Some(failure) => Err(failure),
        }
    }

    async fn at(route: &Route, access: Access, mounts: &[String], options: &Options) -> Result<Self> {
        let credential = match &options.credential {
            Some(credential) => Some(credential.clone()),
            None => {
                let name = format!("{}/{}", route.host, route.repository);
                credentials::find_in(options.authentication_file.as_deref(), &name)?
            }
        };
        let mut scopes = vec![format!("repository:{}:{}", route.repository, access.actions())];
        scopes.extend(mounts.iter().map(|repository| format!("repository:{repository}:pull")));
        let insecure = options.insecure || route.insecure || options.insecure_registries.contains(&route.host);
        let options = Options { insecure, ..options.clone() };
        let session = Session::open(&route.host, credential, scopes, &options).await?;
        let (name, host) = (Arc::from(route.repository.as_str()), Arc::from(route.host.as_str()));
        Ok(Self { session: Arc::new(session), name, host, places: options.places.clone() })
    }

    /// An address below the repository.
    pub(super) fn url(&self, path: &str) -> Result<Url> {
        self.session.url(&format!("{}/{path}", self.name))
    }

    /// A manifest or index by tag or digest; its bytes are those of the digest.
    pub(crate) async fn manifest(&self, wanted: &str) -> Result<Fetched> {
        let url = self.url(&format!("manifests/{wanted}"))?;
        let accepted = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX].join(", ");
        let response = self.session.send("GET", |http| http.get(url.clone()).header(ACCEPT, &accepted)).await?;
        let what = || format!("{}:{wanted}", self.name);
        if response.status() == StatusCode::NOT_FOUND {
            return Err(Error::NotFound { what: what() });
        }
        let response = success("GET", response).await?;
        let media_type = text(response.headers(), CONTENT_TYPE.as_str()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let promised = digest_of(response.headers());
        let promised = wanted.parse::<Digest>().ok().or(promised);
        let bytes = limited_body(response, usize::try_from(DOCUMENT_LIMIT).unwrap_or(usize::MAX)).await?;
        let mut hasher = Hasher::new(promised.map_or(Algorithm::Sha256, |digest| digest.algorithm()));
        hasher.update(&bytes);
        let digest = hasher.finish();
        if let Some(expected) = promised.filter(|expected| *expected != digest) {
            let what = format!("manifest of {}", what());
            return Err(Error::DigestMismatch { what, expected: Box::new(expected), actual: Box::new(digest) });
        }
        self.remember(&bytes, &media_type);
        Ok(Fetched { bytes, digest, media_type })
    }

    /// The digest of a tag, without its manifest where the registry tells; `None` when there is no such tag.
    pub(crate) async fn digest(&self, wanted: &str) -> Result<Option<Digest>> {
        let url = self.url(&format!("manifests/{wanted}"))?;
        let accepted = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX].join(", ");
        let response = self.session.send("HEAD", |http| http.head(url.clone()).header(ACCEPT, &accepted)).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = success("HEAD", response).await?;
        match digest_of(response.headers()) {
            Some(digest) => Ok(Some(digest)),
            None => self.manifest(wanted).await.map(|fetched| Some(fetched.digest)),
        }
    }

    /// Bytes of a blob.
    pub(crate) async fn blob_size(&self, digest: &Digest) -> Result<u64> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let response = self.session.send("HEAD", |http| http.head(url.clone())).await?;
        let what = || format!("blob {digest}");
        if response.status() == StatusCode::NOT_FOUND {
            return Err(Error::NotFound { what: what() });
        }
        let length = text(success("HEAD", response).await?.headers(), CONTENT_LENGTH.as_str());
        let length = length.and_then(|length| length.parse().ok());
        length.ok_or_else(|| Error::invalid(what(), "the registry does not tell its size"))
    }

    /// Puts a manifest under a tag or its digest. Returns whether the registry noted what it refers to.
    pub(crate) async fn put_manifest(&self, name: &str, bytes: &[u8], media_type: &str) -> Result<bool> {
        let url = self.url(&format!("manifests/{name}"))?;
        let request =
            |http: &reqwest::Client| http.put(url.clone()).header(CONTENT_TYPE, media_type).body(bytes.to_vec());
        let response = success("PUT", self.session.send("PUT", request).await?).await?;
        self.remember(bytes, media_type);
        Ok(response.headers().contains_key(SUBJECT))
    }

    /// Every tag, sorted, which not every registry does.
    pub(crate) async fn tags(&self) -> Result<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut url = self.url("tags/list")?;
        url.query_pairs_mut().append_pair("n", &PAGE_SIZE.to_string());
        let mut tags = Vec::new();
        for page in 0.. {
            if page == PAGE_LIMIT {
                return Err(Error::invalid(format!("the tags of {}", self.name), "the list does not end"));
            }
            let response = self.session.send("GET", |http| http.get(url.clone())).await?;
            if response.status() == StatusCode::NOT_FOUND {
                return Err(Error::NotFound { what: format!("repository {}", self.name) });
            }
            let response = success("GET", response).await?;
            let next = next_page(&url, response.headers());
            let bytes = limited_body(response, usize::try_from(DOCUMENT_LIMIT).unwrap_or(usize::MAX)).await?;
            let page: Page =
                serde_json::from_slice(&bytes).map_err(Error::json(format!("the tags of {}", self.name)))?;
            tags.extend(page.tags.unwrap_or_default());
            match next {
                Some(next) if next != url => url = next,
                _ => break,
            }
        }
        tags.sort();
        Ok(tags)
    }

    /// Deletes a tag alone where the registry can, and else the manifest that it names; a digest's manifest.
    /// Returns the digest when a manifest was deleted.
    pub(crate) async fn delete(&self, reference: &Reference) -> Result<Option<Digest>> {
        let wanted = wanted(reference);
        let digest = self.digest(&wanted).await?;
        let digest = digest.ok_or_else(|| Error::NotFound { what: reference.familiar() })?;
        if reference.digest().is_none() {
            let url = self.url(&format!("manifests/{wanted}"))?;
            let response = self.session.send("DELETE", |http| http.delete(url.clone())).await?;
            // Registries without deletion of tags know digests only.
            if !matches!(response.status().as_u16(), 400 | 404 | 405) {
                return success("DELETE", response).await.map(|_| None);
            }
        }
        let url = self.url(&format!("manifests/{digest}"))?;
        let response = self.session.send("DELETE", |http| http.delete(url.clone())).await?;
        if response.status() == StatusCode::METHOD_NOT_ALLOWED {
            let message = "the registry does not allow deletion".to_owned();
            return Err(Error::Denied { what: reference.familiar(), message });
        }
        success("DELETE", response).await.map(|_| Some(digest))
    }
}

/// What a reference asks a repository for.
pub(crate) fn wanted(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn digest_of(headers: &HeaderMap) -> Option<Digest> {
    text(headers, "docker-content-digest").and_then(|value| value.parse().ok())
}

/// `Link: </v2/…>; rel="next"` (RFC 8288), of the same registry only.
pub(super) fn next_page(url: &Url, headers: &HeaderMap) -> Option<Url> {
    let link = text(headers, LINK.as_str())?;
    let (target, parameters) = link.strip_prefix('<')?.split_once('>')?;
    if !parameters.contains("next") {
        return None;
    }
    url.join(target).ok().filter(|next| next.origin() == url.origin())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_the_same_registrys() {
        let url = Url::parse("https://r.example/v2/a/tags/list?n=2").expect("url");
        let next = |link: &'static str| {
            let headers = HeaderMap::from_iter([(LINK, reqwest::header::HeaderValue::from_static(link))]);
            next_page(&url, &headers).map(|next| next.to_string())
        };
        let expected = Some("https://r.example/v2/a/tags/list?n=2&last=b".to_owned());
        assert_eq!(next("</v2/a/tags/list?n=2&last=b>; rel=\"next\""), expected);
        assert_eq!(next("<https://evil.example/v2/a/tags/list>; rel=\"next\""), None);
        assert_eq!(next("</v2/a/tags/list?n=2>; rel=\"prev\""), None);
    }
}
