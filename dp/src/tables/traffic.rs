//! Packet and octet counters of a link or circuit: a cell per worker, so that nobody contends.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam::utils::CachePadded;

/// Counters that live as long as their link or circuit, over all snapshots.
#[derive(Debug)]
pub struct Traffic {
    cells: Box<[CachePadded<Cell>]>,
}

/// One worker's share.
#[derive(Default, Debug)]
struct Cell {
    received_packets: AtomicU64,
    received_bytes: AtomicU64,
    sent_packets: AtomicU64,
    sent_bytes: AtomicU64,
}

/// Sums over workers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TrafficTotals {
    /// Packets that came out of it.
    pub received_packets: u64,
    /// Their octets.
    pub received_bytes: u64,
    /// Packets that went into it.
    pub sent_packets: u64,
    /// Their octets.
    pub sent_bytes: u64,
}

/// Adds where only one thread writes: no locked instruction.
#[inline]
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

impl Traffic {
    /// Zeroes for this many workers.
    pub fn new(workers: usize) -> Self {
        Self {
            cells: (0..workers).map(|_| CachePadded::default()).collect(),
        }
    }

    /// Counts one received packet. Only worker `worker`'s thread may call it.
    #[inline]
    pub fn received(&self, worker: usize, bytes: usize) {
        if let Some(cell) = self.cells.get(worker) {
            add(&cell.received_packets, 1);
            add(&cell.received_bytes, bytes as u64);
        }
    }

    /// Counts one sent packet. Only worker `worker`'s thread may call it.
    #[inline]
    pub fn sent(&self, worker: usize, bytes: usize) {
        if let Some(cell) = self.cells.get(worker) {
            add(&cell.sent_packets, 1);
            add(&cell.sent_bytes, bytes as u64);
        }
    }

    /// The sums, each no older than the call.
    pub fn totals(&self) -> TrafficTotals {
        self.cells
            .iter()
            .fold(TrafficTotals::default(), |sum, cell| TrafficTotals {
                received_packets: sum.received_packets + cell.received_packets.load(Relaxed),
                received_bytes: sum.received_bytes + cell.received_bytes.load(Relaxed),
                sent_packets: sum.sent_packets + cell.sent_packets.load(Relaxed),
                sent_bytes: sum.sent_bytes + cell.sent_bytes.load(Relaxed),
            })
    }
}
