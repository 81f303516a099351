//! An OCI layout or an image archive to copy from: its blobs are read where they lie.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use kiln_store::{Blobs, Digest, Store};

use super::part::Part;
use crate::archive::docker::DockerImage;
use crate::archive::entries::{Entries, Kind};
use crate::archive::load::{LINK_LIMIT, Limits, normal_name};
use crate::image::DOCUMENT_LIMIT;
use crate::layout::{self, blob_name};
use crate::manifest::links::Links;
use crate::manifest::{Descriptor, Index, Manifest, OCI_CONFIG, OCI_MANIFEST};
use crate::registry::content::Content;
use crate::registry::repository::Fetched;
use crate::{Error, Reference, Result};

/// The manifest in skopeo's directory; those that it names begin with their digest's digits.
pub(super) const MANIFEST_FILE: &str = "manifest.json";
/// Entries of an index that are looked at, at most.
const ENTRY_LIMIT: usize = 1024;

/// A layout directory, or the entries of an archive.
pub(crate) struct Files {
    place: Place,
    /// What an archive has no blob for: a manifest that was made, layers that were compressed.
    made: HashMap<Digest, Part>,
    root: Fetched,
    _scratch: Option<tempfile::TempDir>,
}

enum Place {
    Directory(PathBuf),
    /// skopeo's: every blob by its digest's digits, beside `manifest.json`.
    Flat(PathBuf),
    Archive(Entered),
}

impl Files {
    /// An image of a layout directory.
    pub(crate) fn layout(directory: &Path, name: Option<&str>) -> Result<Self> {
        let what = || directory.display().to_string();
        let index = layout::read_index(directory)?
            .ok_or_else(|| Error::invalid(what(), "not an OCI image layout: it has no index.json"))?;
        let entry = choose(&index, name, &what())?;
        Self::with_root(Place::Directory(directory.to_path_buf()), entry)
    }

    /// An image or index of the store, whose blobs lie as a layout's do.
    pub(crate) fn store(store: &Store, root: Descriptor) -> Result<Self> {
        Self::with_root(Place::Directory(store.root().to_path_buf()), root)
    }

    /// The image, or index, of skopeo's directory.
    pub(crate) fn directory(directory: &Path) -> Result<Self> {
        let place = Place::Flat(directory.to_path_buf());
        let bytes = place.file(MANIFEST_FILE.as_ref())?.read(MANIFEST_FILE)?;
        let digest = Digest::of(&bytes);
        let media_type = Links::parse(&bytes, "", MANIFEST_FILE)?.media_type;
        let root = Fetched { bytes, digest, media_type };
        Ok(Self { place, made: HashMap::new(), root, _scratch: None })
    }

    /// An image of an archive, whichever kind it is; docker's have the names of docker.
    pub(crate) fn archive(path: &Path, name: Option<&str>, docker: bool) -> Result<Self> {
        let archive = Entered::open(path)?;
        let what = path.display().to_string();
        let index = archive.document("index.json")?;
        let index: Option<Index> =
            index.map(|bytes| serde_json::from_slice(&bytes)).transpose().map_err(Error::json("index.json"))?;
        let images = archive.document("manifest.json")?;
        let images: Option<Vec<DockerImage>> =
            images.map(|bytes| serde_json::from_slice(&bytes)).transpose().map_err(Error::json("manifest.json"))?;
        match (index, images) {
            (Some(index), images) if !docker || images.is_none() => {
                let entry = choose(&index, name, &what)?;
                Self::with_root(Place::Archive(archive), entry)
            }
            (index, Some(images)) => {
                let image = choose_docker(images, name, &what)?;
                if let Some(entry) = index.and_then(|index| archive.entry_of(&index, &image)) {
                    return Self::with_root(Place::Archive(archive), entry);
                }
                Self::docker(archive, &image)
            }
            _ => Err(Error::invalid(what, "it has neither docker's manifest.json nor OCI's index.json")),
        }
    }

    fn with_root(place: Place, entry: Descriptor) -> Result<Self> {
        let bytes = place.read(&entry)?;
        let root = Fetched { bytes, digest: entry.digest, media_type: entry.media_type };
        Ok(Self { place, made: HashMap::new(), root, _scratch: None })
    }

