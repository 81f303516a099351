//! OCI image layout directories (OCI image specification "Image Layout").

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use kiln_store::layer::Compression;
use kiln_store::{Digest, Store};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::image::DOCUMENT_LIMIT;
use crate::manifest::unpack::{read_config, unpack};
use crate::manifest::{Descriptor, Document, Index, OCI_LAYER, Packed, pack};
use crate::whole_file::WholeFile;
use crate::{Error, Image, Platform, Reference, Result};

/// The file that makes a directory a layout.
pub(crate) const LAYOUT_FILE: &str = "oci-layout";
/// Its content.
pub(crate) const LAYOUT_MARK: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX_FILE: &str = "index.json";
/// The tag of an entry of the index.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name of an entry, as containerd, BuildKit and docker write it.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// Indexes within indexes, at most.
const DEPTH_LIMIT: usize = 4;
/// Entries of an index that are looked at, at most.
const ENTRY_LIMIT: usize = 1024;

/// Writes an image into a layout directory, beside what is there.
pub fn save(
    store: &Store,
    image: &Image,
    name: Option<&Reference>,
    compression: Compression,
    directory: &Path,
) -> Result<()> {
    let packed = write_image(store, image, compression, directory)?;
    let names: Vec<Reference> = name.cloned().into_iter().collect();
    add_entries(directory, entries(image, &packed, &names))
}

/// [`save`], by a name of the user's own.
pub fn save_as(
    store: &Store,
    image: &Image,
    name: Option<&str>,
    compression: Compression,
    directory: &Path,
) -> Result<()> {
    let packed = write_image(store, image, compression, directory)?;
    let plain = entries(image, &packed, &[]);
    let named = plain.into_iter().map(|entry| match name {
        Some(name) => named_by(entry, name),
        None => entry,
    });
    add_entries(directory, named.collect())
}

/// Everything of an image but its entry in the index.
fn write_image(store: &Store, image: &Image, compression: Compression, directory: &Path) -> Result<Packed> {
    let packed = pack(store, image, compression)?;
    let what = format!("manifest {}", packed.digest);
    let Document::Manifest(manifest) = Document::parse(&packed.bytes, &what)? else {
        return Err(Error::invalid(what, "an index, not an image"));
    };
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        copy_blob(store, blob, directory)?;
    }
    write_file(&blob_path(directory, &packed.digest), &mut packed.bytes.as_slice())?;
    mark(directory)?;
    Ok(packed)
}

/// Copies a blob of the store to its place, unless it is there.
pub(crate) fn copy_blob(store: &Store, blob: &Descriptor, directory: &Path) -> Result<()> {
    let target = blob_path(directory, &blob.digest);
    if std::fs::metadata(&target).is_ok_and(|metadata| metadata.len() == blob.size) {
        return Ok(());
    }
    let mut file = store.blobs().get(&blob.digest)?.ok_or(kiln_store::Error::BlobMissing(blob.digest))?;
    write_file(&target, &mut file)
}

/// Says that a directory is a layout.
pub(crate) fn mark(directory: &Path) -> Result<()> {
    write_file(&directory.join(LAYOUT_FILE), &mut LAYOUT_MARK.as_bytes())
}

/// Adds entries to the index of a layout, in the place of those of the same name.
pub(crate) fn add_entries(directory: &Path, entries: Vec<Descriptor>) -> Result<()> {
    let mut index = read_index(directory)?.unwrap_or_else(Index::empty);
    for entry in entries {
        let name = shown_name(&entry).map(str::to_owned);
        index.manifests.retain(|other| {
            let same_name = name.as_deref() == shown_name(other);
            !(same_name && (name.is_some() || other.digest == entry.digest))
        });
        index.manifests.push(entry);
    }
    let bytes = serde_json::to_vec(&index).map_err(Error::json(INDEX_FILE))?;
    write_file(&directory.join(INDEX_FILE), &mut bytes.as_slice())
}

/// The entries of an index for an image: one for each name, or one without a name.
pub(crate) fn entries(image: &Image, packed: &Packed, names: &[Reference]) -> Vec<Descriptor> {
    let mut plain = Descriptor::new(&packed.media_type, packed.digest, packed.bytes.len() as u64);
    plain.platform = Some(image.platform());
    let named: Vec<Descriptor> = names.iter().filter_map(|name| named(plain.clone(), name)).collect();
    if named.is_empty() { vec![plain] } else { named }
}

/// The entry with a reference's name, if it has a tag.
pub(crate) fn named(mut entry: Descriptor, name: &Reference) -> Option<Descriptor> {
    entry.annotations.insert(IMAGE_NAME.to_owned(), name.tagged_name());
    entry.annotations.insert(REF_NAME.to_owned(), name.tag()?.to_owned());
    Some(entry)
}

