//! The desired state as the store holds it: fragments, each a state file, that together are one state.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use prost::Message;
use twinseal_api::v1;
use v1::change::Change as Of;
use v1::item::Item;

use super::status::{MAX_REASONS, Reason};
use twinseal_base::text::word;
use twinseal_statefile::StateFile;

/// What names an item: its reference, or its owner if it transmits; encoded, so that it can be compared.
type Id = Vec<u8>;

/// All fragments, and which items changed since the node was last told.
pub(super) struct Desired {
    /// What the keys of fragments with tables begin with; all others have keys of links and circuits only. With none of
    /// them there is no desired state: a wrong prefix must not empty a node.
    state: String,
    /// The items of each fragment, by the fragment's key.
    fragments: BTreeMap<String, Vec<Id>>,
    /// Fragments that are no state files, and why.
    wrong: BTreeMap<String, Vec<Reason>>,
    /// Each item, by the fragments that have it: more than one is a mistake, unless they agree.
    items: HashMap<Id, BTreeMap<String, v1::Item>>,
    changed: BTreeSet<Id>,
    /// What the node has: only that is deleted.
    there: BTreeSet<Id>,
}

impl Desired {
    /// Without a fragment; `state` is what the keys of those with tables begin with.
    pub(super) fn new(state: &str) -> Self {
        Self {
            state: state.to_owned(),
            fragments: BTreeMap::new(),
            wrong: BTreeMap::new(),
            items: HashMap::new(),
            changed: BTreeSet::new(),
            there: BTreeSet::new(),
        }
    }

    /// Sets a fragment, or replaces it.
    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) {
        self.remove(key);
        let (key, named) = name_of(key);
        let key = &*key;
        match named.and_then(|()| parse(key, value, key.starts_with(&self.state))) {
            Ok(items) => {
                let ids = items.into_iter().map(|item| {
                    let id = id(&item);
                    let of = self.items.entry(id.clone()).or_default();
                    of.insert(
                        key.to_owned(),
                        v1::Item {
                            item: Some(item),
                            ..Default::default()
                        },
                    );
                    self.changed.insert(id.clone());
                    id
                });
                let ids = ids.collect();
                self.fragments.insert(key.to_owned(), ids);
            }
            Err(why) => {
                self.wrong.insert(key.to_owned(), why);
            }
        }
    }

    /// Removes a fragment.
    pub(super) fn remove(&mut self, key: &[u8]) {
        let (key, _) = name_of(key);
        let key = &*key;
        self.wrong.remove(key);
        for id in self.fragments.remove(key).unwrap_or_default() {
            if let Some(of) = self.items.get_mut(&id) {
                of.remove(key);
                if of.is_empty() {
                    self.items.remove(&id);
                }
            }
            self.changed.insert(id);
        }
    }

    /// The whole state.
    ///
    /// # Errors
    /// Which fragments are wrong, or contradict each other.
    pub(super) fn all(&self) -> Result<Vec<v1::Item>, Vec<Reason>> {
        self.check()?;
        let items = self.items.values();
        Ok(items.filter_map(|of| of.values().next().cloned()).collect())
    }

    /// What changed since [`Desired::told`].
    ///
    /// # Errors
    /// As [`Desired::all`].
    pub(super) fn changes(&self) -> Result<Vec<v1::Change>, Vec<Reason>> {
        self.check()?;
        let change = |id: &Id| {
            let set = self.items.get(id).and_then(|of| of.values().next());
            match set {
                Some(item) => Some(Of::Set(item.clone())),
                // What transmits is not deleted by itself: it goes with its owner.
                None if !self.there.contains(id) => None,
                None => Some(Of::Delete(v1::ItemRef::decode(&**id).ok()?))
                    .filter(|of| !matches!(of, Of::Delete(v1::ItemRef { item: None }))),
            }
        };
        let changes = self.changed.iter().filter_map(change);
        Ok(changes
            .map(|change| v1::Change {
                change: Some(change),
            })
            .collect())
    }

    /// The node has been told all that changed.
    pub(super) fn told(&mut self) {
        for id in std::mem::take(&mut self.changed) {
            if self.items.contains_key(&id) {
                self.there.insert(id);
            } else {
                self.there.remove(&id);
            }
        }
    }

    fn check(&self) -> Result<(), Vec<Reason>> {
        if !self
            .fragments
            .keys()
            .any(|key| key.starts_with(&self.state))
            && self.wrong.is_empty()
        {
            let fix = "write the node's state there, or an empty fragment to empty the node";
            return Err(vec![Reason::new(
                &self.state,
                "there is nothing under it",
                fix,
            )]);
        }
        let mut mistakes: Vec<_> = self.wrong.values().flatten().cloned().collect();
        // What did not change was checked when it did.
        let changed = self.changed.iter().filter_map(|id| self.items.get(id));
        for of in changed {
            let mut fragments = of.iter();
            let Some((first, item)) = fragments.next() else {
                continue;
            };
            if let Some((other, _)) = fragments.find(|(_, its)| *its != item) {
                let reason = format!("{} is set otherwise by {}", name(item), word(first));
                mistakes.push(Reason::new(other, &reason, "keep it in one of them"));
            }
        }
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(mistakes)
        }
    }
}

