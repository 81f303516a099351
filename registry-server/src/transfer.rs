//! How much memory the blobs that are on their way may take, together.

use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that all transfers' buffers may take, as long as each still has [`SMALLEST_CHUNK`].
const BUDGET: usize = 8 << 20;
/// A transfer holds at most so many chunks: one that is read or written, one on its way, one in the connection.
const CHUNKS: usize = 3;
/// Bytes of a chunk when few transfers run. Small reads halve the throughput, larger ones gain nothing.
const LARGEST_CHUNK: usize = 512 << 10;
/// Bytes of a chunk when very many run.
const SMALLEST_CHUNK: usize = 8 << 10;
/// Buffers that are kept for later: an allocator would keep more, in places where others cannot use it.
const IDLE_BUFFERS: usize = 16;

/// The transfers of one server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Transfers(Arc<Shared>);

/// One of them; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Transfer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    running: AtomicUsize,
    idle: Mutex<Vec<Vec<u8>>>,
}

/// Bytes to fill, whose memory goes back to the transfers when this is dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    length: usize,
    shared: Arc<Shared>,
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transfers {
    pub(crate) fn begin(&self) -> Transfer {
        self.0.running.fetch_add(1, Ordering::Relaxed);
        Transfer(Arc::clone(&self.0))
    }
}

impl Transfer {
    /// Whether no other one runs.
    pub(crate) fn is_alone(&self) -> bool {
        self.0.running.load(Ordering::Relaxed) <= 1
    }

    /// Bytes that the next chunk should have: a multiple of [`SMALLEST_CHUNK`], and so of a page.
    pub(crate) fn chunk(&self) -> usize {
        let transfers = self.0.running.load(Ordering::Relaxed).max(1);
        (BUDGET / CHUNKS / transfers / SMALLEST_CHUNK * SMALLEST_CHUNK).clamp(SMALLEST_CHUNK, LARGEST_CHUNK)
    }

    /// A buffer for the next chunk, of at most `most` bytes.
    pub(crate) fn buffer(&self, most: u64) -> Buffer {
        let length = usize::try_from(most).unwrap_or(usize::MAX).min(self.chunk());
        let idle = (length >= SMALLEST_CHUNK).then(|| self.0.idle().pop()).flatten();
        let fitting = idle.filter(|bytes| (length..=length.saturating_mul(2)).contains(&bytes.len()));
        let bytes = fitting.unwrap_or_else(|| vec![0; length]);
        Buffer { bytes, length, shared: Arc::clone(&self.0) }
    }
}

impl Buffer {
    /// What is to be filled.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.length).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.len() >= SMALLEST_CHUNK {
            let mut idle = self.shared.idle();
            if idle.len() < IDLE_BUFFERS {
                idle.push(mem::take(&mut self.bytes));
            }
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_and_never_longer_than_asked_for() {
        let transfers = Transfers::default();
        let transfer = transfers.begin();
        for (most, length) in [(0, 0), (5, 5), (100_000, 100_000), (u64::MAX, LARGEST_CHUNK)] {
            let mut buffer = transfer.buffer(most);
            assert_eq!((buffer.as_mut_slice().len(), buffer.as_ref().len()), (length, length));
        }
        assert_eq!(transfers.0.idle.lock().unwrap().len(), 1);
        drop((0..100).map(|_| transfer.buffer(u64::MAX)).collect::<Vec<_>>());
        assert_eq!(transfers.0.idle.lock().unwrap().len(), IDLE_BUFFERS);
    }

    #[test]
    fn chunks_shrink_as_transfers_grow() {
        let transfers = Transfers::default();
        let first = transfers.begin();
        assert_eq!(first.chunk(), LARGEST_CHUNK);
        let others: Vec<Transfer> = (0..100).map(|_| transfers.begin()).collect();
        assert!(first.chunk() < LARGEST_CHUNK && first.chunk() * CHUNKS * 101 <= BUDGET);
        assert!(!first.is_alone());
        drop(others);
        assert!(first.is_alone());
        assert_eq!(first.chunk(), LARGEST_CHUNK);
    }
}
