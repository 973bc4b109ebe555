//! Apply: transactions.

use tonic::Status;
use twinseal_api::v1;

use super::Service;
use super::status::status;
use crate::control::access::Caller;
use crate::control::audit::{Entry, Outcome};

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
        let applied = self.node.apply(request).await?;
        self.audit.write(
            entry,
            match &applied {
                Ok(generation) => Outcome::Done {
                    generation: *generation,
                },
                Err(refused) => Outcome::Refused(refused),
            },
        );
        let generation = applied.map_err(|refused| status(&refused))?;
        Ok(v1::ApplyResponse { generation })
    }
}
