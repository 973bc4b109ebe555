//! Drain.

use tonic::Status;
use twinseal_api::v1::{self, drain_target::Target};

use crate::service::Service;
use crate::status::{status, stopped};
use twinseal_access::Caller;
use twinseal_node::audit::Entry;

impl Service {
    /// Takes out of service, or back into it.
    pub(crate) async fn drain(
        &self,
        caller: Option<Caller>,
        request: v1::DrainRequest,
    ) -> Result<v1::DrainResponse, Status> {
        let by = caller.as_ref().map(|caller| caller.peer.to_string());
        let mut entry = Entry::new(caller, "Drain");
        let verb = match request.active {
            true => "undrain",
            false => "drain",
        };
        for target in &request.targets {
            entry.item(match &target.target {
                Some(Target::Node(_)) => format!("{verb} node"),
                Some(Target::Link(name)) => format!("{verb} link {name}"),
                Some(Target::Port(name)) => format!("{verb} port {name}"),
                None => format!("{verb} nothing known"),
            });
        }
        let by = by.unwrap_or_default();
        let drained = self.node.drain(request, by, entry).await.map_err(stopped)?;
        let drains = drained.map_err(|refused| status(&refused, "targets"))?;
        Ok(v1::DrainResponse { drains })
    }
}
