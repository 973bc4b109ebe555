//! Commit-confirm: a transaction that goes by itself unless its controller says, over the network that it changed, that
//! it shall stay.
//!
//! What will be restored is kept as it was: the state, which shares all that did not change, and its live things. What
//! others do meanwhile is done there as well ([`waiting`](crate::waiting)). So a
//! key that the transaction deleted keeps its counters and windows until the transaction is confirmed, and may go on.

use std::time::Duration;

use twinseal_api::v1;

use crate::audit::Entry;
use crate::commit::Cause;
use crate::events::changes;
use crate::events::changes::Change;
use crate::keys::Live;
use crate::node::Node;
use twinseal_base::time::{since_boot, unix};
use twinseal_model::refusal::{Code, Refused};
use twinseal_model::state::{OwnerName, State};
use twinseal_model::transaction::Touched;

/// The longest time to confirm in.
const LONGEST: Duration = Duration::from_secs(86_400);

/// A transaction of an owner's, or several, that wait for their confirmation.
pub(super) struct Pending {
    /// What is restored.
    pub(super) state: State,
    /// Its keys and counters.
    pub(super) live: Live,
    /// What differs since then.
    pub(super) touched: Touched,
    /// Whether one of them said what all of the owner's is.
    pub(super) whole: bool,
    /// Of the last transaction.
    pub(super) generation: u64,
    /// When it is rolled back, since the machine's start: who suspends it with its network cut off waits no longer.
    pub(super) deadline: Duration,
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
    /// Only what waits itself may follow what waits of the same owner: else nobody could say what a rollback takes back.
    pub(super) fn check_pending(
        &self,
        owner: &OwnerName,
        within: Option<Within>,
    ) -> Result<(), Refused> {
        match self.waiting.of(owner) {
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

    /// Makes what waits of an owner's stay. Tells the generation.
    pub fn confirm(
        &mut self,
        request: &v1::ConfirmRequest,
        entry: &mut Entry,
    ) -> Result<u64, Refused> {
        let owner = OwnerName::parse(&request.owner)?;
        let generation = request.generation;
        entry.repeated = self.waiting.of(&owner).is_none();
        let before = self.confirmed.get(&owner) == Some(&generation);
        if entry.repeated && generation != 0 && before {
            // Whoever lost the answer asks again.
            return Ok(self.state.generation);
        }
        self.check_waits(&owner, generation)?;
        if let Some(pending) = self.waiting.take(&owner) {
            if pending.generation != self.state.generation {
                // Others have stored generations since, and what is stored now must follow them.
                self.state.generation += 1;
                let generation = self.state.generation;
                self.state.owners.changed(&owner, generation);
            }
            self.store_changes(&pending.state, &pending.touched, &owner);
            self.decided(&pending.touched, pending.whole.then_some(&owner));
            self.waiting.settle(&self.state, &pending.touched);
            self.confirmed.insert(owner.clone(), pending.generation);
        }
        let known = |owner: &OwnerName| self.state.owners.generation(owner) != 0;
        self.confirmed.retain(|owner, _| known(owner));
        tracing::info!(generation = self.state.generation, "transaction confirmed");
        let change = Change {
            changes: 0,
            cause: Cause::Confirmed.as_str(),
            pending: None,
            owner: owner.to_string(),
            taken_from: Vec::new(),
        };
        changes::tables(&self.events, self.state.generation, change);
        Ok(self.state.generation)
    }

    pub(super) fn check_waits(&self, owner: &OwnerName, generation: u64) -> Result<(), Refused> {
        let waits = self.waiting.of(owner).map(|pending| pending.generation);
        let of = match owner.is_controller() {
            true => String::new(),
            false => format!(" of owner {owner:?}"),
        };
        let why = match waits {
            Some(waits) if generation == 0 || generation == waits => return Ok(()),
            Some(waits) => {
                format!("generation {waits}{of} waits for its confirmation, not {generation}")
            }
            None => format!(
                "no transaction{of} waits for its confirmation; the tables are at generation {}",
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
