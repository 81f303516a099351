//! Places for what is no image: manifests by tag and blobs, in a repository of a registry or in an OCI layout
//! directory.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_store::digest::{Algorithm, Hasher};
use kiln_store::{Blobs, Digest};

use crate::image::DOCUMENT_LIMIT;
use crate::layout::{self, LAYOUT_FILE, LAYOUT_MARK};
use crate::manifest::Descriptor;
use crate::manifest::links::Links;
use crate::registry::content::Content;
use crate::registry::repository::{Access, Repository};
use crate::registry::{NoProgress, Options, download, upload};
use crate::{Error, Reference, Result};

/// One such place. Cheap to clone.
#[derive(Clone)]
pub struct Artifacts(Place);

#[derive(Clone)]
enum Place {
    Registry(Repository),
    Layout(PathBuf),
}

impl Artifacts {
    /// A repository of a registry; `write` asks for the right to push.
    ///
    /// # Errors
    /// The registry cannot be reached; the credentials cannot be read.
    pub async fn in_registry(reference: &Reference, write: bool, options: &Options) -> Result<Self> {
        let access = if write { Access::Push } else { Access::Pull };
        Ok(Self(Place::Registry(Repository::open(reference, access, &[], options).await?)))
    }

    /// An OCI layout directory, which is made when something is put there.
    pub fn in_layout(directory: &Path) -> Self {
        Self(Place::Layout(directory.to_path_buf()))
    }

    /// The bytes of a manifest or index by tag or digest, those of the digest; `None` when there is none.
    ///
    /// # Errors
    /// It cannot be read, is too long, or is not what its digest says.
    pub async fn manifest(&self, wanted: &str) -> Result<Option<Vec<u8>>> {
        match &self.0 {
            Place::Registry(repository) => match repository.manifest(wanted).await {
                Ok(fetched) => Ok(Some(fetched.bytes)),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            },
            Place::Layout(directory) => manifest_in_layout(directory, wanted),
        }
    }

    /// Points a tag at a manifest whose blobs are there.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn put_manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<()> {
        let directory = match &self.0 {
            Place::Registry(repository) => {
                return repository.put_manifest(tag, bytes, media_type).await.map(drop);
            }
            Place::Layout(directory) => directory,
        };
        let digest = Digest::of(bytes);
        write_blob(directory, &digest, &mut &*bytes)?;
        layout::write_file(&directory.join(LAYOUT_FILE), &mut LAYOUT_MARK.as_bytes())?;
        let entry = Descriptor::new(media_type, digest, bytes.len() as u64);
        let _lock = lock(directory)?;
        layout::add_entries(directory, vec![layout::named_by(entry, tag)])
    }

    /// Whether a blob is there.
    ///
    /// # Errors
    /// The place cannot be asked.
    pub async fn has(&self, blob: &Descriptor) -> Result<bool> {
        match &self.0 {
            Place::Registry(repository) => upload::exists(repository, &blob.digest).await,
            Place::Layout(directory) => {
                let path = directory.join(layout::blob_name(&blob.digest));
                Ok(std::fs::metadata(path).is_ok_and(|there| there.len() == blob.size))
            }
        }
    }

    /// Lets a registry take a blob from another of its repositories, `from` first; whether it did.
    pub async fn take(&self, blob: &Descriptor, from: Option<&str>) -> bool {
        match &self.0 {
            Place::Registry(repository) => repository.take(&blob.digest, from).await,
            Place::Layout(_) => false,
        }
    }

    /// Brings a blob of exactly the descriptor's size into a directory of blobs, verified.
    ///
    /// # Errors
    /// It is not there, or not what its descriptor says.
    pub async fn fetch(&self, blob: &Descriptor, blobs: &Blobs) -> Result<()> {
        match &self.0 {
            Place::Registry(repository) => download::download(repository, blob, blobs, &NoProgress).await,
            Place::Layout(directory) => {
                let missing = || Error::NotFound { what: format!("blob {}", blob.digest) };
                let name = layout::blob_name(&blob.digest);
                let file = layout::open_below(directory, &name)?.ok_or_else(missing)?;
                let mut writer = blobs.writer(blob.digest.algorithm())?;
                io::copy(&mut file.take(blob.size.saturating_add(1)), &mut writer)
                    .map_err(Error::io("read", &directory.join(name)))?;
                writer.commit(Some(&blob.digest), false)?;
                Ok(())
            }
        }
    }

    /// The bytes of a small blob, verified.
    ///
    /// # Errors
    /// It is longer than `limit`, not there, or not what its descriptor says.
    pub async fn read(&self, blob: &Descriptor, limit: u64, blobs: &Blobs) -> Result<Vec<u8>> {
        if blob.size > limit {
            let reason = format!("{} bytes, more than the {limit} that are accepted", blob.size);
            return Err(Error::invalid(format!("blob {}", blob.digest), reason));
        }
        self.fetch(blob, blobs).await?;
        Ok(blobs.read(&blob.digest, limit)?)
    }

    /// Sends a blob that is not there: the file's whole content.
    ///
    /// # Errors
    /// The place refuses it, or cannot be written.
    pub async fn send(&self, blob: &Descriptor, mut content: File) -> Result<()> {
        match &self.0 {
            Place::Registry(repository) => {
                let content = Content::File { file: Arc::new(content), offset: 0 };
                upload::upload(repository, blob, None, &content, &NoProgress).await
            }
            Place::Layout(directory) => {
                content.rewind().map_err(Error::stream("read a blob"))?;
                write_blob(directory, &blob.digest, &mut content)
            }
        }
    }

    /// Removes what the index of a layout no longer leads to. Of a registry that is the registry's own affair.
    ///
    /// # Errors
    /// The directory cannot be changed.
    pub fn remove_unreferenced(&self) -> Result<()> {
        match &self.0 {
            Place::Registry(_) => Ok(()),
            Place::Layout(directory) => remove_unreferenced(directory),
        }
    }
}

