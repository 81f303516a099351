//! Where the bytes of an upload come from.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::stream;
use reqwest::Body;
use tokio_util::bytes::Bytes;

use super::download::Download;
use super::repository::Repository;
use crate::manifest::Descriptor;

/// Bytes of one piece of an upload.
const PIECE: u64 = 512 << 10;

/// The content of a blob that can be had as often as it is sent.
#[derive(Clone)]
pub(crate) enum Content {
    /// A part of a file: a blob, or an entry of an archive.
    File {
        /// Open for reading; its position does not matter.
        file: Arc<File>,
        /// Where the blob begins.
        offset: u64,
    },
    /// Another registry.
    Remote(Repository),
}

impl Content {
    /// The whole content as a request's body; `sent` counts its bytes.
    pub(super) fn body(&self, blob: &Descriptor, sent: &Arc<AtomicU64>) -> Body {
        sent.store(0, Ordering::Relaxed);
        let sent = Arc::clone(sent);
        match self {
            Self::File { file, offset } => {
                let (file, end) = (Arc::clone(file), offset.saturating_add(blob.size));
                Body::wrap_stream(stream::try_unfold(*offset, move |position| {
                    let (file, sent) = (Arc::clone(&file), Arc::clone(&sent));
                    async move {
                        if position == end {
                            return Ok(None);
                        }
                        let piece = read_at(file, position, PIECE.min(end - position)).await?;
                        sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                        let next = position + piece.len() as u64;
                        Ok::<_, io::Error>(Some((piece, next)))
                    }
                }))
            }
            Self::Remote(repository) => {
                let download = Download::start(repository, blob);
                Body::wrap_stream(stream::try_unfold(download, move |mut download| {
                    let sent = Arc::clone(&sent);
                    async move {
                        let Some(piece) = download.next().await? else { return Ok(None) };
                        sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                        Ok::<_, crate::Error>(Some((piece, download)))
                    }
                }))
            }
        }
    }
}

/// Reads a piece on a thread that may block.
pub(crate) async fn read_at(file: Arc<File>, position: u64, length: u64) -> io::Result<Bytes> {
    let reading = tokio::task::spawn_blocking(move || {
        let mut piece = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        let count = loop {
            match file.read_at(&mut piece, position) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a blob is shorter than it should be"));
        }
        piece.truncate(count);
        Ok(Bytes::from(piece))
    });
    reading.await.map_err(io::Error::other)?
}
