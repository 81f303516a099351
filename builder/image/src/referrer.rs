//! What refers to an image: listed, and attached.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_store::{Blobs, Digest};
use serde::Serialize;

use crate::copy::{End, Location, Source, Which, choose, open_target};
use crate::manifest::{Descriptor, OCI_MANIFEST};
use crate::registry::content::Content;
use crate::registry::repository::Fetched;
use crate::registry::{NoProgress, TransferProgress};
use crate::{Error, Result};

/// A config that says nothing (OCI image specification, "Guidance for an Empty Descriptor").
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const EMPTY: &[u8] = b"{}";
/// What a file is called.
const TITLE: &str = "org.opencontainers.image.title";

/// A file of an artifact.
#[derive(Debug, Clone)]
pub struct Attached {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub media_type: String,
}

/// What refers to an image or index, by its kind if one is named. Also tells the digest of what they refer to.
///
/// # Errors
/// The image is not there, or cannot be read.
pub async fn referrers(from: &End<'_>, which: &Which, kind: Option<&str>) -> Result<(Digest, Vec<Descriptor>)> {
    let source = Source::open(from).await?;
    let subject = choose(&source, which).await?.digest;
    let mut found = source.referrers(&subject).await?;
    for entry in &mut found {
        if !entry.other.contains_key("artifactType") {
            // A layout's index need not say it.
            let manifest = source.manifest(entry).await?;
            let links = crate::manifest::links::Links::parse(&manifest.bytes, &manifest.media_type, "manifest")?;
            *entry = links.as_referrer(entry.digest, entry.size);
        }
    }
    let is_kind = |entry: &Descriptor| kind.is_none_or(|kind| artifact_type(entry) == kind);
    Ok((subject, found.into_iter().filter(is_kind).collect()))
}

/// What an entry of such a list is.
pub fn artifact_type(entry: &Descriptor) -> &str {
    entry.other.get("artifactType").and_then(serde_json::Value::as_str).unwrap_or_default()
}

/// Makes an artifact of files that refers to an image or index, and puts it beside it. Returns its digest.
///
/// # Errors
/// The image is not there, a file cannot be read, or the registry does not take it.
pub async fn attach(
    subject: &End<'_>,
    which: &Which,
    kind: &str,
    files: &[Attached],
    annotations: BTreeMap<String, String>,
    progress: &dyn TransferProgress,
) -> Result<Digest> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Artifact<'a> {
        schema_version: u32,
        media_type: &'a str,
        artifact_type: &'a str,
        config: &'a Descriptor,
        layers: &'a [Descriptor],
        subject: Descriptor,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        annotations: BTreeMap<String, String>,
    }
    let source = Source::open(subject).await?;
    let of = choose(&source, which).await?;
    let location = match subject.location {
        Location::Registry(reference) => Location::Registry(reference.with_digest(of.digest)),
        Location::Layout { path, .. } => Location::Layout { path: path.clone(), name: None },
        _ => return Err(Error::invalid(subject.location.to_string(), "attach to what is in a registry or OCI layout")),
    };
    let scratch = tempfile::tempdir().map_err(Error::stream("make a temporary directory"))?;
    let blobs = Blobs::open(&scratch.path().join("blobs"), &scratch.path().join("tmp"))?;
    let mut contents = HashMap::new();
    let mut add = |media_type: &str, mut from: &mut dyn std::io::Read| -> Result<Descriptor> {
        let mut writer = blobs.writer(kiln_store::digest::Algorithm::Sha256)?;
        std::io::copy(&mut from, &mut writer).map_err(Error::stream("read a file to attach"))?;
        let (digest, size) = writer.commit(None, false)?;
        let file = blobs.get(&digest)?.ok_or(kiln_store::Error::BlobMissing(digest))?;
        contents.insert(digest, Content::File { file: Arc::new(file), offset: 0 });
        Ok(Descriptor::new(media_type, digest, size))
    };
    let config = add(EMPTY_TYPE, &mut &*EMPTY)?;
    let mut layers = Vec::new();
    for attached in files {
        let mut file = File::open(&attached.path).map_err(Error::io("read", &attached.path))?;
        let mut layer = add(&attached.media_type, &mut file)?;
        let title = attached.path.file_name().map(|name| name.to_string_lossy().into_owned());
        layer.annotations.extend(title.map(|title| (TITLE.to_owned(), title)));
        layers.push(layer);
    }
    if layers.is_empty() {
        layers.push(config.clone());
    }
    let artifact = Artifact {
        schema_version: 2,
        media_type: OCI_MANIFEST,
        artifact_type: kind,
        config: &config,
        layers: &layers,
        subject: Descriptor::new(&of.media_type, of.digest, of.bytes.len() as u64),
        annotations,
    };
    let bytes = serde_json::to_vec(&artifact).map_err(Error::json("artifact manifest"))?;
    let (digest, media_type) = (Digest::of(&bytes), OCI_MANIFEST.to_owned());
    let target = open_target(&End { location: &location, options: subject.options }, &[], None).await?;
    let progress: &dyn TransferProgress = if files.is_empty() { &NoProgress } else { progress };
    target.put_image(&Fetched { bytes, digest, media_type }, &contents, progress).await?;
    Ok(digest)
}
