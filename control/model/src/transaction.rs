//! Changes applied to a state: a new state, or every reason why not. No side effects.
//!
//! A transaction is judged by where it ends, not by how it gets there: changes are applied in order, so that a later one
//! to the same item wins, and only then [`check`](mod@crate::check) looks whether everything that is pointed at exists.
//! When a link or circuit is deleted, its keys and its transmit epoch go with it.

use std::collections::HashMap;

use twinseal_crypto::{Fingerprint, Secret};

use crate::diff::Summary;
use crate::parse::{Action, Item, ItemKey, Kept, Parsed, Reference};
use crate::refusal::{Code, Refused, reason};
use crate::state::{Key, KeyId, Owner, OwnerName, State};
use crate::{check, diff, owners};

/// Which change touched an item last.
pub type Touched = HashMap<ItemKey, usize>;

/// What a transaction comes to.
pub struct Outcome {
    /// The new state, with the next generation.
    pub state: State,
    /// Secrets of the new state's keys that the transaction brought and that the node did not have.
    pub secrets: HashMap<KeyId, Secret>,
    /// Keys that begin to transmit, each a secret to burn.
    pub starts: Vec<Start>,
    /// Which change touched an item last.
    pub touched: Touched,
    /// What became of the items that it touched.
    pub changes: Summary,
}

impl Outcome {
    /// To a state from before a restart.
    pub fn restored(state: State) -> Self {
        Self {
            changes: Summary::default(),
            state,
            secrets: HashMap::new(),
            starts: Vec::new(),
            touched: Touched::new(),
        }
    }

    /// Back to `new`, which was a state before, for this owner.
    pub fn back(old: &State, mut new: State, touched: Touched, by: &OwnerName) -> Self {
        new.generation = old.generation + 1;
        owners::back(old, &mut new, &touched, by);
        let mut starts = starts(old, &new, &touched);
        // The others were burned before it was stored.
        starts.retain(|start| start.installed);
        Self {
            starts,
            secrets: HashMap::new(),
            changes: diff::summary(old, &new, &touched),
            state: new,
            touched,
        }
    }
}

/// A key that begins to transmit, or would, as a `Transmit` names it, had its secret not been lost in a restart. Either is
/// burned before it is stored, so that whatever stored tables transmit with is known to be burned.
pub struct Start {
    /// The change that says so.
    pub change: usize,
    /// The key.
    pub key: KeyId,
    /// Its secret's public name.
    pub fingerprint: Fingerprint,
    /// Whether its secret is there.
    pub installed: bool,
}

/// Applies changes to a copy of `old`, or tells all that is wrong with them.
pub fn apply(old: &State, parsed: Parsed) -> Result<Outcome, Refused> {
    let (outcome, refused) = judge(old, parsed);
    refused.unless(outcome)
}

/// Applies changes that have been judged before, when they were made. What is set becomes the owner's that is given, or else
/// stays whose it is.
pub fn replay(state: &mut State, changes: impl Iterator<Item = (Action, Option<OwnerName>)>) {
    // Nothing asks what was before; kept, it would have every table copied that changes.
    let old = State::default();
    let mut draft = Draft {
        old: &old,
        owner: None,
        state: std::mem::take(state),
        secrets: HashMap::new(),
        touched: Touched::new(),
        missing: HashMap::new(),
    };
    for (change, owner) in changes {
        draft.owner = owner;
        match change {
            Action::Set(item) => draft.set(0, item),
            Action::Delete(item) => draft.delete(0, item),
            // They bring secrets, or rely on one: nothing that was stored does.
            Action::Install(..) | Action::Keep(..) => {}
        }
    }
    *state = draft.state;
}

