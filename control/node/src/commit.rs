//! The last steps of a transaction: what a restart and a rollback take, too.

use std::collections::HashMap;
use std::sync::Arc;

use twinseal_crypto::{BurnUse, Secret};

use crate::confirm::{Pending, Within};
use crate::events::changes::Change;
use crate::keys::Live;
use crate::mtu;
use crate::node::{Node, sources};
use crate::ports::{IfAbsent, Prepared};
use twinseal_fib::Fib;
use twinseal_model::owners::taken_from;
use twinseal_model::parse::ItemKey;
use twinseal_model::refusal::{Code, Refused};
use twinseal_model::state::{KeyId, OwnerName, State};
use twinseal_model::transaction::{Outcome, Start, Touched};

/// Why the tables change, as events tell it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    Apply,
    Replace,
    Confirmed,
    RolledBack,
    Restored,
}

impl Cause {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Replace => "replace",
            Self::Confirmed => "confirmed",
            Self::RolledBack => "rolled_back",
            Self::Restored => "restored",
        }
    }
}

/// A transaction that was judged and is to be committed.
pub(super) struct Commit {
    pub(super) outcome: Outcome,
    pub(super) cause: Cause,
    /// Whose it is.
    pub(super) owner: OwnerName,
    pub(super) within: Option<Within>,
}

/// What was committed.
pub(super) struct Committed {
    pub(super) generation: u64,
    /// What it made so that it can't work.
    pub(super) warnings: Vec<String>,
}

impl Node {
    /// Tells the watch of limits which keys took over.
    fn watch_switches(&mut self, old: &State, touched: &Touched) {
        for item in touched.keys() {
            if let ItemKey::Transmit(owner) | ItemKey::Key(KeyId { owner, .. }) = item {
                self.watch.switched(old, &self.state, &self.live, owner);
            }
        }
    }

    /// Remembers which SA began to transmit, or may: its secret is burned.
    fn begin(&mut self, live: &Live, starts: &[Start]) {
        for start in starts {
            if let Some(sa) = live.seal(&start.key) {
                self.began.insert(start.fingerprint, Arc::downgrade(sa));
            }
        }
        if self.began.len() >= 2 * self.began_alive.max(64) {
            self.began.retain(|_, sa| sa.strong_count() > 0);
            self.began_alive = self.began.len();
        }
    }

    /// In this order: look at ports and open new ones, compile, burn secrets, close and open anew what ports are otherwise,
    /// publish, close ports that are gone. Whatever fails before publication is undone, but for what was burned by then.
    ///
    /// What closes an open port comes last of all that may be refused, even after the burning: a transaction whose secrets
    /// are lost costs its author new ones, and one that closes ports each time that it is tried again costs traffic.
    pub(super) fn commit(&mut self, commit: Commit, live: Live) -> Result<Committed, Refused> {
        let Commit {
            outcome,
            cause,
            owner,
            within,
        } = commit;
        let Outcome {
            state,
            touched,
            starts,
            secrets,
            changes,
        } = outcome;
        let before = within
            .filter(|_| self.waiting.of(&owner).is_none())
            .map(|within| Pending::new(self.state.clone(), self.live.clone(), within));
        let view = &self.netlink.view;
        let if_absent = match cause {
            Cause::Restored => IfAbsent::Wait,
            _ => IfAbsent::Refuse,
        };
        let mut prepared = self
            .ports
            .prepare(&self.pool, &state, &touched, view, if_absent)?;
        let closes = prepared.reopens();
        match self.tables_of(&mut prepared, &state, &touched, &live, (&starts, &secrets)) {
            Ok(tables) => self.pool.publish(tables),
            Err(refused) => {
                let view = &self.netlink.view;
                self.ports.undo(&self.pool, prepared, view, &self.events);
                // The compiler goes on from what it compiled last: back to what the node has.
                self.republish();
                if closes {
                    self.look_at_ports();
                }
                return Err(refused);
            }
        }
        self.warnings.collect();
        let old = std::mem::replace(&mut self.state, state);
        self.begin(&live, &starts);
        self.live = live;
        self.secret_history.remember(&secrets, &self.state);
        self.watch_switches(&old, &touched);
        self.ports.finish(&self.pool, &self.state, prepared);
        if !old.ports.same(&self.state.ports) {
            self.set_local_addresses();
        }
        self.end_taps();

        let generation = self.state.generation;
        let mtus = mtu::concerned(&old, &self.state, &touched);
        let others = taken_from(&old, &touched, &owner);
        let told = match cause {
            Cause::Restored => String::new(),
            _ => owner.to_string(),
        };
        match within {
            Some(within) => {
                self.waiting
                    .follow(&owner, false, &self.state, &self.live, &touched);
                let pending = self.waiting.begin(&owner, &old, before);
                if let Some(pending) = pending {
                    pending.extend(generation, touched, within, cause);
                }
                self.store_waiting(&owner);
            }
            // Who rolls back knows what of it was stored.
            _ if cause == Cause::RolledBack => {}
            _ if cause == Cause::Restored => self.store_restored(),
            _ => {
                self.waiting
                    .follow(&owner, true, &self.state, &self.live, &touched);
                self.decided(&touched, (cause == Cause::Replace).then_some(&owner));
                match self.restoring.take() {
                    Some(_) => self.store_all(),
                    None => self.store_changes(&old, &touched, &owner),
                }
            }
        }
        let all = changes.counts.all();
        self.changed = Some(changes);
        tracing::info!(
            generation,
            changes = all,
            cause = cause.as_str(),
            "transaction applied"
        );
        let change = Change {
            changes: all,
            cause: cause.as_str(),
            pending: self.waiting.report(&owner),
            owner: told,
            taken_from: others.iter().map(ToString::to_string).collect(),
        };
        self.health.changed(&self.events, &old, &self.state, change);
        self.accounts.changed(&old, &self.state, &self.live);
        if !old.ports.same(&self.state.ports) {
            self.follow_devices(true);
        }
        if mtus {
            self.look_at_mtus();
        }
        // Routes change by the thousand a second, and concern neither.
        let carries = !old.carries_as(&self.state) || !old.groups.same(&self.state.groups);
        if carries || mtus {
            self.update_health();
        }
        if carries {
            self.resolver.links(&self.netlink, &self.sources());
        }
        Ok(Committed {
            generation,
            warnings: self.warnings.collected(),
        })
    }

