//! The replay window of one lane: RFC 6479's bucketed bitmap, with no lock.
//!
//! The bitmap is a ring of buckets, each one atomic word: the bucket's generation (how often the
//! ring has come round to it) over 32 bits, one a counter. So one compare-and-swap both recycles a
//! bucket for a new generation and sets a bit, and a bit can never be credited to another
//! generation than its own.
//!
//! Why a counter is `Fresh` only once: a counter has one word and one bit. The generations in a
//! word only grow, and within a generation the bits only grow. Whoever says `Fresh` has, in the
//! word's single modification order, moved it from a state without that bit to the one with it;
//! every later state has the bit, or a newer generation, which says `TooOld`. This needs atomicity
//! of that word only, so `Relaxed` suffices, and `top` is a hint: it says how far the window has
//! come, so that buckets that were skipped and still carry an old generation do not take old
//! counters. A racing reader may see it late, and then treat a counter as still inside; never can
//! it make one `Fresh` again.

use crate::{
    MAX_COUNTER,
    prefetch::prefetch,
    sync::{AtomicU64, Ordering::Relaxed},
};

/// What the replay window says to a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Replay {
    /// Not seen before.
    Fresh,
    /// Seen before.
    Replayed,
    /// Behind the window, or not below [`MAX_COUNTER`].
    TooOld,
}

/// Counters a bucket.
pub(crate) const BUCKET_BITS: u32 = 32;

/// The window of one lane. It covers the bucket of the highest counter and all but one bucket's
/// worth before it, so at least `buckets * 32 - 31` counters.
pub(crate) struct Window {
    /// The highest bucket number that was committed to, not reduced to the ring; then the buckets. In one piece, so that
    /// a window that is not in the cache costs one wait for memory. Then [`PADDING`].
    words: Box<[AtomicU64]>,
}

/// Words that nobody uses, two cache lines, so that none is shared with the next lane's window: that lane is as a rule
/// another worker's.
const PADDING: usize = 16;

impl Window {
    /// A window of `buckets` buckets, a power of two.
    pub(crate) fn new(buckets: u32) -> Self {
        debug_assert!(buckets.is_power_of_two());
        Self {
            words: (0..=buckets as usize + PADDING)
                .map(|_| AtomicU64::new(0))
                .collect(),
        }
    }

    /// Asks the processor for what [`Window::mark`] reads.
    #[inline(always)]
    pub(crate) fn prefetch(&self, counter: u64) {
        let (bucket, _) = locate(counter);
        let (top, buckets) = self.parts();
        prefetch(top);
        prefetch(&buckets[bucket as usize & (buckets.len() - 1)]);
    }

    #[inline(always)]
    fn parts(&self) -> (&AtomicU64, &[AtomicU64]) {
        match self.words.split_last_chunk::<PADDING>() {
            Some(([top, buckets @ ..], _)) => (top, buckets),
            _ => unreachable!("made with more words than buckets and padding"),
        }
    }

    /// Whether a commit would mark this counter, or why it would not. Changes nothing.
    #[cfg(test)]
    pub(crate) fn check(&self, counter: u64) -> Result<(), Replay> {
        let (bucket, bit) = locate(counter);
        let place = self.find(bucket).ok_or(Replay::TooOld)?;
        place.step(place.word.load(Relaxed), bit).map(|_| ())
    }

    /// Marks the counter as seen. Only for packets whose tag has verified.
    #[inline]
    pub(crate) fn commit(&self, counter: u64) -> Replay {
        let (bucket, bit) = locate(counter);
        match self.mark(bucket, bit) {
            Ok(0) => Replay::Fresh,
            Ok(_) => Replay::Replayed,
            Err(refused) => refused,
        }
    }

    /// Marks these bits of a bucket, and says which of them were marked before; or that the bucket is behind the window
    /// or not below the limit.
    #[inline]
    pub(crate) fn mark(&self, bucket: u64, bits: u32) -> Result<u32, Replay> {
        let place = self.find(bucket).ok_or(Replay::TooOld)?;
        let mut now = place.word.load(Relaxed);
        loop {
            let next = match place.step(now, bits) {
                Ok(next) => next,
                Err(Replay::Replayed) => return Ok(bits),
                Err(refused) => return Err(refused),
            };
            match place
                .word
                .compare_exchange_weak(now, next, Relaxed, Relaxed)
            {
                Ok(_) => break,
                Err(changed) => now = changed,
            }
        }
        let (top, _) = self.parts();
        if bucket > top.load(Relaxed) {
            top.fetch_max(bucket, Relaxed);
        }
        // Of an older generation, nothing counts.
        let same = now >> BUCKET_BITS == place.generation;
        Ok(if same { now as u32 & bits } else { 0 })
    }

