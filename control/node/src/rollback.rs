//! Going back to a state from before: all of it, or all that can be had, and the node is free for the next transaction.
//!
//! What stands in the way is a port that cannot be opened again, or an address that is not there any more. It is left out
//! with all that needs it, and told; it is tried again every second until something else changes the tables.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use twinseal_api::v1;

use crate::audit::{Entry, NAMED, Written};
use crate::commit::{Cause, Commit};
use crate::events::FaultKind;
use crate::keys::Live;
use crate::node::Node;
use twinseal_model::parse::ItemKey;
use twinseal_model::prune::prune;
use twinseal_model::refusal::{Refused, text};
use twinseal_model::state::State;
use twinseal_model::transaction::{Outcome, Touched};

/// What could not be restored is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// Items that are named of what was left out.
const SHOWN: usize = 20;

/// A state that was restored in part.
pub(super) struct Unrestored {
    /// All of it.
    state: State,
    live: Live,
    /// What is not there yet.
    missing: Touched,
    /// Of the tables without that.
    generation: u64,
    again: Instant,
}

/// What the last rollback left out, as long as nobody has decided what becomes of it.
pub(super) struct LeftOut {
    why: String,
    items: BTreeSet<ItemKey>,
}

impl LeftOut {
    fn new(why: String, items: &Touched) -> Self {
        Self {
            why,
            items: items.keys().cloned().collect(),
        }
    }

    /// As people read it.
    fn report(&self, tried: bool) -> String {
        let names: Vec<_> = self
            .items
            .iter()
            .take(SHOWN)
            .map(ToString::to_string)
            .collect();
        let more = match self.items.len() - names.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let then = match tried {
            true => "it is tried again every second until something else changes the tables",
            false => {
                "it is not tried any more: set what should be there, or replace the whole state"
            }
        };
        format!(
            "{}; not restored: {}{more}; {then}",
            self.why,
            names.join(", ")
        )
    }
}

impl Unrestored {
    /// Takes down what is missing besides those that were told with their reasons: ports first, then what needs them.
    fn name_missing(&self, entry: &mut Entry, told: &HashSet<&str>) {
        let mut missing: Vec<_> = self.missing.keys().collect();
        // There may be a million routes, and few of them are named.
        if missing.len() > NAMED {
            missing.select_nth_unstable(NAMED);
        }
        let named = missing.len().min(NAMED);
        let (first, rest) = missing.split_at_mut(named);
        first.sort_unstable();
        let names = first.iter().map(ToString::to_string);
        for name in names.filter(|name| !told.contains(name.as_str())) {
            entry.item(format!("not restored: {name}"));
        }
        entry.more(rest.len());
    }
}

/// How far it went.
struct Back {
    generation: u64,
    /// Why some of it could not be restored.
    why: Refused,
    missing: Touched,
}

impl Node {
    /// Takes back what waits, as far as can be.
    pub fn rollback(&mut self, generation: u64) -> Result<v1::RollbackResponse, Refused> {
        self.check_waits(generation)?;
        self.roll_back()
    }

    /// The time is up.
    pub(super) fn expired(&mut self) {
        let Some(pending) = &self.pending else {
            return;
        };
        let mut entry = Entry::new(None, "Rollback");
        entry.item(format!(
            "generation {}, which was not confirmed in time",
            pending.generation
        ));
        tracing::warn!("the transaction was not confirmed and is rolled back");
        // What could not be done is told as an event, too; nobody waits for either.
        self.forget_stored();
        let rolled_back = self.roll_back();
        self.rolled_back(entry, &rolled_back);
    }

    /// Takes down how far it went.
    pub(super) fn rolled_back(
        &mut self,
        mut entry: Entry,
        rolled_back: &Result<v1::RollbackResponse, Refused>,
    ) -> Written {
        let mut told = HashSet::new();
        for item in rolled_back.iter().flat_map(|answer| &answer.not_restored) {
            told.insert(item.item.as_str());
            entry.item(format!("not restored: {}", text(item)));
        }
        let generation = rolled_back.as_ref().map(|answer| answer.generation);
        if let Some(rest) = &self.unrestored
            && generation.is_ok_and(|generation| generation == rest.generation)
        {
            rest.name_missing(&mut entry, &told);
        }
        self.take_down(entry, generation.into())
    }

