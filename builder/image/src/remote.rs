//! Looking at images that are elsewhere, and taking their names away, without pulling anything.

use std::io::Write;

use kiln_store::Digest;
use serde_json::{Value, json};

use crate::copy::{End, Location, Which, manifest_at};
use crate::inspect::describe;
use crate::manifest::links::Links;
use crate::manifest::{DOCKER_CONFIG, Descriptor, OCI_CONFIG};
use crate::registry::Options;
use crate::registry::content::{Content, read_at};
use crate::registry::download::Download;
use crate::registry::repository::{Access, Repository};
use crate::{Error, ImageConfig, Reference, Result, image};

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The image, as docker's `inspect` describes it.
    Described,
    /// The manifest's bytes; of the index, when it is one.
    Manifest,
    /// The config's bytes.
    Config,
}

/// What is there of an image.
#[derive(Debug, Clone)]
pub enum Seen {
    /// With docker's names of fields, and what only a registry has: the manifest's digest and the layers' blobs.
    Described(Value),
    /// A document, byte for byte.
    Bytes(Vec<u8>),
}

/// Every tag of a repository, sorted.
///
/// # Errors
/// There is no such repository, or it may not be read.
pub async fn tags(repository: &Reference, options: &Options) -> Result<Vec<String>> {
    Repository::open(repository, Access::Pull, &[], options).await?.tags().await
}

/// Deletes a tag, or the manifest of a digest. Registries without deletion of tags lose the manifest with all its tags;
/// its digest is returned then.
///
/// # Errors
/// There is no such tag, or the registry does not allow it.
pub async fn delete(reference: &Reference, options: &Options) -> Result<Option<Digest>> {
    Repository::open(reference, Access::Delete, &[], options).await?.delete(reference).await
}

/// The digest of a tag; `None` when there is none.
///
/// # Errors
/// The repository may not be read.
pub async fn digest(reference: &Reference, options: &Options) -> Result<Option<Digest>> {
    let repository = Repository::open(reference, Access::Pull, &[], options).await?;
    repository.digest(&crate::registry::repository::wanted(reference)).await
}

/// A manifest, of an index too unless `which` picks one of its images, or a config.
///
/// # Errors
/// It is not there, or cannot be read.
pub async fn document(from: &End<'_>, which: &Which, view: View) -> Result<Seen> {
    if view != View::Manifest {
        return inspect(from, which, view).await;
    }
    Ok(Seen::Bytes(manifest_at(from, which).await?.1.bytes))
}

/// Writes a blob of a registry, verified: what was written of one that is wrong is to be thrown away.
///
/// # Errors
/// It is not there, is not what its digest says, or cannot be written.
pub async fn blob(repository: &Reference, digest: &Digest, options: &Options, out: &mut dyn Write) -> Result<()> {
    let repository = Repository::open(repository, Access::Pull, &[], options).await?;
    let size = repository.blob_size(digest).await?;
    let mut download = Download::start(&repository, &Descriptor::new("", *digest, size));
    let mut hasher = kiln_store::digest::Hasher::new(digest.algorithm());
    while let Some(piece) = download.next().await? {
        hasher.update(&piece);
        out.write_all(&piece).map_err(Error::stream("write a blob"))?;
    }
    let actual = hasher.finish();
    if actual == *digest {
        return Ok(());
    }
    let what = format!("blob {digest}");
    Err(Error::DigestMismatch { what, expected: Box::new(*digest), actual: Box::new(actual) })
}

/// Looks at an image of a registry, a layout or an archive.
///
/// # Errors
/// It is not there, or cannot be read.
pub async fn inspect(from: &End<'_>, which: &Which, view: View) -> Result<Seen> {
    let of_index = if view == View::Manifest { &Which::All } else { which };
    let (source, fetched) = manifest_at(from, of_index).await?;
    if view == View::Manifest {
        return Ok(Seen::Bytes(fetched.bytes));
    }
    let what = format!("manifest {}", fetched.digest);
    let links = Links::parse(&fetched.bytes, &fetched.media_type, &what)?;
    let Some((config, layers)) = links.blobs.split_first() else {
        return Err(Error::invalid(what, "it has no config"));
    };
    let bytes = small(&source.content(config)?, config).await?;
    let is_image = matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG);
    if view == View::Config {
        return Ok(Seen::Bytes(bytes));
    }
    if !is_image {
        return Err(Error::invalid(what, format!("not an image but an artifact ({})", config.media_type)));
    }
    let parsed = ImageConfig::from_bytes(&bytes, &config.digest)?;
    let (tags, digests) = match from.location {
        Location::Registry(reference) => (
            reference.tag().map(|_| reference.familiar()).into_iter().collect::<Vec<_>>(),
            vec![reference.with_digest(fetched.digest).familiar()],
        ),
        _ => (Vec::new(), Vec::new()),
    };
    let size = layers.iter().map(|layer| layer.size).sum();
    let mut described = describe(&parsed, &config.digest, &tags, &digests, size)?;
    if let Value::Object(described) = &mut described {
        described.insert("Digest".to_owned(), json!(fetched.digest));
        described.insert("MediaType".to_owned(), json!(links.media_type));
        let layers: Vec<Value> = layers
            .iter()
            .map(|layer| json!({"MIMEType": layer.media_type, "Digest": layer.digest, "Size": layer.size}))
            .collect();
        described.insert("LayersData".to_owned(), json!(layers));
    }
    Ok(Seen::Described(described))
}

/// A blob that fits in memory, verified.
pub(crate) async fn small(content: &Content, blob: &Descriptor) -> Result<Vec<u8>> {
    if blob.size > image::DOCUMENT_LIMIT {
        let reason = format!("longer than {} bytes", image::DOCUMENT_LIMIT);
        return Err(Error::invalid(format!("config {}", blob.digest), reason));
    }
    let mut bytes = Vec::new();
    match content {
        Content::Remote(repository) => {
            let mut download = Download::start(repository, blob);
            while let Some(piece) = download.next().await? {
                bytes.extend_from_slice(&piece);
            }
        }
        Content::File { file, offset } => {
            while (bytes.len() as u64) < blob.size {
                let (position, rest) = (offset + bytes.len() as u64, blob.size - bytes.len() as u64);
                let piece = read_at(std::sync::Arc::clone(file), position, rest).await;
                bytes.extend_from_slice(&piece.map_err(Error::stream("read a blob"))?);
            }
        }
    }
    let mut hasher = kiln_store::digest::Hasher::new(blob.digest.algorithm());
    hasher.update(&bytes);
    let actual = hasher.finish();
    if actual == blob.digest {
        return Ok(bytes);
    }
    let what = format!("config {}", blob.digest);
    Err(Error::DigestMismatch { what, expected: Box::new(blob.digest), actual: Box::new(actual) })
}
