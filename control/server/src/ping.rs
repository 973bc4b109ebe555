//! Ping, as a stream. The node's thread of pings fills it; it ends early when the client goes.

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use twinseal_api::v1::{self, ping_request::Target};

use crate::service::Service;
use crate::status::status;
use crate::status::stopped;
use twinseal_access::Caller;
use twinseal_node::audit::Entry;
use twinseal_node::pings::Pinged;

pub(crate) type Pings = Pin<Box<dyn Stream<Item = Result<v1::PingResponse, Status>> + Send>>;

impl Service {
    /// Asks the other end of a link or circuit for echoes.
    pub(crate) async fn ping(
        &self,
        caller: Option<Caller>,
        request: v1::PingRequest,
    ) -> Result<Pings, Status> {
        let client = caller.as_ref().map(|caller| caller.peer.identity());
        let mut entry = Entry::new(caller, "Ping");
        entry.item(match &request.target {
            Some(Target::Link(name)) => format!("link {name}"),
            Some(Target::Circuit(name)) => format!("circuit {name}"),
            None => "nothing known".to_owned(),
        });
        let client = client.unwrap_or_default();
        let begun = self.node.ping(request, client, entry).await;
        let begun = begun.map_err(stopped)?;
        let begun = begun.map_err(|refused| status(&refused, ""))?;
        let first = v1::PingResponse {
            limits: Some(begun.limits),
            ..Default::default()
        };
        let rest = ReceiverStream::new(begun.results).map(told);
        let all = stream::iter([first]).chain(rest);
        Ok(Box::pin(all.map(Ok)))
    }
}

fn told(it: Pinged) -> v1::PingResponse {
    let (sequence, fate, rtt) = match it {
        Pinged::Answered { sequence, rtt } => (sequence, v1::PingFate::Answered, rtt),
        Pinged::Lost { sequence } => (sequence, v1::PingFate::Lost, Default::default()),
    };
    v1::PingResponse {
        limits: None,
        sequence,
        fate: fate.into(),
        rtt_nanos: rtt.as_nanos() as u64,
    }
}
