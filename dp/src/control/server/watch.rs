//! Watch: events as they happen.

use std::pin::Pin;

use futures::Stream;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tonic::Status;
use twinseal_api::v1;

use super::Service;
use crate::control::health::{event, fault};

pub(super) type Events = Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;

impl Service {
    /// All events from now on.
    pub(super) async fn watch(&self) -> Result<Events, Status> {
        let events = self.node.subscribe().await?;
        Ok(Box::pin(stream(events)))
    }
}

/// The events, and in the place of lost ones their number.
fn stream(
    events: broadcast::Receiver<v1::Event>,
) -> impl Stream<Item = Result<v1::Event, Status>> + Send {
    futures::stream::unfold(events, |mut events| async {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(lost)) => event(fault(
                "events_lost",
                format!("{lost} events were lost: this reader is too slow"),
            )),
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(event), events))
    })
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use twinseal_api::v1::event::Event as EventKind;

    use super::*;
    use crate::control::health::Events;

    #[tokio::test]
    async fn a_slow_reader_is_told_how_much_it_lost() {
        let events = Events::default();
        let mut stream = std::pin::pin!(stream(events.subscribe()));
        for n in 0..5000 {
            events.emit(fault("test", n.to_string()));
        }
        drop(events);
        let mut received = Vec::new();
        while let Some(event) = stream.next().await {
            let Some(EventKind::Fault(fault)) = event.expect("no error").event else {
                panic!("only faults were sent");
            };
            received.push((fault.kind, fault.detail));
        }
        let (kind, detail) = &received[0];
        assert_eq!(kind, "events_lost");
        assert!(
            detail.starts_with(&format!("{} events", 5000 - (received.len() - 1))),
            "{detail}"
        );
        assert_eq!(
            received.last(),
            Some(&("test".to_owned(), "4999".to_owned()))
        );
    }
}
