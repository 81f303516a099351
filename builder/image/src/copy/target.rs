//! Where copies go: a registry, or files that become a layout or an archive.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kiln_store::{Blobs, Digest};

use super::files::MANIFEST_FILE;
use super::scratch::{self, Scratch};
use crate::archive::docker::DockerImage;
use crate::archive::save;
use crate::layout::{self, LAYOUT_FILE, LAYOUT_MARK};
use crate::manifest::links::Links;
use crate::manifest::{DOCKER_CONFIG, Descriptor, Index, OCI_CONFIG};
use crate::registry::content::{Content, read_at};
use crate::registry::download::download;
use crate::registry::repository::{Fetched, Repository};
use crate::registry::{NoProgress, TransferProgress, upload};
use crate::whole_file::WholeFile;
use crate::{Error, Platform, Reference, Result};

/// The file that makes a directory skopeo's, and what is in it.
const VERSION_FILE: &str = "version";
const VERSION: &str = "Directory Transport Version: 1.1\n";
/// Bytes that are written at once.
const BUFFER: usize = 1 << 20;

pub(crate) enum Target {
    Registry(RegistryTarget),
    Files(FilesTarget),
}

/// A repository, and what the copy is called there.
pub(crate) struct RegistryTarget {
    pub(crate) repository: Repository,
    /// Tags; none for a copy by digest.
    pub(crate) tags: Vec<String>,
    /// A repository of the same registry that has the blobs.
    pub(crate) mount: Option<String>,
}

/// Blobs beside their place, which become a layout or an archive when all are here.
pub(crate) struct FilesTarget {
    blobs: Blobs,
    form: Form,
    /// The manifests that were put.
    manifests: Mutex<Vec<Put>>,
    _scratch: Scratch,
}

enum Form {
    Layout { directory: PathBuf, name: Option<String> },
    Directory(PathBuf),
    Archive { path: PathBuf, names: Vec<String>, docker: bool },
}

/// A manifest with what it names.
type Put = (Fetched, Links);

impl FilesTarget {
    /// A layout directory, made when it is not there.
    pub(crate) fn layout(directory: &Path, name: Option<&str>) -> Result<Self> {
        std::fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
        let scratch = Scratch::within(directory)?;
        let blobs = Blobs::open(&directory.join("blobs"), scratch.path())?;
        let form = Form::Layout { directory: directory.to_path_buf(), name: name.map(str::to_owned) };
        Ok(Self { blobs, form, manifests: Mutex::default(), _scratch: scratch })
    }

    /// skopeo's directory, new or in the place of another such.
    pub(crate) fn directory(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
        scratch::clear(directory);
        let mut entries = std::fs::read_dir(directory).map_err(Error::io("list", directory))?.flatten();
        // Another copy may be at work.
        let used = entries.any(|entry| !entry.file_name().as_encoded_bytes().starts_with(scratch::PREFIX.as_bytes()));
        if used && !directory.join(VERSION_FILE).is_file() {
            let reason = format!("it is neither empty nor such a directory: it has no file `{VERSION_FILE}`");
            return Err(Error::invalid(directory.display().to_string(), reason));
        }
        let scratch = Scratch::within(directory)?;
        let blobs = Blobs::open(&scratch.path().join("blobs"), &scratch.path().join("tmp"))?;
        let form = Form::Directory(directory.to_path_buf());
        Ok(Self { blobs, form, manifests: Mutex::default(), _scratch: scratch })
    }

    /// An archive, which appears when it is whole.
    pub(crate) fn archive(path: &Path, names: Vec<String>, docker: bool) -> Result<Self> {
        if docker && path.is_file() {
            return Err(Error::invalid(path.display().to_string(), "it is there already: an archive is not added to"));
        }
        let scratch = Scratch::within(parent(path))?;
        let blobs = Blobs::open(&scratch.path().join("blobs"), &scratch.path().join("tmp"))?;
        let form = Form::Archive { path: path.to_path_buf(), names, docker };
        Ok(Self { blobs, form, manifests: Mutex::default(), _scratch: scratch })
    }

