//! How a worker passes the time without packets.
//!
//! A sleeping worker costs nothing, but waking it takes tens of microseconds where its core has gone idle, and some
//! microseconds of processor time in any case. A spinning one sees its next packet at once and takes the core from
//! everybody else. [`Idle::Adaptive`] is between the two:
//!
//! - It spins for up to [`LIMIT`], and then sleeps.
//! - It spins only if that has paid: at least a quarter of the last waits were over within the limit. So neither a trickle
//!   of packets nor none at all costs more than the sleep.
//! - It yields the core after every few looks. A program that wants it, a host of the same machine or another worker,
//!   runs at once.
//! - If it did not get the core back soon ([`AWAY`]), somebody has real work to do. It then sleeps without spinning for a
//!   while ([`HOLD_OFF`]), twice as long each time that this repeats: as a sleeper it is woken before a program that has
//!   computed all the while, as a spinner it would have to wait for its turn. A hypervisor that takes the core away from
//!   all of its programs is not somebody ([`Queued`]).

use std::time::{Duration, Instant};

use super::sched::Queued;

/// What a worker does when it has no packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Idle {
    /// It spins as long as that is likely to pay and nobody else needs the core, then sleeps.
    #[default]
    Adaptive,
    /// It sleeps after a few empty loops.
    Sleep,
    /// It never sleeps, and takes the whole core.
    Spin,
}

/// What to do after an empty loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Look for packets again.
    Again,
    /// Let others have the core, then look for packets again.
    Yield,
    /// Look at clock and commands, then for packets again.
    Housekeeping,
    /// Sleep until something comes.
    Sleep,
}

/// The longest that a worker spins. Less than what a sleep and its end cost (about 0.1 ms, where a virtual machine's core
/// has gone idle) gains nothing; this catches all but the slowest conversations.
const LIMIT: Duration = Duration::from_millis(1);
/// Having been away from the core for longer, the worker knows that others need it.
const AWAY: Duration = Duration::from_micros(200);
/// How long the worker does not spin then, the first time and at most.
const HOLD_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));
/// Empty loops between two looks at the clock: a fraction of a microsecond.
const LOOK: u32 = 16;
/// Empty loops before [`Idle::Sleep`] sleeps, and between two calls of the house.
const SHORT: u32 = 64;
/// All of the last waits, and of those the quarter that must have been short.
const ALL: u32 = 256;
const QUARTER: u32 = ALL / 4;

/// Decides, from how long the worker waited before and from what its core was needed for meanwhile.
pub(super) struct Wait {
    policy: Idle,
    /// Empty loops of this wait.
    loops: u32,
    /// Since when there are no packets, once the clock was looked at.
    since: Option<Instant>,
    /// The last look at the clock, unless the worker slept since.
    looked: Option<Instant>,
    /// Of the last waits those that were over within the limit, in parts of [`ALL`]; an eighth is of the last one.
    short: u32,
    contention: Option<Contention>,
    queued: Queued,
}

/// Others need the core.
#[derive(Clone, Copy)]
struct Contention {
    until: Instant,
    hold_off: Duration,
}

impl Wait {
    pub(super) fn new(policy: Idle) -> Self {
        Self {
            policy,
            loops: 0,
            since: None,
            looked: None,
            short: ALL,
            contention: None,
            queued: Queued::default(),
        }
    }

    /// There was a packet.
    #[inline]
    pub(super) fn over(&mut self) {
        if self.loops > 0 {
            self.end(Instant::now);
        }
    }

    /// There was none.
    #[inline]
    pub(super) fn empty(&mut self) -> Step {
        self.loops = self.loops.wrapping_add(1);
        if !self.loops.is_multiple_of(LOOK) {
            std::hint::spin_loop();
            return Step::Again;
        }
        match self.policy {
            Idle::Adaptive => {
                let now = Instant::now();
                let away = self.was_away(now);
                if self.queued.for_more_than(AWAY / 2, now, away) {
                    self.crowded(now);
                }
                self.look(now)
            }
            Idle::Sleep if self.loops >= SHORT => Step::Sleep,
            Idle::Spin if self.loops.is_multiple_of(SHORT) => Step::Housekeeping,
            Idle::Sleep | Idle::Spin => Step::Again,
        }
    }

    /// The wait is over; the clock is asked only if the wait was longer than a look.
    fn end(&mut self, now: impl FnOnce() -> Instant) {
        let long = self.since.is_some_and(|since| now() - since > LIMIT);
        self.short = self.short - self.short / 8 + if long { 0 } else { ALL / 8 };
        self.loops = 0;
        (self.since, self.looked) = (None, None);
    }

