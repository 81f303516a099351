//! Copying images between registries, layouts and archives, byte for byte: nothing is unpacked, and nothing packed
//! again unless another form was asked for. What goes to the store is a pull or a load.

mod convert;
mod files;
pub mod index;
mod location;
mod part;
mod scratch;
pub mod sync;
mod target;

use std::collections::{HashMap, HashSet};
use std::pin::Pin;

use futures_util::{TryStreamExt, stream};
use kiln_store::{Digest, Store};

use crate::manifest::links::Links;
use crate::manifest::unpack::unpack;
use crate::manifest::{DOCKER_CONFIG, Descriptor, Document, OCI_CONFIG};
use crate::registry::content::Content;
use crate::registry::repository::{Access, Fetched, Repository};
use crate::registry::{NoProgress, Options, PARALLEL, TransferProgress};
use crate::{Error, Platform, Reference, Result};

use convert::Converter;
use files::Files;
use target::{FilesTarget, RegistryTarget};

pub use convert::{Conversion, ManifestType};
pub use location::Location;
pub(crate) use target::{Target, keep};

/// Indexes within indexes, at most.
const DEPTH_LIMIT: usize = 4;

/// Which images of an index are copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The one for a platform.
    Platform(Platform),
    /// All, and the index.
    All,
}

/// One end of a copy.
#[derive(Debug, Clone)]
pub struct End<'a> {
    /// Where.
    pub location: &'a Location,
    /// How the registry is talked to, if it is one.
    pub options: &'a Options,
}

/// What a copy is beside the image itself.
#[derive(Debug, Clone, Default)]
pub struct Extra {
    /// Further names of the copy: tags of the target's repository, or references in docker's archive.
    pub names: Vec<String>,
    /// What refers to it comes along: signatures, attestations, and what refers to those.
    pub referrers: bool,
    /// What becomes of the image on the way.
    pub conversion: Conversion,
}

/// Copies an image, or an index with its images; returns the digest of its manifest.
///
/// # Errors
/// Something is missing, cannot be read or written, or is not what its digest says. A location of the store: see
/// [`crate::registry`], [`crate::layout`] and [`crate::archive`].
pub async fn copy(
    from: &End<'_>,
    to: &End<'_>,
    which: &Which,
    extra: &Extra,
    progress: &dyn TransferProgress,
) -> Result<Digest> {
    if extra.referrers && !extra.conversion.is_nothing() {
        let reason = "they refer to its digest, which becomes another in another form";
        return Err(Error::invalid("what refers to the image", reason));
    }
    let source = Source::open(from).await?;
    let mount = from.location.mountable_at(to.location);
    let target = open_target(to, &extra.names, mount).await?;
    let converter = Converter::new(extra.conversion);
    let copy = Copy { source, target, converter, referrers: extra.referrers, progress };
    let root = copy.choose(which).await?;
    Ok(copy.document(root, true, 0).await?.digest)
}

/// Copies what the store has: an image or an index that is packed, with all that it names. Returns its digest there.
///
/// # Errors
/// As [`copy`].
pub async fn from_store(
    store: &Store,
    root: &Descriptor,
    to: &End<'_>,
    extra: &Extra,
    progress: &dyn TransferProgress,
) -> Result<Digest> {
    let source = Source::Files(Files::store(store, root.clone())?);
    let target = open_target(to, &extra.names, None).await?;
    let copy = Copy { source, target, converter: Converter::new(extra.conversion), referrers: false, progress };
    let root = copy.choose(&Which::All).await?;
    Ok(copy.document(root, true, 0).await?.digest)
}

/// Brings an image of a layout or an archive into the store, under these names; or an index with all that it names.
///
/// # Errors
/// As [`copy`].
pub async fn into_store(
    store: &Store,
    from: &End<'_>,
    which: &Which,
    names: &[Reference],
    progress: &dyn TransferProgress,
) -> Result<()> {
    let (source, fetched) = manifest_at(from, which).await?;
    let what = format!("manifest {}", fetched.digest);
    match Document::parse(&fetched.bytes, &what)? {
        Document::Manifest(_) => member_into_store(store, &source, &fetched, names, progress).await?,
        Document::Index(index) => {
            for entry in &index.manifests {
                let member = source.manifest(entry).await?;
                let names: Vec<_> = names.iter().map(|name| name.with_digest(member.digest)).collect();
                member_into_store(store, &source, &member, &names, progress).await?;
            }
            let digest = store.blobs().put(&fetched.bytes)?;
            for name in names {
                store.set_reference(&name.tagged_name(), &digest)?;
            }
        }
    }
    Ok(store.settle()?)
}