    /// Where a bucket is kept, or nothing when it is behind the window or not below the limit.
    #[inline]
    fn find(&self, bucket: u64) -> Option<Place<'_>> {
        let (top, buckets) = self.parts();
        let count = buckets.len() as u64;
        let end = MAX_COUNTER / u64::from(BUCKET_BITS);
        if bucket >= end || bucket + count <= top.load(Relaxed) {
            return None;
        }
        Some(Place {
            word: &buckets[(bucket & (count - 1)) as usize],
            // One more, so that a word that was never used, zero, is older than every generation.
            generation: (bucket >> count.trailing_zeros()) + 1,
        })
    }
}

/// The bucket of a counter, and its bit there.
#[inline]
pub(crate) fn locate(counter: u64) -> (u64, u32) {
    let bits = u64::from(BUCKET_BITS);
    (counter / bits, 1 << (counter % bits))
}

/// Where a bucket is kept.
struct Place<'a> {
    word: &'a AtomicU64,
    generation: u64,
}

impl Place<'_> {
    /// What the word must become to mark these bits, or why it must not: it is of a newer generation, or has them all.
    #[inline]
    fn step(&self, word: u64, bits: u32) -> Result<u64, Replay> {
        let generation = word >> BUCKET_BITS;
        if generation == self.generation {
            let next = word | u64::from(bits);
            if next == word {
                Err(Replay::Replayed)
            } else {
                Ok(next)
            }
        } else if generation < self.generation {
            Ok(self.generation << BUCKET_BITS | u64::from(bits))
        } else {
            Err(Replay::TooOld)
        }
    }
}

