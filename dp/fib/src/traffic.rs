//! Packet and octet counters of a link or circuit: a cell per worker, so that nobody contends. Drops, which are rare, are
//! counted in one place by all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam::utils::CachePadded;

use super::prefetch::prefetch;

/// Counters that live as long as their link or circuit, over all snapshots. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Traffic {
    // Found from within the entry of the link or circuit, with no other place to look at in between.
    cells: Arc<[CachePadded<Cell>]>,
    rare: Arc<Rare>,
}

/// What all workers count in one place.
#[derive(Debug)]
struct Rare {
    drops: [AtomicU64; REASONS],
    /// In the low 16 bits how many answers were given, in the others the time of which they are.
    answers: AtomicU64,
}

/// Reasons of drops that can be told apart, by their numbers.
pub const REASONS: usize = 42;

/// Answers to maintenance requests that a link or circuit gives in one unit of time, by whichever workers.
pub const ANSWERS: u16 = 10;

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
pub fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

impl Traffic {
    /// Zeroes for this many workers.
    pub fn new(workers: usize) -> Self {
        Self {
            cells: (0..workers).map(|_| CachePadded::default()).collect(),
            rare: Arc::new(Rare {
                drops: std::array::from_fn(|_| AtomicU64::new(0)),
                answers: AtomicU64::new(0),
            }),
        }
    }

    /// Whether both are the same counters.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.cells, &other.cells)
    }

    /// Whether nobody else has them.
    pub fn is_last(&self) -> bool {
        Arc::strong_count(&self.cells) == 1 && Arc::strong_count(&self.rare) == 1
    }

    /// Where they are: the same only for the same counters.
    pub fn place(&self) -> *const () {
        Arc::as_ptr(&self.cells).cast()
    }

    /// Asks the processor for a worker's share.
    #[inline(always)]
    pub fn prefetch(&self, worker: usize) {
        if let Some(cell) = self.cells.get(worker) {
            prefetch(cell);
        }
    }

    /// Counts received packets and their octets. Only worker `worker`'s thread may call it.
    #[inline]
    pub fn received(&self, worker: usize, packets: u64, bytes: u64) {
        if let Some(cell) = self.cells.get(worker) {
            add(&cell.received_packets, packets);
            add(&cell.received_bytes, bytes);
        }
    }

    /// Counts sent packets and their octets. Only worker `worker`'s thread may call it.
    #[inline]
    pub fn sent(&self, worker: usize, packets: u64, bytes: u64) {
        if let Some(cell) = self.cells.get(worker) {
            add(&cell.sent_packets, packets);
            add(&cell.sent_bytes, bytes);
        }
    }

    /// Counts a packet that was dropped for the reason of this number. Any thread may call it.
    #[cold]
    pub fn dropped(&self, reason: usize) {
        if let Some(drops) = self.rare.drops.get(reason) {
            drops.fetch_add(1, Relaxed);
        }
    }

    /// How many were dropped for the reason of this number.
    pub fn drops(&self, reason: usize) -> u64 {
        self.rare
            .drops
            .get(reason)
            .map_or(0, |drops| drops.load(Relaxed))
    }

    /// Whether one more maintenance request may be answered at time `now`, in units; if so it is taken for answered.
    /// There are [`ANSWERS`] a unit. Any thread may call it.
    #[cold]
    pub fn answers(&self, now: u64) -> bool {
        let take = |word: u64| match word as u16 {
            // Workers look at the clock one after the other: a time that is behind gives no more.
            _ if now > word >> 16 => Some(now << 16 | 1),
            ANSWERS.. => None,
            _ => Some(word + 1),
        };
        self.rare
            .answers
            .fetch_update(Relaxed, Relaxed, take)
            .is_ok()
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

/// Adds up packets that follow each other on one link or circuit, and counts them together.
pub struct Tally<'t> {
    worker: usize,
    /// [`Traffic::received`] or [`Traffic::sent`].
    count: fn(&Traffic, usize, u64, u64),
    traffic: Option<&'t Traffic>,
    packets: u64,
    bytes: u64,
}

impl<'t> Tally<'t> {
    /// Of a worker; `count` is [`Traffic::received`] or [`Traffic::sent`].
    #[inline]
    pub fn new(worker: usize, count: fn(&Traffic, usize, u64, u64)) -> Self {
        Self {
            worker,
            count,
            traffic: None,
            packets: 0,
            bytes: 0,
        }
    }

    /// Adds a packet.
    #[inline]
    pub fn add(&mut self, traffic: &'t Traffic, bytes: usize) {
        if !self.traffic.is_some_and(|last| std::ptr::eq(last, traffic)) {
            self.flush();
            self.traffic = Some(traffic);
        }
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    #[inline]
    fn flush(&mut self) {
        if let Some(traffic) = self.traffic {
            (self.count)(traffic, self.worker, self.packets, self.bytes);
        }
        (self.packets, self.bytes) = (0, 0);
    }
}

impl Drop for Tally<'_> {
    #[inline]
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_so_many_a_unit_of_time() {
        let traffic = Traffic::new(1);
        let given = |now| (0..100).filter(|_| traffic.answers(now)).count() as u16;
        // The first time is the one that counting begins with.
        assert_eq!(given(0), ANSWERS);
        for now in [1, 2, 0x8001, 1 << 47] {
            assert_eq!(given(now), ANSWERS, "at {now}");
            assert_eq!(given(now), 0);
        }
        assert_eq!(given(3), 0, "a clock that is behind");
    }

    #[test]
    fn a_tally_counts_each_packet_where_it_belongs() {
        let (one, two) = (Traffic::new(2), Traffic::new(2));
        {
            let mut tally = Tally::new(1, Traffic::received);
            for (traffic, bytes) in [(&one, 10), (&one, 20), (&two, 1), (&one, 300)] {
                tally.add(traffic, bytes);
            }
        }
        drop(Tally::new(0, Traffic::sent));
        let of = |traffic: &Traffic| {
            let totals = traffic.totals();
            (
                totals.received_packets,
                totals.received_bytes,
                totals.sent_packets,
            )
        };
        assert_eq!((of(&one), of(&two)), ((3, 330, 0), (1, 1, 0)));
    }
}
