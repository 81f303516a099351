//! What one build makes: an image for each platform, and what is said of each. Packed, it is manifests and blobs in the
//! store, which go wherever they are wanted.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::Path;

use kiln_store::layer::Compression;
use kiln_store::{Digest, Store};

use crate::annotation::{self, Annotation, Level};
use crate::archive::docker::DockerImage;
use crate::archive::save::write as write_archive;
use crate::attestation::{self, Attestation, package_url};
use crate::copy::{Conversion, ManifestType};
use crate::image::DOCUMENT_LIMIT;
use crate::index::{self, StoredIndex};
use crate::manifest::links::Links;
use crate::manifest::{
    self, DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, Index, OCI_INDEX, OCI_MANIFEST, Packed, pack_anew,
};
use crate::registry::{Options, TransferProgress};
use crate::{Error, Image, Platform, Reference, Result, layout};

/// One image of a bundle.
#[derive(Debug, Clone)]
pub struct Member {
    /// What it was built for.
    pub platform: Platform,
    /// The image.
    pub image: Image,
    /// What is said of it.
    pub attestations: Vec<Attestation>,
}

/// What one build makes.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The images, in the order of the platforms asked for.
    pub members: Vec<Member>,
    /// An index is wanted even around a single image.
    pub indexed: bool,
}

/// How a bundle is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// Of the layers.
    pub compression: Compression,
    /// How hard it tries; the compression's own choice when not given.
    pub level: Option<i32>,
    /// Layers that came compressed from elsewhere are compressed anew.
    pub forced: bool,
    /// docker's media types instead of OCI's; what docker has no words for is OCI's nevertheless.
    pub docker_types: bool,
    /// Annotations.
    pub annotations: Vec<Annotation>,
}

impl Default for Form {
    fn default() -> Self {
        let (level, forced, docker_types, annotations) = Default::default();
        Self { compression: Compression::Gzip, level, forced, docker_types, annotations }
    }
}

/// A bundle whose manifests and blobs are all in the store.
#[derive(Debug, Clone)]
pub struct PackedBundle {
    /// What names it: an image's manifest, or an index.
    pub root: Descriptor,
    /// Every manifest, the root last.
    documents: Vec<Descriptor>,
    /// Every layer and config, each once.
    blobs: Vec<Descriptor>,
    /// The images with their manifests.
    images: Vec<(Image, Descriptor)>,
}

impl Bundle {
    /// Whether it is an index, and not an image alone.
    pub fn is_index(&self) -> bool {
        self.indexed || self.members.len() > 1 || self.members.iter().any(|member| !member.attestations.is_empty())
    }

    /// Compresses what is not compressed, and makes the manifests. What is said of the images is said of them under
    /// these names.
    ///
    /// # Errors
    /// The store cannot be read or written; an annotation of an index where there is none.
    pub fn pack(&self, store: &Store, form: &Form, names: &[Reference]) -> Result<PackedBundle> {
        self.pack_as(store, form, names, false)
    }

    /// What [`Bundle::pack`] gives, for those who want to know no more than its digests: layers that were compressed
    /// before are not compressed again.
    ///
    /// # Errors
    /// Those of [`Bundle::pack`].
    pub fn describe(&self, store: &Store, form: &Form, names: &[Reference]) -> Result<PackedBundle> {
        self.pack_as(store, form, names, true)
    }

