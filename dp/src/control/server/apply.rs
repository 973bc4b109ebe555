//! Apply: transactions.

use tonic::Status;
use twinseal_api::v1;

use super::Service;
use super::status::status;

impl Service {
    /// Applies a transaction, or tells all that is wrong with it.
    pub(super) async fn apply(
        &self,
        request: v1::ApplyRequest,
    ) -> Result<v1::ApplyResponse, Status> {
        let applied = self.node.apply(request).await?;
        let generation = applied.map_err(|refused| status(&refused))?;
        Ok(v1::ApplyResponse { generation })
    }
}
