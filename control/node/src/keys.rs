//! What outlives a snapshot of the tables: key state and traffic counters.
//!
//! An SA is made when its key is first installed, and the very same one goes into every later snapshot: so counters never
//! start again and replay windows never forget. The secret is wiped once its SA is derived.
//!
//! A receive key that is deleted loses its windows with it. Installing the same secret again would accept old packets
//! again, so controllers load every secret once.

use std::collections::HashMap;
use std::sync::Arc;

use twinseal_crypto::{Context, CryptoError, Fingerprint, Lanes, OpenSa, Provider, SealSa, Secret};

use twinseal_fib::traffic::Traffic;
use twinseal_model::parse::ItemKey;
use twinseal_model::refusal::{Code, Refused, reason};
use twinseal_model::state::{CircuitName, KeyId, LinkName, Owner, PersistentMap, State};
use twinseal_model::transaction::Touched;

/// How SAs are made.
#[derive(Clone, Copy)]
pub struct SaConfig {
    /// The AEADs.
    pub provider: &'static dyn Provider,
    /// Counters of a replay window.
    pub window_bits: u32,
    /// Lanes of a transmit SA.
    pub lanes: Lanes,
    /// Counters of a lane.
    pub lane_limit: u64,
    /// Cells of traffic counters.
    pub workers: usize,
}

/// A key's state.
#[derive(Clone)]
pub enum Sa {
    /// This node seals with it.
    Seal(Arc<SealSa>),
    /// This node opens with it.
    Open(Arc<OpenSa>),
}

/// The live things of one state. Cloning shares them.
#[derive(Clone, Default)]
pub struct Live {
    sas: PersistentMap<KeyId, (Fingerprint, Sa)>,
    links: PersistentMap<LinkName, Traffic>,
    circuits: PersistentMap<CircuitName, Traffic>,
    /// The state that they are of.
    of: State,
}

/// A key for which no SA could be made.
#[derive(Debug)]
pub struct SaError {
    /// The key.
    pub key: KeyId,
    /// Why.
    pub source: CryptoError,
}

impl SaError {
    /// As a refusal of the key's change.
    pub fn refused(&self, touched: &Touched) -> Refused {
        let item = ItemKey::Key(self.key.clone());
        let change = touched.get(&item).copied();
        let why = format!("no key state could be made: {}", self.source);
        let fix = "see to the crypto section of the node's configuration";
        let mut refused = Refused::default();
        refused.push(reason(Code::Internal, change, &item, "suite", why, fix));
        refused
    }
}

impl Live {
    /// Those of `state`: kept where they were, made where they are new.
    pub fn next(
        &self,
        state: &State,
        secrets: &HashMap<KeyId, Secret>,
        config: &SaConfig,
    ) -> Result<Self, SaError> {
        let mut next = self.clone();
        next.of = state.clone();
        let mut failed = Ok(());
        self.of.keys.diff(&state.keys, |id, _, key| {
            let Some(key) = key else {
                next.sas.remove(id);
                return;
            };
            let kept = self.sas.get(id);
            if kept.is_some_and(|(fingerprint, _)| *fingerprint == key.fingerprint) {
                return;
            }
            next.sas.remove(id);
            // A transaction hands over the secret of every key that is new; without one there is nothing to make.
            let Some(secret) = secrets.get(id) else {
                return;
            };
            let seals = state.seals(id).unwrap_or(false);
            match sa(id, key.suite, secret, seals, config) {
                Ok(sa) => _ = next.sas.insert(id.clone(), (key.fingerprint, sa)),
                Err(source) => {
                    let key = id.clone();
                    failed = Err(SaError { key, source });
                }
            }
        });
        failed?;
        let traffic = || Traffic::new(config.workers);
        self.of
            .links
            .diff(&state.links, |name, before, now| match (before, now) {
                (None, Some(_)) => _ = next.links.insert(name.clone(), traffic()),
                (_, None) => _ = next.links.remove(name),
                (Some(_), Some(_)) => {}
            });
        self.of
            .circuits
            .diff(&state.circuits, |name, before, now| match (before, now) {
                (None, Some(_)) => _ = next.circuits.insert(name.clone(), traffic()),
                (_, None) => _ = next.circuits.remove(name),
                (Some(_), Some(_)) => {}
            });
        Ok(next)
    }

    /// Has of these items what `other` has, and is of `state` then.
    pub fn follow(&mut self, other: &Self, state: &State, items: &Touched) {
        fn same<K: Ord + Clone, V: Clone>(
            own: &mut PersistentMap<K, V>,
            other: &PersistentMap<K, V>,
            key: &K,
        ) {
            match other.get(key) {
                Some(value) => _ = own.insert(key.clone(), value.clone()),
                None => _ = own.remove(key),
            }
        }
        for item in items.keys() {
            match item {
                ItemKey::Key(id) => same(&mut self.sas, &other.sas, id),
                ItemKey::Link(name) => same(&mut self.links, &other.links, name),
                ItemKey::Circuit(name) => same(&mut self.circuits, &other.circuits, name),
                _ => {}
            }
        }
        self.of = state.clone();
    }

    /// The transmit SA of this key.
    pub fn seal(&self, id: &KeyId) -> Option<&Arc<SealSa>> {
        match self.sas.get(id) {
            Some((_, Sa::Seal(sa))) => Some(sa),
            _ => None,
        }
    }

    /// The receive SA of this key.
    pub fn open(&self, id: &KeyId) -> Option<&Arc<OpenSa>> {
        match self.sas.get(id) {
            Some((_, Sa::Open(sa))) => Some(sa),
            _ => None,
        }
    }

    /// Whether any receive SA is there for this owner.
    pub fn receives(&self, owner: &Owner) -> bool {
        let mut keys = self.sas.range(|id| id.owner.cmp(owner));
        keys.any(|(_, (_, sa))| matches!(sa, Sa::Open(_)))
    }

    /// The counters of all links.
    pub fn links(&self) -> impl Iterator<Item = (&LinkName, &Traffic)> {
        self.links.iter()
    }

    /// The counters of all circuits.
    pub fn circuits(&self) -> impl Iterator<Item = (&CircuitName, &Traffic)> {
        self.circuits.iter()
    }

    /// A link's counters.
    pub fn link(&self, name: &LinkName) -> Option<&Traffic> {
        self.links.get(name)
    }

    /// A circuit's counters.
    pub fn circuit(&self, name: &CircuitName) -> Option<&Traffic> {
        self.circuits.get(name)
    }

    /// All transmit SAs.
    pub fn seals(&self) -> impl Iterator<Item = (&KeyId, &Arc<SealSa>)> {
        self.sas.iter().filter_map(|(id, (_, sa))| match sa {
            Sa::Seal(sa) => Some((id, sa)),
            Sa::Open(_) => None,
        })
    }
}

fn sa(
    id: &KeyId,
    suite: twinseal_crypto::Suite,
    secret: &Secret,
    seals: bool,
    config: &SaConfig,
) -> Result<Sa, CryptoError> {
    let context = Context {
        layer: id.owner.layer(),
        direction: id.direction,
        suite,
        epoch: id.epoch,
    };
    Ok(if seals {
        Sa::Seal(Arc::new(SealSa::new(
            config.provider,
            secret,
            context,
            config.lanes,
            config.lane_limit,
        )?))
    } else {
        Sa::Open(Arc::new(OpenSa::new(
            config.provider,
            secret,
            context,
            config.window_bits,
        )?))
    })
}