/// Brings an image into the store; or, without names, what is none and belongs to an index: an attestation.
async fn member_into_store(
    store: &Store,
    source: &Source,
    member: &Fetched,
    names: &[Reference],
    progress: &dyn TransferProgress,
) -> Result<()> {
    let what = format!("manifest {}", member.digest);
    let links = Links::parse(&member.bytes, &member.media_type, &what)?;
    if links.is_index() {
        return Err(Error::invalid(what, "an index within an index is copied by its own name"));
    }
    for blob in &links.blobs {
        if store.blobs().size(&blob.digest)? != Some(blob.size) {
            target::keep(store.blobs(), blob, &source.content(blob)?, progress).await?;
        }
    }
    let digest = store.blobs().put(&member.bytes)?;
    let is_layer = |blob: &Descriptor| blob.media_type.contains("tar");
    if links.blobs.iter().skip(1).all(is_layer)
        && let Document::Manifest(manifest) = Document::parse(&member.bytes, &what)?
    {
        unpack(store, &manifest, Some(digest), names)?;
    }
    Ok(())
}

/// The manifest of what is at a location: of an index, unless `platform` picks one of its images.
///
/// # Errors
/// As [`copy`].
pub(crate) async fn manifest_at(from: &End<'_>, which: &Which) -> Result<(Source, Fetched)> {
    let source = Source::open(from).await?;
    let fetched = choose(&source, which).await?;
    Ok((source, fetched))
}

/// Copies a manifest with its blobs from one repository to another, by digest.
pub(crate) async fn copy_manifest(
    from: Repository,
    to: Repository,
    mount: Option<String>,
    digest: &Digest,
    progress: &dyn TransferProgress,
) -> Result<()> {
    let root = from.manifest(&digest.to_string()).await?;
    let source = Source::Registry(from, root.clone());
    let target = Target::Registry(RegistryTarget { repository: to, tags: Vec::new(), mount });
    let copy = Copy { source, target, converter: Converter::new(Conversion::default()), referrers: false, progress };
    copy.document(root, true, 0).await.map(drop)
}

pub(crate) enum Source {
    Registry(Repository, Fetched),
    Files(Files),
}

impl Source {
    pub(crate) async fn open(end: &End<'_>) -> Result<Self> {
        match end.location {
            Location::Registry(reference) => {
                let (repository, fetched) = Repository::find(reference, end.options).await?;
                Ok(Self::Registry(repository, fetched))
            }
            Location::Layout { path, name } => Ok(Self::Files(Files::layout(path, name.as_deref())?)),
            Location::Directory(path) => Ok(Self::Files(Files::directory(path)?)),
            Location::Archive { path, name, docker } => {
                Ok(Self::Files(Files::archive(path, name.as_deref(), *docker)?))
            }
            Location::Store(name) => Err(Error::invalid(name.clone(), "an image of the store is pushed or saved")),
        }
    }

    pub(crate) fn root(&self) -> &Fetched {
        match self {
            Self::Registry(_, fetched) => fetched,
            Self::Files(files) => files.root(),
        }
    }

    pub(crate) async fn manifest(&self, entry: &Descriptor) -> Result<Fetched> {
        match self {
            Self::Registry(repository, _) => repository.manifest(&entry.digest.to_string()).await,
            Self::Files(files) => files.manifest(entry),
        }
    }

    /// What refers to a manifest.
    pub(crate) async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        match self {
            Self::Registry(repository, _) => repository.referrers(subject).await,
            Self::Files(files) => files.referrers(subject),
        }
    }

    pub(crate) fn content(&self, blob: &Descriptor) -> Result<Content> {
        match self {
            Self::Registry(repository, _) => Ok(Content::Remote(repository.clone())),
            Self::Files(files) => files.content(blob),
        }
    }
}

pub(crate) async fn open_target(end: &End<'_>, more_names: &[String], mount: Option<String>) -> Result<Target> {
    let with = |name: &Option<String>| name.iter().chain(more_names).cloned().collect::<Vec<_>>();
    Ok(match end.location {
        Location::Registry(reference) => {
            let mounts: Vec<String> = mount.iter().cloned().collect();
            let repository = Repository::open(reference, Access::Push, &mounts, end.options).await?;
            let mut tags: Vec<String> = reference.tag().map(str::to_owned).into_iter().collect();
            for name in more_names {
                tags.push(tag_of(name, reference)?);
            }
            Target::Registry(RegistryTarget { repository, tags, mount })
        }
        Location::Layout { path, name } => Target::Files(FilesTarget::layout(path, name.as_deref())?),
        Location::Directory(path) => Target::Files(FilesTarget::directory(path)?),
        Location::Archive { path, name, docker } => Target::Files(FilesTarget::archive(path, with(name), *docker)?),
        Location::Store(name) => {
            return Err(Error::invalid(name.clone(), "an image comes into the store by pull or load"));
        }
    })
}

