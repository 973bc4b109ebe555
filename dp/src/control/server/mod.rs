//! The gRPC server: one file for each part of the service.

mod apply;
mod socket;
mod status;
mod usage;
mod watch;

use tonic::{Request, Response, Status};
use twinseal_api::v1;
use twinseal_api::v1::control_server::Control;

use super::node::NodeHandle;
pub use socket::{Socket, SocketConfig, SocketError};

/// Largest message, in octets: some 700,000 routes.
pub const MAX_MESSAGE: usize = 64 << 20;

/// The service of one node.
struct Service {
    node: NodeHandle,
}

#[tonic::async_trait]
impl Control for Service {
    async fn apply(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        self.apply(request.into_inner()).await.map(Response::new)
    }

    async fn get(&self, _: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        Ok(Response::new(self.node.get().await?))
    }

    async fn stats(
        &self,
        _: Request<v1::StatsRequest>,
    ) -> Result<Response<v1::StatsResponse>, Status> {
        Ok(Response::new(self.node.stats().await?))
    }

    type WatchStream = watch::Events;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.watch(request.into_inner()).await.map(Response::new)
    }

    type UsageStream = usage::Records;

    async fn usage(
        &self,
        request: Request<v1::UsageRequest>,
    ) -> Result<Response<Self::UsageStream>, Status> {
        self.usage(request.into_inner()).await.map(Response::new)
    }
}
