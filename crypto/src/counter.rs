//! The transmit counters of an SA.

use crossbeam_utils::CachePadded;

use crate::{
    LaneOwner, Lanes,
    prefetch::prefetch,
    sync::{AtomicU64, Ordering::Relaxed},
};

/// One counter a lane: how many it has handed out, and so the next one. They are on cache lines of
/// their own because each belongs to another core.
///
/// A lane's only writer is who holds its [`LaneOwner`], so a load and a store are as good as a
/// locked addition and cost a tenth; an owner that moves to another thread takes its writes with
/// it. Others only read, for figures, and nothing else is published through a counter: `Relaxed`
/// suffices.
pub(crate) struct Counters {
    cells: Box<[CachePadded<AtomicU64>]>,
    lanes: Lanes,
    /// Zero once the SA is stopped.
    limit: AtomicU64,
}

impl Counters {
    /// Counters at zero, that end before `limit`.
    pub(crate) fn new(lanes: Lanes, limit: u64) -> Self {
        Self {
            cells: (0..lanes.count())
                .map(|_| CachePadded::new(AtomicU64::new(0)))
                .collect(),
            lanes,
            limit: AtomicU64::new(limit),
        }
    }

    /// Asks the processor for a lane's counter.
    #[inline(always)]
    pub(crate) fn prefetch(&self, lane: u8) {
        if let Some(cell) = self.cells.get(usize::from(lane)) {
            prefetch(cell);
        }
    }

    /// The first of `n` consecutive counters that nobody else gets. A reservation that does not fit
    /// below the limit closes the lane for good, so that every later one is refused too.
    #[inline]
    pub(crate) fn reserve(&self, owner: &LaneOwner, lane: u8, n: u32) -> Option<u64> {
        if !owner.owns(self.lanes, lane) || n == 0 {
            return None;
        }
        let cell = self.cells.get(usize::from(lane))?;
        let (next, limit) = (cell.load(Relaxed), self.limit.load(Relaxed));
        // Not `next + n <= limit`, which could overflow. A stopped SA's limit is below what is used.
        if u64::from(n) <= limit.saturating_sub(next) {
            cell.store(next + u64::from(n), Relaxed);
            Some(next)
        } else {
            // Never down: that would hand out counters twice.
            cell.store(next.max(limit), Relaxed);
            None
        }
    }

    /// The counters used up, over all lanes.
    pub(crate) fn sum(&self) -> u64 {
        self.cells.iter().map(|cell| cell.load(Relaxed)).sum()
    }

    /// The largest lane's counter.
    pub(crate) fn highest(&self) -> u64 {
        self.cells
            .iter()
            .map(|cell| cell.load(Relaxed))
            .max()
            .unwrap_or(0)
    }

    pub(crate) fn lanes(&self) -> u16 {
        self.lanes.count()
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    /// Ends all lanes where they are, for good.
    pub(crate) fn stop(&self) {
        self.limit.store(0, Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn counters(owners: usize, each: u16, limit: u64) -> (Counters, Vec<LaneOwner>) {
        let (lanes, owners) = Lanes::split(owners, each).unwrap();
        (Counters::new(lanes, limit), owners)
    }

    #[test]
    fn counters_follow_each_other_per_lane() {
        let (counters, owners) = counters(1, 2, 100);
        let reserve = |lane, n| counters.reserve(&owners[0], lane, n);
        assert_eq!(reserve(0, 1), Some(0));
        assert_eq!(reserve(0, 64), Some(1));
        assert_eq!(reserve(1, 3), Some(0));
        assert_eq!(reserve(0, 1), Some(65));
        assert_eq!((counters.sum(), counters.highest()), (69, 66));
    }

    #[test]
    fn unknown_and_others_lanes_and_empty_reservations_are_refused() {
        let (counters, owners) = counters(2, 2, 100);
        assert_eq!(counters.reserve(&owners[0], 2, 1), None);
        assert_eq!(counters.reserve(&owners[1], 1, 1), None);
        assert_eq!(counters.reserve(&owners[1], 255, 1), None);
        assert_eq!(counters.reserve(&owners[0], 0, 0), None);
        let (_, strangers) = Lanes::split(2, 2).unwrap();
        assert_eq!(counters.reserve(&strangers[0], 0, 1), None);
        assert_eq!(counters.sum(), 0);
    }

    #[test]
    fn the_limit_closes_a_lane_and_never_wraps() {
        let (ten, owners) = counters(1, 1, 10);
        assert_eq!(ten.reserve(&owners[0], 0, 10), Some(0));
        assert_eq!(ten.reserve(&owners[0], 0, 1), None);

        let (counters, owners) = counters(1, 2, crate::MAX_COUNTER);
        let reserve = |lane, n| counters.reserve(&owners[0], lane, n);
        assert_eq!(reserve(0, 1), Some(0));
        let mut last = 0;
        while let Some(first) = reserve(0, u32::MAX) {
            assert!(first > last || first == 1);
            last = first;
        }
        assert_eq!(reserve(0, 1), None, "a refused reservation closes the lane");
        assert_eq!(counters.highest(), crate::MAX_COUNTER);
        assert_eq!(reserve(1, 1), Some(0), "other lanes go on");
    }

    #[test]
    fn what_is_stopped_hands_out_nothing_and_forgets_nothing() {
        let (counters, owners) = counters(1, 2, 100);
        assert_eq!(counters.reserve(&owners[0], 0, 5), Some(0));
        counters.stop();
        for lane in [0, 1, 0] {
            assert_eq!(counters.reserve(&owners[0], lane, 1), None);
        }
        assert_eq!(
            (counters.sum(), counters.highest(), counters.limit()),
            (5, 5, 0)
        );
    }

    #[test]
    fn threads_take_from_their_lanes_without_overlap() {
        let (counters, owners) = counters(4, 1, 40_000);
        let taken: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = owners
                .into_iter()
                .map(|owner| {
                    let counters = &counters;
                    scope.spawn(move || {
                        let lane = owner.first();
                        let mut mine = Vec::new();
                        while let Some(first) = counters.reserve(&owner, lane, 3) {
                            mine.extend(first..first + 3);
                        }
                        mine
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        for mine in taken {
            assert_eq!(mine, (0..39_999).collect::<Vec<_>>());
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{sync::Arc, thread};

    use super::*;

    /// An owner that takes, moves to another thread and takes again, while a third thread reads.
    #[test]
    fn loom_a_lane_moves_between_threads() {
        loom::model(|| {
            let (lanes, mut owners) = Lanes::split(1, 1).unwrap();
            let owner = owners.remove(0);
            let counters = Arc::new(Counters::new(lanes, 5));
            let watched = Arc::clone(&counters);
            let reader = thread::spawn(move || (watched.sum(), watched.highest()));
            let first = counters.reserve(&owner, 0, 1);
            let moved = Arc::clone(&counters);
            let writer = thread::spawn(move || {
                let taken = [moved.reserve(&owner, 0, 2), moved.reserve(&owner, 0, 3)];
                (owner, taken)
            });
            let (owner, taken) = writer.join().unwrap();
            assert_eq!((first, taken), (Some(0), [Some(1), None]));
            assert_eq!(counters.reserve(&owner, 0, 1), None, "the lane is closed");
            let (sum, highest) = reader.join().unwrap();
            assert!(sum <= 5 && highest <= 5);
        });
    }
}
