//! Usage: what circuits carried, from disk and of the running minute.

use std::pin::Pin;

use futures::{Stream, StreamExt, TryStreamExt};
use tonic::Status;
use twinseal_api::v1;

use crate::service::Service;
use crate::status::stopped;
use twinseal_node::usage::{Filter, Scan};

pub(crate) type Records = Pin<Box<dyn Stream<Item = Result<v1::UsageRecord, Status>> + Send>>;

impl Service {
    /// The records that are asked for. One block is in memory at a time, however slow the reader is.
    pub(crate) async fn usage(&self, request: v1::UsageRequest) -> Result<Records, Status> {
        let (from, until) = (request.from_unix, request.until_unix);
        if until != 0 && from > until {
            return Err(Status::invalid_argument(format!(
                "from_unix: {from} is after until_unix, {until}: give an earlier one, or 0 as until_unix for all since then"
            )));
        }
        let filter = Filter {
            circuits: request.circuits.into_iter().collect(),
            from,
            until,
        };
        let running = (!request.closed_only).then(|| filter.clone());
        let usage = self.node.usage(running).await.map_err(stopped)?;
        let closed = usage.closed.await.map_err(|_| {
            Status::unavailable("usage cannot be read: the disk of the state directory is too slow, or the node is stopping")
        })?;
        let scan = Scan::new(closed, filter);
        let closed = futures::stream::try_unfold(scan, |mut scan| async {
            // Reading a disk may take long: not on the control thread.
            let (scan, read) = tokio::task::spawn_blocking(move || {
                let read = scan.next_block();
                (scan, read)
            })
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
            let records =
                read.map_err(|error| Status::internal(format!("usage cannot be read: {error}")))?;
            Ok::<_, Status>(records.map(|records| (records, scan)))
        });
        let closed = closed
            .map_ok(|records| futures::stream::iter(records.into_iter().map(Ok)))
            .try_flatten();
        let running = futures::stream::iter(usage.running.into_iter().map(Ok));
        Ok(Box::pin(closed.chain(running)))
    }
}
