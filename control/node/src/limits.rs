//! Limits of keys: how much, and how long, a key may transmit before it stops.
//!
//! The limit of a lane's counters is exact and in `crypto`. These are policy, so they are looked at once a second, with
//! counters that are there anyway: no packet pays for them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use twinseal_crypto::SealSa;

use crate::keys::Live;
use twinseal_base::time::since_boot;
use twinseal_model::state::{KeyId, Limits, Owner, State};

/// What a key has used of its limits.
struct Use {
    /// Of which it is; a key of the same name that is made anew begins anew.
    sa: Weak<SealSa>,
    /// When it began to transmit, since the machine's start; also while that sleeps a key grows old.
    since: Duration,
    /// The owner's octets then, less those that it had sent before.
    base: u64,
    /// Those that it has sent, if it transmits no more.
    bytes: Option<u64>,
}

impl Use {
    fn is_of(&self, sa: &Arc<SealSa>) -> bool {
        std::ptr::eq(self.sa.as_ptr(), Arc::as_ptr(sa))
    }
}

/// What comes to an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct End {
    /// As events name it.
    pub(super) limit: &'static str,
    /// Whether it is there, or only near.
    pub(super) reached: bool,
}

/// The keys that have transmitted, with what they have used.
#[derive(Default)]
pub(super) struct Watch {
    uses: HashMap<KeyId, Use>,
    near: HashSet<KeyId>,
}

impl Watch {
    /// Keys of these owners may have begun or ceased to transmit.
    pub(super) fn switched(&mut self, old: &State, new: &State, live: &Live, owner: &Owner) {
        let (before, after) = (old.transmitting(owner), new.transmitting(owner));
        let now = bytes(live, owner);
        if let Some(used) = before.and_then(|before| self.uses.get_mut(&before)) {
            used.bytes.get_or_insert(now.saturating_sub(used.base));
        }
        if let Some((after, sa)) = after.and_then(|id| live.seal(&id).map(|sa| (id, sa))) {
            let new = || Use {
                sa: Arc::downgrade(sa),
                since: since_boot(),
                base: now,
                bytes: None,
            };
            let used = self.uses.entry(after).or_insert_with(new);
            if !used.is_of(sa) {
                *used = new();
            }
            if let Some(bytes) = used.bytes.take() {
                used.base = now.saturating_sub(bytes);
            }
        }
    }

    /// Stops the keys that have come to a limit. Tells those that did, and for once those that are near.
    pub(super) fn look(
        &mut self,
        now: Duration,
        state: &State,
        live: &Live,
        defaults: Limits,
    ) -> Vec<(KeyId, End)> {
        self.uses.retain(|_, used| used.sa.strong_count() > 0);
        self.near.retain(|id| state.keys.contains_key(id));
        let mut ends = Vec::new();
        for (id, used) in &self.uses {
            let (Some(key), Some(sa)) = (state.keys.get(id), live.seal(id)) else {
                continue;
            };
            let limits = key.limits.or(defaults);
            if limits == Limits::default() || sa.exhausted() || !used.is_of(sa) {
                continue;
            }
            let bytes = || {
                used.bytes
                    .unwrap_or_else(|| bytes(live, &id.owner).saturating_sub(used.base))
            };
            let Some(end) = end(
                limits,
                sa.sealed(),
                bytes,
                now.saturating_sub(used.since).as_secs(),
            ) else {
                continue;
            };
            if end.reached {
                sa.stop();
                ends.push((id.clone(), end));
            } else if self.near.insert(id.clone()) {
                ends.push((id.clone(), end));
            }
        }
        ends
    }
}

/// The limit that comes first, if one is reached or near.
fn end(limits: Limits, packets: u64, bytes: impl FnOnce() -> u64, seconds: u64) -> Option<End> {
    let used = [
        (
            "packets",
            limits.packets.map(|limit| (packets, limit.get())),
        ),
        ("bytes", limits.bytes.map(|limit| (bytes(), limit.get()))),
        (
            "seconds",
            limits.seconds.map(|limit| (seconds, limit.get().into())),
        ),
    ];
    let ends = used.into_iter().filter_map(|(limit, used)| {
        let (used, most) = used?;
        (used >= most - most / 8).then_some(End {
            limit,
            reached: used >= most,
        })
    });
    ends.max_by_key(|end| end.reached)
}

fn bytes(live: &Live, owner: &Owner) -> u64 {
    let traffic = match owner {
        Owner::Link(name) => live.link(name),
        Owner::Circuit(name) => live.circuit(name),
    };
    traffic.map_or(0, |traffic| traffic.totals().sent_bytes)
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use super::*;

    #[test]
    fn seven_eighths_are_near_and_what_is_reached_comes_first() {
        let limits = Limits {
            packets: NonZero::new(80),
            bytes: NonZero::new(800),
            seconds: NonZero::new(8),
        };
        let end = |packets, bytes, seconds| {
            end(limits, packets, || bytes, seconds).map(|end| (end.limit, end.reached))
        };
        assert_eq!(end(69, 699, 6), None);
        assert_eq!(end(70, 0, 0), Some(("packets", false)));
        assert_eq!(end(0, 700, 0), Some(("bytes", false)));
        assert_eq!(end(0, 0, 7), Some(("seconds", false)));
        assert_eq!(end(79, 0, 8), Some(("seconds", true)));
        assert_eq!(end(79, 800, 7), Some(("bytes", true)));
        assert_eq!(
            super::end(Limits::default(), u64::MAX, || u64::MAX, u64::MAX),
            None
        );
        let one = Limits {
            packets: NonZero::new(1),
            ..Limits::default()
        };
        assert!(super::end(one, 0, || 0, 0).is_none());
        assert!(super::end(one, 1, || 0, 0).is_some_and(|end| end.reached));
    }
}
