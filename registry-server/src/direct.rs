//! Parts of files on their way from the page cache into a connection. They are read where and when the connection can
//! take them, so that however many clients there are, no buffer and no thread waits for any of them.
//!
//! The HTTP library writes bytes. So a body says where in its stream a part of a file belongs by bytes that only stand
//! for it: slices of a region that nobody ever reads or fills. The connection knows them by their address, and writes
//! what they stand for. Parts leave in the order in which they were placed, since a connection's answers do.
//!
//! `sendfile` would save a copy, but page by page: reading pieces that stay in the processor's cache is faster.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::fs::fstatfs;
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::memory::TMPFS;

/// Bytes of the longest part that is placed at once.
pub(crate) const LONGEST_PART: usize = 1 << 20;
/// Of so many bytes one is looked for in the page cache: what is read ahead comes in runs as long or longer.
const STRIDE: usize = 64 << 10;
/// Bytes that are read and written at once.
const PIECE: usize = 64 << 10;

/// Address space without memory: its pages are never touched.
static STAND_IN: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![0; LONGEST_PART]));

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What waits to be sent over one connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct FileParts(Arc<Mutex<VecDeque<Part>>>);

#[derive(Debug)]
struct Part {
    file: Arc<File>,
    offset: u64,
    left: usize,
}

impl FileParts {
    /// Bytes to be written to this connection, and to no other, where `length` bytes of the file from `offset` on shall
    /// be; of these, at most [`LONGEST_PART`].
    pub(crate) fn place(&self, file: &Arc<File>, offset: u64, length: u64) -> Bytes {
        let left = usize::try_from(length).unwrap_or(LONGEST_PART).min(LONGEST_PART);
        self.waiting().push_back(Part { file: Arc::clone(file), offset, left });
        STAND_IN.slice(..left)
    }

    /// Writes what bytes of this length stand for, as much as the connection takes at once.
    fn poll_write(
        &self,
        connection: Pin<&mut impl AsyncWrite>,
        context: &mut Context<'_>,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        let mut parts = self.waiting();
        let Some(part) = parts.front_mut() else {
            return Poll::Ready(Err(io::Error::other("a file's part was written to another connection")));
        };
        let count = BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(PIECE, 0);
            let wanted = buffer.get_mut(..part.left.min(length).min(PIECE)).unwrap_or_default();
            let count = retry_on_interrupt(|| part.file.read_at(wanted, part.offset))?;
            match wanted.get(..count) {
                None | Some([]) => {
                    let reason = "the file became shorter while it was sent";
                    Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason)))
                }
                Some(bytes) => connection.poll_write(context, bytes),
            }
        });
        let count = ready!(count)?;
        part.offset += count as u64;
        part.left -= count;
        if part.left == 0 {
            parts.pop_front();
        }
        Poll::Ready(Ok(count))
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Part>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn retry_on_interrupt(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whether these bytes stand for others.
fn stands_in(bytes: &[u8]) -> bool {
    !bytes.is_empty() && STAND_IN.as_ptr_range().contains(&bytes.as_ptr())
}

/// A connection that sends placed parts.
#[derive(Debug)]
pub(crate) struct DirectStream<S> {
    stream: S,
    parts: FileParts,
}

impl<S> DirectStream<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, parts: FileParts::default() }
    }

    /// Where parts are placed that this connection is to send.
    pub(crate) fn parts(&self) -> FileParts {
        self.parts.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for DirectStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for DirectStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream, parts } = &mut *self;
        if stands_in(bytes) {
            return parts.poll_write(Pin::new(stream), context, bytes.len());
        }
        Pin::new(stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let real = slices.iter().position(|bytes| stands_in(bytes)).unwrap_or(slices.len());
        let (real, placed) = slices.split_at(real);
        let Self { stream, parts } = &mut *self;
        match placed.first() {
            Some(first) if real.iter().all(|bytes| bytes.is_empty()) => {
                parts.poll_write(Pin::new(stream), context, first.len())
            }
            _ => Pin::new(stream).poll_write_vectored(context, real),
        }
    }

    /// Always: bytes that were gathered elsewhere first would lose their address.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Whether this part of the file seems to be in memory, so that reading it does not wait for the disk.
pub(crate) fn is_cached(file: &File, offset: u64, length: u64) -> bool {
    let last = length.saturating_sub(1);
    let samples = (0..last).step_by(STRIDE).chain([last]);
    samples.map(|sample| offset.saturating_add(sample)).all(|sample| {
        let mut byte = [0];
        match preadv2(file, &mut [IoSliceMut::new(&mut byte)], sample, ReadWriteFlags::NOWAIT) {
            // At the end of a file that is too short nothing waits.
            Ok(_) => true,
            Err(Errno::OPNOTSUPP) => {
                fstatfs(file).is_ok_and(|system| u64::try_from(system.f_type).is_ok_and(|kind| kind == TMPFS))
            }
            Err(_) => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn parts_are_sent_between_other_bytes_and_in_their_order() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).take(3_000_000).collect();
        file.write_all(&content).unwrap();
        let file = Arc::new(file);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut server = DirectStream::new(listener.accept().await.unwrap().0);
        let parts = server.parts();
        let writing = tokio::spawn(async move {
            let first = parts.place(&file, 1_000, 2_000_000);
            let second = parts.place(&file, 1_000_000, 500);
            assert_eq!((first.len(), second.len()), (LONGEST_PART, 500));
            let head: &[u8] = b"head";
            let mut rest: Vec<Bytes> = vec![head.into(), first, Bytes::new(), second, head.into()];
            while !rest.is_empty() {
                let slices: Vec<IoSlice<'_>> = rest.iter().map(|bytes| IoSlice::new(bytes)).collect();
                let mut count = server.write_vectored(&slices).await.unwrap();
                while let Some(bytes) = rest.first_mut().filter(|bytes| count > 0 || bytes.is_empty()) {
                    let taken = bytes.split_to(count.min(bytes.len()));
                    count -= taken.len();
                    if bytes.is_empty() {
                        rest.remove(0);
                    }
                }
            }
        });
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        writing.await.unwrap();
        let expected =
            [b"head", &content[1_000..1_000 + LONGEST_PART], &content[1_000_000..1_000_500], b"head"].concat();
        assert!(received == expected, "{} bytes, not {}", received.len(), expected.len());
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_breaks_the_connection() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut server = DirectStream::new(listener.accept().await.unwrap().0);
        let placed = server.parts().place(&file, 0, 10);
        assert_eq!(server.write(&placed).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        // Nor is anything sent that was placed elsewhere.
        assert!(server.parts().waiting().pop_front().is_some());
        assert!(server.write(&placed).await.is_err());
    }

    #[test]
    fn what_was_just_written_is_cached() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 200_000]).unwrap();
        assert!(is_cached(&file, 0, 200_000) && is_cached(&file, 199_999, 1) && is_cached(&file, 0, 0));
    }
}
