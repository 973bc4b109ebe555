//! Transactions on the node: judged, then committed.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use twinseal_api::v1;
use twinseal_crypto::{BurnUse, Secret};

use crate::confirm::{Pending, Within};
use crate::events::changes::Change;
use crate::keys::Live;
use crate::mtu;
use crate::node::{Node, sources};
use crate::ports::IfAbsent;
use crate::requests::{Digest, Digester};
use twinseal_fib::Tables;
use twinseal_model::parse::{ItemKey, Parsed};
use twinseal_model::refusal::{Code, Refused, reason};
use twinseal_model::state::{KeyId, State};
use twinseal_model::sweep::sweep;
use twinseal_model::transaction::{Outcome, Start, Touched};
use twinseal_model::{diff, parse, transaction};

/// What is asked of a transaction besides its changes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Its name, empty for none.
    pub request_id: String,
    /// Check all, change nothing.
    pub dry_run: bool,
    /// Where the tables must be.
    pub expected_generation: Option<u64>,
    /// 0, or how long it waits for its confirmation.
    pub confirm_within_seconds: u32,
}

impl Options {
    /// Adds to what a request says in short, of which its name is no part. A whole state is another request than the same
    /// items as changes.
    pub fn add_to(&self, digest: &mut Digester, replace: bool) {
        digest.add(&v1::ApplyRequest {
            dry_run: self.dry_run,
            expected_generation: self.expected_generation,
            confirm_within_seconds: self.confirm_within_seconds,
            ..Default::default()
        });
        if replace {
            digest.add(&v1::ReplaceRequest::default());
        }
    }
}

/// A transaction that was asked for.
pub struct Transaction {
    /// Its changes.
    pub parsed: Parsed,
    /// What else.
    pub options: Options,
    /// What it says, in short.
    pub digest: Digest,
    /// Whether it says all that shall be, so that the rest goes.
    pub replace: bool,
}

impl From<v1::ApplyRequest> for Transaction {
    fn from(request: v1::ApplyRequest) -> Self {
        let mut digest = Digester::default();
        if !request.request_id.is_empty() {
            for change in &request.changes {
                digest.add(change);
            }
        }
        let options = Options {
            request_id: request.request_id,
            dry_run: request.dry_run,
            expected_generation: request.expected_generation,
            confirm_within_seconds: request.confirm_within_seconds,
        };
        options.add_to(&mut digest, false);
        Self {
            digest: digest.finish(),
            parsed: parse::changes(request.changes),
            options,
            replace: false,
        }
    }
}

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
    pub(super) within: Option<Within>,
}

/// What was committed.
pub(super) struct Committed {
    pub(super) generation: u64,
    /// What it made so that it can't work.
    pub(super) warnings: Vec<String>,
}