    /// Makes the layout or the archive of what was put; the last manifest is the one that was asked for.
    fn finish(&self, root: &Fetched) -> Result<()> {
        let manifests = self.manifests.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Form::Directory(directory) = &self.form {
            return self.fill(directory, root, &manifests);
        }
        for (manifest, _) in manifests.iter() {
            put_document(&self.blobs, manifest)?;
        }
        // What refers to it is found by the index alone.
        let referrers: Vec<Descriptor> = manifests
            .iter()
            .filter(|(manifest, links)| links.subject.is_some() && manifest.digest != root.digest)
            .map(|(manifest, links)| links.as_referrer(manifest.digest, manifest.bytes.len() as u64))
            .collect();
        let platform = self.platform(root, &manifests)?;
        let entry = Descriptor { platform, ..Descriptor::new(&root.media_type, root.digest, root.bytes.len() as u64) };
        match &self.form {
            Form::Layout { directory, name } => {
                let entry = match name {
                    Some(name) => layout::named_by(entry, name),
                    None => entry,
                };
                layout::write_file(&directory.join(LAYOUT_FILE), &mut LAYOUT_MARK.as_bytes())?;
                layout::add_entries(directory, referrers.into_iter().chain([entry]).collect())?;
                for algorithm in kiln_store::digest::Algorithm::ALL {
                    // Only if nothing is in it.
                    let _ = std::fs::remove_dir(directory.join("blobs").join(algorithm.name()));
                }
                Ok(())
            }
            Form::Directory(_) => Ok(()),
            Form::Archive { path, names, docker } => {
                self.write_archive((path, names, *docker), &entry, referrers, &manifests)
            }
        }
    }

    /// Moves the files of a copy into skopeo's directory; the manifest that was asked for comes last.
    fn fill(&self, directory: &Path, root: &Fetched, manifests: &[Put]) -> Result<()> {
        for digest in self.blobs.list()? {
            let to = directory.join(digest.hex());
            std::fs::rename(self.blobs.path(&digest), &to).map_err(Error::io("write", &to))?;
        }
        layout::write_file(&directory.join(VERSION_FILE), &mut VERSION.as_bytes())?;
        for (manifest, _) in manifests.iter().filter(|(manifest, _)| manifest.digest != root.digest) {
            let path = directory.join(format!("{}.{MANIFEST_FILE}", manifest.digest.hex()));
            layout::write_file(&path, &mut manifest.bytes.as_slice())?;
        }
        layout::write_file(&directory.join(MANIFEST_FILE), &mut root.bytes.as_slice())
    }

    /// What an image runs on, as its config says.
    fn platform(&self, root: &Fetched, manifests: &[Put]) -> Result<Option<Platform>> {
        let links = manifests.iter().find(|(manifest, _)| manifest.digest == root.digest);
        let config = links.and_then(|(_, links)| links.blobs.first());
        let Some(config) = config.filter(|config| is_config(config)) else { return Ok(None) };
        let bytes = self.blobs.read(&config.digest, crate::image::DOCUMENT_LIMIT)?;
        Ok(serde_json::from_slice(&bytes).ok())
    }

    fn write_archive(
        &self,
        (path, names, docker): (&Path, &[String], bool),
        entry: &Descriptor,
        referrers: Vec<Descriptor>,
        manifests: &[Put],
    ) -> Result<()> {
        let mut index = Index::empty();
        let references: Vec<Reference> =
            if docker { names.iter().map(|name| Reference::parse(name)).collect::<Result<_>>()? } else { Vec::new() };
        index.manifests.extend(references.iter().filter_map(|name| layout::named(entry.clone(), name)));
        if !docker {
            index.manifests.extend(names.iter().map(|name| layout::named_by(entry.clone(), name)));
        }
        if index.manifests.is_empty() {
            index.manifests.push(entry.clone());
        }
        index.manifests.extend(referrers);
        let root = manifests.iter().find(|(manifest, _)| manifest.digest == entry.digest);
        let image = root.and_then(|(_, links)| links.blobs.split_first()).filter(|(config, _)| is_config(config));
        let images: Vec<DockerImage> =
            image.map(|(config, layers)| DockerImage::of(config, layers, &references)).into_iter().collect();
        let mut parts = BTreeMap::new();
        for digest in self.blobs.list()? {
            let size = self.blobs.size(&digest)?.ok_or(kiln_store::Error::BlobMissing(digest))?;
            parts.insert(digest, size);
        }
        let failed = || Error::io("write", path);
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            let file = File::options().write(true).open(path).map_err(failed())?;
            let mut out = BufWriter::with_capacity(BUFFER, file);
            save::write(&self.blobs, parts, &index, &images, &mut out)?;
            return out.flush().map_err(failed());
        }
        let mut file = WholeFile::new(path, 0o644).map_err(failed())?;
        let mut out = BufWriter::with_capacity(BUFFER, file.file());
        save::write(&self.blobs, parts, &index, &images, &mut out)?;
        out.flush().map_err(failed())?;
        drop(out);
        file.place().map_err(failed())
    }
}

