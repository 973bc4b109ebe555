//! The rules of keys: no secret serves twice, epochs only go forward, what transmits stays.

use std::collections::HashMap;

use crate::check::Checker;
use crate::parse::ItemKey;
use crate::refusal::Code;
use crate::state::{KeyId, Owner};

/// Adds everything that is wrong with the keys.
pub(crate) fn check(checker: &mut Checker<'_>) {
    let (old, new) = (checker.old, checker.new);
    let owners_changed = !(new.links.same(&old.links) && new.circuits.same(&old.circuits));
    if !owners_changed && new.keys.same(&old.keys) && new.transmits.same(&old.transmits) {
        return;
    }
    checker.key_owners();
    checker.replaced_keys();
    checker.secrets_serve_once();
    checker.receive_keys();
    checker.ends();
    checker.transmits();
}

impl Checker<'_> {
    fn key_owners(&mut self) {
        let new = self.new;
        for id in new.keys.keys() {
            self.owner_exists(&ItemKey::Key(id.clone()), &id.owner);
        }
        for owner in new.transmits.keys() {
            self.owner_exists(&ItemKey::Transmit(owner.clone()), owner);
        }
    }

    fn owner_exists(&mut self, item: &ItemKey, owner: &Owner) {
        if self.new.end(owner).is_none() && !self.broken.covers(&owner.into()) {
            let field = match owner {
                Owner::Link(_) => "link",
                Owner::Circuit(_) => "circuit",
            };
            let why = format!("there is no {owner}");
            let fix = self.name_another(&owner.into());
            self.refuse(Code::NotFound, item, field, why, fix);
        }
    }

    fn replaced_keys(&mut self) {
        let (old, new) = (self.old, self.new);
        if new.keys.same(&old.keys) {
            return;
        }
        for (id, key) in new.keys.iter() {
            // A key that lost its secret in a restart is of no use to anyone: its epoch may have another.
            if let Some(before) = old.keys.get(id).filter(|before| before.installed) {
                let item = ItemKey::Key(id.clone());
                if before.fingerprint != key.fingerprint {
                    self.refuse(
                        Code::Immutable,
                        &item,
                        "secret",
                        "this epoch has another secret already",
                        "use a new epoch, or delete the key in a transaction of its own first",
                    );
                } else if before.suite != key.suite {
                    self.refuse(
                        Code::Immutable,
                        &item,
                        "suite",
                        format!("this epoch has suite {} already", before.suite),
                        "use a new epoch and a new secret",
                    );
                }
            }
        }
    }

    /// Two keys of one secret might be one AEAD key, whose nonces would then repeat.
    fn secrets_serve_once(&mut self) {
        let (old, new) = (self.old, self.new);
        if new.keys.same(&old.keys) {
            return;
        }
        let mut serves: HashMap<_, &KeyId> = HashMap::new();
        // Also what this transaction deletes has served.
        for (id, key) in old.keys.iter().chain(new.keys.iter()) {
            let other = *serves.entry(key.fingerprint).or_insert(id);
            if other != id {
                self.refuse_pair(
                    Code::SecretReused,
                    &ItemKey::Key(id.clone()),
                    &ItemKey::Key(other.clone()),
                    "secret",
                    format!("its secret serves the {other} already"),
                    "make a new secret for every owner, direction and epoch",
                );
            }
        }
    }

    fn receive_keys(&mut self) {
        let new = self.new;
        let mut indices: HashMap<u32, &KeyId> = HashMap::new();
        let mut epochs: HashMap<(&Owner, u32), &KeyId> = HashMap::new();
        for (id, key) in new.keys.iter() {
            if new.seals(id) != Some(false) {
                continue;
            }
            let item = ItemKey::Key(id.clone());
            match id.owner {
                Owner::Link(_) => {
                    if let Some(other) = indices.insert(key.receiver_index, id) {
                        let why = format!("{} names the {other} already", key.receiver_index);
                        self.refuse_pair(
                            Code::Conflict,
                            &item,
                            &ItemKey::Key(other.clone()),
                            "receiver_index",
                            why,
                            "give each key that this node receives with an index of its own",
                        );
                    }
                }
                // Packets carry the low four bits: so there are at most sixteen at a time.
                Owner::Circuit(_) => {
                    if let Some(other) = epochs.insert((&id.owner, id.epoch & 0xf), id) {
                        let why = format!(
                            "packets could not tell it from epoch {}, which is live and has the same low four bits",
                            other.epoch
                        );
                        self.refuse_pair(
                            Code::Conflict,
                            &item,
                            &ItemKey::Key(other.clone()),
                            "epoch",
                            why,
                            "delete the older epoch first",
                        );
                    }
                }
            }
        }
    }

    /// A key that changed sides would seal what it used to open.
    fn ends(&mut self) {
        let (old, new) = (self.old, self.new);
        let mut told: Option<&Owner> = None;
        for (id, key) in new.keys.iter() {
            let (Some(before), Some(after)) = (old.end(&id.owner), new.end(&id.owner)) else {
                continue;
            };
            let stays = old
                .keys
                .get(id)
                .is_some_and(|before| before.fingerprint == key.fingerprint);
            if before != after && stays && told != Some(&id.owner) {
                told = Some(&id.owner);
                self.refuse(
                    Code::Immutable,
                    &ItemKey::from(&id.owner),
                    "end",
                    format!("it has keys that would change sides, as the {id}"),
                    "delete its keys first, or delete it and set it anew in a second transaction",
                );
            }
        }
    }

    fn transmits(&mut self) {
        let (old, new) = (self.old, self.new);
        for (owner, &epoch) in new.transmits.iter() {
            let item = ItemKey::Transmit(owner.clone());
            if let Some(&before) = old.transmits.get(owner)
                && epoch < before
            {
                self.refuse(
                    Code::Epoch,
                    &item,
                    "epoch",
                    format!("epoch {before} transmits, and epochs do not go back"),
                    "use a new, higher epoch",
                );
            }
            let Some(id) = new.transmitting(owner) else {
                // Its owner is gone, which key_owners has told.
                continue;
            };
            if new.keys.contains_key(&id) {
                continue;
            }
            let key = ItemKey::Key(id);
            if self.touched.contains_key(&key) && !self.names(&item) {
                self.refuse(
                    Code::InUse,
                    &key,
                    "",
                    "it transmits",
                    "let a new epoch transmit in the same transaction, or delete its owner",
                );
            } else if !self.broken.covers(&key) {
                self.refuse(
                    Code::NotFound,
                    &item,
                    "epoch",
                    format!("there is no {key}, which this end would transmit with"),
                    self.name_another(&key),
                );
            }
        }
    }
}