impl Node {
    /// Applies a transaction: all of it, or nothing.
    ///
    /// In this order: check, make keys, open ports, compile, burn secrets, publish, close ports. Whatever fails before
    /// publication is undone; what was burned by then is not, which is the last thing that can fail.
    pub fn apply(&mut self, transaction: Transaction) -> Result<v1::ApplyResponse, Refused> {
        let Transaction {
            mut parsed,
            options,
            digest,
            replace,
        } = transaction;
        let mut refused = Refused::default();
        match self.requests.answer(&options.request_id, &digest) {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(why) => refused.append(why),
        }
        let within = refused.sound(Within::new(options.confirm_within_seconds));
        if let Err(why) = self.check_restored(replace && within == Some(None)) {
            refused.append(why);
            refused.sound(self.check_generation(&options));
            // How the changes fit tables that are not there would only confuse.
            refused.append(parsed.refused);
            return Err(refused);
        }
        let moved = self.check_generation(&options).err();
        // All that is looked at here a dry run has looked at, too: else it would promise what is refused then.
        if let Some(within) = within {
            refused.sound(self.check_pending(within));
        }
        let sound = refused.is_empty() && parsed.refused.is_empty();
        if replace {
            sweep(&self.state, &mut parsed);
        }
        let (outcome, of_changes) = transaction::judge(&self.state, parsed);
        refused.append(of_changes);
        self.burned.check(&outcome, &mut refused);
        self.served
            .check(&self.burned, &self.state, &outcome, &mut refused);
        self.check_burned(&outcome, &mut refused);
        self.drains
            .check(&self.state, &outcome.state, &outcome.touched, &mut refused);
        if options.dry_run || !refused.is_empty() {
            self.ports
                .check(&self.pool, &outcome.state, &outcome.touched, &mut refused);
        }
        if let Some(moved) = moved {
            // What does not fit may be so only because others changed the tables: to read them comes first.
            let kind = sound.then(|| moved.kind());
            refused.append(moved);
            return Err(refused.of_kind(kind));
        }
        refused.unless(())?;
        let live = self
            .live
            .next(&outcome.state, &outcome.secrets, &self.sa)
            .map_err(|error| error.refused(&outcome.touched))?;
        if options.dry_run {
            let differences = diff::differences(&self.state, &outcome.state, &outcome.touched);
            let down = self.members.down();
            let sources = sources(&outcome.state, &live, &self.ports, &self.netlink, down);
            let diff = diff::report(&differences, outcome.changes.counts);
            self.changed = Some(outcome.changes);
            return Ok(v1::ApplyResponse {
                generation: self.state.generation,
                diff: Some(diff),
                warnings: self.warnings.would_begin(&sources),
                ..Default::default()
            });
        }
        let cause = match replace {
            true => Cause::Replace,
            false => Cause::Apply,
        };
        let changes = outcome.changes.counts;
        let commit = Commit {
            outcome,
            cause,
            within: within.flatten(),
        };
        let Committed {
            generation,
            warnings,
        } = self.commit(commit, live)?;
        let answer = v1::ApplyResponse {
            generation,
            diff: Some(changes.report()),
            pending: self.pending(),
            warnings,
            ..Default::default()
        };
        self.requests
            .remember(options.request_id, digest, answer.clone());
        Ok(answer)
    }

    fn check_generation(&self, options: &Options) -> Result<(), Refused> {
        if let Some(expected) = options.expected_generation
            && expected != self.state.generation
        {
            return Err(Refused::whole(
                Code::Generation,
                "expected_generation",
                format!(
                    "the tables are at generation {}, not {expected}",
                    self.state.generation
                ),
                "get the state and apply the change to that",
            ));
        }
        Ok(())
    }

    fn check_burned(&self, outcome: &Outcome, refused: &mut Refused) {
        let kept = |start: &&Start| start.installed && !outcome.secrets.contains_key(&start.key);
        for start in outcome.starts.iter().filter(kept) {
            if self.burned.is_burned(&start.fingerprint) && !self.goes_on(&self.live, start) {
                let item = ItemKey::Transmit(start.key.owner.clone());
                let why = format!(
                    "the secret {} of the {} has sealed before, and its counters are lost",
                    start.fingerprint, start.key
                );
                let item = reason(
                    Code::SecretBurned,
                    Some(start.change),
                    &item,
                    "epoch",
                    why,
                    "load a new secret, in a new epoch, at both ends",
                );
                refused.push(item);
            }
        }
    }

    /// Whether the key has transmitted before in this run, so that its counters are there to go on with.
    fn goes_on(&self, live: &Live, start: &Start) -> bool {
        let began = self.began.get(&start.fingerprint).and_then(Weak::upgrade);
        began.is_some_and(|began| {
            live.seal(&start.key)
                .is_some_and(|sa| Arc::ptr_eq(sa, &began))
        })
    }

    /// Tells the watch of limits which keys took over.
    fn watch_switches(&mut self, old: &State, touched: &Touched) {
        for item in touched.keys() {
            if let ItemKey::Transmit(owner) | ItemKey::Key(KeyId { owner, .. }) = item {
                self.watch.switched(old, &self.state, &self.live, owner);
            }
        }
    }