    fn pack_as(&self, store: &Store, form: &Form, names: &[Reference], remembered: bool) -> Result<PackedBundle> {
        let is_index = self.is_index();
        let of_index = |one: &&Annotation| matches!(one.level, Level::Index | Level::IndexDescriptor);
        if let Some(annotation) = form.annotations.iter().find(of_index).filter(|_| !is_index) {
            let what = format!("annotation {:?} of the index", annotation.key);
            return Err(Error::invalid(what, "there is none: the result is one image (see --platform, --provenance)"));
        }
        let plain = form.annotations.is_empty() && self.members.iter().all(|member| member.attestations.is_empty());
        let docker_types = form.docker_types && plain;
        let mut packed = PackedBundle {
            root: Descriptor::new("", Digest::of(b""), 0),
            documents: Vec::new(),
            blobs: Vec::new(),
            images: Vec::new(),
        };
        let mut said = Vec::new();
        let packing = packing(form, docker_types, remembered);
        for member in &self.members {
            let entry = pack_member(store, member, form, packing)?;
            if !member.attestations.is_empty() {
                said.push(attest(store, member, &entry, names)?);
            }
            packed.images.push((member.image.clone(), entry));
        }
        let entries: Vec<Descriptor> = packed.images.iter().map(|(_, entry)| entry.clone()).chain(said).collect();
        packed.documents.clone_from(&entries);
        packed.root = match entries.as_slice() {
            [only] if !is_index => only.clone(),
            _ => {
                let root = pack_index(store, entries, form, docker_types)?;
                packed.documents.push(root.clone());
                root
            }
        };
        packed.collect_blobs(store)?;
        Ok(packed)
    }
}

fn packing(form: &Form, docker_types: bool, remembered: bool) -> manifest::Form {
    let Form { compression, level, forced, .. } = *form;
    manifest::Form { compression, level, forced, docker_types, remembered }
}

fn pack_member(store: &Store, member: &Member, form: &Form, packing: manifest::Form) -> Result<Descriptor> {
    let Form { annotations, .. } = form;
    let platform = Some(&member.platform);
    let own = annotation::of(annotations, Level::Manifest, platform);
    let packed = pack_anew(store, &member.image, packing, own)?;
    store.blobs().put(&packed.bytes)?;
    let entry = Descriptor::new(&packed.media_type, packed.digest, packed.bytes.len() as u64);
    let annotations = annotation::of(annotations, Level::ManifestDescriptor, platform);
    Ok(Descriptor { platform: platform.cloned(), annotations, ..entry })
}

