//! How much memory the blobs that are on their way may take, together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that all transfers' buffers may take, as long as each still has [`SMALLEST_CHUNK`].
const BUDGET: usize = 24 << 20;
/// A transfer holds at most so many chunks: one that is read or written, one on its way, one in the connection.
const CHUNKS: usize = 3;
/// Bytes of a chunk when few transfers run. Small reads halve the throughput, larger ones gain nothing.
const LARGEST_CHUNK: usize = 512 << 10;
/// Bytes of a chunk when very many run.
const SMALLEST_CHUNK: usize = 32 << 10;

/// The transfers of one server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Transfers(Arc<AtomicUsize>);

/// One of them; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Transfer(Arc<AtomicUsize>);

impl Transfers {
    pub(crate) fn begin(&self) -> Transfer {
        self.0.fetch_add(1, Ordering::Relaxed);
        Transfer(Arc::clone(&self.0))
    }
}

impl Transfer {
    /// Bytes that the next chunk should have.
    pub(crate) fn chunk(&self) -> usize {
        let transfers = self.0.load(Ordering::Relaxed).max(1);
        (BUDGET / CHUNKS / transfers).clamp(SMALLEST_CHUNK, LARGEST_CHUNK)
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_shrink_as_transfers_grow() {
        let transfers = Transfers::default();
        let first = transfers.begin();
        assert_eq!(first.chunk(), LARGEST_CHUNK);
        let others: Vec<Transfer> = (0..100).map(|_| transfers.begin()).collect();
        assert!(first.chunk() < LARGEST_CHUNK && first.chunk() * CHUNKS * 101 <= BUDGET);
        drop(others);
        assert_eq!(first.chunk(), LARGEST_CHUNK);
    }
}
