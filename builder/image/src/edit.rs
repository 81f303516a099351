//! Images changed where they are: another config, further layers, another base. Nothing is unpacked: layers that stay go
//! on byte for byte, or are mounted where they are.

mod layer;

pub(crate) use layer::diff_id_of;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use kiln_store::{Blobs, Digest, Snapshot, Store};

use crate::config::{History, RunConfig};
use crate::copy::{End, Location, Source, Which, choose, open_target};
use crate::image::DOCUMENT_LIMIT;
use crate::manifest::unpack::pair_layers;
use crate::manifest::{
    DOCKER_CONFIG, DOCKER_MANIFEST, Descriptor, Document, Manifest, OCI_CONFIG, OCI_MANIFEST, docker_layer_type,
    oci_layer_type,
};
use crate::registry::TransferProgress;
use crate::registry::content::Content;
use crate::registry::repository::Fetched;
use crate::remote::small;
use crate::{Error, Image, ImageConfig, Platform, Result};

/// What a base is called in an image's annotations.
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
const BASE_NAME: &str = "org.opencontainers.image.base.name";

/// What is to be different.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// The command's first words.
    pub entrypoint: Option<Vec<String>>,
    /// Its further words.
    pub cmd: Option<Vec<String>>,
    /// Variables: those of the same name are replaced.
    pub env: Vec<(String, String)>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// The user.
    pub user: Option<String>,
    /// The directory.
    pub working_dir: Option<String>,
    /// Ports: `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// What it runs on.
    pub platform: Option<Platform>,
    /// Layers to put on top: tar files, compressed or not.
    pub layers: Vec<PathBuf>,
}

/// An image, and where its blobs are.
struct Draft {
    /// Of the manifest as it was.
    digest: Digest,
    manifest: Manifest,
    config: ImageConfig,
    contents: HashMap<Digest, Content>,
    /// Where blobs are that were made.
    blobs: Blobs,
    _scratch: tempfile::TempDir,
}

/// Copies an image with changes; without an image, makes one of nothing but its layers. Returns the manifest's digest.
///
/// # Errors
/// The image cannot be read, a layer is no tar, or the target does not take it.
pub async fn change(
    from: Option<&End<'_>>,
    to: &End<'_>,
    platform: &Platform,
    changes: &Changes,
    progress: &dyn TransferProgress,
) -> Result<Digest> {
    let mut draft = match from {
        Some(from) => Draft::load(from, platform).await?,
        None => Draft::empty(platform)?,
    };
    draft.change(changes)?;
    draft.put(from, to, progress).await
}

/// Copies an image with the layers of its old base replaced by those of a new one.
///
/// # Errors
/// The image does not begin with the old base's layers; or as [`change`].
pub async fn rebase(
    from: &End<'_>,
    (old, new): (&End<'_>, &End<'_>),
    to: &End<'_>,
    platform: &Platform,
    progress: &dyn TransferProgress,
) -> Result<Digest> {
    let mut draft = Draft::load(from, platform).await?;
    let (old_base, new_base) = (Draft::load(old, platform).await?, Draft::load(new, platform).await?);
    draft.rebase(&old_base, new_base, new)?;
    draft.put(Some(from), to, progress).await
}

/// The same image of the store with one layer.
///
/// # Errors
/// The store cannot be read or written.
pub fn flatten(store: &Store, image: &Image) -> Result<Image> {
    let mut config = image.config.clone();
    let staging = store.stage()?;
    let nothing = Snapshot::open(store, &[])?;
    Snapshot::open(store, &image.layers)?.copy_changes(store, &nothing, staging.upper())?;
    config.rootfs.diff_ids = vec![store.commit(staging, None)?.diff_id];
    let comment = Some(format!("merge of {} layers", image.layers.len()));
    config.history = vec![History { created: config.created.clone(), comment, ..History::default() }];
    Image::commit(store, &config, &[])
}

impl Draft {
    fn new(
        digest: Digest,
        manifest: Manifest,
        config: ImageConfig,
        contents: HashMap<Digest, Content>,
    ) -> Result<Self> {
        let scratch = tempfile::tempdir().map_err(Error::stream("make a temporary directory"))?;
        let blobs = Blobs::open(&scratch.path().join("blobs"), &scratch.path().join("tmp"))?;
        Ok(Self { digest, manifest, config, contents, blobs, _scratch: scratch })
    }

