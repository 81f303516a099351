//! Blobs that lie in a file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use kiln_store::digest::{Algorithm, Hasher};
use kiln_store::layer::{Compression, compress_stream};
use kiln_store::{Blobs, Digest};

use crate::image::DOCUMENT_LIMIT;
use crate::layout;
use crate::manifest::OCI_LAYER;
use crate::{Error, Result};

/// A place in a file, in bytes.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) file: Arc<File>,
    pub(super) offset: u64,
    pub(super) size: u64,
}

impl Part {
    /// A small document.
    pub(super) fn read(&self, what: &str) -> Result<Vec<u8>> {
        if self.size > DOCUMENT_LIMIT {
            return Err(Error::invalid(what.to_owned(), format!("longer than {DOCUMENT_LIMIT} bytes")));
        }
        let mut bytes = vec![0; usize::try_from(self.size).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut bytes, self.offset).map_err(Error::stream("read the archive"))?;
        Ok(bytes)
    }

    /// Its bytes from the first on.
    pub(super) fn reader(&self) -> PartReader {
        PartReader { part: self.clone(), position: 0 }
    }

    /// A small document's digest.
    pub(super) fn digest(&self) -> Result<Digest> {
        Ok(Digest::of(&self.read("image config")?))
    }

    /// The layer as it is, when it is compressed, and else compressed.
    pub(super) fn compressed(self, blobs: &Blobs) -> Result<(Self, Digest, &'static str)> {
        let mut start = Vec::new();
        self.reader().take(4).read_to_end(&mut start).map_err(Error::stream("read the archive"))?;
        let media_type = layout::layer_type(&start);
        if media_type != OCI_LAYER {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            io::copy(&mut self.reader(), &mut hasher).map_err(Error::stream("read the archive"))?;
            return Ok((self, hasher.finish(), media_type));
        }
        let mut writer = blobs.writer(Algorithm::Sha256)?;
        compress_stream(&mut self.reader(), Compression::Gzip, &mut writer)?;
        let (digest, size) = writer.commit(None, false)?;
        let file = blobs.get(&digest)?.ok_or(kiln_store::Error::BlobMissing(digest))?;
        Ok((Self { file: Arc::new(file), offset: 0, size }, digest, Compression::Gzip.media_type()))
    }
}

/// Reads a part, wherever others read in its file.
pub(super) struct PartReader {
    part: Part,
    position: u64,
}

impl Read for PartReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.part.size - self.position;
        let most = usize::try_from(rest).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.part.file.read_at(&mut buffer[..most], self.part.offset + self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}
