//! The service: each call goes to the file of its part.

use tonic::{Request, Response, Status, Streaming};
use twinseal_api::v1;
use twinseal_api::v1::control_server::Control;

use crate::status::stopped;
use crate::{get, ping, status, taps, usage, watch};
use twinseal_access::{Access, Caller};
use twinseal_node::audit::Audit;
use twinseal_node::handle::NodeHandle;

/// The service of one node.
pub(crate) struct Service {
    pub(crate) node: NodeHandle,
    pub(crate) access: Access,
    pub(crate) audit: Audit,
    /// Held while a state is streamed.
    pub(crate) replacing: tokio::sync::Mutex<()>,
}

impl Service {
    pub(crate) fn new(node: NodeHandle, access: Access, audit: Audit) -> Self {
        Self {
            node,
            access,
            audit,
            replacing: tokio::sync::Mutex::default(),
        }
    }
}

#[tonic::async_trait]
impl Control for Service {
    async fn apply(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        self.apply(caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn replace(
        &self,
        request: Request<Streaming<v1::ReplaceRequest>>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        self.replace(caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn confirm(
        &self,
        request: Request<v1::ConfirmRequest>,
    ) -> Result<Response<v1::ConfirmResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let request = request.into_inner();
        self.confirm(caller, request).await.map(Response::new)
    }

    async fn rollback(
        &self,
        request: Request<v1::RollbackRequest>,
    ) -> Result<Response<v1::RollbackResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let request = request.into_inner();
        self.rollback(caller, request).await.map(Response::new)
    }

    async fn drain(
        &self,
        request: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::DrainResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        self.drain(caller, request.into_inner())
            .await
            .map(Response::new)
    }

    type TraceStream = taps::Traces;

    async fn trace(
        &self,
        request: Request<v1::TraceRequest>,
    ) -> Result<Response<Self::TraceStream>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        self.trace(caller, request.into_inner())
            .await
            .map(Response::new)
    }

    type CaptureStream = taps::Frames;

    async fn capture(
        &self,
        request: Request<v1::CaptureRequest>,
    ) -> Result<Response<Self::CaptureStream>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        self.capture(caller, request.into_inner())
            .await
            .map(Response::new)
    }

    type PingStream = ping::Pings;

    async fn ping(
        &self,
        request: Request<v1::PingRequest>,
    ) -> Result<Response<Self::PingStream>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        self.ping(caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let explained = self
            .node
            .explain(request.into_inner())
            .await
            .map_err(stopped)?;
        let explained = explained.map_err(|refused| status::status(&refused, ""))?;
        Ok(Response::new(explained))
    }

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        self.get(request).await
    }

    type ListStream = get::Parted<v1::GetResponse>;

    async fn list(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        self.list(request).await
    }

    async fn stats(
        &self,
        request: Request<v1::StatsRequest>,
    ) -> Result<Response<v1::StatsResponse>, Status> {
        self.stats(request).await
    }

    type ListStatsStream = get::Parted<v1::StatsResponse>;

    async fn list_stats(
        &self,
        request: Request<v1::StatsRequest>,
    ) -> Result<Response<Self::ListStatsStream>, Status> {
        self.list_stats(request).await
    }

    type WatchStream = watch::Events;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.watch(request.into_inner()).await
    }

    type UsageStream = usage::Records;

    async fn usage(
        &self,
        request: Request<v1::UsageRequest>,
    ) -> Result<Response<Self::UsageStream>, Status> {
        self.usage(request.into_inner()).await.map(Response::new)
    }
}
