//! Indexes changed on the way: some of their images only, or further ones.

use kiln_store::Digest;

use super::convert::{ATTESTED, Conversion, Converter};
use super::{Copy, End, Source, open_target};
use crate::manifest::links::Links;
use crate::manifest::{DOCKER_CONFIG, Descriptor, Document, Index, OCI_CONFIG, OCI_INDEX};
use crate::registry::TransferProgress;
use crate::registry::repository::Fetched;
use crate::remote::small;
use crate::{Error, ImageConfig, Platform, Result};

/// Copies an index with only those images that are made for one of these platforms, and what is said of them.
///
/// # Errors
/// It is no index, or none of its images is left; or as [`super::copy`].
pub async fn filter(
    from: &End<'_>,
    to: &End<'_>,
    platforms: &[Platform],
    progress: &dyn TransferProgress,
) -> Result<Digest> {
    let source = Source::open(from).await?;
    let what = format!("manifest {}", source.root().digest);
    let Document::Index(mut index) = Document::parse(&source.root().bytes, &what)? else {
        return Err(Error::invalid(what, "an image, not an index"));
    };
    let is_wanted = |entry: &Descriptor| {
        let platform = entry.platform.as_ref();
        platform.is_some_and(|platform| platforms.iter().any(|wanted| wanted.accepts(platform)))
    };
    let kept: Vec<String> =
        index.manifests.iter().filter(|entry| is_wanted(entry)).map(|entry| entry.digest.to_string()).collect();
    if kept.is_empty() {
        let platform = platforms.first().cloned().unwrap_or_else(Platform::host);
        return Err(index.no_platform(&platform, &what));
    }
    index.manifests.retain(|entry| {
        is_wanted(entry) || entry.annotations.get(ATTESTED).is_some_and(|attested| kept.contains(attested))
    });
    let mount = from.location.mountable_at(to.location);
    let entries = index.manifests.clone();
    put(&index, vec![(source, entries)], to, mount, progress).await
}

/// Copies an index, or begins a new one, with further images; of an index among them, all.
///
/// # Errors
/// `base` is no index; or as [`super::copy`].
pub async fn append(
    base: Option<&End<'_>>,
    more: &[End<'_>],
    to: &End<'_>,
    progress: &dyn TransferProgress,
) -> Result<Digest> {
    let (mut index, mut parts) = (Index::empty(), Vec::new());
    if let Some(base) = base {
        let source = Source::open(base).await?;
        let what = format!("manifest {}", source.root().digest);
        let Document::Index(parsed) = Document::parse(&source.root().bytes, &what)? else {
            return Err(Error::invalid(what, "an image, not an index"));
        };
        parts.push((source, parsed.manifests.clone()));
        index = parsed;
    }
    for end in more {
        let source = Source::open(end).await?;
        let entries = members(&source).await?;
        for entry in &entries {
            index.manifests.retain(|known| known.digest != entry.digest);
            index.manifests.push(entry.clone());
        }
        parts.push((source, entries));
    }
    let mount = base.or(more.first()).and_then(|from| from.location.mountable_at(to.location));
    put(&index, parts, to, mount, progress).await
}

/// What an index has to say of an image; of an index, what it says of its own.
async fn members(source: &Source) -> Result<Vec<Descriptor>> {
    let root = source.root();
    let what = format!("manifest {}", root.digest);
    let manifest = match Document::parse(&root.bytes, &what)? {
        Document::Index(index) => return Ok(index.manifests),
        Document::Manifest(manifest) => manifest,
    };
    let links = Links::parse(&root.bytes, &root.media_type, &what)?;
    let mut entry = Descriptor::new(&links.media_type, root.digest, root.bytes.len() as u64);
    if matches!(manifest.config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
        let bytes = small(&source.content(&manifest.config)?, &manifest.config).await?;
        entry.platform = Some(ImageConfig::from_bytes(&bytes, &manifest.config.digest)?.platform());
    }
    Ok(vec![entry])
}

async fn put(
    index: &Index,
    parts: Vec<(Source, Vec<Descriptor>)>,
    to: &End<'_>,
    mount: Option<String>,
    progress: &dyn TransferProgress,
) -> Result<Digest> {
    let mut target = open_target(to, &[], mount).await?;
    for (source, entries) in parts {
        let converter = Converter::new(Conversion::default());
        let copy = Copy { source, target, converter, referrers: false, progress };
        for entry in &entries {
            let root = copy.source.root();
            let child = if root.digest == entry.digest { root.clone() } else { copy.source.manifest(entry).await? };
            copy.document(child, false, 1).await?;
        }
        target = copy.target;
    }
    let bytes = serde_json::to_vec(index).map_err(Error::json("image index"))?;
    let (digest, media_type) = (Digest::of(&bytes), index.media_type.clone().unwrap_or_else(|| OCI_INDEX.to_owned()));
    let links = Links::parse(&bytes, &media_type, "image index")?;
    target.put_manifest(&Fetched { bytes, digest, media_type }, &links, true).await?;
    Ok(digest)
}