    /// An image without layers.
    fn empty(platform: &Platform) -> Result<Self> {
        let config = ImageConfig {
            os: platform.os.clone(),
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            ..ImageConfig::default()
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.to_owned()),
            config: Descriptor::of(OCI_CONFIG, b""),
            layers: Vec::new(),
            annotations: BTreeMap::new(),
        };
        Self::new(Digest::of(b""), manifest, config, HashMap::new())
    }

    async fn load(from: &End<'_>, platform: &Platform) -> Result<Self> {
        let source = Source::open(from).await?;
        let fetched = choose(&source, &Which::Platform(platform.clone())).await?;
        let what = format!("manifest {}", fetched.digest);
        let Document::Manifest(manifest) = Document::parse(&fetched.bytes, &what)? else {
            return Err(Error::invalid(what, "an index, not an image"));
        };
        if !matches!(manifest.config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
            return Err(Error::invalid(what, format!("not an image but an artifact ({})", manifest.config.media_type)));
        }
        let bytes = small(&source.content(&manifest.config)?, &manifest.config).await?;
        let config = ImageConfig::from_bytes(&bytes, &manifest.config.digest)?;
        pair_layers(&manifest, &config)?;
        let contents = manifest.layers.iter().map(|layer| Ok((layer.digest, source.content(layer)?)));
        let contents = contents.collect::<Result<_>>()?;
        Self::new(fetched.digest, manifest, config, contents)
    }

    fn is_docker(&self) -> bool {
        self.manifest.media_type() == DOCKER_MANIFEST
    }

    /// A layer's descriptor as this kind of manifest has it.
    fn in_kind(&self, layer: Descriptor) -> Descriptor {
        let convert = if self.is_docker() { docker_layer_type } else { oci_layer_type };
        Descriptor { media_type: convert(&layer.media_type).to_owned(), ..layer }
    }

    fn change(&mut self, changes: &Changes) -> Result<()> {
        change_run_config(&mut self.config.config, changes);
        if let Some(platform) = &changes.platform {
            self.config.os.clone_from(&platform.os);
            self.config.architecture.clone_from(&platform.architecture);
            self.config.variant.clone_from(&platform.variant);
        }
        self.manifest.annotations.extend(changes.annotations.clone());
        for path in &changes.layers {
            let layer = layer::of_file(path, &self.blobs)?;
            self.contents.insert(layer.descriptor.digest, layer.content);
            let layer_of_kind = self.in_kind(layer.descriptor);
            self.manifest.layers.push(layer_of_kind);
            self.config.rootfs.diff_ids.push(layer.diff_id);
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let created_by = Some(format!("kiln append {name}"));
            self.config.history.push(History { created_by, ..History::default() });
        }
        Ok(())
    }

    fn rebase(&mut self, old: &Self, new: Self, name: &End<'_>) -> Result<()> {
        let kept = &old.config.rootfs.diff_ids;
        if !self.config.rootfs.diff_ids.starts_with(kept) {
            return Err(Error::invalid("the image", "its first layers are not those of the old base"));
        }
        let layers = kept.len();
        let lines = if self.config.history.starts_with(&old.config.history) {
            old.config.history.len()
        } else {
            // Whoever made it told the base's history otherwise: it ends with the base's last layer.
            let mut made = self.config.history.iter().enumerate().filter(|(_, line)| !line.empty_layer);
            layers.checked_sub(1).and_then(|last| made.nth(last)).map_or(0, |(at, _)| at + 1)
        };
        let mut history = new.config.history.clone();
        history.extend(self.config.history.drain(..).skip(lines));
        self.config.history = history;
        let mut diff_ids = new.config.rootfs.diff_ids.clone();
        diff_ids.extend(self.config.rootfs.diff_ids.drain(..).skip(layers));
        self.config.rootfs.diff_ids = diff_ids;
        let base = new.manifest.layers.iter().cloned().map(|layer| self.in_kind(layer));
        let above = self.manifest.layers[layers..].iter().cloned();
        self.manifest.layers = base.chain(above).collect();
        self.contents.extend(new.contents);
        self.config.os = new.config.os;
        self.config.architecture = new.config.architecture;
        self.config.variant = new.config.variant;
        if let Location::Registry(reference) = name.location {
            let annotations = &mut self.manifest.annotations;
            annotations.insert(BASE_NAME.to_owned(), reference.to_string());
            annotations.insert(BASE_DIGEST.to_owned(), new.digest.to_string());
        }
        Ok(())
    }

    /// Sends it.
    async fn put(mut self, from: Option<&End<'_>>, to: &End<'_>, progress: &dyn TransferProgress) -> Result<Digest> {
        let config = self.config.to_bytes()?;
        if config.len() as u64 > DOCUMENT_LIMIT {
            return Err(Error::invalid("image config", format!("longer than {DOCUMENT_LIMIT} bytes")));
        }
        self.manifest.config = Descriptor::of(&self.manifest.config.media_type, &config);
        self.blobs.put(&config)?;
        let file = self.blobs.get(&self.manifest.config.digest)?;
        let file = file.ok_or(kiln_store::Error::BlobMissing(self.manifest.config.digest))?;
        self.contents.insert(self.manifest.config.digest, Content::File { file: Arc::new(file), offset: 0 });
        let bytes = serde_json::to_vec(&self.manifest).map_err(Error::json("image manifest"))?;
        let (digest, media_type) = (Digest::of(&bytes), self.manifest.media_type().to_owned());
        let mount = from.and_then(|from| from.location.mountable_at(to.location));
        let target = open_target(to, &[], mount).await?;
        target.put_image(&Fetched { bytes, digest, media_type }, &self.contents, progress).await?;
        Ok(digest)
    }
}

fn change_run_config(config: &mut RunConfig, changes: &Changes) {
    if let Some(entrypoint) = &changes.entrypoint {
        // As in a Dockerfile: the further words were the old one's.
        config.cmd = None;
        config.entrypoint = Some(entrypoint.clone()).filter(|words| !words.is_empty());
    }
    if let Some(cmd) = &changes.cmd {
        config.cmd = Some(cmd.clone()).filter(|words| !words.is_empty());
    }
    let env = config.env.get_or_insert_default();
    for (name, value) in &changes.env {
        let line = format!("{name}={value}");
        match env.iter_mut().find(|known| known.split('=').next() == Some(name)) {
            Some(known) => *known = line,
            None => env.push(line),
        }
    }
    if env.is_empty() {
        config.env = None;
    }
    if !changes.labels.is_empty() {
        config.labels.get_or_insert_default().extend(changes.labels.clone());
    }
    if !changes.exposed_ports.is_empty() {
        let ports = changes.exposed_ports.iter().map(|port| (port.clone(), serde_json::json!({})));
        config.exposed_ports.get_or_insert_default().extend(ports);
    }
    if let Some(user) = &changes.user {
        config.user.clone_from(user);
    }
    if let Some(directory) = &changes.working_dir {
        config.working_dir.clone_from(directory);
    }
}