/// Keeps what is said of an image: its entry of the index.
fn attest(store: &Store, member: &Member, entry: &Descriptor, names: &[Reference]) -> Result<Descriptor> {
    let subject = |name: &Reference| (package_url(name, &member.platform), entry.digest.hex());
    let mut subjects: Vec<(String, String)> = names.iter().map(subject).collect();
    if subjects.is_empty() {
        subjects.push(("_".to_owned(), entry.digest.hex()));
    }
    let statements = attestation::manifest(store, &member.attestations, &subjects)?;
    let annotations = BTreeMap::from([
        ("vnd.docker.reference.digest".to_owned(), entry.digest.to_string()),
        ("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned()),
    ]);
    Ok(Descriptor { annotations, ..statements })
}

fn pack_index(store: &Store, entries: Vec<Descriptor>, form: &Form, docker_types: bool) -> Result<Descriptor> {
    let media_type = if docker_types { DOCKER_INDEX } else { OCI_INDEX };
    let index = Index {
        manifests: entries,
        media_type: Some(media_type.to_owned()),
        annotations: annotation::of(&form.annotations, Level::Index, None),
        ..Index::empty()
    };
    let bytes = serde_json::to_vec(&index).map_err(Error::json("image index"))?;
    let root = Descriptor::new(media_type, store.blobs().put(&bytes)?, bytes.len() as u64);
    Ok(Descriptor { annotations: annotation::of(&form.annotations, Level::IndexDescriptor, None), ..root })
}

impl PackedBundle {
    /// An image of the store as it came, or else with the layers that need it compressed.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn of_image(store: &Store, image: &Image, compression: Compression) -> Result<Self> {
        Self::of_packed(store, image, &manifest::pack(store, image, compression)?)
    }

    fn of_packed(store: &Store, image: &Image, packed: &Packed) -> Result<Self> {
        store.blobs().put(&packed.bytes)?;
        let root = Descriptor::new(&packed.media_type, packed.digest, packed.bytes.len() as u64);
        let root = Descriptor { platform: Some(image.platform()), ..root };
        let images = vec![(image.clone(), root.clone())];
        let mut packed = Self { documents: vec![root.clone()], root, blobs: Vec::new(), images };
        packed.collect_blobs(store)?;
        Ok(packed)
    }

    /// An image of the store in another form; as it came, when it is in that form already.
    ///
    /// # Errors
    /// The store cannot be read or written; docker's media types with zstd.
    pub fn of_image_as(store: &Store, image: &Image, conversion: &Conversion) -> Result<Self> {
        let Conversion { compression, level, forced, manifest_type } = *conversion;
        let docker_types = manifest_type == Some(ManifestType::Docker);
        let compression = compression.unwrap_or(Compression::Gzip);
        if docker_types && compression == Compression::Zstd {
            return Err(Error::invalid("docker's manifests", "they know no zstd: use OCI's, or compress by gzip"));
        }
        let wanted = if docker_types { DOCKER_MANIFEST } else { OCI_MANIFEST };
        let form = manifest::Form { compression, level, forced, docker_types, remembered: false };
        let packed = manifest::pack_as(store, image, form)?;
        let packed = if manifest_type.is_none() || packed.media_type == wanted {
            packed
        } else {
            pack_anew(store, image, form, BTreeMap::new())?
        };
        Self::of_packed(store, image, &packed)
    }

    /// An index of the store with all that it names; `None` when not all of that is here.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn of_index(store: &Store, index: &StoredIndex) -> Result<Option<Self>> {
        let media_type = index.index.media_type.as_deref().unwrap_or(OCI_INDEX);
        let root = Descriptor::new(media_type, index.digest, index.bytes.len() as u64);
        let documents: Vec<Descriptor> = index.index.manifests.iter().chain([&root]).cloned().collect();
        for document in &documents {
            if store.blobs().size(&document.digest)?.is_none() {
                return Ok(None);
            }
        }
        let mut images = Vec::new();
        for entry in index.index.images() {
            images.extend(index::image_of(store, entry)?.map(|image| (image, entry.clone())));
        }
        let mut packed = Self { root, documents, blobs: Vec::new(), images };
        packed.collect_blobs(store)?;
        for blob in &packed.blobs {
            if store.blobs().size(&blob.digest)?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(packed))
    }

    fn collect_blobs(&mut self, store: &Store) -> Result<()> {
        let mut seen = HashSet::new();
        for document in &self.documents {
            let bytes = store.blobs().read(&document.digest, DOCUMENT_LIMIT)?;
            let links = Links::parse(&bytes, &document.media_type, &format!("manifest {}", document.digest))?;
            self.blobs.extend(links.blobs.into_iter().filter(|blob| seen.insert(blob.digest)));
        }
        Ok(())
    }

    /// The image's id, when it is a single image.
    pub fn config(&self) -> Option<Digest> {
        match self.images.as_slice() {
            [(image, entry)] if entry.digest == self.root.digest => Some(image.id),
            _ => None,
        }
    }

    /// Points names of the store at it.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn keep(&self, store: &Store, names: &[Reference]) -> Result<()> {
        for (image, entry) in &self.images {
            Image::record(store, image.id, image.config.clone(), Some(entry.digest), &[])?;
        }
        let target = self.config().unwrap_or(self.root.digest);
        for name in names {
            store.set_reference(&name.tagged_name(), &target)?;
        }
        Ok(())
    }

    /// Adds its images to the index of a name, which is made when there is none.
    ///
    /// # Errors
    /// The name is an image's; the store cannot be written.
    pub fn add_to(&self, store: &Store, name: &Reference) -> Result<StoredIndex> {
        self.keep(store, &[])?;
        let mut index = match StoredIndex::open(store, name)? {
            Some(known) => known.index,
            None if store.reference(&name.tagged_name())?.is_some() => {
                return Err(Error::invalid(name.familiar(), "an image has this name already, which is no index"));
            }
            None => Index::empty(),
        };
        let entries = self.documents.iter().filter(|entry| !entry.is_index());
        for entry in entries {
            index.manifests.retain(|known| known.digest != entry.digest);
            index.manifests.push(entry.clone());
        }
        StoredIndex::put(store, name, index)
    }

    /// Sends it to a registry: under the reference's tag, or, when `by_digest`, under none.
    ///
    /// # Errors
    /// The registry cannot be reached, or does not take it.
    pub async fn push(
        &self,
        store: &Store,
        to: &Reference,
        by_digest: bool,
        options: &Options,
        progress: &dyn TransferProgress,
    ) -> Result<Digest> {
        let digest = self.root.digest;
        let to = if by_digest { to.with_digest(digest) } else { to.clone() };
        if self.root.is_index() {
            let bytes = store.blobs().read(&digest, DOCUMENT_LIMIT)?;
            let index = serde_json::from_slice(&bytes).map_err(Error::json("image index"))?;
            let index = StoredIndex { name: to.clone(), digest, bytes, index };
            return index::push(store, &index, &to, options, progress).await;
        }
        index::push_image(store, &self.root, &to, options, progress).await?;
        if let Some(id) = self.config() {
            store.set_reference(&to.with_digest(digest).tagged_name(), &id)?;
        }
        Ok(digest)
    }

    /// The entries of a layout's index for it: one for each name, or one without a name.
    fn entries(&self, names: &[Reference]) -> Vec<Descriptor> {
        let named: Vec<Descriptor> = names.iter().filter_map(|name| layout::named(self.root.clone(), name)).collect();
        if named.is_empty() { vec![self.root.clone()] } else { named }
    }

    /// Writes it into a layout directory, beside what is there.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn save_layout(&self, store: &Store, names: &[Reference], directory: &Path) -> Result<()> {
        for blob in self.blobs.iter().chain(&self.documents) {
            layout::copy_blob(store, blob, directory)?;
        }
        layout::mark(directory)?;
        layout::add_entries(directory, self.entries(names))
    }

    /// Writes it as an archive: an OCI layout, and docker's form as far as that can tell it.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn save_archive(&self, store: &Store, names: &[Reference], out: &mut dyn Write) -> Result<()> {
        save_archive(store, &[(self, names)], out)
    }
}

