//! Writing one tar that docker and every reader of OCI layouts understand.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use kiln_store::layer::Compression;
use kiln_store::{Blobs, Digest, Store};
use tar::{Builder, EntryType, Header};

use super::docker::DockerImage;
use crate::bundle::{PackedBundle, save_archive};
use crate::layout::{self, LAYOUT_FILE, LAYOUT_MARK};
use crate::manifest::Index;
use crate::{Error, Image, Reference, Result};

/// Writes images, each with its names (as `docker save`), readable as docker archive and as OCI layout.
pub fn save(
    store: &Store,
    images: &[(Image, Vec<Reference>)],
    compression: Compression,
    out: &mut dyn Write,
) -> Result<()> {
    let packed = images.iter().map(|(image, _)| PackedBundle::of_image(store, image, compression));
    let packed = packed.collect::<Result<Vec<_>>>()?;
    let bundles: Vec<(&PackedBundle, &[Reference])> =
        packed.iter().zip(images).map(|(bundle, (_, names))| (bundle, names.as_slice())).collect();
    save_archive(store, &bundles, out)
}

/// Writes the archive of blobs, each with its size, and the documents that say what they are.
pub(crate) fn write(
    blobs: &Blobs,
    parts: BTreeMap<Digest, u64>,
    index: &Index,
    docker: &[DockerImage],
    out: &mut dyn Write,
) -> Result<()> {
    let mut archive = Archive { tar: Builder::new(out) };
    archive.blobs(blobs, parts)?;
    archive.document("index.json", index)?;
    if !docker.is_empty() {
        archive.document("manifest.json", &docker)?;
    }
    archive.file(LAYOUT_FILE, LAYOUT_MARK.len() as u64, &mut LAYOUT_MARK.as_bytes())?;
    archive.tar.finish().map_err(Error::stream("write the archive"))
}

fn blob_name(digest: &Digest) -> String {
    layout::blob_name(digest).to_string_lossy().into_owned()
}

struct Archive<'a> {
    tar: Builder<&'a mut dyn Write>,
}

impl Archive<'_> {
    fn blobs(&mut self, blobs: &Blobs, parts: BTreeMap<Digest, u64>) -> Result<()> {
        self.directory("blobs/")?;
        let mut algorithm = "";
        for (digest, size) in parts {
            if digest.algorithm().name() != algorithm {
                algorithm = digest.algorithm().name();
                self.directory(&format!("blobs/{algorithm}/"))?;
            }
            let name = blob_name(&digest);
            let mut file = blobs.get(&digest)?.ok_or(kiln_store::Error::BlobMissing(digest))?;
            self.file(&name, size, &mut file)?;
        }
        Ok(())
    }

    fn document(&mut self, name: &str, document: &impl serde::Serialize) -> Result<()> {
        let bytes = serde_json::to_vec(document).map_err(Error::json(name))?;
        self.file(name, bytes.len() as u64, &mut bytes.as_slice())
    }

    fn directory(&mut self, name: &str) -> Result<()> {
        let mut header = header(EntryType::Directory, 0o755, 0);
        let result = self.tar.append_data(&mut header, name, std::io::empty());
        result.map_err(Error::stream("write the archive"))
    }

    fn file(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<()> {
        let mut header = header(EntryType::Regular, 0o644, size);
        let mut content = Exactly { content, rest: size };
        let result = self.tar.append_data(&mut header, name, &mut content);
        result.map_err(Error::stream("write the archive"))
    }
}

/// The same for every archive: no time, no owner.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

/// A reader that fails when its content is shorter than the header has said.
struct Exactly<'a> {
    content: &'a mut dyn Read,
    rest: u64,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.rest).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.content.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "a blob is shorter than it should be"));
        }
        self.rest -= count as u64;
        Ok(count)
    }
}
