//! The arithmetic of a single-producer, single-consumer ring in shared memory.
//!
//! A ring is two free-running 32-bit positions and a power of two of entries. `producer - consumer` entries are
//! filled (modulo 2^32), and position `p` lives in slot `p mod capacity`; nothing special happens when a position
//! wraps.
//!
//! Each side works ahead of what it has published, and remembers what it last saw of the other side, so that a
//! batch costs one load and one store of shared words:
//!
//! - the producer writes entries with [`Producer::push`], then publishes them with [`Producer::submit`]
//! - the consumer reads entries with [`Consumer::pop`], then hands the slots back with [`Consumer::release`]
//!
//! # Memory order
//!
//! `submit` stores the producer word with Release after the entries are written; the consumer loads it with Acquire
//! before it reads them. `release` stores the consumer word with Release after the entries are read; the producer
//! loads it with Acquire before it overwrites them. That is what the kernel does on its side.
//!
//! # The other side
//!
//! The other side may be the kernel, or, in tests and fuzz targets, [`pair`] over plain memory. A position of the
//! other side that is impossible (more filled than there are slots) is not believed: the ring looks full to a
//! producer and empty to a consumer. Slots are masked, so no position leads out of the entries.

use std::cell::UnsafeCell;
use std::mem::{align_of, size_of};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::config::RingPosition;

/// Where a ring's parts are.
#[derive(Debug)]
pub(crate) struct Parts<T> {
    pub(crate) producer: NonNull<AtomicU32>,
    pub(crate) consumer: NonNull<AtomicU32>,
    pub(crate) flags: NonNull<AtomicU32>,
    pub(crate) entries: NonNull<T>,
    /// A power of two.
    pub(crate) capacity: u32,
}

impl<T> Parts<T> {
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: valid while the ring's memory lives, by the promise given to `Producer::new` or `Consumer::new`.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { self.consumer.as_ref() }
    }

    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { self.flags.as_ref() }
    }

    #[inline]
    fn slot(&self, position: u32) -> NonNull<T> {
        let index = position & (self.capacity - 1);
        // SAFETY: the capacity is a power of two, so the mask keeps the index below it.
        unsafe { self.entries.add(index as usize) }
    }

    fn position(&self) -> RingPosition {
        RingPosition {
            producer: self.producer().load(Ordering::Relaxed),
            consumer: self.consumer().load(Ordering::Relaxed),
        }
    }
}

/// The side of a ring that fills it. `M` keeps the memory alive.
#[derive(Debug)]
pub struct Producer<T, M> {
    parts: Parts<T>,
    /// The position to be written next; what is published is behind it, or equal.
    next: u32,
    /// The consumer's position as last seen.
    seen: u32,
    _memory: M,
}

// SAFETY: the pointers are into memory that `M` keeps alive and that is bound to no thread; this is the only producer.
unsafe impl<T: Send, M: Send> Send for Producer<T, M> {}

impl<T: Copy, M> Producer<T, M> {
    /// The producer's side of a ring, continuing from where its producer word stands.
    ///
    /// # Safety
    /// The parts are valid and aligned for reads and writes while `memory` lives, and the capacity is a power of
    /// two. Nobody else writes the producer word or the entries, which hold a valid `T` now, and the other side reads only
    /// entries from its own position up to the producer word.
    pub(crate) unsafe fn new(parts: Parts<T>, memory: M) -> Self {
        let next = parts.producer().load(Ordering::Relaxed);
        let seen = parts.consumer().load(Ordering::Acquire);
        Self {
            parts,
            next,
            seen,
            _memory: memory,
        }
    }

