//! Which members of groups are known not to carry packets, so that groups go without them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::compile::Sources;
use crate::health;
use crate::health::Health;
use crate::netlink::View;
use twinseal_model::state::{CircuitName, GroupName, Hop, Member, PersistentMap, Via};

/// What does not carry packets, and why.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Down {
    circuits: BTreeMap<CircuitName, String>,
    vias: BTreeMap<Via, String>,
}

impl Down {
    /// With these circuits and next hops.
    #[cfg(test)]
    pub(super) fn of(hops: &[Hop]) -> Arc<Self> {
        let mut down = Self::default();
        for hop in hops {
            let why = "as the test has it".to_owned();
            match hop {
                Hop::Circuit(name) => _ = down.circuits.insert(name.clone(), why),
                Hop::Via(via) => _ = down.vias.insert(via.clone(), why),
            }
        }
        Arc::new(down)
    }

    /// Why packets that are led there would be lost; `None` if nothing is known against it.
    pub fn why(&self, hop: &Hop) -> Option<&str> {
        let why = match hop {
            Hop::Circuit(name) => self.circuits.get(name),
            Hop::Via(via) => self.vias.get(via),
        };
        why.map(String::as_str)
    }
}

/// Looks at members of groups.
#[derive(Default)]
pub(super) struct Members {
    groups: PersistentMap<GroupName, Vec<Member>>,
    circuits: BTreeSet<CircuitName>,
    vias: BTreeSet<Via>,
    down: Arc<Down>,
}

impl Members {
    /// What was found down.
    pub(super) fn down(&self) -> &Arc<Down> {
        &self.down
    }

    /// Looks again. `circuits` says whether any circuit may be otherwise than before; there may be many. Tells whether
    /// anything went down or came up.
    pub(super) fn look(
        &mut self,
        from: &Sources<'_>,
        view: &View,
        health: &Health,
        mut circuits: bool,
    ) -> bool {
        if !self.groups.same(&from.state.groups) {
            self.groups = from.state.groups.clone();
            (self.circuits, self.vias) = Default::default();
            for member in self.groups.values().flatten() {
                match &member.hop {
                    Hop::Circuit(name) => _ = self.circuits.insert(name.clone()),
                    Hop::Via(via) => _ = self.vias.insert(via.clone()),
                }
            }
            circuits = true;
        }
        let vias = self.vias.iter();
        let vias: BTreeMap<_, _> = vias
            .filter_map(|via| Some((via.clone(), via_down(from, view, via)?)))
            .collect();
        if !circuits && vias == self.down.vias {
            return false;
        }
        let circuits = self.circuits.iter();
        let circuits = circuits.filter_map(|name| Some((name.clone(), health.circuit_down(name)?)));
        let down = Down {
            circuits: circuits.collect(),
            vias,
        };
        let changed = *self.down != down;
        if changed {
            self.down = Arc::new(down);
        }
        changed
    }
}

/// Why packets can't leave by a next hop.
fn via_down(from: &Sources<'_>, view: &View, via: &Via) -> Option<String> {
    let status = health::port(from, view, &via.port);
    if !status.carries() {
        return Some(format!("port {}: {}", via.port, status.reason()));
    }
    let port = from.ports.get(&via.port)?;
    // Without an address every packet has a next hop of its own.
    let address = via.address?;
    let fixed = &from.state.neighbours;
    let known = port.peer.is_some()
        || fixed.contains_key(&(via.port.clone(), address))
        || port
            .ifindex
            .is_some_and(|it| from.neighbours.contains_key(&(it, address)));
    (!known).then(|| "its next hop is not resolved".to_owned())
}
