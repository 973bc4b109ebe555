//! Drain.

use tonic::Status;
use twinseal_api::v1::{self, drain_target::Target};

use super::Service;
use super::status::status;
use crate::control::access::Caller;
use crate::control::audit::{Entry, Outcome};

impl Service {
    /// Takes out of service, or back into it.
    pub(super) async fn drain(
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
        let (drained, generation) = self.node.drain(request, by.unwrap_or_default()).await?;
        match drained {
            Ok(drains) => {
                self.audit.write(entry, Outcome::Done { generation });
                Ok(v1::DrainResponse { drains })
            }
            Err(refused) => {
                self.audit.write(entry, Outcome::Refused(&refused));
                Err(status(&refused, "targets"))
            }
        }
    }
}