    fn roll_back(&mut self) -> Result<v1::RollbackResponse, Refused> {
        let Some(pending) = self.pending.take() else {
            return Ok(v1::RollbackResponse {
                generation: self.state.generation,
                ..Default::default()
            });
        };
        let back = match self.go_back(&pending.state, &pending.live, &pending.touched, None) {
            Ok(back) => back,
            // What is there stays, and nobody waits any more.
            Err(refused) => {
                self.store_changes(&pending.state, &pending.touched);
                let detail = format!(
                    "nothing could be rolled back, and generation {} stays: {refused}",
                    self.state.generation
                );
                tracing::error!("{detail}");
                self.left_out = Some(LeftOut::new(detail.clone(), &pending.touched));
                self.events.fault(FaultKind::RollbackFailed, detail);
                return Err(refused);
            }
        };
        let answer = v1::RollbackResponse {
            generation: back.generation,
            not_restored: back.why.items().to_vec(),
        };
        self.left_out = None;
        if !back.missing.is_empty() {
            self.left_out = Some(LeftOut::new(back.why.to_string(), &back.missing));
            let detail = format!(
                "{}; {} items are not restored, and are tried again every second until something else changes the tables",
                back.why,
                back.missing.len()
            );
            tracing::error!("the rollback is not complete: {detail}");
            self.events.fault(FaultKind::RollbackIncomplete, detail);
            self.unrestored = Some(Unrestored {
                state: pending.state,
                live: pending.live,
                missing: back.missing,
                generation: back.generation,
                again: Instant::now() + RETRY,
            });
        }
        Ok(answer)
    }

    /// What the last rollback left out, and why; empty if it left out nothing, or somebody has changed all of it since.
    pub(super) fn rollback_incomplete(&self) -> String {
        let left_out = self.left_out.as_ref();
        left_out.map_or_else(String::new, |it| it.report(self.unrestored.is_some()))
    }

    /// Somebody changed these, or said what the whole state is: what of it was left out is not missing any more.
    pub(super) fn decided(&mut self, touched: &Touched, whole: bool) {
        let Some(left_out) = &mut self.left_out else {
            return;
        };
        for item in touched.keys() {
            left_out.items.remove(item);
        }
        if whole || left_out.items.is_empty() {
            self.left_out = None;
        }
    }

    /// Tries again what could not be restored, if it is time and nobody has changed anything since.
    pub(super) fn try_rest(&mut self, now: Instant) {
        let untouched = |rest: &Unrestored| rest.generation == self.state.generation;
        if self.pending.is_some() || !self.unrestored.as_ref().is_some_and(untouched) {
            self.unrestored = None;
            return;
        }
        let Some(mut rest) = self.unrestored.take_if(|rest| rest.again <= now) else {
            return;
        };
        rest.again = now + RETRY;
        self.forget_stored();
        match self.go_back(&rest.state, &rest.live, &rest.missing, Some(&rest.missing)) {
            Ok(back) if back.missing.is_empty() => {
                tracing::info!(generation = back.generation, "the rollback is complete");
                self.left_out = None;
                let mut entry = Entry::new(None, "Rollback");
                entry.item("what could not be restored before".to_owned());
                self.take_down(entry, Ok(back.generation).into());
            }
            Ok(back) => {
                rest.generation = back.generation;
                rest.missing = back.missing;
                self.left_out = Some(LeftOut::new(back.why.to_string(), &rest.missing));
                let mut entry = Entry::new(None, "Rollback");
                entry.item("more of what could not be restored before".to_owned());
                rest.name_missing(&mut entry, &HashSet::new());
                self.take_down(entry, Ok(back.generation).into());
                self.unrestored = Some(rest);
            }
            Err(_) => self.unrestored = Some(rest),
        }
    }

    /// Going back is a transaction like others, but for what it need not ask: the state was sound, and its keys live.
    /// `touched` differs from what is there. If `missing` is what is not there yet, less must be missing afterwards.
    fn go_back(
        &mut self,
        to: &State,
        live: &Live,
        touched: &Touched,
        missing: Option<&Touched>,
    ) -> Result<Back, Refused> {
        // Of what waited only the generation was stored.
        let stored = match missing {
            Some(_) => self.state.clone(),
            None => to.clone(),
        };
        let mut state = to.clone();
        let mut why = Refused::default();
        let mut left_out = Touched::new();
        loop {
            let mut touched = touched.clone();
            touched.extend(left_out.clone());
            state.generation = self.state.generation + 1;
            let outcome = Outcome::back(&self.state, state.clone(), touched);
            let live = live
                .next(&outcome.state, &outcome.secrets, &self.sa)
                .map_err(|error| error.refused(&outcome.touched))?;
            let commit = Commit {
                outcome,
                cause: Cause::RolledBack,
                within: None,
            };
            match self.commit(commit, live) {
                Ok(committed) => {
                    let mut differs = left_out.clone();
                    differs.extend(missing.cloned().unwrap_or_default());
                    self.store_changes(&stored, &differs);
                    return Ok(Back {
                        generation: committed.generation,
                        why,
                        missing: left_out,
                    });
                }
                Err(refused) => {
                    let more = prune(&mut state, &refused);
                    let nothing = more.is_empty();
                    left_out.extend(more);
                    if nothing || missing.is_some_and(|it| it.len() <= left_out.len()) {
                        return Err(refused);
                    }
                    why.append(refused);
                }
            }
        }
    }
}