/// Applies changes to a copy of `old`, with all that is wrong with them. Of changes that could not be parsed the outcome
/// knows nothing, and nothing is said of what may be missing because of them; what they refer to is looked at.
pub fn judge(old: &State, parsed: Parsed) -> (Outcome, Refused) {
    let Parsed {
        changes,
        mut broken,
        mut references,
        mut refused,
        by,
        equal,
    } = parsed;
    let mut draft = Draft {
        old,
        owner: Some(by.owner.clone()),
        state: old.clone(),
        secrets: HashMap::new(),
        touched: Touched::with_capacity(changes.len()),
        missing: HashMap::new(),
    };
    for change in changes {
        match change.action {
            Action::Set(item) => draft.set(change.index, item),
            Action::Install(id, key, secret) => {
                draft.secrets.insert(id.clone(), secret);
                draft.set(change.index, Item::Key(id, key));
            }
            Action::Keep(id, kept) => match draft.keep(&id, &kept) {
                Ok(key) => draft.set(change.index, Item::Key(id, key)),
                Err(why) => {
                    let to = ItemKey::from(&id.owner);
                    let item = ItemKey::Key(id);
                    references.push(Reference {
                        index: change.index,
                        item: item.to_string(),
                        field: to.kind().into(),
                        to,
                        edge: None,
                    });
                    refused.push(reason(
                        Code::SecretNeeded,
                        Some(change.index),
                        &item,
                        "secret",
                        why,
                        "give a new secret, in a new epoch if the other end has this one",
                    ));
                    broken.add(item);
                }
            },
            Action::Delete(item) => draft.delete(change.index, item),
        }
    }
    draft.remove_orphans(&equal);
    owners::check(old, &draft.touched, &by, &mut refused);
    let mut missing: Vec<_> = draft.missing.iter().collect();
    missing.sort_by_key(|(_, index)| **index);
    for (item, index) in missing {
        refused.push(reason(
            Code::NotFound,
            Some(*index),
            item,
            "",
            "it does not exist",
            "leave the deletion out",
        ));
    }
    let Draft {
        mut state,
        mut secrets,
        touched,
        ..
    } = draft;
    let places = (&touched, &equal);
    check::check(old, &state, places, &broken, &mut refused);
    check::check_references(&state, &references, &broken, &mut refused);
    let mut starts = starts(old, &state, &touched);
    starts.sort_by_key(|start| start.change);
    // A secret whose key was deleted again, or was there before, is not needed.
    let had = |id: &KeyId| old.keys.get(id).is_some_and(|key| key.installed);
    secrets.retain(|id, _| state.keys.contains_key(id) && !had(id));
    state.generation += 1;
    owners::tally(old, &mut state, &touched, &by.owner, &mut refused);
    let outcome = Outcome {
        changes: diff::summary(old, &state, &touched),
        state,
        secrets,
        starts,
        touched,
    };
    (outcome, refused)
}

struct Draft<'a> {
    old: &'a State,
    /// Whose becomes what is set; `None`: it stays whose it is.
    owner: Option<OwnerName>,
    state: State,
    secrets: HashMap<KeyId, Secret>,
    touched: Touched,
    /// Deletions of what never was.
    missing: HashMap<ItemKey, usize>,
}

