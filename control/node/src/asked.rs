//! Whom the kernel is asked to resolve for packets of hosts, and how many at a time.
//!
//! The kernel's table of neighbours is one for all devices, and of all namespaces. When it is full (`gc_thresh3` entries)
//! nobody's new neighbours are resolved, and before that it forgets others that it has not heard of for five seconds. So
//! the entries that packets make there are bounded: in [`YOUNG`], a quarter of the table. Those who do not answer are
//! taken out of it again. When the bound is reached, the device that has most of them gives up its oldest; so a device
//! with no more than its share always finds room.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use twinseal_fib::MAX_PORTS;

/// A neighbour: the kernel's index of its device, and its address.
pub(super) type Key = (u32, IpAddr);

/// How long after it was last asked for an entry counts. Longer than the kernel asks, so without an answer by then there is
/// nobody.
const YOUNG: Duration = Duration::from_secs(5);
/// Between two requests for one that does not answer.
const AGAIN: Duration = Duration::from_millis(200);
/// How long one has to answer before another of the same device may have its place.
const PATIENCE: Duration = Duration::from_millis(500);

/// Those who were asked for lately, the first at the front.
pub(super) struct Asked {
    entries: VecDeque<Entry>,
    most: usize,
}

struct Entry {
    key: Key,
    since: Instant,
    last: Instant,
    answered: bool,
}

/// What to do about a neighbour that packets wait for.
#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct Verdict {
    /// Ask for it.
    pub(super) ask: bool,
    /// Forget this other one, to make room.
    pub(super) forget: Option<Key>,
}

impl Asked {
    /// With this many at a time.
    pub(super) fn new(most: usize) -> Self {
        let most = most.max(MAX_PORTS);
        let entries = VecDeque::new();
        Self { entries, most }
    }

    /// With as many as the kernel's tables allow.
    pub(super) fn by_kernel() -> Self {
        Self::new(Crowd::by_kernel().least() / 4)
    }

    /// Packets wait for a neighbour that the kernel does not know.
    pub(super) fn wanted(&mut self, key: Key, now: Instant) -> Verdict {
        let mut verdict = Verdict::default();
        if let Some(known) = self.entries.iter_mut().find(|known| known.key == key) {
            // One that has answered was lost since.
            verdict.ask = known.answered || now - known.last >= AGAIN;
            if verdict.ask {
                (known.last, known.answered) = (now, false);
            }
            return verdict;
        }
        if self.entries.len() >= self.most {
            let hog = self.hog(key.0);
            let gives_way = |entry: &Entry| {
                let dead = !entry.answered && now - entry.since >= PATIENCE;
                entry.key.0 == hog && (hog != key.0 || dead)
            };
            let Some(place) = self.entries.iter().position(gives_way) else {
                return verdict;
            };
            verdict.forget = self.entries.remove(place).map(|entry| entry.key);
        }
        verdict.ask = true;
        self.entries.push_back(Entry {
            key,
            since: now,
            last: now,
            answered: false,
        });
        verdict
    }

    /// Says whether the kernel has come to know any of them since the last call.
    pub(super) fn answered(&mut self, known: impl Fn(&Key) -> bool) -> bool {
        let mut any = false;
        for entry in self.entries.iter_mut().filter(|entry| !entry.answered) {
            entry.answered = known(&entry.key);
            any |= entry.answered;
        }
        any
    }

    /// Lets go of the old ones, and tells those to forget.
    pub(super) fn expire(&mut self, now: Instant, mut forget: impl FnMut(Key)) {
        self.entries.retain(|entry| {
            let young = now - entry.last < YOUNG;
            if !young && !entry.answered {
                forget(entry.key);
            }
            young
        });
    }

    /// The device that has most of them; this one if it is among them.
    fn hog(&self, own: u32) -> u32 {
        let has = |device| self.entries.iter().filter(|it| it.key.0 == device).count();
        let mut most = (own, has(own));
        let mut counted = vec![own];
        for device in self.entries.iter().map(|entry| entry.key.0) {
            if !counted.contains(&device) {
                counted.push(device);
                let has = has(device);
                if has > most.1 {
                    most = (device, has);
                }
            }
        }
        most.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(device: u32, host: u32) -> Key {
        (device, IpAddr::V4(host.into()))
    }

    /// Asks for as many of a device's hosts, and tells how many it was given.
    fn ask(asked: &mut Asked, device: u32, hosts: std::ops::Range<u32>, now: Instant) -> usize {
        let given = |host: &u32| asked.wanted(key(device, *host), now).ask;
        hosts.filter(given).count()
    }

    #[test]
    fn a_device_finds_room_whatever_another_asks_for() {
        let mut now = Instant::now();
        let mut asked = Asked::new(256);
        assert_eq!(ask(&mut asked, 1, 0..1000, now), 256);
        for device in 2..=MAX_PORTS as u32 {
            assert_eq!(ask(&mut asked, device, 0..4, now), 4, "device {device}");
            // Whom the first one loses is forgotten, and it finds nothing new at once.
            assert_eq!(ask(&mut asked, 1, 2000..3000, now), 0);
        }
        assert_eq!(asked.entries.len(), 256);
        // Who does not answer gives way to others of its own.
        now += PATIENCE;
        let verdict = asked.wanted(key(1, 5000), now);
        assert!(verdict.ask && verdict.forget.is_some_and(|it| it.0 == 1));
    }

    #[test]
    fn those_who_do_not_answer_are_asked_again_and_then_forgotten() {
        let start = Instant::now();
        let mut asked = Asked::new(256);
        assert_eq!(ask(&mut asked, 1, 0..2, start), 2);
        assert_eq!(ask(&mut asked, 1, 0..2, start + AGAIN / 2), 0);
        assert!(asked.answered(|it| *it == key(1, 0)));
        assert!(!asked.answered(|it| *it == key(1, 0)), "that is no news");
        assert_eq!(ask(&mut asked, 1, 1..2, start + AGAIN), 1);
        // One that the kernel has lost again is asked for at once.
        assert_eq!(ask(&mut asked, 1, 0..1, start + AGAIN), 1);
        assert_eq!(ask(&mut asked, 1, 0..1, start + AGAIN), 0);
        assert!(asked.answered(|it| *it == key(1, 0)));
        let mut forgotten = Vec::new();
        asked.expire(start + YOUNG, |it| forgotten.push(it));
        assert!(forgotten.is_empty());
        asked.expire(start + AGAIN + YOUNG, |it| forgotten.push(it));
        assert_eq!(forgotten, [key(1, 1)]);
        assert!(asked.entries.is_empty());
    }

    #[test]
    fn those_who_answer_keep_their_place_among_their_own() {
        let mut now = Instant::now();
        let mut asked = Asked::new(64);
        assert_eq!(ask(&mut asked, 1, 0..64, now), 64);
        assert!(asked.answered(|_| true));
        now += PATIENCE;
        assert_eq!(asked.wanted(key(1, 100), now), Verdict::default());
        let verdict = asked.wanted(key(2, 0), now);
        assert_eq!((verdict.ask, verdict.forget), (true, Some(key(1, 0))));
    }
}
