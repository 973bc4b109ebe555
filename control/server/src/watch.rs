//! Watch: events, from now on or from a number that the node still has.

use std::pin::Pin;

use futures::Stream;
use tonic::{Response, Status};
use twinseal_api::v1;

use crate::service::Service;
use crate::status::stopped;
use twinseal_node::events::{EventKind, Start};

pub(crate) type Events = Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;

impl Service {
    /// The events that are asked for. A reader takes them at its own pace: nothing is kept for it.
    pub(crate) async fn watch(
        &self,
        request: v1::WatchRequest,
    ) -> Result<Response<Events>, Status> {
        let kinds: Vec<EventKind> = request.kinds().collect();
        let unknown = |kind: &i32| {
            matches!(
                EventKind::try_from(*kind),
                Err(_) | Ok(EventKind::Unspecified)
            )
        };
        if let Some(n) = request.kinds.iter().position(unknown) {
            return Err(Status::invalid_argument(format!(
                "kinds[{n}]: {} is not known: give fault, configuration, accounting, performance or security",
                request.kinds[n]
            )));
        }
        let start = match request.from_sequence {
            None => Start::Now,
            Some(sequence) => Start::At {
                sequence,
                boot: request.boot,
            },
        };
        let reader = self
            .node
            .events()
            .await
            .map_err(stopped)?
            .read(start, kinds);
        let (next, boot) = reader.position();
        let events = futures::stream::unfold(reader, |mut reader| async {
            let event = reader.next().await?;
            Some((Ok(event), reader))
        });
        let mut response: Response<Events> = Response::new(Box::pin(events));
        let metadata = response.metadata_mut();
        metadata.insert("twinseal-next-sequence", next.into());
        metadata.insert("twinseal-boot", boot.into());
        Ok(response)
    }
}
