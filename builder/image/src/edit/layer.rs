//! Tar files that become layers.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use kiln_store::digest::Algorithm;
use kiln_store::layer::{Compression, compress_stream};
use kiln_store::{Blobs, DiffId, Digest};

use crate::archive::entries::Entries;
use crate::hashed::Hashed;
use crate::layout::layer_type;
use crate::manifest::{Descriptor, OCI_LAYER};
use crate::registry::content::Content;
use crate::{Error, Result};

/// A layer that is not in any image yet.
pub(super) struct NewLayer {
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: DiffId,
    pub(super) content: Content,
}

/// A tar file as a layer: as it is when it is compressed, by gzip when it is not.
pub(super) fn of_file(path: &Path, blobs: &Blobs) -> Result<NewLayer> {
    let failed = || Error::io("read", path);
    let mut file = File::open(path).map_err(failed())?;
    let mut writer = blobs.writer(Algorithm::Sha256)?;
    let mut start = Vec::new();
    Read::by_ref(&mut file).take(4).read_to_end(&mut start).map_err(failed())?;
    let media_type = layer_type(&start);
    let mut whole = io::Cursor::new(start).chain(file);
    let diff_id = if media_type == OCI_LAYER {
        let mut plain = Hashed::new(&mut whole, Algorithm::Sha256);
        compress_stream(&mut plain, Compression::Gzip, &mut writer)?;
        Some(plain.finish().1)
    } else {
        io::copy(&mut whole, &mut writer).map_err(failed())?;
        None
    };
    writer.flush().map_err(Error::stream("write a blob"))?;
    let (digest, size) = writer.commit(None, false)?;
    let file = blobs.get(&digest)?.ok_or(kiln_store::Error::BlobMissing(digest))?;
    let read = diff_id_of(file.try_clone().map_err(failed())?).map_err(|error| match error {
        Error::Invalid { reason, .. } => Error::invalid(path.display().to_string(), reason),
        other => other,
    })?;
    let media_type = if media_type == OCI_LAYER { Compression::Gzip.media_type() } else { media_type };
    Ok(NewLayer {
        descriptor: Descriptor::new(media_type, digest, size),
        diff_id: diff_id.unwrap_or(read),
        content: Content::File { file: Arc::new(file), offset: 0 },
    })
}

/// The diffID of a layer's blob, which must be a tar.
pub(crate) fn diff_id_of(mut blob: File) -> Result<Digest> {
    let failed = || Error::stream("read a layer");
    let mut start = Vec::new();
    Read::by_ref(&mut blob).take(4).read_to_end(&mut start).map_err(failed())?;
    let compressed = layer_type(&start);
    let whole = io::Cursor::new(start).chain(io::BufReader::with_capacity(1 << 20, blob));
    let mut plain: Box<dyn Read> = match compressed {
        OCI_LAYER => Box::new(whole),
        gzip if gzip.ends_with("gzip") => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        _ => Box::new(zstd::Decoder::new(whole).map_err(failed())?),
    };
    let mut hashing = Hashed::new(&mut plain, Algorithm::Sha256);
    let mut entries = Entries::new(&mut hashing);
    while entries.next()?.is_some() {}
    io::copy(&mut hashing, &mut io::sink()).map_err(failed())?;
    Ok(hashing.finish().1)
}