    /// Whether it had not looked for long.
    fn was_away(&self, now: Instant) -> bool {
        self.looked.is_some_and(|looked| now - looked > AWAY)
    }

    fn look(&mut self, now: Instant) -> Step {
        let since = *self.since.get_or_insert(now);
        self.looked = Some(now);
        let crowded = self
            .contention
            .is_some_and(|contention| now < contention.until);
        if crowded || self.short < QUARTER || now - since >= LIMIT {
            self.looked = None;
            Step::Sleep
        } else if self.loops.is_multiple_of(SHORT) {
            Step::Housekeeping
        } else {
            Step::Yield
        }
    }

    fn crowded(&mut self, now: Instant) {
        // Soon after the last time: it is still so.
        let hold_off = match self.contention {
            Some(last) if now < last.until + last.hold_off => (last.hold_off * 2).min(HOLD_OFF.1),
            _ => HOLD_OFF.0,
        };
        self.contention = Some(Contention {
            until: now + hold_off,
            hold_off,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    /// A wait and its clock.
    struct Clock {
        wait: Wait,
        now: Instant,
    }

    impl Clock {
        fn new() -> Self {
            Self {
                wait: Wait::new(Idle::Adaptive),
                now: Instant::now(),
            }
        }

        /// The step after a look `after` the last one.
        fn look(&mut self, after: Duration) -> Step {
            self.now += after;
            self.wait.loops += 1;
            if self.wait.was_away(self.now) {
                self.wait.crowded(self.now);
            }
            self.wait.look(self.now)
        }

        /// How long it spins before it sleeps; then a packet comes, `wait` after the last.
        fn wait(&mut self, wait: Duration) -> Duration {
            let begin = self.now;
            while self.now - begin < wait {
                if self.look(US) == Step::Sleep {
                    break;
                }
            }
            let spun = self.now - begin;
            self.now = begin + wait;
            self.wait.end(|| self.now);
            spun
        }
    }

    #[test]
    fn short_waits_are_spun_through_and_long_ones_up_to_the_limit() {
        let mut clock = Clock::new();
        assert_eq!(clock.wait(40 * US), 40 * US);
        let spun = clock.wait(10_000 * US);
        assert!(spun >= LIMIT && spun < LIMIT + 2 * US, "{spun:?}");
    }

    #[test]
    fn spinning_that_does_not_pay_ends_and_comes_back() {
        let mut clock = Clock::new();
        // A request and its answer: every other wait is short.
        for _ in 0..100 {
            assert!(clock.wait(10_000 * US) >= LIMIT);
            assert_eq!(clock.wait(300 * US), 300 * US);
        }
        for _ in 0..20 {
            clock.wait(10_000 * US);
        }
        assert!(clock.wait(10_000 * US) <= US);
        // Asleep it still sees that waits would have been short enough.
        for _ in 0..3 {
            clock.wait(50 * US);
        }
        assert_eq!(clock.wait(30 * US), 30 * US);
    }

    #[test]
    fn a_core_that_others_need_is_left_to_them() {
        let mut clock = Clock::new();
        assert_eq!(clock.look(US), Step::Yield);
        // A short visit is nothing.
        assert_eq!(clock.look(AWAY / 4), Step::Yield);
        assert_eq!(clock.look(AWAY * 2), Step::Sleep);
        clock.wait.end(|| clock.now);
        for hold_off in [HOLD_OFF.0, HOLD_OFF.0 * 2, HOLD_OFF.0 * 4] {
            assert!(clock.wait(hold_off / 2) <= US);
            for _ in 0..8 {
                clock.wait(US);
            }
            clock.now += hold_off / 2;
            assert_eq!(clock.look(US), Step::Yield, "it tries again");
            assert_eq!(clock.look(AWAY * 2), Step::Sleep);
            clock.wait.end(|| clock.now);
        }
        clock.now += HOLD_OFF.1 * 3;
        assert_eq!(clock.look(US), Step::Yield);
        clock.wait.crowded(clock.now);
        let hold_off = clock.wait.contention.map(|contention| contention.hold_off);
        assert_eq!(hold_off, Some(HOLD_OFF.0), "long ago is forgotten");
    }

    #[test]
    fn the_other_policies_do_as_they_are_told() {
        let steps = |policy| {
            let mut wait = Wait::new(policy);
            (0..SHORT * 4).map(|_| wait.empty()).collect::<Vec<_>>()
        };
        let sleep = steps(Idle::Sleep);
        assert_eq!(sleep.iter().position(|&s| s == Step::Sleep), Some(63));
        let spin = steps(Idle::Spin);
        assert!(!spin.contains(&Step::Sleep) && spin.contains(&Step::Housekeeping));
    }
}
