//! Circuits whose packets come and cannot be opened, which is nearly always a mistake of who configured the two ends: a
//! replay or a forgery would have to pass the link's seal first.

use std::collections::BTreeMap;

use crate::keys::Live;
use twinseal_fib::traffic::Traffic;
use twinseal_forward::reason::DropReason;
use twinseal_model::parse::ItemKey;
use twinseal_model::state::{Circuit, CircuitName, End, State};

/// So many looks, a second apart, must have found more such packets, and none that could be opened.
const LOOKS: u32 = 3;
/// Circuits that are followed at the most.
const FOLLOWED: usize = 64;

/// Those that were seen.
#[derive(Clone, Default)]
pub(super) struct Unopened {
    /// The node's drops for this reason, when last looked at.
    total: u64,
    circuits: BTreeMap<CircuitName, Seen>,
}

/// How a circuit was when such a packet had come, and none that could be opened since.
#[derive(Clone)]
struct Seen {
    end: End,
    received: u64,
    failed: u64,
    looks: u32,
}

impl Seen {
    fn new(circuit: &Circuit, traffic: &Traffic) -> Self {
        Self {
            end: circuit.end,
            received: traffic.totals().received_packets,
            failed: traffic.drops(DropReason::CircuitAuthentication as usize),
            looks: 0,
        }
    }

    /// Whether the same is still to be said.
    fn goes_on(&self, now: &Self) -> bool {
        (self.end, self.received) == (now.end, now.received) && self.failed <= now.failed
    }
}

impl Unopened {
    /// Looks at circuits, if the node has dropped more for this reason than before: there may be many.
    pub(super) fn look(&mut self, state: &State, live: &Live, total: u64) {
        if total == self.total {
            return;
        }
        self.total = total;
        for (name, traffic) in live.circuits() {
            let Some(circuit) = state.circuits.get(name) else {
                continue;
            };
            if traffic.drops(DropReason::CircuitAuthentication as usize) == 0 {
                continue;
            }
            let mut now = Seen::new(circuit, traffic);
            let full = self.circuits.len() >= FOLLOWED;
            match self.circuits.get_mut(name) {
                Some(seen) => {
                    if seen.goes_on(&now) {
                        now.looks = seen.looks + u32::from(now.failed > seen.failed);
                    }
                    *seen = now;
                }
                None if full => {}
                None => _ = self.circuits.insert(name.clone(), now),
            }
        }
    }

    /// What is to be said of circuits. Forgets those that have opened a packet since.
    pub(super) fn found(&mut self, state: &State, live: &Live) -> Vec<(ItemKey, String)> {
        let now =
            |name: &CircuitName| Some(Seen::new(state.circuits.get(name)?, live.circuit(name)?));
        self.circuits
            .retain(|name, seen| now(name).is_some_and(|now| seen.goes_on(&now)));
        let seen = self.circuits.iter().filter(|(_, seen)| seen.looks >= LOOKS);
        let found = seen.filter_map(|(name, seen)| {
            let id = state.circuits.get(name)?.id;
            let (end, other) = match seen.end {
                End::A => ("a", "b"),
                End::B => ("b", "a"),
            };
            let warning = format!(
                "its packets come and none can be opened (circuit_authentication): here it is end {end} with id {id}, so the \
                 other node must have end {other}, the same id, and the same secrets in each epoch"
            );
            Some((ItemKey::Circuit(name.clone()), warning))
        });
        found.collect()
    }
}
