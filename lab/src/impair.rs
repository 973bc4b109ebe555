//! What a bad wire does to frames: loss, damage, duplicates, delay and reordering, the same for the same seed.
//!
//! A pure stage: time and frames in, frames out. [`ImpairedWire`](crate::wire::ImpairedWire) drives it with real ones.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Later frames that may overtake a reordered one, at most.
const REORDER_DEPTH: u64 = 3;
/// How long a reordered frame waits for them, in nanoseconds.
const REORDER_WAIT_NS: u64 = 2_000_000;
/// The Ethernet header is left alone: a switch would not have passed on a frame damaged there.
const CORRUPT_FROM: usize = 14;

/// What a wire does, in one direction. Probabilities are of each frame, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Impairment {
    /// Frames that vanish.
    pub loss: f64,
    /// Frames that come twice.
    pub duplicate: f64,
    /// Frames that 1 to 3 later ones overtake (or none when the wire is idle for 2 ms).
    pub reorder: f64,
    /// Frames of which 1 to 8 bits flip, after the Ethernet header.
    pub corrupt: f64,
    /// Time on the wire.
    pub delay: Duration,
    /// Added to it, evenly from nothing to this. Does not reorder.
    pub jitter: Duration,
    /// Frames on the wire at most; more are lost, as in a full queue.
    pub limit: usize,
    /// What happens is a function of this and of the frames.
    pub seed: u64,
}

impl Default for Impairment {
    /// A perfect wire.
    fn default() -> Self {
        Impairment {
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            corrupt: 0.0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            limit: 65_536,
            seed: 1,
        }
    }
}

/// What a wire did, in frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Frames that came out, duplicates too.
    pub forwarded: u64,
    /// Vanished by chance.
    pub lost: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Came out after a frame that went in later.
    pub reordered: u64,
    /// Damaged.
    pub corrupted: u64,
    /// Lost because the wire was full.
    pub overflowed: u64,
}

/// One direction of a bad wire.
#[derive(Debug)]
pub struct Stage {
    config: Impairment,
    random: fastrand::Rng,
    counters: Counters,
    /// In order of due time, then of release.
    queue: BinaryHeap<Reverse<Queued>>,
    held: Vec<Held>,
    /// Frames that went in and were not lost, and frames put into the queue: their order.
    entered: u64,
    released: u64,
    last_due: u64,
    /// The highest entry number that came out.
    newest_out: Option<u64>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Queued {
    due: u64,
    release: u64,
    entry: u64,
    frame: Vec<u8>,
}

/// A frame that waits to be overtaken.
#[derive(Debug)]
struct Held {
    after_entry: u64,
    deadline: u64,
    due: u64,
    entry: u64,
    frame: Vec<u8>,
}

impl Stage {
    /// A stage with nothing on the wire.
    pub fn new(config: Impairment) -> Self {
        Stage {
            config,
            random: fastrand::Rng::with_seed(config.seed),
            counters: Counters::default(),
            queue: BinaryHeap::new(),
            held: Vec::new(),
            entered: 0,
            released: 0,
            last_due: 0,
            newest_out: None,
        }
    }

    /// Puts a frame onto the wire at `now_ns`, a monotonic time that never goes back.
    pub fn push(&mut self, now_ns: u64, frame: &[u8]) {
        // One draw for each question, asked or not: turning one impairment on does not change the others' choices.
        let [lost, corrupt, duplicate, reorder] = [
            self.config.loss,
            self.config.corrupt,
            self.config.duplicate,
            self.config.reorder,
        ]
        .map(|probability| self.random.f64() < probability);
        let (late, depth) = (self.random.f64(), 1 + self.random.u64(0..REORDER_DEPTH));
        let damage = self.random.u64(..);
        if lost {
            self.counters.lost += 1;
            return;
        }
        if self.queue.len() + self.held.len() >= self.config.limit {
            self.counters.overflowed += 1;
            return;
        }
        let mut frame = frame.to_vec();
        if corrupt && flip_bits(&mut frame, damage) {
            self.counters.corrupted += 1;
        }
        let jitter = (self.config.jitter.as_nanos() as f64 * late) as u64;
        let due = now_ns + self.config.delay.as_nanos() as u64 + jitter;
        let due = due.max(self.last_due);
        self.last_due = due;
        let entry = self.entered;
        self.entered += 1;
        if duplicate {
            self.counters.duplicated += 1;
            self.enqueue(due, entry, frame.clone());
        }
        if reorder {
            self.held.push(Held {
                after_entry: entry + depth,
                deadline: now_ns + REORDER_WAIT_NS,
                due,
                entry,
                frame,
            });
        } else {
            self.enqueue(due, entry, frame);
        }
        // Due no earlier than the frame that overtook it, and released after it.
        self.release(|held| held.after_entry <= entry, due);
    }