    /// Remembers which SA began to transmit.
    fn begin(&mut self, starts: &[Start]) {
        for start in starts {
            if let Some(sa) = self.live.seal(&start.key) {
                self.began.insert(start.fingerprint, Arc::downgrade(sa));
            }
        }
        if self.began.len() >= 2 * self.began_alive.max(64) {
            self.began.retain(|_, sa| sa.strong_count() > 0);
            self.began_alive = self.began.len();
        }
    }

    /// The last steps, which a rollback takes too.
    pub(super) fn commit(&mut self, commit: Commit, live: Live) -> Result<Committed, Refused> {
        let Commit {
            outcome,
            cause,
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
            .filter(|_| self.pending.is_none())
            .map(|within| Pending::new(self.state.clone(), self.live.clone(), within));
        let view = &self.netlink.view;
        let if_absent = match cause {
            Cause::Restored => IfAbsent::Wait,
            _ => IfAbsent::Refuse,
        };
        let undo = self
            .ports
            .prepare(&self.pool, &state, &touched, view, if_absent)?;
        match self.compile_and_burn(&state, &live, &starts, &secrets) {
            Ok(tables) => self.pool.publish(tables),
            Err(refused) => {
                self.ports.undo(&self.pool, undo, &self.netlink.view);
                // The compiler goes on from what it compiled last: back to what the node has.
                self.republish();
                return Err(refused);
            }
        }
        self.warnings.collect();
        let old = std::mem::replace(&mut self.state, state);
        self.live = live;
        self.served.remember(&secrets, &self.state);
        self.begin(&starts);
        self.watch_switches(&old, &touched);
        self.ports.sweep(&self.pool, &self.state);
        if !old.ports.same(&self.state.ports) {
            self.set_local_addresses();
        }
        self.end_taps();

        let generation = self.state.generation;
        let mtus = mtu::concerned(&old, &self.state, &touched);
        self.pending = before.or(self.pending.take());
        match (&mut self.pending, within) {
            (Some(pending), Some(within)) => {
                pending.extend(generation, touched, within, cause);
                self.store_waiting();
            }
            // Who rolls back knows what of it was stored.
            _ if cause == Cause::RolledBack => {}
            _ if cause == Cause::Restored => self.store_restored(),
            _ => {
                self.decided(&touched, cause == Cause::Replace);
                match self.restoring.take() {
                    Some(_) => self.store_all(),
                    None => self.store_changes(&old, &touched),
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
            pending: self.pending(),
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

    /// The tables to publish; the secrets that they transmit or receive with are on disk by then.
    fn compile_and_burn(
        &mut self,
        state: &State,
        live: &Live,
        starts: &[Start],
        secrets: &HashMap<KeyId, Secret>,
    ) -> Result<Tables, Refused> {
        let down = self.members.down();
        let sources = sources(state, live, &self.ports, &self.netlink, down);
        let tables = self.compiler.compile(self.publications + 1, &sources);
        let tables = tables.map_err(|missing| {
            Refused::whole(
                Code::Internal,
                "",
                format!("the tables could not be made: {missing}; this is a fault of the node"),
                "report it with the transaction",
            )
        })?;
        let new = starts.iter().filter(|start| match start.installed {
            true => !self.goes_on(live, start),
            false => !self.burned.is_burned(&start.fingerprint),
        });
        let seal = new.map(|start| (start.fingerprint, BurnUse::Sealed));
        // Also of what waits for its confirmation, of which nothing else would be stored.
        let open = secrets
            .iter()
            .filter(|(id, _)| state.seals(id) != Some(true))
            .map(|(_, secret)| (secret.fingerprint(), BurnUse::Opened));
        let used: Vec<_> = seal.chain(open).collect();
        if !used.is_empty() {
            self.burned.burn_all(&used)?;
        }
        self.publications += 1;
        Ok(tables)
    }
}
