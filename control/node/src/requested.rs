//! The workers' wishes wake the node.

use tokio::net::UnixDatagram;

use twinseal_runtime::workers::Pool;

/// Becomes ready when workers ask for neighbours.
pub(super) struct Requested(Option<UnixDatagram>);

impl Requested {
    /// Of a pool; on a runtime with I/O.
    pub(super) fn new(pool: &mut Pool) -> Self {
        let socket = pool.requested().map(UnixDatagram::from_std).transpose();
        let socket = socket.inspect_err(|error| {
            tracing::error!(%error, "neighbours that packets wait for will not be resolved");
        });
        Self(socket.ok().flatten())
    }

    /// Until there is a request. Cancel safe.
    pub(super) async fn wait(&self) {
        let Some(socket) = &self.0 else {
            return std::future::pending().await;
        };
        if socket.recv(&mut [0]).await.is_err() {
            // The workers are gone.
            return std::future::pending().await;
        }
        while socket.try_recv(&mut [0]).is_ok() {}
    }
}