    /// Writes one entry ahead. False if the ring is full.
    #[inline]
    #[must_use]
    pub fn push(&mut self, entry: T) -> bool {
        if self.room() == 0 {
            self.seen = self.parts.consumer().load(Ordering::Acquire);
            if self.room() == 0 {
                return false;
            }
        }
        // SAFETY: the slot is in the entries and free: the consumer has passed it, seen with Acquire.
        unsafe { self.parts.slot(self.next).write(entry) };
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Whether so many more entries fit.
    #[inline]
    #[must_use]
    pub fn fits(&mut self, entries: u32) -> bool {
        if self.room() < entries {
            self.seen = self.parts.consumer().load(Ordering::Acquire);
        }
        self.room() >= entries
    }

    /// Publishes all that was pushed.
    #[inline]
    pub fn submit(&mut self) {
        self.parts.producer().store(self.next, Ordering::Release);
    }

    /// Whether the consumer asks for a system call after a submit (`XDP_RING_NEED_WAKEUP`).
    #[inline]
    #[must_use]
    pub fn needs_wakeup(&self) -> bool {
        self.parts.flags().load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// Entries that were pushed and that the consumer has not handed back, asking the consumer's word anew.
    #[must_use]
    pub fn pending(&self) -> u32 {
        let consumer = self.parts.consumer().load(Ordering::Relaxed);
        self.next.wrapping_sub(consumer).min(self.parts.capacity)
    }

    /// The last so many entries that were pushed, the oldest first; at most as many as the ring has.
    pub fn last(&self, entries: u32) -> impl Iterator<Item = T> {
        let entries = entries.min(self.parts.capacity);
        (0..entries).map(move |n| {
            let position = self.next.wrapping_sub(entries).wrapping_add(n);
            // SAFETY: the slot is in the entries, which only we write, and which held valid values before that.
            unsafe { self.parts.slot(position).read() }
        })
    }

    /// Both published positions.
    #[must_use]
    pub fn position(&self) -> RingPosition {
        self.parts.position()
    }

    /// How many entries the ring has.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.parts.capacity
    }

    #[inline]
    fn room(&self) -> u32 {
        self.parts
            .capacity
            .saturating_sub(self.next.wrapping_sub(self.seen))
    }
}

/// The side of a ring that empties it. `M` keeps the memory alive.
#[derive(Debug)]
pub struct Consumer<T, M> {
    parts: Parts<T>,
    /// The position to be read next; what is handed back is behind it, or equal.
    next: u32,
    /// The producer's position as last seen.
    seen: u32,
    _memory: M,
}

// SAFETY: as for the producer.
unsafe impl<T: Send, M: Send> Send for Consumer<T, M> {}

impl<T: Copy, M> Consumer<T, M> {
    /// The consumer's side of a ring, continuing from where its consumer word stands.
    ///
    /// # Safety
    /// The parts are valid and aligned for reads and writes while `memory` lives, and the capacity is a power of
    /// two. Nobody else writes the consumer word, and the other side writes only entries from the producer word up
    /// to the consumer word plus the capacity. Whatever it writes is a valid `T`, and so is what the entries hold
    /// now.
    pub(crate) unsafe fn new(parts: Parts<T>, memory: M) -> Self {
        let next = parts.consumer().load(Ordering::Relaxed);
        Self {
            parts,
            next,
            seen: next,
            _memory: memory,
        }
    }