/// A tag, or a name of the same repository with one.
fn tag_of(name: &str, target: &Reference) -> Result<String> {
    let full = if name.contains(['/', ':']) { name.to_owned() } else { format!("{}:{name}", target.name()) };
    let parsed = Reference::parse(&full)?;
    match parsed.tag() {
        Some(tag) if parsed.name() == target.name() => Ok(tag.to_owned()),
        _ => Err(Error::invalid(name.to_owned(), format!("not a tag of {}", target.name()))),
    }
}

pub(crate) async fn choose(source: &Source, which: &Which) -> Result<Fetched> {
    let mut fetched = source.root().clone();
    let Which::Platform(platform) = which else { return Ok(fetched) };
    for _ in 0..DEPTH_LIMIT {
        let what = format!("manifest {}", fetched.digest);
        if !Links::parse(&fetched.bytes, &fetched.media_type, &what)?.is_index() {
            return Ok(fetched);
        }
        let Document::Index(index) = Document::parse(&fetched.bytes, &what)? else { return Ok(fetched) };
        let best = index.candidates(platform).into_iter().next().cloned();
        fetched = source.manifest(&best.ok_or_else(|| index.no_platform(platform, &what))?).await?;
    }
    Err(Error::invalid("image", "indexes are nested too deeply"))
}

struct Copy<'a> {
    source: Source,
    target: Target,
    converter: Converter,
    referrers: bool,
    progress: &'a dyn TransferProgress,
}

impl Copy<'_> {
    async fn choose(&self, which: &Which) -> Result<Fetched> {
        choose(&self.source, which).await
    }

    /// Copies what a manifest names, and then the manifest; returns what it became.
    fn document(
        &self,
        manifest: Fetched,
        root: bool,
        depth: usize,
    ) -> Pin<Box<dyn Future<Output = Result<Fetched>> + '_>> {
        Box::pin(async move {
            let what = format!("manifest {}", manifest.digest);
            let links = Links::parse(&manifest.bytes, &manifest.media_type, &what)?;
            if depth > DEPTH_LIMIT {
                return Err(Error::invalid(what, "indexes are nested too deeply"));
            }
            let mut children = Vec::new();
            for entry in &links.manifests {
                let child = self.source.manifest(entry).await?;
                children.push(self.document(child, false, depth + 1).await?);
            }
            let manifest = Fetched { media_type: links.media_type.clone(), ..manifest };
            let (manifest, contents) = if links.is_index() {
                (self.converter.index(manifest, &links, &children)?, HashMap::new())
            } else {
                self.converter.manifest(&self.source, manifest, self.progress).await?
            };
            let links = Links::parse(&manifest.bytes, &manifest.media_type, &what)?;
            self.blobs(&links.blobs, &contents).await?;
            if self.referrers {
                // Before it, so that a layout's index has them when it is written; a registry takes them as well.
                for entry in &self.source.referrers(&manifest.digest).await? {
                    let referrer = self.source.manifest(entry).await?;
                    self.document(referrer, false, depth + 1).await?;
                }
            }
            self.target.put_manifest(&manifest, &links, root).await?;
            Ok(manifest)
        })
    }

    /// Copies blobs: those of `made` from there, the others from the source.
    async fn blobs(&self, blobs: &[Descriptor], made: &HashMap<Digest, Content>) -> Result<()> {
        let mut seen = HashSet::new();
        stream::iter(blobs.iter().filter(|blob| seen.insert(blob.digest)).map(Ok))
            .map_ok(|blob| async move {
                // The config is too small to be shown.
                let small = matches!(blob.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG);
                let progress: &dyn TransferProgress = if small { &NoProgress } else { self.progress };
                let content = match made.get(&blob.digest) {
                    Some(content) => content.clone(),
                    None => self.source.content(blob)?,
                };
                self.target.put_blob(blob, &content, progress).await
            })
            .try_buffer_unordered(PARALLEL)
            .try_collect()
            .await
    }
}
