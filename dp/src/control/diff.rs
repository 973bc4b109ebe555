//! What a transaction changes, item by item. Only what it touched is looked at, however large the state is.

use prost::Message;
use twinseal_api::v1;

use super::items::proto;
use super::model::State;
use super::parse::{Item, ItemKey};
use super::transaction::Touched;

/// Changes that a report lists.
const MAX_CHANGES: usize = 1000;
/// Octets of them. Clients take messages of 4 MiB unless told otherwise.
const MAX_SIZE: usize = 2 << 20;

/// How many items a transaction makes, changes and removes. What it names and leaves as it was is none of them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// That come.
    pub created: u64,
    /// That change.
    pub updated: u64,
    /// That go.
    pub deleted: u64,
}

impl Counts {
    /// All of them.
    pub fn all(self) -> u64 {
        self.created + self.updated + self.deleted
    }

    /// As the API tells it, without the items.
    pub(super) fn report(self) -> v1::Diff {
        v1::Diff {
            created: self.created,
            updated: self.updated,
            deleted: self.deleted,
            changes: Vec::new(),
        }
    }

    fn add<T: PartialEq>(&mut self, old: Option<T>, new: Option<T>) {
        match (old, new) {
            (None, None) => {}
            (Some(old), Some(new)) if old == new => {}
            (None, Some(_)) => self.created += 1,
            (Some(_), None) => self.deleted += 1,
            (Some(_), Some(_)) => self.updated += 1,
        }
    }

    fn item(&mut self, old: &State, new: &State, key: &ItemKey) {
        match key {
            ItemKey::Port(name) => self.add(old.ports.get(name), new.ports.get(name)),
            ItemKey::Vrf(name) => self.add(old.vrfs.get(name), new.vrfs.get(name)),
            ItemKey::Link(name) => self.add(old.links.get(name), new.links.get(name)),
            ItemKey::Circuit(name) => self.add(old.circuits.get(name), new.circuits.get(name)),
            ItemKey::Group(name) => self.add(old.groups.get(name), new.groups.get(name)),
            ItemKey::Label(link, label) => {
                let key = (link.clone(), *label);
                self.add(old.labels.get(&key), new.labels.get(&key))
            }
            ItemKey::Route(vrf, prefix) => {
                let (old, new) = (old.routes.get(vrf), new.routes.get(vrf));
                self.add(
                    old.and_then(|routes| routes.get(prefix)),
                    new.and_then(|routes| routes.get(prefix)),
                )
            }
            ItemKey::Neighbour(port, address) => {
                let key = (port.clone(), *address);
                self.add(old.neighbours.get(&key), new.neighbours.get(&key))
            }
            ItemKey::Key(id) => self.add(old.keys.get(id), new.keys.get(id)),
            ItemKey::Transmit(owner) => {
                self.add(old.transmits.get(owner), new.transmits.get(owner))
            }
        }
    }
}

/// How many items differ, of those that were touched.
pub(super) fn count(old: &State, new: &State, touched: &Touched) -> Counts {
    let mut counts = Counts::default();
    for key in touched.keys() {
        counts.item(old, new, key);
    }
    counts
}

/// An item that changes.
pub(super) struct Difference {
    /// Which.
    pub(super) key: ItemKey,
    /// As it was, `None` if it is created.
    pub(super) old: Option<Item>,
    /// As it will be, `None` if it is deleted.
    pub(super) new: Option<Item>,
}

/// The items that differ, of those that were touched, in the order of their changes.
pub(super) fn differences(old: &State, new: &State, touched: &Touched) -> Vec<Difference> {
    let mut items: Vec<_> = touched.iter().collect();
    items.sort_by_key(|(_, change)| **change);
    let differences = items.into_iter().map(|(key, _)| Difference {
        key: key.clone(),
        old: old.item(key),
        new: new.item(key),
    });
    differences.filter(|it| it.old != it.new).collect()
}

/// As the API tells it, cut to what fits.
pub(super) fn report(differences: &[Difference], counts: Counts) -> v1::Diff {
    let mut changes = Vec::new();
    let mut size = 0;
    for difference in differences {
        if changes.len() >= MAX_CHANGES || size >= MAX_SIZE {
            break;
        }
        let change = v1::ItemChange {
            old: difference.old.as_ref().map(proto),
            new: difference.new.as_ref().map(proto),
        };
        size += change.encoded_len();
        changes.push(change);
    }
    v1::Diff {
        changes,
        ..counts.report()
    }
}
