//! Blobs that a registry has in another repository: it takes them from there when it is asked, and nothing is sent.

use std::path::Path;
use std::sync::Arc;

use kiln_store::{BlobPlaces, Digest};
use reqwest::header::CONTENT_LENGTH;
use reqwest::{StatusCode, Url};

use super::repository::Repository;
use super::session::success;
use super::{Options, upload};
use crate::Result;
use crate::manifest::links::Links;

/// Repositories that one blob is tried to be mounted from, at most.
const CANDIDATES: u32 = 3;

impl Options {
    /// With the memory of the store at this root, unless there is another; without one when that cannot be opened.
    #[must_use]
    pub fn remembering(&self, root: &Path) -> Self {
        let places = self.places.clone().or_else(|| match BlobPlaces::open(root) {
            Ok(places) => Some(Arc::new(places)),
            Err(error) => {
                tracing::debug!(%error, "where blobs are is not remembered");
                None
            }
        });
        Self { places, ..self.clone() }
    }
}

impl Repository {
    /// Remembers that what a manifest names is here.
    pub(super) fn remember(&self, manifest: &[u8], media_type: &str) {
        let Some(places) = &self.places else { return };
        let Ok(links) = Links::parse(manifest, media_type, "manifest") else { return };
        let digests: Vec<Digest> = links.blobs.iter().map(|blob| blob.digest).collect();
        if let Err(error) = places.note(&self.host, &self.name, &digests) {
            tracing::debug!(%error, "where blobs are is not remembered");
        }
    }

    /// Other repositories of the registry that should have a blob, `from` first.
    fn others_with(&self, digest: &Digest, from: Option<&str>) -> Vec<String> {
        let known = match &self.places {
            Some(places) => places.repositories(&self.host, digest, CANDIDATES + 1).unwrap_or_default(),
            None => Vec::new(),
        };
        let mut others: Vec<String> = Vec::new();
        for name in from.map(str::to_owned).into_iter().chain(known) {
            if *name != *self.name && !others.contains(&name) {
                others.push(name);
            }
        }
        others.truncate(CANDIDATES as usize);
        others
    }

    /// Has the registry take a blob from another repository: from `from`, from where it was seen before, or from
    /// wherever the registry itself knows.
    pub(super) async fn mount(&self, digest: &Digest, from: Option<&str>) -> Mount {
        let mut opened = None;
        for source in self.others_with(digest, from).into_iter().map(Some).chain([None]) {
            if let Some(source) = &source {
                self.session.widen(format!("repository:{source}:pull")).await;
            }
            match self.ask_for(digest, source.as_deref()).await {
                Ok(answer) => {
                    if let Some(unused) = opened.take() {
                        self.cancel(unused).await;
                    }
                    match answer {
                        None => return Mount::Done,
                        location => opened = location,
                    }
                }
                // Not every registry knows every form of this; the upload itself tells what is wrong.
                Err(error) => tracing::debug!(%error, "mount {digest} from {source:?}"),
            }
        }
        opened.map_or(Mount::Refused, Mount::Opened)
    }

    /// Whether the registry took a blob from another repository; what it opened instead is given up.
    pub(crate) async fn take(&self, digest: &Digest, from: Option<&str>) -> bool {
        match self.mount(digest, from).await {
            Mount::Done => true,
            Mount::Opened(unused) => {
                self.cancel(unused).await;
                false
            }
            Mount::Refused => false,
        }
    }

    /// One such request; where to send the blob, when the registry wants it sent.
    async fn ask_for(&self, digest: &Digest, source: Option<&str>) -> Result<Option<Url>> {
        let mut url = self.url("blobs/uploads/")?;
        url.query_pairs_mut().append_pair("mount", &digest.to_string());
        if let Some(source) = source {
            url.query_pairs_mut().append_pair("from", source);
        }
        let response = self.session.send("POST", |http| http.post(url.clone()).header(CONTENT_LENGTH, 0)).await?;
        let response = success("POST", response).await?;
        match response.status() {
            StatusCode::CREATED => Ok(None),
            _ => upload::location_of(self, &response).map(Some),
        }
    }

    /// Gives up an upload that nothing was sent to; what stays is the registry's to remove.
    async fn cancel(&self, location: Url) {
        let cancelled = self.session.send_once("DELETE", |http| http.delete(location.clone())).await;
        if let Err(error) = cancelled {
            tracing::debug!(%error, "cancel an upload");
        }
    }
}

/// What came of asking a registry to mount a blob.
pub(super) enum Mount {
    /// It is there.
    Done,
    /// It is to be sent, to here.
    Opened(Url),
    /// It is to be sent.
    Refused,
}