/// Writes bundles as one archive.
///
/// # Errors
/// The output cannot be written.
pub fn save_archive(store: &Store, bundles: &[(&PackedBundle, &[Reference])], out: &mut dyn Write) -> Result<()> {
    let mut parts = BTreeMap::new();
    let mut index = Index::empty();
    let mut docker = Vec::new();
    for (bundle, names) in bundles {
        index.manifests.extend(bundle.entries(names));
        let blobs = bundle.blobs.iter().chain(&bundle.documents);
        parts.extend(blobs.map(|blob| (blob.digest, blob.size)));
        docker.extend(bundle.docker_image(store, names)?);
    }
    write_archive(store.blobs(), parts, &index, &docker, out)
}

impl PackedBundle {
    /// What docker's archives say of it: of several images, of the one for this machine.
    fn docker_image(&self, store: &Store, names: &[Reference]) -> Result<Option<DockerImage>> {
        let host = Platform::host();
        let best = self.images.iter().max_by_key(|(image, _)| host.preference(&image.platform()));
        let Some((image, entry)) = best else { return Ok(None) };
        if self.images.len() > 1 && !host.accepts(&image.platform()) {
            return Ok(None);
        }
        if !matches!(entry.media_type.as_str(), OCI_MANIFEST | DOCKER_MANIFEST) {
            return Ok(None);
        }
        let bytes = store.blobs().read(&entry.digest, DOCUMENT_LIMIT)?;
        let links = Links::parse(&bytes, &entry.media_type, "image manifest")?;
        Ok(links.blobs.split_first().map(|(config, layers)| DockerImage::of(config, layers, names)))
    }
}