    /// Reads one entry ahead. `None` if the ring is empty.
    #[inline]
    #[must_use]
    pub fn pop(&mut self) -> Option<T> {
        if self.seen == self.next {
            let producer = self.parts.producer().load(Ordering::Acquire);
            if producer == self.next || producer.wrapping_sub(self.next) > self.parts.capacity {
                return None;
            }
            self.seen = producer;
        }
        // SAFETY: the slot is in the entries, and filled: the producer has passed it, seen with Acquire.
        let entry = unsafe { self.parts.slot(self.next).read() };
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    /// Hands all slots that were read back to the producer.
    #[inline]
    pub fn release(&mut self) {
        self.parts.consumer().store(self.next, Ordering::Release);
    }

    /// Both published positions.
    #[must_use]
    pub fn position(&self) -> RingPosition {
        self.parts.position()
    }

    /// How many entries the ring has.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.parts.capacity
    }
}

/// The memory of a ring that no kernel is part of.
#[derive(Debug)]
pub struct Plain<T> {
    producer: AtomicU32,
    consumer: AtomicU32,
    flags: AtomicU32,
    entries: Box<[UnsafeCell<T>]>,
}

// SAFETY: the entries are reached only through the one producer and the one consumer of `pair`, which never touch the
// same slot at the same time.
unsafe impl<T: Send> Sync for Plain<T> {}

/// Both sides of a ring over plain memory, with both positions at `start`. `None` if the capacity is not a power of
/// two.
///
/// ```
/// let (mut producer, mut consumer) = twinseal_xsk::ring::pair::<u64>(4, u32::MAX).unwrap();
/// assert!(producer.push(7));
/// assert_eq!(consumer.pop(), None, "not submitted yet");
/// producer.submit();
/// assert_eq!(consumer.pop(), Some(7));
/// consumer.release();
/// ```
#[must_use]
pub fn pair<T: Copy + Default>(
    capacity: u32,
    start: u32,
) -> Option<(PlainProducer<T>, PlainConsumer<T>)> {
    if !capacity.is_power_of_two() {
        return None;
    }
    let memory = Arc::new(Plain {
        producer: AtomicU32::new(start),
        consumer: AtomicU32::new(start),
        flags: AtomicU32::new(0),
        entries: (0..capacity)
            .map(|_| UnsafeCell::new(T::default()))
            .collect(),
    });
    const {
        assert!(
            size_of::<UnsafeCell<T>>() == size_of::<T>()
                && align_of::<UnsafeCell<T>>() == align_of::<T>()
        )
    };
    let parts = || Parts {
        producer: NonNull::from(&memory.producer),
        consumer: NonNull::from(&memory.consumer),
        flags: NonNull::from(&memory.flags),
        entries: NonNull::from(&*memory.entries).cast(),
        capacity,
    };
    // SAFETY: the parts point into the shared memory that each side keeps alive, and there is one of each side. The
    // entries start as defaults.
    Some(unsafe {
        (
            Producer::new(parts(), memory.clone()),
            Consumer::new(parts(), memory.clone()),
        )
    })
}

/// The producer of a ring over plain memory.
pub type PlainProducer<T> = Producer<T, Arc<Plain<T>>>;
/// The consumer of a ring over plain memory.
pub type PlainConsumer<T> = Consumer<T, Arc<Plain<T>>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_queue(
            ops in proptest::collection::vec(any::<u8>(), 0..400),
            log2 in 0u32..6,
            start in prop_oneof![Just(0), Just(u32::MAX), u32::MAX - 200.., any::<u32>()],
        ) {
            prop_assert_eq!(oracle::ring(&ops, 1 << log2, start), Ok(()));
        }
    }

    #[test]
    fn a_capacity_that_is_no_power_of_two_is_refused() {
        for capacity in [0, 3, 12, u32::MAX] {
            assert!(pair::<u64>(capacity, 0).is_none());
        }
    }

    #[test]
    fn two_threads_pass_every_entry_in_order() {
        const COUNT: u64 = 200_000;
        let (mut producer, mut consumer) =
            pair::<u64>(64, u32::MAX - 1000).expect("a power of two");
        let writer = std::thread::spawn(move || {
            for value in 0..COUNT {
                while !producer.push(value) {
                    producer.submit();
                    std::thread::yield_now();
                }
                if value % 7 == 0 {
                    producer.submit();
                }
            }
            producer.submit();
        });
        for value in 0..COUNT {
            let got = loop {
                if let Some(got) = consumer.pop() {
                    break got;
                }
                consumer.release();
                std::thread::yield_now();
            };
            assert_eq!(got, value);
        }
        writer.join().expect("writer");
        assert_eq!(consumer.pop(), None);
    }

    #[test]
    fn impossible_positions_are_not_believed() {
        let (mut producer, mut consumer) = pair::<u64>(8, 100).expect("a power of two");
        producer.parts.producer().store(100 + 9, Ordering::Release);
        assert_eq!(consumer.pop(), None, "more filled than slots");
        producer.parts.producer().store(99, Ordering::Release);
        assert_eq!(consumer.pop(), None, "producer behind consumer");

        consumer.parts.consumer().store(101, Ordering::Release);
        producer.seen = 100 - 8;
        assert!(!producer.push(1), "consumer ahead of producer");
        assert!(producer.pending() <= 8);
    }

    #[test]
    fn dropping_one_side_leaves_the_other_usable() {
        let (mut producer, consumer) = pair::<u64>(2, 0).expect("a power of two");
        drop(consumer);
        assert!(producer.push(1) && producer.push(2) && !producer.push(3));
        producer.submit();
        assert_eq!(
            producer.position(),
            RingPosition {
                producer: 2,
                consumer: 0
            }
        );
        assert_eq!(producer.position().filled(), 2);
    }
}
