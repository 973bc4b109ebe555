//! What a transaction did, told as events.

use std::collections::HashMap;
use std::time::Instant;

use twinseal_api::v1::{self, CircuitChange, EventKind, event::Event as Body};

use super::Events;
use twinseal_model::items;
use twinseal_model::state::{Circuit, CircuitName, PersistentMap, State};

/// When circuits were made.
#[derive(Default)]
pub struct Births(HashMap<CircuitName, Instant>);

/// Why and how the tables changed.
pub struct Change {
    /// How many items were changed.
    pub changes: u64,
    /// As the API names it.
    pub cause: &'static str,
    /// If it must be confirmed.
    pub pending: Option<v1::Pending>,
    /// Whose transaction it is.
    pub owner: String,
    /// Whose items it changed besides.
    pub taken_from: Vec<String>,
}

/// Tells of a transaction that turned `old` into `new`.
pub fn tell(events: &Events, births: &mut Births, old: &State, new: &State, change: Change) {
    tables(events, new.generation, change);
    circuits(events, births, old, new);
    keys(events, old, new);
}

/// Tells that the tables changed, or that what waited for its confirmation waits no more.
pub fn tables(events: &Events, generation: u64, change: Change) {
    let body = v1::TableEvent {
        generation,
        changes: u32::try_from(change.changes).unwrap_or(u32::MAX),
        cause: change.cause.to_owned(),
        pending: change.pending,
        owner: change.owner,
        taken_from: change.taken_from,
    };
    events.emit(EventKind::Configuration, Body::Table(body));
}

/// What can be told of a circuit of `state`.
pub fn circuit(
    births: &Births,
    state: &State,
    name: &CircuitName,
    circuit: &Circuit,
    change: CircuitChange,
    cause: &str,
) -> v1::CircuitEvent {
    let link = state.links.get(&circuit.link);
    let born = births.0.get(name);
    v1::CircuitEvent {
        circuit: name.to_string(),
        change: change.into(),
        cause: cause.to_owned(),
        configuration: Some(items::circuit(name.as_str(), circuit)),
        remote: link
            .map(|link| link.remote.ip().to_string())
            .unwrap_or_default(),
        duration_nanos: born.map_or(0, |born| born.elapsed().as_nanos() as u64),
    }
}

fn circuits(events: &Events, births: &mut Births, old: &State, new: &State) {
    if new.circuits.same(&old.circuits) {
        return;
    }
    let tell = |births: &Births, state: &State, name, it, change| {
        let body = circuit(births, state, name, it, change, "");
        events.emit(EventKind::Configuration, Body::Circuit(body));
    };
    old.circuits.diff(&new.circuits, |name, before, now| {
        if let (Some(it), None) = (before, now) {
            tell(births, old, name, it, CircuitChange::Deleted);
            births.0.remove(name);
        }
    });
    old.circuits
        .diff(&new.circuits, |name, before, now| match (before, now) {
            (None, Some(it)) => {
                births.0.insert(name.clone(), Instant::now());
                tell(births, new, name, it, CircuitChange::Created);
            }
            (Some(was), Some(it)) if path(was) != path(it) => {
                tell(births, new, name, it, CircuitChange::PathUpdated);
            }
            _ => {}
        });
}

/// What a packet's way depends on.
fn path(circuit: &Circuit) -> (&str, u32, u8) {
    (circuit.link.as_str(), circuit.label, circuit.hop_limit)
}

fn keys(events: &Events, old: &State, new: &State) {
    if new.keys.same(&old.keys) && new.transmits.same(&old.transmits) {
        return;
    }
    for (id, key) in new.keys.iter() {
        let was = old.keys.get(id).map(|was| was.installed);
        match key.installed {
            true if was != Some(true) => events.key(id, v1::KeyChange::Installed),
            false if was.is_none() => events.key(id, v1::KeyChange::Needed),
            _ => {}
        }
    }
    for owner in new.transmits.keys() {
        // A key without its secret transmits nothing, whatever names it.
        let transmits = |state: &State| {
            let id = state.transmitting(owner)?;
            state.keys.get(&id)?.installed.then_some(id)
        };
        let (was, is) = (transmits(old), transmits(new));
        if let Some(id) = is.filter(|is| was.as_ref() != Some(is)) {
            events.key(&id, v1::KeyChange::Transmitting);
        }
    }
    for (id, _) in gone(&old.keys, &new.keys) {
        events.key(id, v1::KeyChange::Retired);
    }
}

/// The entries of `old` that `new` has no more.
fn gone<'a, K: Ord, V>(
    old: &'a PersistentMap<K, V>,
    new: &'a PersistentMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    old.iter().filter(|(key, _)| !new.contains_key(key))
}