/// A key as a text, and whether it is one.
fn name_of(key: &[u8]) -> (Cow<'_, str>, Result<(), Vec<Reason>>) {
    match std::str::from_utf8(key) {
        Ok(key) => (Cow::Borrowed(key), Ok(())),
        Err(_) => {
            // No two keys have the same name so.
            let key = key.escape_ascii().to_string();
            let fix = "move the fragment to a key that is";
            let wrong = vec![Reason::new(&key, "the key is not UTF-8", fix)];
            (Cow::Owned(key), Err(wrong))
        }
    }
}

fn parse(key: &str, value: &[u8], state: bool) -> Result<Vec<Item>, Vec<Reason>> {
    let text = std::str::from_utf8(value).map_err(|error| {
        let line = 1 + value[..error.valid_up_to()]
            .iter()
            .filter(|&&b| b == b'\n')
            .count();
        let reason = format!("line {line} is not UTF-8");
        vec![Reason::new(key, &reason, "write it in UTF-8")]
    })?;
    let read = match state {
        true => StateFile::parse_fragment,
        false => StateFile::parse_keys,
    };
    let file = read(Path::new(key), text).map_err(|mistakes| {
        let told = mistakes.iter().take(MAX_REASONS);
        let mut told: Vec<_> = told.map(Reason::from).collect();
        if let Some(more @ 1..) = mistakes.len().checked_sub(MAX_REASONS) {
            told.push(Reason::new(key, &format!("{more} mistakes more"), ""));
        }
        told
    })?;
    let items = file
        .changes
        .into_iter()
        .filter_map(|change| match change.change {
            Some(Of::Set(v1::Item { item, .. })) => item,
            // The reader takes none of a store.
            _ => None,
        });
    Ok(items.collect())
}

/// A deletion of it is `ItemRef::decode` of this; what transmits has a name that no reference has.
fn id(item: &Item) -> Id {
    use v1::item_ref::Item as Ref;
    let item = match item {
        Item::Port(it) => Ref::Port(it.name.clone()),
        Item::Vrf(it) => Ref::Vrf(it.name.clone()),
        Item::Link(it) => Ref::Link(it.name.clone()),
        Item::Circuit(it) => Ref::Circuit(it.name.clone()),
        Item::Group(it) => Ref::Group(it.name.clone()),
        Item::Label(it) => Ref::Label(v1::LabelRef {
            link: it.link.clone(),
            label: it.label,
        }),
        Item::Route(it) => Ref::Route(v1::RouteRef {
            vrf: it.vrf.clone(),
            prefix: it.prefix.clone(),
        }),
        Item::Neighbour(it) => Ref::Neighbour(v1::NeighbourRef {
            port: it.port.clone(),
            address: it.address.clone(),
        }),
        Item::Key(it) => Ref::Key(v1::KeyRef {
            owner: it.owner.clone().map(|owner| match owner {
                v1::key::Owner::Link(name) => v1::key_ref::Owner::Link(name),
                v1::key::Owner::Circuit(name) => v1::key_ref::Owner::Circuit(name),
            }),
            direction: it.direction,
            epoch: it.epoch,
        }),
        Item::Transmit(it) => {
            // A field that ItemRef has not: decoded, it is a reference to nothing.
            let owner = v1::Transmit {
                epoch: 0,
                ..it.clone()
            };
            let mut id = Vec::new();
            prost::encoding::message::encode(1000, &owner, &mut id);
            return id;
        }
    };
    v1::ItemRef { item: Some(item) }.encode_to_vec()
}

/// For people.
fn name(item: &v1::Item) -> String {
    let name = match &item.item {
        Some(Item::Port(it)) => format!("port {:?}", it.name),
        Some(Item::Vrf(it)) => format!("vrf {:?}", it.name),
        Some(Item::Link(it)) => format!("link {:?}", it.name),
        Some(Item::Circuit(it)) => format!("circuit {:?}", it.name),
        Some(Item::Group(it)) => format!("group {:?}", it.name),
        Some(Item::Label(it)) => format!("label {} of link {:?}", it.label, it.link),
        Some(Item::Route(it)) => format!("route {} of vrf {:?}", it.prefix, it.vrf),
        Some(Item::Neighbour(it)) => format!("neighbour {} of port {:?}", it.address, it.port),
        Some(Item::Key(it)) => format!("key {:?}, epoch {}", it.owner, it.epoch),
        Some(Item::Transmit(it)) => format!("transmit of {:?}", it.owner),
        None => "nothing".to_owned(),
    };
    word(&name).into_owned()
}

#[cfg(test)]
#[path = "desired_tests.rs"]
mod tests;