fn manifest_in_layout(directory: &Path, wanted: &str) -> Result<Option<Vec<u8>>> {
    let digest = match wanted.parse::<Digest>() {
        Ok(digest) => digest,
        Err(_) => {
            let Some(index) = layout::read_index(directory)? else { return Ok(None) };
            let Some(entry) = index.manifests.iter().find(|entry| layout::has_name(entry, wanted)) else {
                return Ok(None);
            };
            entry.digest
        }
    };
    let name = layout::blob_name(&digest);
    let Some(file) = layout::open_below(directory, &name)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(DOCUMENT_LIMIT + 1).read_to_end(&mut bytes).map_err(Error::io("read", &directory.join(&name)))?;
    let what = || format!("manifest {digest}");
    if bytes.len() as u64 > DOCUMENT_LIMIT {
        return Err(Error::invalid(what(), format!("longer than {DOCUMENT_LIMIT} bytes")));
    }
    let mut hasher = Hasher::new(digest.algorithm());
    hasher.update(&bytes);
    let actual = hasher.finish();
    if actual != digest {
        return Err(Error::DigestMismatch { what: what(), expected: Box::new(digest), actual: Box::new(actual) });
    }
    Ok(Some(bytes))
}

/// Two that add an entry at once would lose one of them.
fn lock(directory: &Path) -> Result<File> {
    let locked = File::open(directory).and_then(|file| {
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive))?;
        Ok(file)
    });
    locked.map_err(Error::io("lock", directory))
}

fn write_blob(directory: &Path, digest: &Digest, content: &mut dyn Read) -> Result<()> {
    layout::write_file(&directory.join(layout::blob_name(digest)), content)
}

fn remove_unreferenced(directory: &Path) -> Result<()> {
    let Some(index) = layout::read_index(directory)? else { return Ok(()) };
    let mut needed = HashSet::new();
    let mut open: Vec<Digest> = index.manifests.iter().map(|entry| entry.digest).collect();
    while let Some(digest) = open.pop() {
        if needed.insert(digest)
            && let Some(bytes) = manifest_in_layout(directory, &digest.to_string())?
        {
            let links = Links::parse(&bytes, "", &format!("manifest {digest}"))?;
            open.extend(links.manifests.iter().map(|entry| entry.digest));
            needed.extend(links.blobs.iter().map(|blob| blob.digest));
        }
    }
    for algorithm in Algorithm::ALL {
        let blobs = directory.join("blobs").join(algorithm.name());
        let entries = match std::fs::read_dir(&blobs) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(Error::io("list", &blobs))?,
        };
        for entry in entries {
            let entry = entry.map_err(Error::io("list", &blobs))?;
            let name = entry.file_name();
            let digest = name.to_str().and_then(|hex| Digest::from_hex(algorithm, hex).ok());
            if digest.is_some_and(|digest| !needed.contains(&digest)) {
                std::fs::remove_file(entry.path()).map_err(Error::io("remove", &entry.path()))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
