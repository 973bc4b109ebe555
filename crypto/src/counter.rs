//! The transmit counters of an SA.

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicU64, Ordering::Relaxed};

/// One counter a lane: how many it has handed out, and so the next one. They are on cache lines of
/// their own because each belongs to another core.
///
/// `Relaxed` suffices: a compare-and-swap takes part in the one modification order of its counter,
/// so no two succeed from the same value, and nothing else is published through it.
pub(crate) struct Counters {
    lanes: Box<[CachePadded<AtomicU64>]>,
    limit: u64,
}

impl Counters {
    /// `lanes` counters at zero, that end before `limit`.
    pub(crate) fn new(lanes: u16, limit: u64) -> Self {
        Self {
            lanes: (0..lanes)
                .map(|_| CachePadded::new(AtomicU64::new(0)))
                .collect(),
            limit,
        }
    }

    /// The first of `n` consecutive counters that nobody else gets. A reservation that does not fit
    /// below the limit closes the lane for good, so that every later one is refused too.
    #[inline]
    pub(crate) fn reserve(&self, lane: u8, n: u32) -> Option<u64> {
        let lane = self.lanes.get(usize::from(lane))?;
        if n == 0 {
            return None;
        }
        let mut next = lane.load(Relaxed);
        loop {
            // Not `next + n <= limit`, which could overflow.
            let fits = u64::from(n) <= self.limit - next;
            let after = if fits {
                next + u64::from(n)
            } else {
                self.limit
            };
            match lane.compare_exchange_weak(next, after, Relaxed, Relaxed) {
                Ok(_) => return fits.then_some(next),
                Err(now) => next = now,
            }
        }
    }

    /// The counters used up, over all lanes.
    pub(crate) fn sum(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.load(Relaxed)).sum()
    }

    /// The largest lane's counter.
    pub(crate) fn highest(&self) -> u64 {
        self.lanes
            .iter()
            .map(|lane| lane.load(Relaxed))
            .max()
            .unwrap_or(0)
    }

    pub(crate) fn lanes(&self) -> u16 {
        self.lanes.len() as u16
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn counters_follow_each_other_per_lane() {
        let counters = Counters::new(2, 100);
        assert_eq!(counters.reserve(0, 1), Some(0));
        assert_eq!(counters.reserve(0, 64), Some(1));
        assert_eq!(counters.reserve(1, 3), Some(0));
        assert_eq!(counters.reserve(0, 1), Some(65));
        assert_eq!((counters.sum(), counters.highest()), (69, 66));
    }

    #[test]
    fn unknown_lanes_and_empty_reservations_are_refused() {
        let counters = Counters::new(2, 100);
        assert_eq!(counters.reserve(2, 1), None);
        assert_eq!(counters.reserve(255, 1), None);
        assert_eq!(counters.reserve(0, 0), None);
        assert_eq!(counters.sum(), 0);
    }

    #[test]
    fn the_limit_closes_a_lane_and_never_wraps() {
        let counters = Counters::new(1, 10);
        assert_eq!(counters.reserve(0, 10), Some(0));
        assert_eq!(counters.reserve(0, 1), None);

        let counters = Counters::new(2, crate::MAX_COUNTER);
        assert_eq!(counters.reserve(0, 1), Some(0));
        let mut last = 0;
        while let Some(first) = counters.reserve(0, u32::MAX) {
            assert!(first > last || first == 1);
            last = first;
        }
        assert_eq!(
            counters.reserve(0, 1),
            None,
            "a refused reservation closes the lane"
        );
        assert_eq!(counters.highest(), crate::MAX_COUNTER);
        assert_eq!(counters.reserve(1, 1), Some(0), "other lanes go on");
    }

    #[test]
    fn threads_share_a_lane_without_overlap() {
        let counters = Counters::new(1, 40_000);
        let taken = std::thread::scope(|scope| {
            let threads: Vec<_> = (1..=4)
                .map(|n| {
                    let counters = &counters;
                    scope.spawn(move || {
                        let mut mine = Vec::new();
                        while let Some(first) = counters.reserve(0, n) {
                            mine.extend(first..first + u64::from(n));
                        }
                        mine
                    })
                })
                .collect();
            let mut all: Vec<u64> = threads
                .into_iter()
                .flat_map(|t| t.join().unwrap())
                .collect();
            all.sort_unstable();
            all
        });
        assert!(
            taken.windows(2).all(|pair| pair[0] < pair[1]),
            "no counter was handed out twice"
        );
        assert!(taken.len() >= 40_000 - 4 && taken.last() < Some(&40_000));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{sync::Arc, thread};

    use super::*;

    #[test]
    fn loom_reservations_never_overlap() {
        loom::model(|| {
            let counters = Arc::new(Counters::new(1, 4));
            let reserve = |n: u32| {
                let counters = Arc::clone(&counters);
                thread::spawn(move || {
                    let taken = [counters.reserve(0, n), counters.reserve(0, n)];
                    taken
                        .into_iter()
                        .flatten()
                        .flat_map(move |first| first..first + u64::from(n))
                        .collect::<Vec<_>>()
                })
            };
            let (one, two) = (reserve(1), reserve(2));
            let mut all = [one.join().unwrap(), two.join().unwrap()].concat();
            all.sort_unstable();
            assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{all:?}");
            assert!(all.iter().all(|&counter| counter < 4), "{all:?}");
        });
    }
}