/// The entry with a name of the user's own, as skopeo writes it.
pub(crate) fn named_by(mut entry: Descriptor, name: &str) -> Descriptor {
    entry.annotations.insert(REF_NAME.to_owned(), name.to_owned());
    entry
}

/// The name an entry is told by.
pub(crate) fn shown_name(entry: &Descriptor) -> Option<&str> {
    entry.annotations.get(IMAGE_NAME).or(entry.annotations.get(REF_NAME)).map(String::as_str)
}

/// Whether an entry is called so, in short or in full.
pub(crate) fn has_name(entry: &Descriptor, name: &str) -> bool {
    let full = Reference::parse(name).ok().map(|name| name.tagged_name());
    let is = |key: &str| entry.annotations.get(key).is_some_and(|known| known == name || Some(known) == full.as_ref());
    is(REF_NAME) || is(IMAGE_NAME)
}

/// The media type of a layer by its first bytes.
pub(crate) fn layer_type(start: &[u8]) -> &'static str {
    match start {
        [0x1f, 0x8b, ..] => "application/vnd.oci.image.layer.v1.tar+gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "application/vnd.oci.image.layer.v1.tar+zstd",
        _ => OCI_LAYER,
    }
}

/// Reads every image of a layout directory; of those for several platforms, that for `platform`, or else this machine's.
///
/// # Errors
/// It is no layout, or damaged; an image is not made for `platform`.
pub fn load(store: &Store, directory: &Path, platform: Option<&Platform>) -> Result<Vec<(Image, Vec<Reference>)>> {
    let Some(index) = read_index(directory)? else {
        return Err(Error::invalid(directory.display().to_string(), "not an OCI image layout: it has no index.json"));
    };
    load_index(store, &index, platform, &mut |blob| fetch(store, directory, blob))
}

/// Reads one image of a layout directory for a platform: that of a tag, name or digest, or its only one.
///
/// # Errors
/// There is no such image, or there are several and none was named.
pub fn load_one(store: &Store, directory: &Path, wanted: Option<&str>, platform: &Platform) -> Result<Image> {
    let what = || directory.display().to_string();
    let Some(index) = read_index(directory)? else {
        return Err(Error::invalid(what(), "not an OCI image layout: it has no index.json"));
    };
    let digest: Option<Digest> = wanted.and_then(|wanted| wanted.parse().ok());
    let is_wanted = |entry: &&Descriptor| match (wanted, digest) {
        (None, _) => true,
        (_, Some(digest)) => entry.digest == digest,
        (Some(wanted), None) => [REF_NAME, IMAGE_NAME].iter().any(|name| {
            entry.annotations.get(*name).is_some_and(|name| name == wanted || name.ends_with(&format!(":{wanted}")))
        }),
    };
    let mut found: Vec<&Descriptor> = index.manifests.iter().filter(is_wanted).collect();
    found.dedup_by_key(|entry| entry.digest);
    let best: Vec<&Descriptor> = match found.as_slice() {
        [_] => found,
        // Without a name, the entries may be one image for several platforms.
        _ => index.candidates(platform).into_iter().filter(|entry| found.contains(entry)).take(1).collect(),
    };
    let Some(entry) = best.first() else {
        let reason = format!("it has no image {} for {platform}", wanted.unwrap_or_default());
        return Err(Error::invalid(what(), reason));
    };
    load_entry(store, entry, &[], Wanted { platform, required: false }, &mut |blob| fetch(store, directory, blob), 0)
}

/// Loads what an index names. `fetch` brings a blob into the store, or leaves it out when it is nowhere.
pub(crate) fn load_index(
    store: &Store,
    index: &Index,
    platform: Option<&Platform>,
    fetch: &mut dyn FnMut(&Descriptor) -> Result<()>,
) -> Result<Vec<(Image, Vec<Reference>)>> {
    let mut images: Vec<(Image, Vec<Reference>)> = Vec::new();
    if index.manifests.len() > ENTRY_LIMIT {
        return Err(Error::invalid(INDEX_FILE, format!("more than {ENTRY_LIMIT} entries")));
    }
    let host = Platform::host();
    let wanted = Wanted { platform: platform.unwrap_or(&host), required: platform.is_some() };
    for entry in &index.manifests {
        let names: Vec<Reference> = name_of(entry).into_iter().collect();
        let image = load_entry(store, entry, &names, wanted, fetch, 0)?;
        match images.iter_mut().find(|(known, _)| known.id == image.id) {
            Some((_, known)) => {
                let new: Vec<Reference> = names.into_iter().filter(|name| !known.contains(name)).collect();
                known.extend(new);
            }
            None => images.push((image, names)),
        }
    }
    Ok(images)
}

/// Which image is loaded.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    platform: &'a Platform,
    /// No other will do, even if it is the only one.
    required: bool,
}

