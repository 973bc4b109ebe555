//! The node's side of the [`store`](crate::store): what is handed to it, and what is taken from it at a start.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::audit::{Entry, Outcome, Written};
use crate::commit::{Cause, Commit};
use crate::events::FaultKind;
use crate::node::Node;
use crate::store::{Store, Stored, Told};
use twinseal_model::diff::differences;
use twinseal_model::refusal::{Code, Refused};
use twinseal_model::state::State;
use twinseal_model::transaction::Touched;
use twinseal_model::{check, transaction};

/// When tables could not be restored, for a device that is not there yet, it is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// Who asked for a transaction is answered after this even if the disk is not done.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tables that could not be restored yet.
pub(super) struct Restoring {
    state: State,
    /// What of before the restart it is not.
    differs: Vec<String>,
    why: Refused,
    again: Instant,
}

/// Waits until a transaction is on the disk; tells whether it is not.
pub(super) async fn not_stored(stored: Option<oneshot::Receiver<Stored>>) -> bool {
    let Some(stored) = stored else {
        // The node stores nothing: that was asked for.
        return false;
    };
    !matches!(tokio::time::timeout(PATIENCE, stored).await, Ok(Ok(Ok(()))))
}

impl Node {
    /// Takes up what was stored before the restart.
    pub(super) fn restore(
        &mut self,
        state: Option<State>,
        waiting: Option<u64>,
        damage: Vec<String>,
    ) {
        self.damage = damage.join("; ");
        for damage in damage {
            tracing::error!("stored tables were refused: {damage}");
            self.events.fault(FaultKind::StoredTablesDamaged, damage);
        }
        let stored = waiting.or(state.as_ref().map(|state| state.generation));
        let mut differs = self.differs(stored.unwrap_or(0), waiting);
        match state {
            None => {
                if self.store.is_some() && !differs.is_empty() {
                    self.take_down_restored(differs);
                }
                self.store_all();
            }
            Some(state) => {
                if self.audit.last().is_none() {
                    let why = "whether all of it had lines is not known: those before this one cannot be read back";
                    differs.push(why.to_owned());
                }
                // A controller's expectations hold on, whatever becomes of the rest.
                self.state.generation = state.generation;
                self.restoring = Some(Restoring {
                    state,
                    differs,
                    why: Refused::default(),
                    again: Instant::now(),
                });
                self.try_restore(Instant::now());
            }
        }
    }

    /// Tries again, if it is time.
    pub(super) fn try_restore(&mut self, now: Instant) {
        let Some(mut restoring) = self.restoring.take_if(|restoring| restoring.again <= now) else {
            return;
        };
        match self.restored(restoring.state.clone()) {
            Ok(()) => {
                let needed = self.state.keys.values().filter(|key| !key.installed);
                tracing::info!(
                    generation = self.state.generation,
                    keys_needed = needed.count(),
                    "the stored tables are restored"
                );
                self.take_down_restored(restoring.differs);
            }
            Err(why) => {
                if restoring.why != why {
                    tracing::error!(%why, "the stored tables cannot be restored yet");
                    self.events.fault(FaultKind::RestoreFailed, why.to_string());
                }
                restoring.why = why;
                restoring.again = now + RETRY;
                self.restoring = Some(restoring);
            }
        }
    }

    /// What is restored and has no line in the audit log, as the program was killed before it was written, and the other
    /// way round.
    fn differs(&self, stored: u64, waiting: Option<u64>) -> Vec<String> {
        let mut differs = Vec::new();
        if let Some(waiting) = waiting {
            let lost =
                format!("generation {waiting}, which waited for its confirmation, is not restored");
            tracing::warn!("{lost}");
            differs.push(lost);
        }
        if let Some(last) = self.audit.last() {
            if last < stored {
                let first = last + 1;
                differs.push(format!(
                    "generations {first} to {stored} were stored, and no line before this one is of them"
                ));
            } else if stored < last {
                let first = stored + 1;
                differs.push(format!(
                    "generations {first} to {last}, of which there are lines, were not stored or are lost"
                ));
            }
        }
        differs
    }

    fn take_down_restored(&self, differs: Vec<String>) {
        let mut entry = Entry::new(None, "Restore");
        entry.item("the tables of before the restart".to_owned());
        for differs in differs {
            entry.item(differs);
        }
        let generation = self.state.generation;
        self.audit.write(entry, Outcome::Done { generation });
    }

    /// What is done next is not stored yet.
    pub(super) fn forget_stored(&mut self) {
        (self.stored, self.recorded, self.changed) = (None, None, None);
    }

    /// Takes down what came of what was just done, once it is stored.
    pub(super) fn take_down(&mut self, entry: Entry, outcome: Outcome<'_>) -> Written {
        let stored = self.recorded.take();
        let entry = entry.changed(self.changed.take());
        self.audit.write_stored(entry, outcome, stored)
    }

