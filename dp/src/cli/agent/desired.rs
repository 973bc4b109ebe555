//! The desired state as the store holds it: fragments, each a state file, that together are one state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use prost::Message;
use twinseal_api::v1;
use v1::change::Change as Of;
use v1::item::Item;

use super::status::MAX_REASONS;
use crate::cli::state_file::{StateFile, StateFileError};
use crate::text::word;

/// What names an item: its reference, or its owner if it transmits; encoded, so that it can be compared.
type Id = Vec<u8>;

/// All fragments, and which items changed since the node was last told.
pub(super) struct Desired {
    /// What the keys of fragments with tables begin with. With none of them there is no desired state: a wrong prefix
    /// must not empty a node.
    state: String,
    /// The items of each fragment, by the fragment's key.
    fragments: BTreeMap<String, Vec<Id>>,
    /// Fragments that are no state files, and why.
    wrong: BTreeMap<String, Vec<String>>,
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
    pub(super) fn set(&mut self, key: &str, text: &str) {
        self.remove(key);
        match parse(key, text) {
            Ok(items) => {
                let ids = items.into_iter().map(|item| {
                    let id = id(&item);
                    let of = self.items.entry(id.clone()).or_default();
                    of.insert(key.to_owned(), v1::Item { item: Some(item) });
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
    pub(super) fn remove(&mut self, key: &str) {
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
    pub(super) fn all(&self) -> Result<Vec<v1::Item>, Vec<String>> {
        self.check()?;
        let items = self.items.values();
        Ok(items.filter_map(|of| of.values().next().cloned()).collect())
    }

    /// What changed since [`Desired::told`].
    ///
    /// # Errors
    /// As [`Desired::all`].
    pub(super) fn changes(&self) -> Result<Vec<v1::Change>, Vec<String>> {
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

    fn check(&self) -> Result<(), Vec<String>> {
        if !self
            .fragments
            .keys()
            .any(|key| key.starts_with(&self.state))
            && self.wrong.is_empty()
        {
            return Err(vec![format!(
                "there is nothing under {}: write the node's state there, or an empty fragment to empty the node",
                self.state
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
                mistakes.push(format!(
                    "{}: sets an item that {} sets otherwise: {}; keep it in one of them",
                    word(other),
                    word(first),
                    name(item)
                ));
            }
        }
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(mistakes)
        }
    }
}

fn parse(key: &str, text: &str) -> Result<Vec<Item>, Vec<String>> {
    let file = match StateFile::parse_fragment(Path::new(key), text) {
        Ok(file) => file,
        Err(StateFileError::Invalid(mistakes)) => {
            let told = mistakes.iter().take(MAX_REASONS);
            let mut told: Vec<_> = told.map(ToString::to_string).collect();
            if let Some(more @ 1..) = mistakes.len().checked_sub(MAX_REASONS) {
                told.push(format!("{}: {more} mistakes more", word(key)));
            }
            return Err(told);
        }
        Err(error) => return Err(vec![error.to_string()]),
    };
    let mut items = Vec::with_capacity(file.changes.len());
    for change in file.changes {
        match change.change {
            Some(Of::Set(v1::Item { item: Some(item) })) => items.push(item),
            _ => {
                return Err(vec![format!(
                    "{}: delete: a fragment says what is to be there; remove the item, or the key, instead",
                    word(key)
                )]);
            }
        }
    }
    Ok(items)
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
mod tests {
    use super::*;

    fn sets(changes: &[v1::Change]) -> Vec<String> {
        let mut names: Vec<_> = changes
            .iter()
            .map(|change| match &change.change {
                Some(Of::Set(item)) => format!("set {}", name(item)),
                Some(Of::Delete(reference)) => format!("delete {:?}", reference.item),
                None => panic!("an empty change"),
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn fragments_are_one_state_and_only_changes_are_told() {
        let mut desired = Desired::new("/s/");
        desired.set("/s/1", "vrfs:\n- name: red\n- name: blue\n");
        desired.set(
            "/s/2",
            "{\"routes\": [{\"vrf\": \"red\", \"prefix\": \"10.0.0.0/8\", \"blackhole\": {}}]}",
        );
        assert_eq!(desired.all().unwrap().len(), 3);
        assert_eq!(desired.changes().unwrap().len(), 3);
        desired.told();
        assert_eq!(desired.changes().unwrap(), []);

        desired.set("/s/1", "vrfs:\n- name: red\n");
        desired.remove("/s/2");
        let told = sets(&desired.changes().unwrap());
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(
            told[0].contains("RouteRef") || told[1].contains("RouteRef"),
            "{told:?}"
        );
        assert!(
            told.iter().any(|it| it.contains("Vrf(\"blue\")")),
            "{told:?}"
        );
        assert_eq!(told[2], "set vrf \"red\"");
        assert_eq!(desired.all().unwrap().len(), 1);
    }

    #[test]
    fn what_transmits_is_set_and_never_deleted() {
        let mut desired = Desired::new("/s/");
        desired.set("/s/1", "");
        desired.set("/k/1", "transmit:\n- {link: ab, epoch: 1}\n");
        desired.told();
        desired.set(
            "/k/1",
            "transmit:\n- {link: ab, epoch: 2}\n- {circuit: ab, epoch: 2}\n",
        );
        assert_eq!(desired.changes().unwrap().len(), 2);
        desired.told();
        desired.remove("/k/1");
        assert_eq!(desired.changes().unwrap(), []);
    }

    #[test]
    fn no_fragment_with_tables_is_no_state_and_an_empty_one_is() {
        let mut desired = Desired::new("/s/");
        desired.set("/k/1", "transmit:\n- {link: ab, epoch: 1}\n");
        assert!(desired.all().unwrap_err()[0].contains("nothing under /s/"));
        desired.set("/s/1", "# nothing yet\n");
        assert_eq!(desired.all().unwrap().len(), 1);
    }

    #[test]
    fn mistakes_name_their_fragment_and_hold_all_back() {
        let mut desired = Desired::new("/s/");
        desired.set("/s/good", "vrfs:\n- name: red\n");
        for (text, part) in [
            ("vrfs: 1\n", "/s/bad"),
            (
                "delete:\n- vrf: red\n",
                "a fragment says what is to be there",
            ),
            (
                "keys:\n- {link: l, direction: a-to-b, epoch: 1, receiver_index: 1, secret_file: /etc/passwd}\n",
                "secret_file",
            ),
        ] {
            desired.set("/s/bad", text);
            let mistakes = desired.all().unwrap_err();
            assert!(
                mistakes.iter().any(|it| it.contains(part)),
                "{text}: {mistakes:?}"
            );
            assert_eq!(desired.changes().unwrap_err(), mistakes);
        }
        desired.remove("/s/bad");
        assert_eq!(desired.all().unwrap().len(), 1);
    }

    #[test]
    fn a_hostile_fragment_makes_no_long_lines() {
        let mut desired = Desired::new("/s/");
        let long = "\u{1b}[2J".repeat(15_000);
        let quoted = serde_json::to_string(&long).unwrap();
        let key = format!("/s/{long}");
        for text in [
            format!("{quoted}: 1\n"),
            format!("ports:\n- {{name: p, role: {quoted}}}\n"),
            format!("ports:\n- {{name: p, {quoted}: 1}}\n"),
            format!("ports:\n- {{name: p, af_xdp: {{netdev: e, xdp: {quoted}}}}}\n"),
            format!("delete:\n- {{port: {quoted}}}\n"),
            format!("vrfs: {}\n", "[".repeat(60_000)),
            "vrfs:\n".to_owned() + &"- {nam: 1}\n".repeat(10_000),
        ] {
            desired.set(&key, &text);
            let mistakes = desired.all().unwrap_err();
            assert!(mistakes.len() <= 2 * MAX_REASONS, "{}", mistakes.len());
            for mistake in mistakes {
                assert!(mistake.len() < 2500, "{}: {mistake}", mistake.len());
                assert!(!mistake.chars().any(char::is_control), "{mistake}");
            }
        }
    }

    #[test]
    fn two_fragments_may_agree_and_not_contradict() {
        let mut desired = Desired::new("/s/");
        let route = |to: &str| format!("routes:\n- {{vrf: red, prefix: 10.0.0.0/8, {to}}}\n");
        desired.set("/s/1", &route("circuit: c"));
        desired.set("/s/2", &route("circuit: c"));
        assert_eq!(desired.all().unwrap().len(), 1);
        desired.set("/s/2", &route("group: g"));
        let mistakes = desired.all().unwrap_err();
        assert!(
            mistakes[0].contains("/s/2") && mistakes[0].contains("10.0.0.0/8"),
            "{mistakes:?}"
        );
        desired.remove("/s/1");
        assert_eq!(desired.all().unwrap().len(), 1);
    }
}