impl Target {
    /// Brings a blob there, unless it is there.
    pub(crate) async fn put_blob(
        &self,
        blob: &Descriptor,
        content: &Content,
        progress: &dyn TransferProgress,
    ) -> Result<()> {
        let there = match self {
            Self::Registry(target) => upload::exists(&target.repository, &blob.digest).await?,
            Self::Files(target) => target.blobs.size(&blob.digest)? == Some(blob.size),
        };
        progress.begin(&blob.digest, blob.size, there);
        if there {
            return Ok(());
        }
        match self {
            Self::Registry(target) => {
                upload::upload(&target.repository, blob, target.mount.as_deref(), content, progress).await?;
            }
            Self::Files(target) => keep(&target.blobs, blob, content, progress).await?,
        }
        progress.finish(&blob.digest);
        Ok(())
    }

    /// Puts an image or artifact whose blobs are where `contents` says, and then its manifest, by its names.
    pub(crate) async fn put_image(
        &self,
        manifest: &Fetched,
        contents: &HashMap<Digest, Content>,
        progress: &dyn TransferProgress,
    ) -> Result<()> {
        let what = format!("manifest {}", manifest.digest);
        let links = Links::parse(&manifest.bytes, &manifest.media_type, &what)?;
        for blob in &links.blobs {
            let content = contents.get(&blob.digest).ok_or(kiln_store::Error::BlobMissing(blob.digest))?;
            let progress: &dyn TransferProgress = if is_config(blob) { &NoProgress } else { progress };
            self.put_blob(blob, content, progress).await?;
        }
        self.put_manifest(manifest, &links, true).await
    }

    /// Puts a manifest whose blobs are there: by its digest, or, as the `root` of the copy, by its names.
    pub(crate) async fn put_manifest(&self, manifest: &Fetched, links: &Links, root: bool) -> Result<()> {
        match self {
            Self::Registry(target) => {
                let digest = manifest.digest.to_string();
                let names = if root && !target.tags.is_empty() { target.tags.clone() } else { vec![digest] };
                let mut noted = true;
                for name in names {
                    noted &= target.repository.put_manifest(&name, &manifest.bytes, &links.media_type).await?;
                }
                match &links.subject {
                    Some(subject) if !noted => {
                        let entry = links.as_referrer(manifest.digest, manifest.bytes.len() as u64);
                        target.repository.tag_referrer(&subject.digest, entry).await
                    }
                    _ => Ok(()),
                }
            }
            Self::Files(target) => {
                let known = Fetched { media_type: links.media_type.clone(), ..manifest.clone() };
                let mut manifests = target.manifests.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                manifests.push((known.clone(), links.clone()));
                drop(manifests);
                if root { target.finish(&known) } else { Ok(()) }
            }
        }
    }
}

/// Brings a blob into a directory of blobs, verified.
pub(crate) async fn keep(
    blobs: &Blobs,
    blob: &Descriptor,
    content: &Content,
    progress: &dyn TransferProgress,
) -> Result<()> {
    let (file, offset) = match content {
        Content::Remote(repository) => return download(repository, blob, blobs, progress).await,
        Content::File { file, offset } => (file, *offset),
    };
    let mut writer = blobs.writer(blob.digest.algorithm())?;
    while writer.written() < blob.size {
        let most = (BUFFER as u64).min(blob.size - writer.written());
        let piece = read_at(Arc::clone(file), offset + writer.written(), most).await;
        let piece = piece.map_err(Error::stream("read a blob"))?;
        writer.write_all(&piece).map_err(Error::stream("write a blob"))?;
        progress.advance(&blob.digest, piece.len() as u64);
    }
    writer.commit(Some(&blob.digest), false)?;
    Ok(())
}

fn is_config(blob: &Descriptor) -> bool {
    matches!(blob.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG)
}

fn put_document(blobs: &Blobs, document: &Fetched) -> Result<Digest> {
    let mut writer = blobs.writer(document.digest.algorithm())?;
    writer.write_all(&document.bytes).map_err(Error::stream("write a manifest"))?;
    Ok(writer.commit(Some(&document.digest), false)?.0)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
