//! Apply, Confirm and Rollback.

use tonic::Status;
use twinseal_api::v1::{self, change::Change, item::Item};

use crate::service::Service;
use crate::status::{refusal, status, stopped};
use twinseal_access::Caller;
use twinseal_model::refusal::Refused;
use twinseal_node::apply::Transaction;
use twinseal_node::audit::{Entry, Outcome};
use twinseal_node::handle::Stopped;

/// Octets of a refusal in an answer.
const MAX_REFUSAL: usize = 2 << 20;

impl Service {
    /// Applies a transaction, or tells all that is wrong with it.
    pub(crate) async fn apply(
        &self,
        caller: Option<Caller>,
        request: v1::ApplyRequest,
    ) -> Result<v1::ApplyResponse, Status> {
        let scrubbed = caller.clone();
        let mut entry = Entry::new(caller, "Apply");
        entry.changes(&request.changes);
        entry.request(&request.request_id);
        entry.owner(&request.owner);
        entry.dry_run = request.dry_run;
        let in_response = request.refusal_in_response;
        let secrets = request
            .changes
            .iter()
            .any(|change| matches!(&change.change, Some(Change::Set(item)) if holds_secret(item)));
        let transaction = Transaction::from(request);
        if let Some(caller) = scrubbed.filter(|_| secrets) {
            caller.scrub();
        }
        self.transact(entry, transaction, in_response).await
    }

    pub(crate) async fn transact(
        &self,
        entry: Entry,
        transaction: Transaction,
        refusal_in_response: bool,
    ) -> Result<v1::ApplyResponse, Status> {
        let list = list(transaction.replace);
        let node = self.node.clone();
        // What was read whole is done and taken down, whatever becomes of the call: it would be left to chance else.
        let applied = tokio::spawn(async move { node.apply(transaction, entry).await });
        let applied = applied
            .await
            .map_err(|_| stopped(Stopped))?
            .map_err(stopped)?;
        applied.or_else(|refused| answer(&refused, list, refusal_in_response))
    }

    /// Refuses a Replace of which the node need not hear.
    pub(crate) async fn refuse(
        &self,
        entry: Entry,
        refused: Refused,
        in_response: bool,
    ) -> Result<v1::ApplyResponse, Status> {
        self.audit
            .write(entry, Outcome::Refused(&refused))
            .done()
            .await;
        answer(&refused, list(true), in_response)
    }

    /// Makes what waits stay.
    pub(crate) async fn confirm(
        &self,
        caller: Option<Caller>,
        request: v1::ConfirmRequest,
    ) -> Result<v1::ConfirmResponse, Status> {
        let mut entry = Entry::new(caller, "Confirm");
        entry.owner(&request.owner);
        let settled = self.node.confirm(request, entry).await.map_err(stopped)?;
        let generation = settled.map_err(|refused| status(&refused, ""))?;
        Ok(v1::ConfirmResponse { generation })
    }

    /// Takes back what waits.
    pub(crate) async fn rollback(
        &self,
        caller: Option<Caller>,
        request: v1::RollbackRequest,
    ) -> Result<v1::RollbackResponse, Status> {
        let mut entry = Entry::new(caller, "Rollback");
        entry.owner(&request.owner);
        let settled = self.node.rollback(request, entry).await.map_err(stopped)?;
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

/// Whether it is a key that comes with its secret.
pub(crate) fn holds_secret(item: &v1::Item) -> bool {
    matches!(&item.item, Some(Item::Key(key)) if !key.secret.is_empty())
}
