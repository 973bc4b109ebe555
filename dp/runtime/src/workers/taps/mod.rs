//! Taps: copies of packets for an operator who looks, as [`capture`] of ports and as [`trace`](twinseal_forward::trace)s
//! of the pipeline. (TAP devices are another thing: [`crate::ports::tap`].)
//!
//! A worker has a list of the taps that are open, empty as a rule; it looks at that once a loop. Each tap has for each
//! worker a ring of records that were allocated when it was opened: the worker fills the next empty one, and if there is
//! none because nobody reads, counts one as lost and goes on. So a tap costs packets some copying, and never waits,
//! allocates or wakes anybody. It ends by count, by time, or because its reader let go; the worker then takes it off its
//! list, and the control thread frees its memory.

pub mod capture;
mod filter;
pub(super) mod ring;
pub mod trace;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

pub use filter::{Filter, Net};
use ring::Ring;

/// An open tap, whose records are `T`.
pub struct Tap<T> {
    rings: Vec<Ring<T>>,
    /// Records that it may still take.
    left: AtomicU64,
    ended: AtomicBool,
}

impl<T: Send> Tap<T> {
    /// For so many workers, each with `depth` records made by `make`, and ending after `count` of them in all.
    pub fn new(workers: usize, depth: usize, count: u64, make: impl Fn() -> T) -> Arc<Self> {
        let rings = (0..workers).map(|_| Ring::new(depth, &make)).collect();
        Arc::new(Self {
            rings,
            left: AtomicU64::new(count),
            ended: AtomicBool::new(count == 0),
        })
    }

    /// Takes no more.
    pub fn end(&self) {
        self.ended.store(true, Relaxed);
    }

    /// Whether it takes no more.
    pub fn ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// Whether it has taken all that it may.
    pub fn full(&self) -> bool {
        self.left.load(Relaxed) == 0
    }

    /// Has a worker fill a record, if it has an empty one and the count is not reached. Only that worker may call it.
    pub(super) fn put(&self, worker: usize, fill: impl FnOnce(&mut T)) {
        let Some(ring) = self.rings.get(worker).filter(|_| !self.ended()) else {
            return;
        };
        // Several workers may come to the last one; only as many as there are take one.
        let take = |left: u64| left.checked_sub(1);
        match self.left.fetch_update(Relaxed, Relaxed, take) {
            Ok(left) => {
                if !ring.put(fill) {
                    // What is lost is not counted against the reader.
                    self.left.fetch_add(1, Relaxed);
                } else if left == 1 {
                    self.end();
                }
            }
            Err(_) => self.end(),
        }
    }

    /// Hands over filled records, at most `most` of each worker, the oldest of a worker first. One reader only.
    pub fn take(&self, most: usize, mut read: impl FnMut(usize, &mut T)) -> usize {
        let mut taken = 0;
        for (worker, ring) in self.rings.iter().enumerate() {
            let of_worker = (0..most).take_while(|_| ring.take(|record| read(worker, record)));
            taken += of_worker.count();
        }
        taken
    }

    /// Records that found no room since it was opened.
    pub fn lost(&self) -> u64 {
        self.rings.iter().map(Ring::lost).sum()
    }
}

/// A tap, whatever its records are.
pub trait AnyTap: Send + Sync {
    /// Takes no more.
    fn end(&self);
    /// Whether it takes no more.
    fn ended(&self) -> bool;
}

impl<T: Send> AnyTap for Tap<T> {
    fn end(&self) {
        Self::end(self);
    }

    fn ended(&self) -> bool {
        Self::ended(self)
    }
}

/// The taps of one worker.
#[derive(Default)]
pub(super) struct Taps {
    pub(super) captures: Vec<capture::Capture>,
    pub(super) traces: Vec<trace::Tracing>,
    /// Whether there is any.
    any: bool,
}

/// A tap to open.
#[derive(Clone)]
pub(super) enum Open {
    Capture(capture::Capture),
    Trace(trace::Tracing),
}

impl Taps {
    /// Whether there is any.
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.any
    }

    pub(super) fn open(&mut self, tap: Open) {
        match tap {
            Open::Capture(capture) => self.captures.push(capture),
            Open::Trace(trace) => self.traces.push(trace),
        }
        self.any = true;
    }

    /// Lets go of those that have ended. Their memory is freed by whoever opened them.
    pub(super) fn clear(&mut self) {
        self.captures.retain(|capture| !capture.tap.ended());
        self.traces.retain(|trace| !trace.tap.ended());
        self.any = !(self.captures.is_empty() && self.traces.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_by_count_and_counts_what_nobody_reads() {
        let tap = Tap::new(2, 2, 5, || 0u32);
        for n in 0..4 {
            tap.put(0, |record| *record = n);
        }
        assert_eq!((tap.lost(), tap.ended()), (2, false));
        tap.put(1, |record| *record = 10);
        let mut seen = Vec::new();
        assert_eq!(
            tap.take(8, |worker, record| seen.push((worker, *record))),
            3
        );
        assert_eq!(seen, [(0, 0), (0, 1), (1, 10)]);
        for n in 4..9 {
            tap.put(0, |record| *record = n);
        }
        assert!(tap.ended(), "five were taken");
        assert_eq!(tap.take(8, |_, _| ()), 2);
        assert_eq!(tap.lost(), 2, "what comes after the end is not lost");
    }

    #[test]
    fn records_go_from_thread_to_thread_whole_and_in_order() {
        let tap = Tap::new(1, 16, 20_000, || (0u64, Vec::with_capacity(8)));
        let worker = Arc::clone(&tap);
        let worker = std::thread::spawn(move || {
            let mut n = 0u64;
            while !worker.ended() {
                worker.put(0, |(number, octets)| {
                    *number = n;
                    octets.clear();
                    octets.extend_from_slice(&n.to_be_bytes());
                });
                n += 1;
            }
            n
        });
        let (mut last, mut taken) = (None, 0);
        loop {
            let over = tap.ended();
            taken += tap.take(8, |_, (number, octets)| {
                assert_eq!(octets.as_slice(), number.to_be_bytes());
                assert!(last < Some(*number));
                last = Some(*number);
            }) as u64;
            if over && tap.take(1, |_, _| taken += 1) == 0 {
                break;
            }
        }
        let offered = worker.join().unwrap();
        assert_eq!(taken, 20_000);
        assert!(offered >= taken + tap.lost());
    }
}