    /// An image without a manifest: one is made, of layers that are compressed if they were not.
    fn docker(archive: Entered, image: &DockerImage) -> Result<Self> {
        let scratch = tempfile::tempdir().map_err(Error::stream("make a temporary directory"))?;
        let blobs = Blobs::open(&scratch.path().join("blobs"), &scratch.path().join("tmp"))?;
        let mut made = HashMap::new();
        let config = archive.part(&image.config)?;
        if config.size > DOCUMENT_LIMIT {
            return Err(Error::invalid("image config", format!("longer than {DOCUMENT_LIMIT} bytes")));
        }
        let config_digest = config.digest()?;
        let config_descriptor = Descriptor::new(OCI_CONFIG, config_digest, config.size);
        made.insert(config_digest, config);
        let mut layers = Vec::new();
        for layer in &image.layers {
            let part = archive.part(layer)?;
            let (part, digest, media_type) = part.compressed(&blobs)?;
            layers.push(Descriptor::new(media_type, digest, part.size));
            made.insert(digest, part);
        }
        let manifest = Manifest {
            annotations: std::collections::BTreeMap::new(),
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.to_owned()),
            config: config_descriptor,
            layers,
        };
        let bytes = serde_json::to_vec(&manifest).map_err(Error::json("image manifest"))?;
        let root = Fetched { digest: Digest::of(&bytes), bytes, media_type: OCI_MANIFEST.to_owned() };
        Ok(Self { place: Place::Archive(archive), made, root, _scratch: Some(scratch) })
    }

    /// What was asked for.
    pub(crate) fn root(&self) -> &Fetched {
        &self.root
    }

    /// A manifest that another one names.
    pub(crate) fn manifest(&self, entry: &Descriptor) -> Result<Fetched> {
        let bytes = self.place.read(entry)?;
        Ok(Fetched { bytes, digest: entry.digest, media_type: entry.media_type.clone() })
    }

    /// What refers to a manifest, of what the index names.
    pub(crate) fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let index = match &self.place {
            Place::Directory(directory) => layout::read_index(directory)?,
            Place::Archive(archive) => {
                let bytes = archive.document("index.json")?;
                bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose().map_err(Error::json("index.json"))?
            }
            Place::Flat(_) => None,
        };
        let mut found: Vec<Descriptor> = Vec::new();
        for entry in index.map(|index: Index| index.manifests).unwrap_or_default().into_iter().take(ENTRY_LIMIT) {
            let links = Links::parse(&self.place.read(&entry)?, &entry.media_type, "manifest")?;
            let refers = links.subject.is_some_and(|known| known.digest == *subject);
            if refers && !found.iter().any(|known| known.digest == entry.digest) {
                found.push(entry);
            }
        }
        Ok(found)
    }

    /// A blob.
    pub(crate) fn content(&self, blob: &Descriptor) -> Result<Content> {
        let part = match self.made.get(&blob.digest) {
            Some(part) => part.clone(),
            None => self.place.part(&blob.digest)?,
        };
        if part.size != blob.size {
            let reason = format!("it should have {} bytes, and has {}", blob.size, part.size);
            return Err(Error::invalid(format!("blob {}", blob.digest), reason));
        }
        Ok(Content::File { file: part.file, offset: part.offset })
    }
}

impl Place {
    fn part(&self, digest: &Digest) -> Result<Part> {
        let name = blob_name(digest);
        match self {
            Self::Directory(_) => self.file(&name),
            Self::Flat(_) => self.file(digest.hex().as_ref()),
            Self::Archive(archive) => archive.part(&name.to_string_lossy()),
        }
    }

    /// A file of the directory.
    fn file(&self, name: &Path) -> Result<Part> {
        let (Self::Directory(directory) | Self::Flat(directory)) = self else {
            return Err(Error::invalid("image archive", "not a directory"));
        };
        let missing = || Error::invalid(directory.display().to_string(), format!("it lacks {}", name.display()));
        let file = layout::open_below(directory, name)?.ok_or_else(missing)?;
        let size = file.metadata().map_err(Error::io("examine", &directory.join(name)))?.len();
        Ok(Part { file: Arc::new(file), offset: 0, size })
    }

    /// A manifest, verified.
    fn read(&self, entry: &Descriptor) -> Result<Vec<u8>> {
        let what = || format!("manifest {}", entry.digest);
        let part = match self {
            Self::Flat(_) => self.file(format!("{}.{MANIFEST_FILE}", entry.digest.hex()).as_ref())?,
            _ => self.part(&entry.digest)?,
        };
        let bytes = part.read(&what())?;
        let mut hasher = kiln_store::digest::Hasher::new(entry.digest.algorithm());
        hasher.update(&bytes);
        let actual = hasher.finish();
        if actual == entry.digest {
            return Ok(bytes);
        }
        let (expected, actual) = (Box::new(entry.digest), Box::new(actual));
        Err(Error::DigestMismatch { what: what(), expected, actual })
    }
}

/// An archive whose entries are known.
struct Entered {
    file: Arc<File>,
    files: HashMap<String, (u64, u64)>,
    links: HashMap<String, String>,
}

