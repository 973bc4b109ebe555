//! A ring of records between one writer and one reader, as a rule a worker and another thread: filled ones go one way, empty
//! ones back.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam::queue::ArrayQueue;

use twinseal_fib::traffic::add;

pub(in crate::workers) struct Ring<T> {
    full: ArrayQueue<T>,
    empty: ArrayQueue<T>,
    /// Written by the writer alone.
    lost: AtomicU64,
}

impl<T> Ring<T> {
    pub(in crate::workers) fn new(depth: usize, make: impl Fn() -> T) -> Self {
        let depth = depth.max(1);
        let ring = Self {
            full: ArrayQueue::new(depth),
            empty: ArrayQueue::new(depth),
            lost: AtomicU64::new(0),
        };
        for _ in 0..depth {
            // There is room for all of them.
            let _ = ring.empty.push(make());
        }
        ring
    }

    /// False if the reader is behind: one is lost.
    pub(in crate::workers) fn put(&self, fill: impl FnOnce(&mut T)) -> bool {
        let Some(mut record) = self.empty.pop() else {
            add(&self.lost, 1);
            return false;
        };
        fill(&mut record);
        // There are as many records as each queue has room for.
        let _ = self.full.push(record);
        true
    }

    /// False if there is none.
    pub(in crate::workers) fn take(&self, read: impl FnOnce(&mut T)) -> bool {
        let Some(mut record) = self.full.pop() else {
            return false;
        };
        read(&mut record);
        let _ = self.empty.push(record);
        true
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}
