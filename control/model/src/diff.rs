//! What a transaction changes, item by item. Only what it touched is looked at, however large the state is.

use std::collections::BTreeSet;

use prost::Message;
use twinseal_api::v1;

use crate::items::proto;
use crate::parse::{Action, Item, ItemKey};
use crate::state::{OwnerName, State};
use crate::transaction::{self, Touched};

/// Items that a summary names.
const NAMED: usize = 100;
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
    pub fn report(self) -> v1::Diff {
        v1::Diff {
            created: self.created,
            updated: self.updated,
            deleted: self.deleted,
            changes: Vec::new(),
        }
    }

    fn add(&mut self, fate: Fate) {
        match fate {
            Fate::Created => self.created += 1,
            Fate::Updated => self.updated += 1,
            Fate::Deleted => self.deleted += 1,
        }
    }
}

/// What becomes of an item that changes, the worst first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fate {
    /// It goes.
    Deleted,
    /// It changes.
    Updated,
    /// It comes.
    Created,
}

impl Fate {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Updated => "updated",
            Self::Created => "created",
        }
    }

    fn between<T: PartialEq>(old: Option<T>, new: Option<T>) -> Option<Self> {
        match (old, new) {
            (None, None) => None,
            (Some(old), Some(new)) if old == new => None,
            (None, Some(_)) => Some(Self::Created),
            (Some(_), None) => Some(Self::Deleted),
            (Some(_), Some(_)) => Some(Self::Updated),
        }
    }

    fn of(old: &State, new: &State, key: &ItemKey) -> Option<Self> {
        let moved = || {
            let moves = !old.owners.same(&new.owners) && old.has(key) && new.has(key);
            (moves && old.owners.of(key) != new.owners.of(key)).then_some(Self::Updated)
        };
        Self::of_item(old, new, key).or_else(moved)
    }

    fn of_item(old: &State, new: &State, key: &ItemKey) -> Option<Self> {
        match key {
            ItemKey::Port(name) => Self::between(old.ports.get(name), new.ports.get(name)),
            ItemKey::Vrf(name) => Self::between(old.vrfs.get(name), new.vrfs.get(name)),
            ItemKey::Link(name) => Self::between(old.links.get(name), new.links.get(name)),
            ItemKey::Circuit(name) => Self::between(old.circuits.get(name), new.circuits.get(name)),
            ItemKey::Group(name) => Self::between(old.groups.get(name), new.groups.get(name)),
            ItemKey::Label(link, label) => {
                let key = (link.clone(), *label);
                Self::between(old.labels.get(&key), new.labels.get(&key))
            }
            ItemKey::Route(vrf, prefix) => {
                let (old, new) = (old.routes.get(vrf), new.routes.get(vrf));
                Self::between(
                    old.and_then(|routes| routes.get(prefix)),
                    new.and_then(|routes| routes.get(prefix)),
                )
            }
            ItemKey::Neighbour(port, address) => {
                let key = (port.clone(), *address);
                Self::between(old.neighbours.get(&key), new.neighbours.get(&key))
            }
            ItemKey::Key(id) => Self::between(old.keys.get(id), new.keys.get(id)),
            ItemKey::Transmit(owner) => {
                Self::between(old.transmits.get(owner), new.transmits.get(owner))
            }
        }
    }
}

/// What a transaction did, in short: how many items, and the names of some.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Summary {
    /// How many.
    pub counts: Counts,
    /// At most [`NAMED`]: what was deleted first, then by kind, ports first and routes and keys last.
    pub named: BTreeSet<(Fate, ItemKey)>,
}

impl Summary {
    fn add(&mut self, fate: Fate, key: &ItemKey) {
        self.counts.add(fate);
        let full = self.named.len() >= NAMED;
        let last = self.named.last();
        if full && last.is_some_and(|(worst, last)| (*worst, last) <= (fate, key)) {
            return;
        }
        self.named.insert((fate, key.clone()));
        if full {
            self.named.pop_last();
        }
    }
}

/// Makes these items in `state` what they are in `other`, whose they are among it.
pub fn follow(state: &mut State, other: &State, items: &Touched) {
    let changes = items.keys().map(|key| match other.item(key) {
        Some(item) => (Action::Set(item), Some(other.owners.of(key))),
        None => (Action::Delete(key.clone()), None),
    });
    transaction::replay(state, changes);
}

/// What differs of what was touched.
pub fn summary(old: &State, new: &State, touched: &Touched) -> Summary {
    let mut summary = Summary::default();
    for key in touched.keys() {
        if let Some(fate) = Fate::of(old, new, key) {
            summary.add(fate, key);
        }
    }
    summary
}

/// An item that changes.
pub struct Difference {
    /// Which.
    pub key: ItemKey,
    /// As it was, `None` if it is created.
    pub old: Option<Item>,
    /// As it will be, `None` if it is deleted.
    pub new: Option<Item>,
    /// Whose it was and will be.
    pub owners: (OwnerName, OwnerName),
}

/// The items that differ, of those that were touched, in the order of their changes.
pub fn differences(old: &State, new: &State, touched: &Touched) -> Vec<Difference> {
    let mut items: Vec<_> = touched.iter().collect();
    items.sort_by_key(|(_, change)| **change);
    let differences = items.into_iter().map(|(key, _)| Difference {
        key: key.clone(),
        old: old.item(key),
        new: new.item(key),
        owners: (old.owners.of(key), new.owners.of(key)),
    });
    let differs = |it: &Difference| it.old != it.new || it.owners.0 != it.owners.1;
    differences.filter(differs).collect()
}

/// As the API tells it, cut to what fits.
pub fn report(differences: &[Difference], counts: Counts) -> v1::Diff {
    let mut changes = Vec::new();
    let mut size = 0;
    for difference in differences {
        if changes.len() >= MAX_CHANGES || size >= MAX_SIZE {
            break;
        }
        let Difference {
            old,
            new,
            owners: (was, is),
            ..
        } = difference;
        let change = v1::ItemChange {
            old: old.as_ref().map(|item| proto(item, was)),
            new: new.as_ref().map(|item| proto(item, is)),
        };
        size += change.encoded_len();
        changes.push(change);
    }
    v1::Diff {
        changes,
        ..counts.report()
    }
}
