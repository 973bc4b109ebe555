//! What changed for the worse or better: links, circuits, keys and suspicious drops, told as events.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::broadcast;
use twinseal_api::v1::{self, event::Event as Kind};
use twinseal_crypto::Direction;

use super::compile::Sources;
use super::model::{CircuitName, KeyId, LinkName, Owner, State};
use super::netlink::View;

/// Events that a slow reader may be behind.
const BACKLOG: usize = 4096;
/// A fault of one kind is told at most this often.
const FAULT_INTERVAL: Duration = Duration::from_secs(10);

/// Where events go.
pub struct Events(broadcast::Sender<v1::Event>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::channel(BACKLOG).0)
    }
}

impl Events {
    /// All events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<v1::Event> {
        self.0.subscribe()
    }

    /// Tells everyone.
    pub fn emit(&self, kind: Kind) {
        // An error means that nobody listens.
        let _ = self.0.send(event(kind));
    }

    /// Tells of a key.
    pub fn key(&self, id: &KeyId, change: v1::KeyChange) {
        self.emit(Kind::Key(v1::KeyEvent {
            key: Some(key_ref(id)),
            change: change.into(),
        }));
    }
}

/// An event of this moment.
pub fn event(kind: Kind) -> v1::Event {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    v1::Event {
        unix_nanos: since.map_or(0, |since| since.as_nanos() as u64),
        event: Some(kind),
    }
}

/// A fault of this moment.
pub fn fault(kind: &str, detail: String) -> Kind {
    Kind::Fault(v1::FaultEvent {
        kind: kind.to_owned(),
        detail,
    })
}

/// A key's name in the API.
pub fn key_ref(id: &KeyId) -> v1::KeyRef {
    v1::KeyRef {
        owner: Some(match &id.owner {
            Owner::Link(name) => v1::key_ref::Owner::Link(name.to_string()),
            Owner::Circuit(name) => v1::key_ref::Owner::Circuit(name.to_string()),
        }),
        direction: direction(id.direction).into(),
        epoch: id.epoch,
    }
}

/// A direction in the API.
pub fn direction(direction: Direction) -> v1::Direction {
    match direction {
        Direction::AToB => v1::Direction::AToB,
        Direction::BToA => v1::Direction::BToA,
    }
}

/// Up, or why not.
pub type Status = Result<(), &'static str>;

/// Whether a link can send.
pub fn link(from: &Sources<'_>, view: &View, name: &LinkName) -> Status {
    let link = from.state.links.get(name).ok_or("deleted")?;
    let port = from.ports.get(&link.port).ok_or("its port is not open")?;
    if port.ifindex.is_some_and(|ifindex| !view.carrier(ifindex)) {
        return Err("its port has no carrier");
    }
    match from.next_hop(name) {
        Some(_) => Ok(()),
        None => Err("its next hop is not resolved"),
    }
}

/// Whether a circuit can send.
fn circuit(from: &Sources<'_>, links: &BTreeMap<LinkName, Status>, name: &CircuitName) -> Status {
    let circuit = from.state.circuits.get(name).ok_or("deleted")?;
    let link = links.get(&circuit.link).copied();
    link.unwrap_or(Err("its link is down"))
        .map_err(|_| "its link is down")?;
    let key = from.state.transmitting(&Owner::Circuit(name.clone()));
    match key.and_then(|key| from.live.seal(&key)) {
        None => Err("no key transmits"),
        Some(sa) if sa.exhausted() => Err("its transmit key is exhausted"),
        Some(_) => Ok(()),
    }
}

/// What was told last.
#[derive(Default)]
pub struct Health {
    links: BTreeMap<LinkName, Status>,
    circuits: BTreeMap<CircuitName, Status>,
    nearly: HashSet<KeyId>,
    exhausted: HashSet<KeyId>,
    faults: HashMap<&'static str, Fault>,
}

#[derive(Default)]
struct Fault {
    /// The drops that were told or are known from before.
    seen: u64,
    told: Option<Instant>,
}

impl Health {
    /// Tells what changed since the last call.
    pub fn update(&mut self, events: &Events, from: &Sources<'_>, view: &View) {
        let links: BTreeMap<_, _> = from
            .state
            .links
            .keys()
            .map(|name| (name.clone(), link(from, view, name)))
            .collect();
        let circuits: BTreeMap<_, _> = from
            .state
            .circuits
            .keys()
            .map(|name| (name.clone(), circuit(from, &links, name)))
            .collect();
        for (name, status) in differences(&self.links, &links) {
            events.emit(Kind::Link(v1::LinkEvent {
                link: name.to_string(),
                up: status.is_ok(),
                reason: status.err().unwrap_or_default().to_owned(),
            }));
        }
        for (name, status) in differences(&self.circuits, &circuits) {
            events.emit(Kind::Circuit(v1::CircuitEvent {
                circuit: name.to_string(),
                up: status.is_ok(),
                reason: status.err().unwrap_or_default().to_owned(),
            }));
        }
        (self.links, self.circuits) = (links, circuits);
        self.keys(events, from);
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
            }
        }
    }

    /// Tells of drops that an operator should look at; often at most every ten seconds a kind.
    pub fn drops(&mut self, events: &Events, now: Instant, drops: &[(&'static str, u64)]) {
        const KINDS: [(&str, &[&str]); 3] = [
            (
                "authentication_failures",
                &["link_authentication", "circuit_authentication"],
            ),
            (
                "replayed_packets",
                &[
                    "link_replayed",
                    "link_too_old",
                    "circuit_replayed",
                    "circuit_too_old",
                ],
            ),
            (
                "unknown_keys",
                &["unknown_receiver", "unknown_label", "unknown_epoch"],
            ),
        ];
        for (kind, reasons) in KINDS {
            let of_kind = drops.iter().filter(|(name, _)| reasons.contains(name));
            let total: u64 = of_kind.clone().map(|(_, n)| n).sum();
            let fault_state = self.faults.entry(kind).or_default();
            let due = fault_state
                .told
                .is_none_or(|told| now.duration_since(told) >= FAULT_INTERVAL);
            if total > fault_state.seen && due {
                let totals: Vec<_> = of_kind.map(|(name, n)| format!("{name} {n}")).collect();
                let detail = format!(
                    "{} packets more were dropped; in all: {}",
                    total - fault_state.seen,
                    totals.join(", ")
                );
                events.emit(fault(kind, detail));
                *fault_state = Fault {
                    seen: total,
                    told: Some(now),
                };
            }
        }
    }

    /// Tells what a transaction did to the keys.
    pub fn keys_changed(events: &Events, old: &State, new: &State) {
        if !new.keys.same(&old.keys) {
            for id in new.keys.keys().filter(|id| !old.keys.contains_key(id)) {
                events.key(id, v1::KeyChange::Installed);
            }
            for id in old.keys.keys().filter(|id| !new.keys.contains_key(id)) {
                events.key(id, v1::KeyChange::Retired);
            }
        }
    }
}

/// What is new or has another status, and what is gone.
fn differences<'a, K: Ord>(
    old: &'a BTreeMap<K, Status>,
    new: &'a BTreeMap<K, Status>,
) -> Vec<(&'a K, Status)> {
    let changed = new
        .iter()
        .filter(|(name, status)| old.get(name) != Some(status))
        .map(|(name, status)| (name, *status));
    let gone = old
        .keys()
        .filter(|name| !new.contains_key(name))
        .map(|name| (name, Err("deleted")));
    changed.chain(gone).collect()
}
