//! Transactions on the node: judged, then [committed](crate::commit).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use twinseal_api::v1;

use crate::commit::{Cause, Commit, Committed};
use crate::compile::Sources;
use crate::confirm::Within;
use crate::keys::Live;
use crate::node::{Node, sources};
use crate::ports::IfAbsent;
use crate::requests::{Digest, Digester};
use twinseal_model::owners::By;
use twinseal_model::parse::{ItemKey, Parsed};
use twinseal_model::refusal::{Code, Refused, reason};
use twinseal_model::sweep::sweep;
use twinseal_model::transaction::{Outcome, Start};
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
    /// Who asks.
    pub by: By,
}

impl Options {
    /// Adds to what a request says in short, of which its name is no part. A whole state is another request than the same
    /// items as changes.
    pub fn add_to(&self, digest: &mut Digester, replace: bool) {
        digest.add(&v1::ApplyRequest {
            dry_run: self.dry_run,
            expected_generation: self.expected_generation,
            confirm_within_seconds: self.confirm_within_seconds,
            owner: self.by.owner.told(),
            take_over: self.by.take_over,
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
    /// Why it cannot be what it says it is: it is refused, with all else that is wrong with the request as such.
    pub unfit: Refused,
}

impl From<v1::ApplyRequest> for Transaction {
    fn from(request: v1::ApplyRequest) -> Self {
        let mut digest = Digester::default();
        if !request.request_id.is_empty() {
            for change in &request.changes {
                digest.add(change);
            }
        }
        let (by, unfit) = By::parse(&request.owner, request.take_over);
        let mut parsed = parse::changes_by(by.clone(), request.changes);
        parsed.refused.append(unfit);
        let options = Options {
            by,
            request_id: request.request_id,
            dry_run: request.dry_run,
            expected_generation: request.expected_generation,
            confirm_within_seconds: request.confirm_within_seconds,
        };
        options.add_to(&mut digest, false);
        Self {
            digest: digest.finish(),
            parsed,
            options,
            replace: false,
            unfit: Refused::default(),
        }
    }
}

impl Node {
    /// Applies a transaction: all of it, or nothing.
    ///
    /// In this order: check, make keys, then [`commit`](Self::commit).
    pub fn apply(&mut self, transaction: Transaction) -> Result<v1::ApplyResponse, Refused> {
        let Transaction {
            mut parsed,
            options,
            digest,
            replace,
            unfit,
        } = transaction;
        let fit = unfit.is_empty();
        let mut refused = unfit;
        match self.requests.answer(&options.request_id, &digest) {
            Ok(Some(answer)) if fit => return Ok(answer),
            Ok(_) => {}
            Err(why) => refused.append(why),
        }
        let within = refused.sound(Within::new(options.confirm_within_seconds));
        if let Err(why) = self.check_restored(replace && within == Some(None), &options.by) {
            refused.append(why);
            refused.sound(self.check_generation(&options));
            // How the changes fit tables that are not there would only confuse.
            refused.append(parsed.refused);
            return Err(refused);
        }
        let moved = self.check_generation(&options).err();
        let owner = options.by.owner.clone();
        // All that is looked at here a dry run has looked at, too: else it would promise what is refused then.
        if let Some(within) = within {
            refused.sound(self.check_pending(&owner, within));
        }
        if !fit {
            // How its items fit would only confuse: there may be others.
            refused.append(parsed.refused);
            refused.sound(moved.map_or(Ok(()), Err));
            return Err(refused);
        }
        let sound = refused.is_empty() && parsed.refused.is_empty();
        if replace {
            sweep(&self.state, &mut parsed);
        }
        let (outcome, of_changes) = transaction::judge(&self.state, parsed);
        refused.append(of_changes);
        let stays = within == Some(None);
        self.waiting.check(&owner, stays, &outcome, &mut refused);
        self.burned.check(&outcome, &mut refused);
        self.secret_history
            .check(&self.burned, &self.state, &outcome, &mut refused);
        self.check_burned(&outcome, &mut refused);
        self.check_epochs(&outcome, &mut refused);
        self.drains
            .check(&self.state, &outcome.state, &outcome.touched, &mut refused);
        if options.dry_run || !refused.is_empty() {
            let (state, touched) = (&outcome.state, &outcome.touched);
            self.ports
                .check(&self.pool, state, touched, IfAbsent::Refuse, &mut refused);
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
            let view = &self.netlink.view;
            let ports = self.ports.would_be(&self.pool, &outcome.state, view);
            let sources = Sources {
                ports: &ports,
                ..sources(&outcome.state, &live, &self.ports, &self.netlink, down)
            };
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
            owner: owner.clone(),
            within: within.flatten(),
        };
        let Committed {
            generation,
            warnings,
        } = self.commit(commit, live)?;
        let answer = v1::ApplyResponse {
            generation,
            diff: Some(changes.report()),
            pending: self.waiting.report(&owner),
            warnings,
            ..Default::default()
        };
        self.requests
            .remember(options.request_id, digest, answer.clone());
        Ok(answer)
    }

    fn check_generation(&self, options: &Options) -> Result<(), Refused> {
        let Some(expected) = options.expected_generation else {
            return Ok(());
        };
        let owner = &options.by.owner;
        let (now, own) = (self.state.generation, self.state.owners.generation(owner));
        // What others changed since is none of its business.
        if (own..=now).contains(&expected) {
            return Ok(());
        }
        let why = match own < now && expected < own {
            true => {
                format!("items of owner {owner:?} changed in generation {own}, after {expected}")
            }
            false => format!("the tables are at generation {now}, not {expected}"),
        };
        Err(Refused::whole(
            Code::Generation,
            "expected_generation",
            why,
            "get the state and apply the change to that",
        ))
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

    /// Epochs do not go back by way of deleting which one transmits: a key that has sealed tells that it did as long as it is
    /// there.
    fn check_epochs(&self, outcome: &Outcome, refused: &mut Refused) {
        let before = |start: &&Start| self.state.transmits.get(&start.key.owner).copied();
        let begins: HashMap<_, _> = outcome
            .starts
            .iter()
            .filter(|start| before(start).is_none())
            .map(|start| (&start.key.owner, start))
            .collect();
        if begins.is_empty() {
            return;
        }
        let mut highest: BTreeMap<_, u32> = BTreeMap::new();
        for (id, key) in outcome.state.keys.iter() {
            let Some(start) = begins.get(&id.owner) else {
                continue;
            };
            let above = id.direction == start.key.direction && id.epoch > start.key.epoch;
            if above && self.burned.is_burned(&key.fingerprint) {
                let highest = highest.entry((start.change, &id.owner)).or_default();
                *highest = id.epoch.max(*highest);
            }
        }
        for ((change, owner), epoch) in highest {
            refused.push(reason(
                Code::Epoch,
                Some(change),
                &ItemKey::Transmit(owner.clone()),
                "epoch",
                format!("epoch {epoch} has transmitted, and epochs do not go back"),
                "use a new, higher epoch",
            ));
        }
    }

    /// Whether the key has transmitted before in this run, so that its counters are there to go on with.
    pub(super) fn goes_on(&self, live: &Live, start: &Start) -> bool {
        let began = self.began.get(&start.fingerprint).and_then(Weak::upgrade);
        began.is_some_and(|began| {
            live.seal(&start.key)
                .is_some_and(|sa| Arc::ptr_eq(sa, &began))
        })
    }
}
