//! Commit-confirm: a transaction that goes by itself unless its controller says, over the network that it changed, that
//! it shall stay.
//!
//! What will be restored is kept as it was: the state, which shares all that did not change, and its live things. So a
//! key that the transaction deleted keeps its counters and windows until the transaction is confirmed, and may go on.

use std::time::Duration;

use twinseal_api::v1;

use crate::commit::Cause;
use crate::events::changes;
use crate::events::changes::Change;
use crate::keys::Live;
use crate::node::Node;
use twinseal_base::time::{since_boot, unix};
use twinseal_model::refusal::{Code, Refused};
use twinseal_model::state::State;
use twinseal_model::transaction::Touched;

/// The longest time to confirm in.
const LONGEST: Duration = Duration::from_secs(86_400);

/// A transaction, or several, that wait for their confirmation.
pub(super) struct Pending {
    /// What is restored.
    pub(super) state: State,
    /// Its keys and counters.
    pub(super) live: Live,
    /// What differs since then.
    pub(super) touched: Touched,
    /// Whether one of them said what the whole state is.
    whole: bool,
    /// Of the last transaction.
    pub(super) generation: u64,
    /// When it is rolled back, since the machine's start: who suspends it with its network cut off waits no longer.
    deadline: Duration,
    /// The same by the system's clock, in nanoseconds.
    until_unix_nanos: u64,
}

/// How long a transaction waits for its confirmation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Within(Duration);

impl Within {
    /// `None` for 0: it need not be confirmed.
    pub(super) fn new(seconds: u32) -> Result<Option<Self>, Refused> {
        let within = Duration::from_secs(seconds.into());
        if within > LONGEST {
            return Err(Refused::whole(
                Code::Invalid,
                "confirm_within_seconds",
                format!("{seconds} is more than a day"),
                "give 1 to 86400, or 0 for a transaction that stays",
            ));
        }
        Ok((!within.is_zero()).then_some(Self(within)))
    }

    /// When it ends if it begins now, by the system's clock.
    fn end(self) -> u64 {
        (unix() + self.0).as_nanos() as u64
    }
}

impl Pending {
    /// What there is to go back to.
    pub(super) fn new(state: State, live: Live, within: Within) -> Self {
        Self {
            generation: state.generation,
            state,
            live,
            touched: Touched::new(),
            whole: false,
            deadline: since_boot() + within.0,
            until_unix_nanos: within.end(),
        }
    }

    /// One more transaction waits; the time begins anew.
    pub(super) fn extend(
        &mut self,
        generation: u64,
        touched: Touched,
        within: Within,
        cause: Cause,
    ) {
        self.generation = generation;
        self.whole |= cause == Cause::Replace;
        self.touched.extend(touched);
        self.deadline = since_boot() + within.0;
        self.until_unix_nanos = within.end();
    }

    /// Whether its time is over.
    pub(super) fn is_over(&self, since_boot: Duration) -> bool {
        since_boot >= self.deadline
    }

    /// As the API tells it.
    pub(super) fn report(&self) -> v1::Pending {
        v1::Pending {
            generation: self.generation,
            until_unix_nanos: self.until_unix_nanos,
        }
    }
}

impl Node {
    /// What waits for its confirmation.
    pub(super) fn pending(&self) -> Option<v1::Pending> {
        self.pending.as_ref().map(Pending::report)
    }

    /// Only what waits itself may follow what waits: else nobody could say what a rollback takes back.
    pub(super) fn check_pending(&self, within: Option<Within>) -> Result<(), Refused> {
        match &self.pending {
            Some(pending) if within.is_none() => Err(Refused::whole(
                Code::Pending,
                "confirm_within_seconds",
                format!(
                    "generation {} waits for its confirmation, {} seconds more, and this transaction would stay",
                    pending.generation,
                    pending.deadline.saturating_sub(since_boot()).as_secs()
                ),
                "confirm it or roll it back first, or give this one confirm_within_seconds too",
            )),
            _ => Ok(()),
        }
    }

    /// Makes what waits stay. Tells the generation.
    pub fn confirm(&mut self, generation: u64) -> Result<u64, Refused> {
        if self.pending.is_none() && generation != 0 && self.confirmed == Some(generation) {
            // Whoever lost the answer asks again.
            return Ok(self.state.generation);
        }
        self.check_waits(generation)?;
        if let Some(pending) = self.pending.take() {
            self.store_changes(&pending.state, &pending.touched);
            self.decided(&pending.touched, pending.whole);
        }
        self.confirmed = Some(self.state.generation);
        tracing::info!(generation = self.state.generation, "transaction confirmed");
        let change = Change {
            changes: 0,
            cause: Cause::Confirmed.as_str(),
            pending: None,
        };
        changes::tables(&self.events, self.state.generation, change);
        Ok(self.state.generation)
    }

    pub(super) fn check_waits(&self, generation: u64) -> Result<(), Refused> {
        let waits = self.pending.as_ref().map(|pending| pending.generation);
        let why = match waits {
            Some(waits) if generation == 0 || generation == waits => return Ok(()),
            Some(waits) => {
                format!("generation {waits} waits for its confirmation, not {generation}")
            }
            None => format!(
                "no transaction waits for its confirmation; the tables are at generation {}",
                self.state.generation
            ),
        };
        Err(Refused::whole(
            Code::NotPending,
            "generation",
            why,
            "get the state: it may have been rolled back meanwhile",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The clock that goes on while the machine sleeps, and no other.
    #[test]
    fn a_machine_that_sleeps_waits_no_longer() {
        let within = Within::new(600).expect("ten minutes").expect("not 0");
        let mut pending = Pending::new(State::default(), Live::default(), within);
        let wakes = |after: u64| since_boot() + Duration::from_secs(after);
        assert!(!pending.is_over(since_boot()) && pending.is_over(wakes(600)));
        pending.extend(1, Touched::new(), within, Cause::Apply);
        assert!(!pending.is_over(since_boot()) && pending.is_over(wakes(600)));
    }
}