    /// Takes the next frame that has come to the end of the wire by `now_ns`.
    pub fn pop_due(&mut self, now_ns: u64) -> Option<Vec<u8>> {
        self.release(|held| held.deadline <= now_ns, 0);
        if self.queue.peek()?.0.due > now_ns {
            return None;
        }
        let Reverse(out) = self.queue.pop()?;
        self.counters.forwarded += 1;
        match self.newest_out {
            Some(newest) if out.entry < newest => self.counters.reordered += 1,
            _ => self.newest_out = Some(out.entry),
        }
        Some(out.frame)
    }

    /// When [`pop_due`](Stage::pop_due) will next have something; none when the wire is empty.
    pub fn next_due(&self) -> Option<u64> {
        let held = self.held.iter().map(|h| h.deadline.max(h.due));
        let queued = self.queue.peek().map(|q| q.0.due);
        held.chain(queued).min()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn enqueue(&mut self, due: u64, entry: u64, frame: Vec<u8>) {
        let release = self.released;
        self.released += 1;
        self.queue.push(Reverse(Queued {
            due,
            release,
            entry,
            frame,
        }));
    }

    fn release(&mut self, ready: impl Fn(&Held) -> bool, not_before: u64) {
        let mut i = 0;
        while i < self.held.len() {
            if ready(&self.held[i]) {
                let held = self.held.remove(i);
                self.enqueue(held.due.max(not_before), held.entry, held.frame);
            } else {
                i += 1;
            }
        }
    }
}

/// Flips 1 to 8 different bits after the Ethernet header; false when there is nothing after it.
fn flip_bits(frame: &mut [u8], seed: u64) -> bool {
    let Some(body) = frame.get_mut(CORRUPT_FROM..).filter(|b| !b.is_empty()) else {
        return false;
    };
    let mut random = fastrand::Rng::with_seed(seed);
    let bits = body.len() * 8;
    let first = random.usize(..bits);
    // Neighbouring bits, as a burst on a real wire: all different, so the frame surely changes.
    for bit in (0..random.usize(1..=8)).map(|i| (first + i) % bits) {
        body[bit / 8] ^= 1 << (bit % 8);
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pushes `count` numbered frames 1 µs apart and drains the wire.
    fn run(config: Impairment, count: u32) -> (Vec<Vec<u8>>, Counters) {
        let mut stage = Stage::new(config);
        let mut out = Vec::new();
        for i in 0..count {
            let now = u64::from(i) * 1000;
            stage.push(now, &frame(i));
            out.extend(std::iter::from_fn(|| stage.pop_due(now)));
        }
        while let Some(due) = stage.next_due() {
            let before = out.len();
            out.extend(std::iter::from_fn(|| stage.pop_due(due)));
            assert!(out.len() > before, "next_due tells the truth");
        }
        (out, stage.counters())
    }

    fn frame(number: u32) -> Vec<u8> {
        let mut frame = vec![0xee; 60];
        frame[20..24].copy_from_slice(&number.to_be_bytes());
        frame
    }

    fn number(frame: &[u8]) -> u32 {
        u32::from_be_bytes(frame[20..24].try_into().expect("four bytes"))
    }

    #[test]
    fn loss_is_about_as_asked() {
        let config = Impairment {
            loss: 0.1,
            ..Impairment::default()
        };
        let (out, counters) = run(config, 20_000);
        assert_eq!(out.len() as u64 + counters.lost, 20_000);
        assert!((1_800..2_200).contains(&counters.lost), "{counters:?}");
    }

    #[test]
    fn delay_holds_a_frame_back_for_exactly_that_long() {
        let mut stage = Stage::new(Impairment {
            delay: Duration::from_millis(5),
            ..Impairment::default()
        });
        stage.push(1_000, &frame(0));
        assert_eq!(stage.next_due(), Some(5_001_000));
        assert_eq!(stage.pop_due(5_000_999), None);
        assert_eq!(stage.pop_due(5_001_000), Some(frame(0)));
        assert_eq!(stage.next_due(), None);
    }

    #[test]
    fn a_full_wire_loses_the_newest() {
        let mut stage = Stage::new(Impairment {
            limit: 2,
            ..Impairment::default()
        });
        (0..3).for_each(|i| stage.push(0, &frame(i)));
        let out: Vec<_> = std::iter::from_fn(|| stage.pop_due(0)).collect();
        assert_eq!(out, [frame(0), frame(1)]);
        assert_eq!(stage.counters().overflowed, 1);
    }

    #[test]
    fn a_lone_reordered_frame_is_not_stuck() {
        let mut stage = Stage::new(Impairment {
            reorder: 1.0,
            ..Impairment::default()
        });
        stage.push(0, &frame(7));
        assert_eq!(stage.pop_due(0), None);
        let due = stage.next_due().expect("held");
        assert_eq!(stage.pop_due(due), Some(frame(7)));
        assert_eq!(stage.counters().reordered, 0);
    }

    fn any_impairment() -> impl Strategy<Value = Impairment> {
        let p = || 0.0..=1.0f64;
        (p(), p(), p(), p(), 0u64..5_000, 0u64..5_000, any::<u64>()).prop_map(
            |(loss, duplicate, reorder, corrupt, delay, jitter, seed)| Impairment {
                loss,
                duplicate,
                reorder,
                corrupt,
                delay: Duration::from_nanos(delay),
                jitter: Duration::from_nanos(jitter),
                seed,
                ..Impairment::default()
            },
        )
    }

    proptest! {
        #[test]
        fn without_loss_and_reordering_all_come_once_in_order(config in any_impairment()) {
            let config = Impairment { loss: 0.0, reorder: 0.0, duplicate: 0.0, corrupt: 0.0, ..config };
            let (out, counters) = run(config, 200);
            let numbers: Vec<u32> = out.iter().map(|f| number(f)).collect();
            prop_assert_eq!(numbers, (0..200).collect::<Vec<_>>());
            prop_assert_eq!(counters, Counters { forwarded: 200, ..Counters::default() });
        }

        #[test]
        fn the_same_seed_does_the_same(config in any_impairment()) {
            prop_assert_eq!(run(config, 200), run(config, 200));
        }

        #[test]
        fn every_frame_is_accounted_for(config in any_impairment()) {
            let (out, c) = run(config, 200);
            prop_assert_eq!(c.forwarded, out.len() as u64);
            prop_assert_eq!(c.forwarded + c.lost + c.overflowed, 200 + c.duplicated);
        }

        #[test]
        fn reordering_loses_and_repeats_nothing(config in any_impairment()) {
            let config = Impairment { loss: 0.0, duplicate: 0.0, corrupt: 0.0, ..config };
            let mut numbers: Vec<u32> = run(config, 200).0.iter().map(|f| number(f)).collect();
            numbers.sort_unstable();
            prop_assert_eq!(numbers, (0..200).collect::<Vec<_>>());
        }

        #[test]
        fn the_counter_of_reordered_frames_is_what_a_receiver_sees(config in any_impairment()) {
            let config = Impairment { duplicate: 0.0, corrupt: 0.0, ..config };
            let (out, counters) = run(config, 200);
            let mut highest = None;
            let late = out.iter().filter(|f| {
                let late = highest.is_some_and(|h| number(f) < h);
                highest = highest.max(Some(number(f)));
                late
            });
            prop_assert_eq!(late.count() as u64, counters.reordered);
        }

        #[test]
        fn damage_changes_a_frame_but_not_its_ethernet_header(len in 15usize..200, seed in any::<u64>()) {
            let before = vec![0x5a; len];
            let mut after = before.clone();
            prop_assert!(flip_bits(&mut after, seed));
            prop_assert_ne!(&before, &after);
            prop_assert_eq!(&before[..14], &after[..14]);
        }
    }
}