impl Draft<'_> {
    fn set(&mut self, index: usize, item: Item) {
        let state = &mut self.state;
        let key = match item {
            Item::Port(name, port) => {
                state.ports.set(name.clone(), port);
                ItemKey::Port(name)
            }
            Item::Vrf(name) => {
                state.vrfs.set(name.clone(), ());
                ItemKey::Vrf(name)
            }
            Item::Link(name, link) => {
                state.links.set(name.clone(), link);
                ItemKey::Link(name)
            }
            Item::Circuit(name, circuit) => {
                state.circuits.set(name.clone(), circuit);
                ItemKey::Circuit(name)
            }
            Item::Label(link, label, action) => {
                state.labels.set((link.clone(), label), action);
                ItemKey::Label(link, label)
            }
            Item::Group(name, members) => {
                state.groups.set(name.clone(), members);
                ItemKey::Group(name)
            }
            Item::Route(vrf, prefix, target) => {
                let same = state
                    .routes
                    .get(&vrf)
                    .is_some_and(|routes| routes.get(&prefix) == Some(&target));
                if !same {
                    match state.routes.get_mut(&vrf) {
                        Some(routes) => _ = routes.insert(prefix, target),
                        None => {
                            let routes = [(prefix, target)].into_iter().collect();
                            state.routes.insert(vrf.clone(), routes);
                        }
                    }
                }
                ItemKey::Route(vrf, prefix)
            }
            Item::Neighbour(port, address, mac) => {
                state.neighbours.set((port.clone(), address), mac);
                ItemKey::Neighbour(port, address)
            }
            Item::Key(id, key) => {
                state.keys.set(id.clone(), key);
                ItemKey::Key(id)
            }
            Item::Transmit(owner, epoch) => {
                state.transmits.set(owner.clone(), epoch);
                ItemKey::Transmit(owner)
            }
        };
        if let Some(owner) = &self.owner {
            self.state.owners.set(&key, owner);
        }
        self.missing.remove(&key);
        self.touched.insert(key, index);
    }

    /// A key that must be there, or why it is not.
    fn keep(&self, id: &KeyId, kept: &Kept) -> Result<Key, String> {
        let Some(key) = self.state.keys.get(id) else {
            return Err("it has no secret, and the node has no such key".to_owned());
        };
        if !key.installed && !kept.needed {
            return Err("it has no secret, and the node's was lost when it restarted".to_owned());
        }
        if let Some(fingerprint) = kept.fingerprint
            && fingerprint != key.fingerprint
        {
            return Err(format!(
                "the node has another secret in this epoch, {}",
                key.fingerprint
            ));
        }
        Ok(Key {
            suite: kept.suite,
            fingerprint: key.fingerprint,
            receiver_index: kept.receiver_index,
            limits: kept.limits,
            installed: key.installed,
        })
    }

    fn delete(&mut self, index: usize, item: ItemKey) {
        let state = &mut self.state;
        let was = match &item {
            ItemKey::Port(name) => state.ports.remove(name),
            ItemKey::Vrf(name) => state.vrfs.remove(name),
            ItemKey::Link(name) => state.links.remove(name),
            ItemKey::Circuit(name) => state.circuits.remove(name),
            ItemKey::Label(link, label) => state.labels.remove(&(link.clone(), *label)),
            ItemKey::Group(name) => state.groups.remove(name),
            ItemKey::Route(vrf, prefix) => {
                let was = state
                    .routes
                    .get(vrf)
                    .is_some_and(|routes| routes.contains_key(prefix));
                if was && let Some(routes) = state.routes.get_mut(vrf) {
                    routes.remove(prefix);
                    if routes.is_empty() {
                        state.routes.remove(vrf);
                    }
                }
                was
            }
            ItemKey::Neighbour(port, address) => state.neighbours.remove(&(port.clone(), *address)),
            ItemKey::Key(id) => state.keys.remove(id),
            ItemKey::Transmit(owner) => state.transmits.remove(owner),
        };
        if was {
            self.state.owners.remove(&item);
        }
        // Deleted twice is deleted once.
        if !was && !self.touched.contains_key(&item) {
            self.missing.insert(item.clone(), index);
        }
        self.touched.insert(item, index);
    }

    /// Keys and transmit epochs go with their owner, unless this very transaction set them or named them as they are: that
    /// is a mistake to report.
    fn remove_orphans(&mut self, equal: &Touched) {
        let owners_are_there =
            self.state.links.same(&self.old.links) && self.state.circuits.same(&self.old.circuits);
        if owners_are_there {
            return;
        }
        let lives = |owner: &Owner| match owner {
            Owner::Link(name) => self.state.links.contains_key(name),
            Owner::Circuit(name) => self.state.circuits.contains_key(name),
        };
        let touched = &self.touched;
        let of_transaction = |it: &ItemKey| touched.contains_key(it) || equal.contains_key(it);
        let keys = self.state.keys.keys().filter(|id| !lives(&id.owner));
        let transmits = self.state.transmits.keys().filter(|owner| !lives(owner));
        let orphans: Vec<_> = keys
            .map(|id| (&id.owner, ItemKey::Key(id.clone())))
            .chain(transmits.map(|owner| (owner, ItemKey::Transmit(owner.clone()))))
            .filter(|(_, item)| !of_transaction(item))
            .filter_map(|(owner, item)| Some((*touched.get(&owner.into())?, item)))
            .collect();
        for (index, item) in orphans {
            self.delete(index, item);
        }
    }
}

/// Keys that transmit in `new` and did not in `old`. One that is not installed does not transmit: so loading it is a start.
fn starts(old: &State, new: &State, touched: &Touched) -> Vec<Start> {
    if new.transmits.same(&old.transmits)
        && new.keys.same(&old.keys)
        && new.links.same(&old.links)
        && new.circuits.same(&old.circuits)
    {
        return Vec::new();
    }
    new.transmits
        .keys()
        .filter_map(|owner| {
            let key = new.transmitting(owner)?;
            let now = new.keys.get(&key)?;
            let before = old
                .transmitting(owner)
                .filter(|before| *before == key)
                .and_then(|before| old.keys.get(&before));
            let goes_on = before.is_some_and(|before| {
                before.fingerprint == now.fingerprint && (before.installed || !now.installed)
            });
            (!goes_on).then(|| Start {
                change: touched
                    .get(&ItemKey::Transmit(owner.clone()))
                    .or_else(|| touched.get(&ItemKey::from(owner)))
                    .copied()
                    .unwrap_or(0),
                key,
                fingerprint: now.fingerprint,
                installed: now.installed,
            })
        })
        .collect()
}