impl Entered {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let file = plain(file).map_err(Error::io("read", path))?;
        let mut entered = Self { file: Arc::new(file), files: HashMap::new(), links: HashMap::new() };
        let position = Rc::new(Cell::new(0));
        let mut input = Counting { file: Arc::clone(&entered.file), position: Rc::clone(&position) };
        let mut entries = Entries::new(&mut input);
        let mut limits = Limits::default();
        while let Some(entry) = entries.next()? {
            limits.count(&entry)?;
            let Some(name) = normal_name(&entry.name) else { continue };
            match &entry.kind {
                Kind::File => {
                    entered.files.insert(name, (position.get(), entry.size));
                }
                Kind::Symlink(target) => {
                    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                    let target = normal_name(&format!("{directory}/{target}"));
                    entered.links.extend(target.map(|target| (name, target)));
                }
                Kind::HardLink(target) => entered.links.extend(normal_name(target).map(|target| (name, target))),
                Kind::Other => {}
            }
        }
        Ok(entered)
    }

    fn find(&self, name: &str) -> Option<Part> {
        let mut wanted = normal_name(name);
        for _ in 0..LINK_LIMIT {
            let name = wanted?;
            if let Some((offset, size)) = self.files.get(&name) {
                return Some(Part { file: Arc::clone(&self.file), offset: *offset, size: *size });
            }
            wanted = self.links.get(&name).cloned();
        }
        None
    }

    fn part(&self, name: &str) -> Result<Part> {
        let missing = || Error::invalid("image archive", format!("{name:?}, which it refers to, is not in it"));
        self.find(name).ok_or_else(missing)
    }

    fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.find(name).map(|part| part.read(name)).transpose()
    }

    /// The entry of the index whose manifest has the config of docker's image.
    fn entry_of(&self, index: &Index, image: &DockerImage) -> Option<Descriptor> {
        let config = layout::digest_of_name(&image.config)?;
        let names_it = |entry: &&Descriptor| {
            let part = self.find(&blob_name(&entry.digest).to_string_lossy())?;
            let links = Links::parse(&part.read("manifest").ok()?, &entry.media_type, "manifest").ok()?;
            links.blobs.first().filter(|blob| blob.digest == config).map(drop)
        };
        index.manifests.iter().find(|entry| names_it(entry).is_some()).cloned()
    }
}

/// Reads a file from its beginning, and tells how far it is.
struct Counting {
    file: Arc<File>,
    position: Rc<Cell<u64>>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position.get())?;
        self.position.set(self.position.get() + count as u64);
        Ok(count)
    }
}

/// The archive itself when it can be read anywhere; a temporary copy of one that is compressed or comes through a pipe.
fn plain(mut file: File) -> io::Result<File> {
    let regular = file.metadata()?.is_file();
    let mut start = Vec::new();
    file.by_ref().take(4).read_to_end(&mut start)?;
    let mut whole: Box<dyn Read> = match start.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(io::Cursor::new(start).chain(file))),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(io::Cursor::new(start).chain(file))?),
        _ if regular => return Ok(file),
        _ => Box::new(io::Cursor::new(start).chain(file)),
    };
    let mut copy = tempfile::tempfile()?;
    io::copy(&mut whole, &mut copy)?;
    copy.rewind()?;
    Ok(copy)
}

/// The entry of that name; the only one, when none is given.
fn choose(index: &Index, name: Option<&str>, what: &str) -> Result<Descriptor> {
    let names: Vec<&str> = index.manifests.iter().filter_map(layout::shown_name).collect();
    let found = match name {
        Some(name) => index.manifests.iter().find(|entry| layout::has_name(entry, name)),
        None if index.manifests.len() == 1 => index.manifests.first(),
        None => None,
    };
    found.cloned().ok_or_else(|| Error::invalid(what.to_owned(), not_chosen(name, index.manifests.len(), &names)))
}

fn choose_docker(images: Vec<DockerImage>, name: Option<&str>, what: &str) -> Result<DockerImage> {
    let count = images.len();
    let names: Vec<String> = images.iter().flat_map(|image| image.repo_tags.clone()).collect();
    let wanted = name.map(Reference::parse).transpose()?;
    let found = images.into_iter().find(|image| match &wanted {
        Some(wanted) => image.repo_tags.iter().any(|tag| Reference::parse(tag).is_ok_and(|tag| tag == *wanted)),
        None => count == 1,
    });
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    found.ok_or_else(|| Error::invalid(what.to_owned(), not_chosen(name, count, &names)))
}

fn not_chosen(name: Option<&str>, count: usize, names: &[&str]) -> String {
    let names = if names.is_empty() { "none has a name".to_owned() } else { format!("there are {}", names.join(", ")) };
    match name {
        Some(name) => format!("no image is called {name:?}; {names}"),
        None => format!("it has {count} images, so say which: {names}"),
    }
}