fn load_entry(
    store: &Store,
    entry: &Descriptor,
    names: &[Reference],
    wanted: Wanted<'_>,
    fetch: &mut dyn FnMut(&Descriptor) -> Result<()>,
    depth: usize,
) -> Result<Image> {
    fetch(entry)?;
    let what = format!("manifest {}", entry.digest);
    let bytes = store.blobs().read(&entry.digest, DOCUMENT_LIMIT)?;
    match Document::parse(&bytes, &what)? {
        Document::Manifest(manifest) => {
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                fetch(blob)?;
            }
            if wanted.required {
                check_platform(store, &manifest.config.digest, wanted.platform, names)?;
            }
            unpack(store, &manifest, Some(entry.digest), names)
        }
        Document::Index(_) if depth >= DEPTH_LIMIT => Err(Error::invalid(what, "indexes are nested too deeply")),
        Document::Index(index) => {
            // An archive of one platform may keep the index of all of them.
            for candidate in index.candidates(wanted.platform) {
                fetch(candidate)?;
                if store.blobs().size(&candidate.digest)?.is_some() {
                    return load_entry(store, candidate, names, wanted, fetch, depth + 1);
                }
            }
            Err(index.no_platform(wanted.platform, &what))
        }
    }
}

/// Whether a config is that of an image for this platform.
pub(crate) fn check_platform(store: &Store, config: &Digest, wanted: &Platform, names: &[Reference]) -> Result<()> {
    let found = read_config(store, config)?.platform();
    if wanted.accepts(&found) {
        return Ok(());
    }
    let what = names.first().map_or_else(|| config.to_string(), Reference::familiar);
    Err(Error::NoPlatform { what, platform: wanted.to_string(), available: found.to_string() })
}

/// The name of an entry: the full one, or a reference that is more than a tag.
fn name_of(entry: &Descriptor) -> Option<Reference> {
    let full = entry.annotations.get(IMAGE_NAME);
    let short = entry.annotations.get(REF_NAME).filter(|name| name.contains(['/', ':']));
    full.or(short).and_then(|name| Reference::parse(name).ok())
}

/// `blobs/sha256/<hex>`: the digest that a name promises.
pub(crate) fn digest_of_name(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

fn blob_path(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join(blob_name(digest))
}

pub(crate) fn blob_name(digest: &Digest) -> PathBuf {
    Path::new("blobs").join(digest.algorithm().name()).join(digest.hex())
}

/// Copies a blob of the layout into the store, unless it is there or the layout does not have it.
fn fetch(store: &Store, directory: &Path, blob: &Descriptor) -> Result<()> {
    if store.blobs().size(&blob.digest)?.is_some() {
        return Ok(());
    }
    let name = blob_name(&blob.digest);
    let Some(file) = open_below(directory, &name)? else { return Ok(()) };
    let mut writer = store.blobs().writer(blob.digest.algorithm())?;
    let size = std::io::copy(&mut file.take(blob.size.saturating_add(1)), &mut writer)
        .map_err(Error::io("read", &directory.join(&name)))?;
    if size != blob.size {
        let reason =
            format!("it should have {} bytes, and has {}", blob.size, if size > blob.size { "more" } else { "less" });
        return Err(Error::invalid(format!("blob {}", blob.digest), reason));
    }
    writer.commit(Some(&blob.digest), false)?;
    Ok(())
}

pub(crate) fn read_index(directory: &Path) -> Result<Option<Index>> {
    let Some(file) = open_below(directory, Path::new(INDEX_FILE))? else { return Ok(None) };
    let path = directory.join(INDEX_FILE);
    let mut bytes = Vec::new();
    file.take(DOCUMENT_LIMIT + 1).read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
    if bytes.len() as u64 > DOCUMENT_LIMIT {
        return Err(Error::invalid(path.display().to_string(), format!("longer than {DOCUMENT_LIMIT} bytes")));
    }
    serde_json::from_slice(&bytes).map(Some).map_err(Error::json(path.display().to_string()))
}

/// Opens a regular file of the layout; a symlink cannot lead out of it. `None` when there is none.
pub(crate) fn open_below(directory: &Path, name: &Path) -> Result<Option<File>> {
    let path = directory.join(name);
    let failed = |error: rustix::io::Errno| Error::io("open", &path)(error.into());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = match rustix::fs::open(directory, flags, Mode::empty()) {
        Ok(root) => root,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(&root, name, flags, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if !file.metadata().map_err(Error::io("open", &path))?.is_file() {
        return Err(Error::invalid(path.display().to_string(), "not a regular file"));
    }
    Ok(Some(file))
}

/// Writes a file, which appears when it is whole.
pub(crate) fn write_file(path: &Path, content: &mut dyn Read) -> Result<()> {
    let failed = || Error::io("write", path);
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(failed())?;
    let mut file = WholeFile::new(path, 0o644).map_err(failed())?;
    std::io::copy(content, file.file()).map_err(failed())?;
    file.place().map_err(failed())
}
