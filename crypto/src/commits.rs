//! Marks the packets of a batch in their replay windows.

use crate::Replay;
use crate::replay::{Window, locate};

/// Marks up to 64 packets of any windows, with one locked instruction a bucket where they follow each
/// other in a few lanes, which a packet's alone would cost as much as all its other work on headers.
pub struct Commits<'a> {
    slots: [Option<Slot<'a>>; SLOTS],
    /// The bit of each packet in its bucket.
    bits: [u32; 64],
    outcome: Committed,
}

/// What the windows said to each packet.
#[derive(Clone, Copy, Default, Debug)]
pub struct Committed {
    fresh: u64,
    too_old: u64,
}

/// How many buckets are gathered at a time; a power of two.
const SLOTS: usize = 8;

/// Packets of one bucket that are not marked yet.
#[derive(Clone, Copy)]
struct Slot<'a> {
    window: &'a Window,
    bucket: u64,
    bits: u32,
    packets: u64,
}

impl Default for Commits<'_> {
    fn default() -> Self {
        Self {
            slots: [None; SLOTS],
            bits: [0; 64],
            outcome: Committed::default(),
        }
    }
}

impl<'a> Commits<'a> {
    /// Has packet `nth`, 0 to 63, marked, which was not added before. Packets of one `slot` are gathered
    /// together as long as they are of one bucket.
    #[inline]
    pub(crate) fn add(&mut self, nth: usize, window: &'a Window, counter: u64, slot: usize) {
        let nth = nth % 64;
        let (bucket, bit) = locate(counter);
        self.bits[nth] = bit;
        match &mut self.slots[slot % SLOTS] {
            Some(slot) if slot.bucket == bucket && std::ptr::eq(slot.window, window) => {
                // A second packet of one counter is left out, and so counts as replayed.
                if slot.bits & bit == 0 {
                    slot.bits |= bit;
                    slot.packets |= 1 << nth;
                }
            }
            slot => {
                if let Some(full) = slot {
                    flush(full, &self.bits, &mut self.outcome);
                }
                *slot = Some(Slot {
                    window,
                    bucket,
                    bits: bit,
                    packets: 1 << nth,
                });
            }
        }
    }

    /// Marks what is left, and says how it went.
    #[inline]
    pub fn finish(self) -> Committed {
        let mut outcome = self.outcome;
        for slot in self.slots.iter().flatten() {
            flush(slot, &self.bits, &mut outcome);
        }
        outcome
    }
}

fn flush(slot: &Slot<'_>, bits: &[u32; 64], outcome: &mut Committed) {
    match slot.window.mark(slot.bucket, slot.bits) {
        Ok(0) => outcome.fresh |= slot.packets,
        Ok(seen) => {
            let fresh = |nth: &usize| slot.packets >> nth & 1 == 1 && bits[*nth] & seen == 0;
            outcome.fresh |= (0..64).filter(fresh).fold(0, |all, nth| all | 1 << nth);
        }
        Err(_) => outcome.too_old |= slot.packets,
    }
}

