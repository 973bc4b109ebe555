//! Get, List, Stats and ListStats. The node hands over what it knows at that moment, which costs it little; the answer is made on
//! another thread, one at a time for each client, and held within the client's budget until it was taken.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tonic::{Extensions, Request, Response, Status};
use twinseal_api::v1;

use crate::service::Service;
use crate::status::stopped;
use twinseal_access::{Caller, Charge};
use twinseal_node::parts::{Parts, StatsParts, whole, whole_stats};

/// An answer in parts.
pub(crate) type Parted<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

/// Bytes of memory for each of an answer on the wire: its messages take more than what they encode to.
const WEIGHT: usize = 6;
/// Bytes of memory that a List has: parts are made as they are taken.
const LIST: usize = 1 << 20;

impl Service {
    /// The whole state in one answer.
    pub(crate) async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        let caller = caller(request.extensions())?;
        let _turn = caller.turn.lock().await;
        let moment = self.node.moment().await.map_err(stopped)?;
        let whole = elsewhere(move || whole(moment)).await?;
        let whole = whole.ok_or_else(|| {
            Status::resource_exhausted(
                "the state is larger than 4 MiB: ask for it by List, which tells it in parts",
            )
        })?;
        self.held(&caller, whole)
    }

    /// The same in parts.
    pub(crate) async fn list(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<Parted<v1::GetResponse>>, Status> {
        let caller = caller(request.extensions())?;
        let room = self.room(&caller, LIST)?;
        let parts = Parts::new(self.node.moment().await.map_err(stopped)?);
        Ok(self.in_parts(caller, room, parts))
    }

    /// All counters in one answer.
    pub(crate) async fn stats(
        &self,
        request: Request<v1::StatsRequest>,
    ) -> Result<Response<v1::StatsResponse>, Status> {
        let caller = caller(request.extensions())?;
        let _turn = caller.turn.lock().await;
        let counts = self.node.counts().await.map_err(stopped)?;
        let whole = elsewhere(move || whole_stats(counts)).await?;
        let whole = whole.ok_or_else(|| {
            Status::resource_exhausted(
                "the counters are larger than 4 MiB: ask for them by ListStats, which tells them in parts",
            )
        })?;
        self.held(&caller, whole)
    }

    /// The same in parts.
    pub(crate) async fn list_stats(
        &self,
        request: Request<v1::StatsRequest>,
    ) -> Result<Response<Parted<v1::StatsResponse>>, Status> {
        let caller = caller(request.extensions())?;
        let room = self.room(&caller, LIST)?;
        let parts = StatsParts::new(self.node.counts().await.map_err(stopped)?);
        Ok(self.in_parts(caller, room, parts))
    }

    /// Has parts made as they are taken.
    fn in_parts<M: Send + 'static>(
        &self,
        caller: Caller,
        room: Arc<Charge>,
        parts: impl Iterator<Item = M> + Send + 'static,
    ) -> Response<Parted<M>> {
        let until = Instant::now() + self.access.limits().request;
        let (to, from) = mpsc::channel(1);
        let (ended, end) = oneshot::channel();
        tokio::spawn(async move {
            let mut parts = parts;
            loop {
                let turn = caller.turn.lock().await;
                let made = elsewhere(move || (parts.next(), parts)).await;
                drop(turn);
                let Ok((part, rest)) = made else { return };
                parts = rest;
                let Some(part) = part else { break };
                // A client that has gone, or is too slow, keeps no old tables alive.
                let Ok(Ok(())) = timeout_at(until, to.send(part)).await else {
                    return;
                };
            }
            // Only now is it whole; the client may have gone.
            let _ = ended.send(());
        });
        let parts = futures::stream::unfold(Some((from, end)), |parts| async {
            let (mut from, mut end) = parts?;
            match from.recv().await {
                Some(part) => Some((Ok(part), Some((from, end)))),
                None if end.try_recv().is_ok() => None,
                None => Some((Err(too_slow()), None)),
            }
        });
        let mut response: Response<Parted<M>> = Response::new(Box::pin(parts));
        response.extensions_mut().insert(room);
        response
    }

    fn held<M: Message>(&self, caller: &Caller, answer: M) -> Result<Response<M>, Status> {
        let room = self.room(caller, WEIGHT * answer.encoded_len())?;
        let mut response = Response::new(answer);
        response.extensions_mut().insert(room);
        Ok(response)
    }

    fn room(&self, caller: &Caller, bytes: usize) -> Result<Arc<Charge>, Status> {
        let room = self.access.room(caller, bytes);
        room.map_err(Status::resource_exhausted)
    }
}

fn too_slow() -> Status {
    Status::deadline_exceeded(
        "the answer was not taken in time and is not whole: take it faster, or raise control.limits.request_seconds",
    )
}

fn caller(extensions: &Extensions) -> Result<Caller, Status> {
    // The guard lets no request pass without.
    let caller = extensions.get::<Caller>().cloned();
    caller.ok_or_else(|| Status::internal("the request has no caller"))
}

/// Makes something on a thread that nobody waits for.
async fn elsewhere<T: Send + 'static>(
    make: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let made = tokio::task::spawn_blocking(make).await;
    made.map_err(|error| Status::internal(error.to_string()))
}