#[cfg(all(test, not(loom)))]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    pub(crate) const BUCKETS: u32 = 64;

    /// The window, said plainly: every counter ever seen, and the highest.
    #[derive(Default)]
    pub(crate) struct Model {
        pub(crate) seen: BTreeSet<u64>,
    }

    impl Model {
        pub(crate) fn check(&self, counter: u64) -> Replay {
            let top = self.seen.last().copied().unwrap_or(0);
            let behind = (top / 32).saturating_sub(u64::from(BUCKETS) - 1) * 32;
            if counter >= MAX_COUNTER || counter < behind {
                Replay::TooOld
            } else if self.seen.contains(&counter) {
                Replay::Replayed
            } else {
                Replay::Fresh
            }
        }

        fn commit(&mut self, counter: u64) -> Replay {
            let said = self.check(counter);
            if said == Replay::Fresh {
                self.seen.insert(counter);
            }
            said
        }
    }

    pub(crate) fn check(window: &Window, counter: u64) -> Replay {
        window.check(counter).err().unwrap_or(Replay::Fresh)
    }

    /// One step of a packet stream, relative to the highest counter so far.
    pub(crate) fn moves() -> impl Strategy<Value = (bool, i64)> {
        let size = i64::from(BUCKETS * BUCKET_BITS);
        prop_oneof![
            8 => (Just(true), 1..4i64),
            8 => (Just(true), -70..70i64),
            4 => (Just(true), -size - 40..size + 40),
            1 => (Just(true), 0..size * 100),
            2 => (Just(false), prop_oneof![0..2 * size, Just(0), (MAX_COUNTER as i64 - 2 * size)..MAX_COUNTER as i64 + 64]),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_the_model(steps in prop::collection::vec(moves(), 1..400)) {
            let (window, mut model, mut top) = (Window::new(BUCKETS), Model::default(), 0i64);
            for (relative, value) in steps {
                let counter = if relative { (top + value).max(0) } else { value };
                let counter = counter as u64;
                prop_assert_eq!(check(&window, counter), model.check(counter), "check {}", counter);
                let said = model.commit(counter);
                prop_assert_eq!(window.commit(counter), said, "commit {}", counter);
                if said == Replay::Fresh {
                    top = top.max(counter as i64);
                }
            }
        }
    }

    #[test]
    fn covers_what_it_promises_and_no_more() {
        let window = Window::new(BUCKETS);
        let top = 1_000_031; // the last counter of its bucket, so the window reaches back the least
        assert_eq!(top % 32, 31);
        assert_eq!(window.commit(top), Replay::Fresh);
        assert_eq!(window.commit(top - 2047), Replay::Fresh);
        assert_eq!(window.commit(top - 2047), Replay::Replayed);
        assert_eq!(window.commit(top - 2048), Replay::TooOld);
        assert_eq!(window.commit(top + 1), Replay::Fresh);
        assert_eq!(check(&window, top - 2016), Replay::TooOld);
        assert_eq!(
            check(&window, top - 2015),
            Replay::Fresh,
            "2048 - 31 counters with the top one"
        );
    }

    #[test]
    fn the_first_and_last_counters_count_once() {
        let window = Window::new(BUCKETS);
        for counter in [0, MAX_COUNTER - 1] {
            assert_eq!(check(&window, counter), Replay::Fresh);
            assert_eq!(window.commit(counter), Replay::Fresh);
            assert_eq!(window.commit(counter), Replay::Replayed);
        }
        for counter in [MAX_COUNTER, u64::MAX, 0] {
            assert_eq!(check(&window, counter), Replay::TooOld);
            assert_eq!(window.commit(counter), Replay::TooOld);
        }
    }

    #[test]
    fn threads_that_race_accept_each_counter_once() {
        const COUNTERS: u64 = 20_000;
        let window = Window::new(1024);
        let fresh: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..COUNTERS)
                            .filter(|&c| window.commit(c) == Replay::Fresh)
                            .count() as u64
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(fresh, COUNTERS);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{sync::Arc, thread};

    use super::*;

    /// Runs the commits on two threads, in every order, and counts which counters were accepted how
    /// often.
    fn race(
        buckets: u32,
        one: &'static [u64],
        two: &'static [u64],
        judge: fn(&Window, &[(u64, Replay)]),
    ) {
        loom::model(move || {
            let window = Arc::new(Window::new(buckets));
            let commit = |counters: &'static [u64]| {
                let window = Arc::clone(&window);
                thread::spawn(move || {
                    counters
                        .iter()
                        .map(|&c| (c, window.commit(c)))
                        .collect::<Vec<_>>()
                })
            };
            let (one, two) = (commit(one), commit(two));
            let said = [one.join().unwrap(), two.join().unwrap()].concat();
            for &(counter, _) in &said {
                let fresh = said
                    .iter()
                    .filter(|&&s| s == (counter, Replay::Fresh))
                    .count();
                assert!(fresh <= 1, "{counter} was accepted twice: {said:?}");
            }
            judge(&window, &said);
        });
    }

    fn fresh(said: &[(u64, Replay)], counter: u64) -> bool {
        said.contains(&(counter, Replay::Fresh))
    }

    #[test]
    fn loom_one_counter_is_fresh_exactly_once() {
        race(2, &[5], &[5], |window, said| {
            assert!(
                fresh(said, 5) && said.iter().any(|s| s.1 == Replay::Replayed),
                "{said:?}"
            );
            assert_eq!(window.commit(5), Replay::Replayed);
        });
    }

    #[test]
    fn loom_bits_of_one_bucket_do_not_lose_each_other() {
        race(2, &[1, 2], &[3, 2], |window, said| {
            assert!([1, 2, 3].iter().all(|&c| fresh(said, c)), "{said:?}");
            assert!(
                [1, 2, 3]
                    .iter()
                    .all(|&c| window.commit(c) == Replay::Replayed)
            );
        });
    }

    // Two buckets of 32: counters 1 and 65 share a word in two generations.
    #[test]
    fn loom_generations_race_for_a_word() {
        race(2, &[1], &[65], |window, said| {
            assert!(fresh(said, 65), "{said:?}");
            assert_eq!(window.commit(65), Replay::Replayed);
            assert_eq!(
                window.commit(1),
                Replay::TooOld,
                "1 is behind the window, accepted or not"
            );
        });
    }

    #[test]
    fn loom_a_replay_of_an_old_generation_stays_refused() {
        race(2, &[1, 65], &[65, 1], |window, said| {
            assert!(fresh(said, 65), "{said:?}");
            assert_eq!(window.commit(1), Replay::TooOld);
        });
    }

    #[test]
    fn loom_the_top_never_moves_back() {
        race(4, &[40, 400], &[200], |window, said| {
            assert!(fresh(said, 400), "{said:?}");
            assert_eq!(window.commit(40), Replay::TooOld);
            assert_eq!(window.commit(200), Replay::TooOld);
        });
    }
}
