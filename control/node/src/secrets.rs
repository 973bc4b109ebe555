//! What secrets have served. A secret serves one key, at one end, once: two keys of one secret could be one AEAD key, and
//! a key that is made anew has forgotten its counters and replay windows.
//!
//! Secrets that have sealed or opened are burned on disk and refused for ever. Which key they served is remembered here,
//! while the node runs.

use std::collections::{HashMap, VecDeque};

use twinseal_crypto::{Fingerprint, Secret};

use crate::burned::Burned;
use twinseal_model::parse::ItemKey;
use twinseal_model::refusal::{Code, Refused, reason};
use twinseal_model::state::{KeyId, State};
use twinseal_model::transaction::Outcome;

/// Secrets that are remembered; the oldest is forgotten first.
const REMEMBERED: usize = 1 << 16;

/// Secrets that have been loaded in this run.
#[derive(Default)]
pub(super) struct SecretHistory {
    keys: HashMap<Fingerprint, Service>,
    order: VecDeque<Fingerprint>,
}

#[derive(Clone, PartialEq, Eq)]
struct Service {
    key: KeyId,
    /// Whether this node sealed with it, or would have.
    seals: bool,
}

impl Service {
    fn new(state: &State, key: &KeyId) -> Self {
        Self {
            key: key.clone(),
            seals: state.seals(key) == Some(true),
        }
    }
}

impl SecretHistory {
    /// Refuses secrets that have served before.
    pub(super) fn check(
        &self,
        burned: &Burned,
        old: &State,
        outcome: &Outcome,
        refused: &mut Refused,
    ) {
        const NEW: &str = "load a new secret, in a new epoch, at both ends";
        const OTHERS: &str = "load a new secret, in a new epoch, at both ends; or, if the secret is in use, see whether this is \
                              another node's file, or the `end` of the link or circuit the other one";
        let mut secrets: Vec<_> = outcome.secrets.iter().collect();
        secrets.sort_by_key(|(id, _)| outcome.touched.get(&ItemKey::Key((*id).clone())));
        for (id, secret) in secrets {
            let fingerprint = secret.fingerprint();
            let service = Service::new(&outcome.state, id);
            let lost = old
                .keys
                .get(id)
                .is_some_and(|key| key.fingerprint == fingerprint && !key.installed);
            let before = self.keys.get(&fingerprint);
            let in_use = before
                .filter(|before| before.key != *id)
                .is_some_and(|before| {
                    let key = old.keys.get(&before.key);
                    key.is_some_and(|key| key.installed && key.fingerprint == fingerprint)
                });
            // What is in use has lost no counters.
            let (code, why) = if burned.is_burned(&fingerprint) && !in_use {
                let why = "has sealed before, and its counters are lost";
                (
                    Code::SecretBurned,
                    format!("the secret {fingerprint} {why}"),
                )
            } else if let Some(before) = before.filter(|before| **before != service) {
                let role = match before.seals {
                    true => "to seal",
                    false => "to open",
                };
                (
                    Code::SecretReused,
                    format!("its secret has served the {} {role}", before.key),
                )
            } else if burned.has_opened(&fingerprint)
                || (!service.seals && (lost || before.is_some()))
            {
                let why = "has opened before, and its replay windows are lost: what was recorded then would pass again";
                (
                    Code::SecretBurned,
                    format!("the secret {fingerprint} {why}"),
                )
            } else {
                continue;
            };
            let item = ItemKey::Key(id.clone());
            let change = outcome.touched.get(&item).copied();
            // What serves another key here, or the same the other way, is likely meant for another node.
            let others = before.is_some_and(|before| *before != service);
            let fix = if others { OTHERS } else { NEW };
            refused.push(reason(code, change, &item, "secret", why, fix));
        }
    }

    /// Remembers the secrets of a transaction that applied.
    pub(super) fn remember(&mut self, secrets: &HashMap<KeyId, Secret>, state: &State) {
        for (id, secret) in secrets {
            let service = Service::new(state, id);
            let fingerprint = secret.fingerprint();
            if self.keys.insert(fingerprint, service).is_some() {
                continue;
            }
            self.order.push_back(fingerprint);
            if self.order.len() > REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.keys.remove(&oldest);
            }
        }
    }
}