impl Committed {
    /// What the window said to packet `nth`.
    #[inline]
    pub fn of(&self, nth: usize) -> Replay {
        let packet = 1 << (nth % 64);
        if self.fresh & packet != 0 {
            Replay::Fresh
        } else if self.too_old & packet != 0 {
            Replay::TooOld
        } else {
            Replay::Replayed
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::MAX_COUNTER;
    use crate::replay::tests::{BUCKETS, Model, check, moves};

    proptest! {
        /// Whole batches over several windows: what is new and still inside is fresh, and nothing is fresh twice.
        #[test]
        fn batches_agree_with_the_model(batches in prop::collection::vec(prop::collection::vec((0..3usize, moves()), 1..=64), 1..20)) {
            let windows: [_; 3] = std::array::from_fn(|_| Window::new(BUCKETS));
            let (mut models, mut top) = (<[Model; 3]>::default(), 0i64);
            for batch in batches {
                let mut commits = Commits::default();
                let mut found = Vec::new();
                for (which, (relative, value)) in batch {
                    let counter = if relative { (top + value).max(0) } else { value } as u64;
                    let before = check(&windows[which], counter);
                    prop_assert_eq!(before, models[which].check(counter));
                    if before == Replay::Fresh {
                        found.push((which, counter));
                    }
                    if counter < MAX_COUNTER {
                        top = top.max(counter as i64);
                    }
                }
                for (nth, (which, counter)) in found.iter().enumerate() {
                    commits.add(nth, &windows[*which], *counter, which / 2);
                }
                let committed = commits.finish();
                let tops: Vec<_> = (0..3).map(|which| found.iter().filter(|f| f.0 == which).map(|f| f.1).max()).collect();
                for (nth, (which, counter)) in found.iter().enumerate() {
                    let model = &mut models[*which];
                    let new = !model.seen.contains(counter);
                    match committed.of(nth) {
                        Replay::Fresh => prop_assert!(model.seen.insert(*counter), "{} twice", counter),
                        Replay::Replayed => {
                            let copies = found.iter().filter(|f| (f.0, f.1) == (*which, *counter));
                            prop_assert!(!new || copies.count() > 1, "{} is new", counter);
                        }
                        Replay::TooOld => {
                            let ahead = tops[*which].unwrap() / 32 - counter / 32;
                            prop_assert!(!new || ahead >= u64::from(BUCKETS), "{} is inside", counter);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_batch_is_told_what_another_thread_marked_meanwhile() {
        let window = Window::new(BUCKETS);
        assert_eq!(window.commit(8), Replay::Fresh);
        let mut commits = Commits::default();
        for (nth, counter) in [7, 8, 7, 9].into_iter().enumerate() {
            commits.add(nth, &window, counter, 0);
        }
        let committed = commits.finish();
        let said: Vec<_> = (0..4).map(|nth| committed.of(nth)).collect();
        assert_eq!(
            said,
            [
                Replay::Fresh,
                Replay::Replayed,
                Replay::Replayed,
                Replay::Fresh
            ]
        );

        assert_eq!(
            window.commit(1 << 20 | 10),
            Replay::Fresh,
            "the same word, generations later"
        );
        let mut commits = Commits::default();
        commits.add(63, &window, 10, 0);
        assert_eq!(commits.finish().of(63), Replay::TooOld);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{sync::Arc, thread};

    use super::*;

    fn fresh(said: &[(u64, Replay)], counter: u64) -> usize {
        let of = (counter, Replay::Fresh);
        said.iter().filter(|&&said| said == of).count()
    }

    /// Two threads with a batch each that have counters in common, and a word that changes generations.
    #[test]
    fn loom_batches_accept_each_counter_once() {
        loom::model(|| {
            let window = Arc::new(Window::new(2));
            let batch = |counters: [u64; 3]| {
                let window = Arc::clone(&window);
                thread::spawn(move || {
                    let mut commits = Commits::default();
                    for (nth, counter) in counters.into_iter().enumerate() {
                        if window.check(counter).is_ok() {
                            commits.add(nth, &window, counter, counter as usize);
                        }
                    }
                    let committed = commits.finish();
                    (0..3)
                        .map(|nth| (counters[nth], committed.of(nth)))
                        .collect::<Vec<_>>()
                })
            };
            let (one, two) = (batch([1, 2, 65]), batch([2, 1, 3]));
            let said = [one.join().unwrap(), two.join().unwrap()].concat();
            for counter in [1, 2, 3, 65] {
                let fresh = said
                    .iter()
                    .filter(|&&s| s == (counter, Replay::Fresh))
                    .count();
                assert!(fresh <= 1, "{counter} was accepted twice: {said:?}");
            }
            assert_eq!(fresh(&said, 65), 1, "{said:?}");
        });
    }
}
