//! Mark and sweep: what must change for an owner's items to become what its Replace says.

use std::collections::{HashMap, HashSet};

use crate::parse::{Action, Change, Item, ItemKey, Parsed};
use crate::state::{Prefix, State, VrfName};

/// The place of changes that no item of the request asked for.
pub(crate) const NOWHERE: usize = usize::MAX;

/// Leaves out what is there already, and adds the deletion of what is the owner's and not named.
pub fn sweep(state: &State, parsed: &mut Parsed) {
    let mut named = Named::default();
    // The last of several changes to one item wins, so it is not enough that one of them is equal to what is there.
    let mut twice = HashSet::new();
    for change in &parsed.changes {
        if let Some(key) = named.add(&change.action) {
            twice.insert(key);
        }
    }
    let own = |item: &ItemKey| state.owners.is(item, &parsed.by.owner);
    let gone: Vec<_> = gone(state, &named).into_iter().filter(own).collect();
    let may_be_referred_to = |item: &ItemKey| {
        matches!(
            item,
            ItemKey::Port(_)
                | ItemKey::Vrf(_)
                | ItemKey::Link(_)
                | ItemKey::Circuit(_)
                | ItemKey::Group(_)
        )
    };
    // What does can be told by its place then. Else that would only cost memory.
    let keeps_places = gone.iter().any(may_be_referred_to);
    let keys_go = gone.iter().any(|item| matches!(item, ItemKey::Key(_)));
    let equal = &mut parsed.equal;
    parsed.changes.retain(|change| {
        let same = match &change.action {
            Action::Set(item) => state.item(&item.key()).as_ref() == Some(item),
            Action::Install(id, key, _) => state.keys.get(id) == Some(key),
            Action::Keep(..) | Action::Delete(_) => false,
        };
        // What another owner has as well is not this one's.
        let same = same && state.owners.is(&key_of(&change.action), &parsed.by.owner);
        let stays = !same || (!twice.is_empty() && twice.contains(&key_of(&change.action)));
        let transmit = || matches!(change.action, Action::Set(Item::Transmit(..)));
        if !stays && (keeps_places || (keys_go && transmit())) {
            equal.insert(key_of(&change.action), change.index);
        }
        stays
    });
    for item in gone {
        if !parsed.broken.may_mean(&item) {
            parsed.changes.push(Change {
                index: NOWHERE,
                action: Action::Delete(item),
            });
        }
    }
}

/// The items that a request names. Routes are apart: they are many and must be small.
#[derive(Default)]
struct Named {
    routes: HashMap<VrfName, HashSet<Prefix>>,
    others: HashSet<ItemKey>,
}

impl Named {
    /// The item's key if it was named before.
    fn add(&mut self, action: &Action) -> Option<ItemKey> {
        let key = key_of(action);
        let new = match &key {
            ItemKey::Route(vrf, prefix) => match self.routes.get_mut(vrf) {
                Some(routes) => routes.insert(*prefix),
                None => {
                    self.routes.insert(vrf.clone(), HashSet::from([*prefix]));
                    true
                }
            },
            _ => self.others.insert(key.clone()),
        };
        (!new).then_some(key)
    }

    fn route(&self, vrf: &VrfName, prefix: &Prefix) -> bool {
        let routes = self.routes.get(vrf);
        routes.is_some_and(|routes| routes.contains(prefix))
    }
}

fn key_of(action: &Action) -> ItemKey {
    match action {
        Action::Set(item) => item.key(),
        Action::Install(id, ..) | Action::Keep(id, _) => ItemKey::Key(id.clone()),
        Action::Delete(key) => key.clone(),
    }
}

/// The items of the state that are not named. Keys of links and circuits that go too are among them.
fn gone(state: &State, named: &Named) -> Vec<ItemKey> {
    let mut gone = Vec::new();
    gone.extend(state.ports.keys().cloned().map(ItemKey::Port));
    gone.extend(state.vrfs.keys().cloned().map(ItemKey::Vrf));
    gone.extend(state.links.keys().cloned().map(ItemKey::Link));
    gone.extend(state.circuits.keys().cloned().map(ItemKey::Circuit));
    gone.extend(state.groups.keys().cloned().map(ItemKey::Group));
    let labels = state.labels.keys();
    gone.extend(labels.map(|(link, label)| ItemKey::Label(link.clone(), *label)));
    let neighbours = state.neighbours.keys();
    gone.extend(neighbours.map(|(port, address)| ItemKey::Neighbour(port.clone(), *address)));
    gone.extend(state.keys.keys().cloned().map(ItemKey::Key));
    gone.extend(state.transmits.keys().cloned().map(ItemKey::Transmit));
    gone.retain(|item| !named.others.contains(item));
    for (vrf, routes) in state.routes.iter() {
        let prefixes = routes.keys().filter(|prefix| !named.route(vrf, prefix));
        gone.extend(prefixes.map(|prefix| ItemKey::Route(vrf.clone(), *prefix)));
    }
    gone
}