    /// The tables to publish; the secrets that they transmit or receive with are on disk by then, and ports as they are to be.
    fn tables_of(
        &mut self,
        prepared: &mut Prepared,
        state: &State,
        touched: &Touched,
        live: &Live,
        (starts, secrets): (&[Start], &HashMap<KeyId, Secret>),
    ) -> Result<Fib, Refused> {
        let mut tables = self.compile(state, live)?;
        let burned = self.burn(state, live, starts, secrets)?;
        if prepared.reopens() {
            let (view, events) = (&self.netlink.view, &self.events);
            let reopened = self
                .ports
                .reopen_live(&self.pool, touched, view, prepared, events);
            if let Err(refused) = reopened {
                // Keys that were there before can begin when it is tried again: nothing was sealed.
                self.begin(live, starts);
                return Err(and_burned(refused, burned));
            }
            // A port has another hardware address by now, or another MTU.
            tables = self.compile(state, live)?;
        }
        self.publications += 1;
        Ok(tables)
    }

    fn compile(&mut self, state: &State, live: &Live) -> Result<Fib, Refused> {
        let down = self.members.down();
        let sources = sources(state, live, &self.ports, &self.netlink, down);
        let tables = self.compiler.compile(self.publications + 1, &sources);
        tables.map_err(|missing| {
            Refused::whole(
                Code::Internal,
                "",
                format!("the tables could not be made: {missing}; this is a fault of the node"),
                "report it with the transaction",
            )
        })
    }

    /// Burns what tables transmit or receive with from now on; tells how many of the transaction's own secrets.
    fn burn(
        &mut self,
        state: &State,
        live: &Live,
        starts: &[Start],
        secrets: &HashMap<KeyId, Secret>,
    ) -> Result<usize, Refused> {
        let new: Vec<_> = starts
            .iter()
            .filter(|start| match start.installed {
                true => !self.goes_on(live, start),
                false => !self.burned.is_burned(&start.fingerprint),
            })
            .collect();
        let kept = new.iter().filter(|it| !secrets.contains_key(&it.key));
        let kept = kept.count();
        let seal = new.iter().map(|start| (start.fingerprint, BurnUse::Sealed));
        // Also of what waits for its confirmation, of which nothing else would be stored.
        let open = secrets
            .iter()
            .filter(|(id, _)| state.seals(id) != Some(true))
            .map(|(_, secret)| (secret.fingerprint(), BurnUse::Opened));
        let used: Vec<_> = seal.chain(open).collect();
        if !used.is_empty() {
            self.burned.burn_all(&used)?;
        }
        Ok(used.len() - kept)
    }

    /// Ports that were closed and opened do not have all that others have yet.
    fn look_at_ports(&mut self) {
        self.follow_devices(true);
        self.look_at_mtus();
        self.update_health();
    }
}

/// A refusal that came after secrets were burned.
fn and_burned(mut refused: Refused, burned: usize) -> Refused {
    if burned > 0 {
        refused.append(Refused::whole(
            Code::SecretBurned,
            "secret",
            format!("{burned} secrets of it were burned before, and cannot be loaded again"),
            "load new secrets, in new epochs, at both ends",
        ));
    }
    refused
}
