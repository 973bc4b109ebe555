//! Apply, Confirm and Rollback.

use tonic::Status;
use twinseal_api::v1;

use super::Service;
use super::status::{refusal, status};
use crate::control::access::Caller;
use crate::control::apply::Transaction;
use crate::control::audit::{Entry, Outcome};
use crate::control::refusal::{Refused, text};

/// Octets of a refusal in an answer.
const MAX_REFUSAL: usize = 2 << 20;

impl Service {
    /// Applies a transaction, or tells all that is wrong with it.
    pub(super) async fn apply(
        &self,
        caller: Option<Caller>,
        request: v1::ApplyRequest,
    ) -> Result<v1::ApplyResponse, Status> {
        let mut entry = Entry::new(caller, "Apply");
        entry.changes(&request.changes);
        entry.dry_run = request.dry_run;
        let in_response = request.refusal_in_response;
        self.transact(entry, request.into(), in_response).await
    }

    pub(super) async fn transact(
        &self,
        entry: Entry,
        transaction: Transaction,
        refusal_in_response: bool,
    ) -> Result<v1::ApplyResponse, Status> {
        let list = list(transaction.replace);
        let applied = self.node.apply(transaction).await?;
        let generation = applied.as_ref().map(|answer| answer.generation);
        self.audit.write(entry, outcome(generation));
        applied.or_else(|refused| answer(&refused, list, refusal_in_response))
    }

    /// Refuses a Replace of which the node need not hear.
    pub(super) fn refuse(
        &self,
        entry: Entry,
        refused: Refused,
        in_response: bool,
    ) -> Result<v1::ApplyResponse, Status> {
        self.audit.write(entry, Outcome::Refused(&refused));
        answer(&refused, list(true), in_response)
    }

    /// Makes what waits stay.
    pub(super) async fn confirm(
        &self,
        caller: Option<Caller>,
        generation: u64,
    ) -> Result<v1::ConfirmResponse, Status> {
        let settled = self.node.confirm(generation).await?;
        let generation = self.settled(Entry::new(caller, "Confirm"), settled)?;
        Ok(v1::ConfirmResponse { generation })
    }

    /// Takes back what waits.
    pub(super) async fn rollback(
        &self,
        caller: Option<Caller>,
        generation: u64,
    ) -> Result<v1::RollbackResponse, Status> {
        let settled = self.node.rollback(generation).await?;
        let mut entry = Entry::new(caller, "Rollback");
        for item in settled.iter().flat_map(|answer| &answer.not_restored) {
            entry.item(format!("not restored: {}", text(item)));
        }
        let generation = settled.as_ref().map(|answer| answer.generation);
        self.audit.write(entry, outcome(generation));
        settled.map_err(|refused| status(&refused, ""))
    }

    fn settled(&self, entry: Entry, settled: Result<u64, Refused>) -> Result<u64, Status> {
        let generation = settled.as_ref().map(|generation| *generation);
        self.audit.write(entry, outcome(generation));
        settled.map_err(|refused| status(&refused, ""))
    }
}

/// What a request calls the list of what it changes.
fn list(replace: bool) -> &'static str {
    match replace {
        true => "items",
        false => "changes",
    }
}

/// A refusal, where it was asked for.
fn answer(refused: &Refused, list: &str, in_response: bool) -> Result<v1::ApplyResponse, Status> {
    match in_response {
        true => Ok(v1::ApplyResponse {
            refusal: Some(refusal(refused, MAX_REFUSAL)),
            ..Default::default()
        }),
        false => Err(status(refused, list)),
    }
}

fn outcome(generation: Result<u64, &Refused>) -> Outcome<'_> {
    match generation {
        Ok(generation) => Outcome::Done { generation },
        Err(refused) => Outcome::Refused(refused),
    }
}