    fn is_being_stored(&mut self, told: Option<Told>) {
        if let Some((stored, recorded)) = told.or_else(|| self.nowhere()) {
            (self.stored, self.recorded) = (Some(stored), Some(recorded));
        }
    }

    /// What is told where tables are to be stored and no state directory can be used.
    fn nowhere(&self) -> Option<Told> {
        let (tell_client, stored) = oneshot::channel();
        let (tell_audit, recorded) = std::sync::mpsc::channel();
        let why = self.no_place()?;
        let _ = tell_client.send(Err(why.clone()));
        let _ = tell_audit.send(Err(why));
        Some((stored, recorded))
    }

    fn no_place(&self) -> Option<String> {
        let nowhere = self.wanted.keep_tables && self.store.is_none();
        nowhere.then(|| {
            let path = self.wanted.path.display();
            format!("the state directory {path} cannot be used")
        })
    }

    fn restored(&mut self, state: State) -> Result<(), Refused> {
        let mut refused = Refused::default();
        // Another version of this program may have other rules.
        check::check_whole(&state, &mut refused);
        refused.unless(())?;
        let outcome = transaction::Outcome::restored(state);
        let live = self
            .live
            .next(&outcome.state, &outcome.secrets, &self.sa)
            .map_err(|error| error.refused(&outcome.touched))?;
        let commit = Commit {
            outcome,
            cause: Cause::Restored,
            within: None,
        };
        self.commit(commit, live).map(drop)
    }

    /// Changes to tables that are not there yet make no sense; a whole state that stays does.
    pub(super) fn check_restored(&self, stays: bool) -> Result<(), Refused> {
        match &self.restoring {
            Some(restoring) if !stays => Err(Refused::whole(
                Code::Restoring,
                "",
                format!(
                    "the tables of generation {} are not restored yet: {}",
                    self.state.generation, restoring.why
                ),
                "mend that, or replace the whole state, to stay without confirmation",
            )),
            _ => Ok(()),
        }
    }

    /// Why tables are not restored yet; empty if they are.
    pub(super) fn restoring(&self) -> String {
        self.restoring
            .as_ref()
            .map_or_else(String::new, |restoring| restoring.why.to_string())
    }

    /// Why what applies is not stored; empty if it is.
    pub(super) fn not_stored(&self) -> String {
        // What is not restored yet is stored, and nothing has been changed.
        let store = self.store.as_ref().filter(|_| self.restoring.is_none());
        store
            .map(Store::failing)
            .or_else(|| self.no_place())
            .unwrap_or_default()
    }

    /// Stores what differs from a state.
    pub(super) fn store_changes(&mut self, old: &State, touched: &Touched) {
        let told = self.store.as_mut().map(|store| {
            let differences = differences(old, &self.state, touched);
            store.commit(self.state.generation, self.burned.mark(), differences)
        });
        self.is_being_stored(told);
    }

    /// Stores that the last generation waits for its confirmation.
    pub(super) fn store_waiting(&mut self) {
        if let Some(pending) = &self.pending {
            let (generation, burned) = (pending.generation, self.burned.mark());
            let told = self.store.as_mut();
            let told = told.map(|store| store.wait(generation, burned));
            self.is_being_stored(told);
        }
    }

    /// Stores all.
    pub(super) fn store_all(&mut self) {
        let store = self.store.as_mut();
        let told = store.map(|store| store.begin(&self.state, self.burned.mark()));
        self.is_being_stored(told);
    }

    /// Stores all anew that was restored just now.
    pub(super) fn store_restored(&mut self) {
        if let Some(store) = &mut self.store {
            store.follow(&self.state, self.burned.mark());
        }
    }

    /// Writes all anew when the journal is large, and as long as something is not on the disk: so a disk that was full for
    /// a moment needs nobody to come back.
    pub(super) fn tend_store(&mut self, now: Instant) {
        let Some(store) = self.store.as_mut().filter(|_| self.restoring.is_none()) else {
            return;
        };
        let failing = store.is_failing();
        if failing != self.store_failing {
            self.store_failing = failing;
            match failing {
                true => {
                    let detail = format!(
                        "the state directory {} cannot be written ({}): what applies now is lost with a restart; it is tried \
                         again every two seconds",
                        self.wanted.path.display(),
                        store.failing(),
                    );
                    self.events.fault(FaultKind::TablesNotStored, detail);
                }
                false => {
                    tracing::info!("the tables are stored again");
                    let detail = "all that applied is on the disk again".to_owned();
                    self.events.fault(FaultKind::TablesStoredAgain, detail);
                }
            }
        }
        if !store.is_due(now) {
            return;
        }
        let burned = self.burned.mark();
        let base = match &self.pending {
            Some(pending) => &pending.state,
            None => &self.state,
        };
        match failing {
            true => drop(store.begin(base, burned)),
            false => store.follow(base, burned),
        }
        if let Some(pending) = &self.pending {
            drop(store.wait(pending.generation, burned));
        }
    }
}
