//! How links, circuits and keys are, and what changed for the worse or better.

use std::collections::{BTreeMap, HashSet};

use twinseal_api::v1::{self, CircuitChange, EventKind, LinkStatus, event::Event as Body};

use super::compile::Sources;
use super::events::Events;
use super::events::changes::{self, Births, Change};
use super::model::{CircuitName, KeyId, LinkName, Owner, State};
use super::netlink::View;

/// How a link or circuit is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// It carries.
    Up,
    /// It carries, but not all is well.
    Degraded(&'static str),
    /// It does not.
    Down(&'static str),
}

impl Status {
    /// What is wrong; empty if nothing is.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Up => "",
            Self::Degraded(reason) | Self::Down(reason) => reason,
        }
    }

    /// Whether it is at least degraded.
    pub fn carries(self) -> bool {
        !matches!(self, Self::Down(_))
    }
}

/// Whether a link can send.
pub fn link(from: &Sources<'_>, view: &View, name: &LinkName) -> Status {
    let Some(link) = from.state.links.get(name) else {
        return Status::Down("deleted");
    };
    let Some(port) = from.ports.get(&link.port) else {
        return Status::Down("its port is not open");
    };
    if port.ifindex.is_some_and(|ifindex| !view.carrier(ifindex)) {
        return Status::Down("its port has no carrier");
    }
    if from.next_hop(name).is_none() {
        return Status::Down("its next hop is not resolved");
    }
    let owner = Owner::Link(name.clone());
    let key = from.state.transmitting(&owner);
    match key.and_then(|key| from.live.seal(&key)) {
        None => Status::Degraded("no key transmits"),
        Some(sa) if sa.exhausted() => Status::Degraded("its transmit key is exhausted"),
        Some(sa) if sa.nearly_exhausted() => {
            Status::Degraded("its transmit key is nearly exhausted")
        }
        Some(_) if !from.live.receives(&owner) => Status::Degraded("no key receives"),
        Some(_) => Status::Up,
    }
}

/// Whether a circuit can send.
fn circuit(from: &Sources<'_>, links: &BTreeMap<LinkName, Status>, name: &CircuitName) -> Status {
    let Some(circuit) = from.state.circuits.get(name) else {
        return Status::Down("deleted");
    };
    if !links.get(&circuit.link).is_some_and(|link| link.carries()) {
        return Status::Down("its link is down");
    }
    let key = |owner| {
        let key = from.state.transmitting(&owner)?;
        from.live.seal(&key)
    };
    if key(Owner::Link(circuit.link.clone())).is_none() {
        return Status::Down("no key transmits on its link");
    }
    match key(Owner::Circuit(name.clone())) {
        None => Status::Down("no key transmits"),
        Some(sa) if sa.exhausted() => Status::Down("its transmit key is exhausted"),
        Some(_) => Status::Up,
    }
}

/// What was told last.
#[derive(Default)]
pub struct Health {
    links: BTreeMap<LinkName, Status>,
    circuits: BTreeMap<CircuitName, Status>,
    nearly: HashSet<KeyId>,
    exhausted: HashSet<KeyId>,
    births: Births,
    /// Circuits are to be looked at: there may be a hundred thousand, and little else that changes concerns them.
    stale: bool,
}

impl Health {
    /// Tells what a transaction did, which turned `old` into `new`.
    pub fn changed(&mut self, events: &Events, old: &State, new: &State, change: Change) {
        changes::tell(events, &mut self.births, old, new, change);
        self.stale |= !(new.circuits.same(&old.circuits)
            && new.transmits.same(&old.transmits)
            && new.keys.same(&old.keys)
            && new.links.same(&old.links));
    }

    /// Tells what changed since the last call. Returns whether circuits were looked at.
    pub fn update(&mut self, events: &Events, from: &Sources<'_>, view: &View) -> bool {
        self.keys(events, from);
        let links: BTreeMap<_, _> = from
            .state
            .links
            .keys()
            .map(|name| (name.clone(), link(from, view, name)))
            .collect();
        if links != self.links {
            self.tell_links(events, from.state, &links);
            self.links = links;
            self.stale = true;
        }
        let stale = std::mem::take(&mut self.stale);
        if stale {
            self.update_circuits(events, from);
        }
        stale
    }

    /// Why a circuit can't send, as was found last; `None` if it can, or was not looked at yet.
    pub fn circuit_down(&self, name: &CircuitName) -> Option<String> {
        let status = self.circuits.get(name)?;
        (!status.carries()).then(|| status.reason().to_owned())
    }

    /// Tells that a key is near a limit, or has come to it.
    pub(super) fn limit(
        &mut self,
        events: &Events,
        id: &KeyId,
        change: v1::KeyChange,
        limit: &str,
    ) {
        // What has stopped is not near any more.
        let near = self.nearly.insert(id.clone());
        let new = match change {
            v1::KeyChange::Exhausted => self.exhausted.insert(id.clone()),
            _ => near,
        };
        if new {
            events.limit(id, change, limit);
            self.stale = true;
        }
    }

    fn keys(&mut self, events: &Events, from: &Sources<'_>) {
        self.nearly.retain(|id| from.live.seal(id).is_some());
        self.exhausted.retain(|id| from.live.seal(id).is_some());
        for (id, sa) in from.live.seals() {
            if sa.nearly_exhausted() && self.nearly.insert(id.clone()) {
                events.key(id, v1::KeyChange::NearlyExhausted);
            }
            if sa.exhausted() && self.exhausted.insert(id.clone()) {
                events.key(id, v1::KeyChange::Exhausted);
                self.stale = true;
            }
        }
    }

    fn tell_links(&self, events: &Events, state: &State, links: &BTreeMap<LinkName, Status>) {
        let tell = |name: &LinkName, status: Status| {
            let link = state.links.get(name);
            let body = v1::LinkEvent {
                link: name.to_string(),
                status: match status {
                    Status::Up => LinkStatus::Up,
                    Status::Degraded(_) => LinkStatus::Degraded,
                    Status::Down(_) => LinkStatus::Down,
                }
                .into(),
                reason: status.reason().to_owned(),
                remote: link.map(|link| link.remote.to_string()).unwrap_or_default(),
            };
            events.emit(EventKind::Fault, Body::Link(body));
        };
        for (name, status) in links {
            if self.links.get(name) != Some(status) {
                tell(name, *status);
            }
        }
        for name in self.links.keys().filter(|name| !links.contains_key(name)) {
            tell(name, Status::Down("deleted"));
        }
    }

    /// Those that are gone were told of by the transaction.
    fn update_circuits(&mut self, events: &Events, from: &Sources<'_>) {
        let mut circuits = BTreeMap::new();
        for (name, it) in from.state.circuits.iter() {
            let status = circuit(from, &self.links, name);
            if self.circuits.get(name) != Some(&status) {
                let change = if status.carries() {
                    CircuitChange::Up
                } else {
                    CircuitChange::Failed
                };
                let cause = status.reason();
                let body = changes::circuit(&self.births, from.state, name, it, change, cause);
                events.emit(EventKind::Fault, Body::Circuit(body));
            }
            circuits.insert(name.clone(), status);
        }
        self.circuits = circuits;
    }
}
