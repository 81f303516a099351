//! What refers to a manifest: signatures, attestations, other artifacts (OCI distribution specification 1.1, "Listing
//! Referrers" and "Referrers Tag Schema").

use kiln_store::Digest;
use reqwest::header::ACCEPT;

use super::repository::{Repository, next_page};
use super::session::{limited_body, success};
use crate::image::DOCUMENT_LIMIT;
use crate::manifest::{Descriptor, Index, OCI_INDEX};
use crate::{Error, Result};

/// Referrers of one manifest, at most.
const LIMIT: usize = 8192;
/// Characters of a digest's algorithm in a tag.
const ALGORITHM: usize = 32;
/// Characters of its value.
const VALUE: usize = 64;

impl Repository {
    /// What refers to a manifest: as the registry tells, or, if it does not know, the tag that stands in for it.
    pub(crate) async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let what = || format!("the referrers of {subject}");
        let mut url = self.url(&format!("referrers/{subject}"))?;
        let mut found = Vec::new();
        loop {
            let response = self.session.send("GET", |http| http.get(url.clone()).header(ACCEPT, OCI_INDEX)).await?;
            // Registries without it say so in more than one way.
            if matches!(response.status().as_u16(), 400 | 404 | 405 | 501) {
                return self.tagged_referrers(subject).await;
            }
            let response = success("GET", response).await?;
            let next = next_page(&url, response.headers());
            let bytes = limited_body(response, usize::try_from(DOCUMENT_LIMIT).unwrap_or(usize::MAX)).await?;
            let index: Index = serde_json::from_slice(&bytes).map_err(Error::json(what()))?;
            found.extend(index.manifests);
            if found.len() > LIMIT {
                return Err(Error::invalid(what(), format!("they are more than {LIMIT}")));
            }
            match next {
                Some(next) if next != url => url = next,
                _ => return Ok(found),
            }
        }
    }

    async fn tagged_referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        match self.manifest(&tag(subject)).await {
            Ok(fetched) => {
                let what = format!("the referrers of {subject}");
                let index: Index = serde_json::from_slice(&fetched.bytes).map_err(Error::json(what))?;
                Ok(index.manifests)
            }
            Err(Error::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Adds a referrer to the tag that stands in for the registry's own list.
    pub(crate) async fn tag_referrer(&self, subject: &Digest, referrer: Descriptor) -> Result<()> {
        let mut index = Index::empty();
        index.manifests = self.tagged_referrers(subject).await?;
        if index.manifests.iter().any(|known| known.digest == referrer.digest) {
            return Ok(());
        }
        index.manifests.push(referrer);
        let bytes = serde_json::to_vec(&index).map_err(Error::json("an index of referrers"))?;
        self.put_manifest(&tag(subject), &bytes, OCI_INDEX).await.map(drop)
    }
}

fn tag(subject: &Digest) -> String {
    let (algorithm, hex) = (subject.algorithm().name(), subject.hex());
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    format!("{}-{}", cut(algorithm, ALGORITHM), cut(&hex, VALUE))
}
