//! The way to the node: commands over a channel, and what comes back.

use tokio::sync::{mpsc, oneshot};
use twinseal_api::v1;

use crate::apply::Transaction;
use crate::audit::{Entry, Tapping, Written};
use crate::events::{FaultKind, Log};
use crate::pings::Pinging;
use crate::report::{Counts, Moment};
use crate::restore::not_stored;
use crate::store::Stored;
use crate::taps::{Opened, Taken};
use crate::usage::{Filter, Flushed};
use twinseal_model::refusal::Refused;
use twinseal_runtime::workers::taps::capture::Captured;
use twinseal_runtime::workers::taps::trace::Traced;

/// What a [`NodeHandle`] asks of the node. What changes it, or looks into packets, is taken down by the node: whoever asked
/// may have gone by then.
pub(super) enum Command {
    Apply(Box<Transaction>, Entry, Reply<v1::ApplyResponse>),
    Confirm(v1::ConfirmRequest, Entry, Reply<u64>),
    Rollback(v1::RollbackRequest, Entry, Reply<v1::RollbackResponse>),
    Drain(v1::DrainRequest, String, Entry, Reply<Vec<v1::DrainState>>),
    Capture(v1::CaptureRequest, Tapping, TapReply<Captured>),
    Trace(v1::TraceRequest, Tapping, TapReply<Traced>),
    Ping(
        v1::PingRequest,
        String,
        Entry,
        oneshot::Sender<(Result<Pinging, Refused>, Written)>,
    ),
    Told(Vec<Taken>, oneshot::Sender<Vec<v1::TracedPacket>>),
    Explain(
        v1::ExplainRequest,
        oneshot::Sender<Result<v1::ExplainResponse, Refused>>,
    ),
    Get(oneshot::Sender<Box<Moment>>),
    Stats(oneshot::Sender<Box<Counts>>),
    Events(oneshot::Sender<Log>),
    Usage(Option<Filter>, oneshot::Sender<Usage>),
    Fault(FaultKind, String),
}

/// What circuits carried: the running interval, and where the closed ones will be.
pub struct Usage {
    /// Of the running interval.
    pub running: Vec<v1::UsageRecord>,
    /// Told once all closed intervals are on disk.
    pub closed: oneshot::Receiver<Flushed>,
}

/// What became of something, what tells when it is stored, and when it is taken down.
pub(super) struct Settled<T> {
    pub(super) answer: Result<T, Refused>,
    pub(super) stored: Option<oneshot::Receiver<Stored>>,
    pub(super) written: Written,
}

pub(super) type Reply<T> = oneshot::Sender<Settled<T>>;

/// A tap that was opened, and the generation of the tables.
pub type Tapped<T> = (Result<Opened<T>, Refused>, u64);

pub(super) type TapReply<T> = oneshot::Sender<(Tapped<T>, Written)>;

/// Where to send commands to a node.
#[derive(Clone)]
pub struct NodeHandle(mpsc::Sender<Command>);

/// Receives a node's commands.
pub struct Commands(pub(super) mpsc::Receiver<Command>);

/// The node has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the node is shutting down")]
pub struct Stopped;

/// A handle and its other end.
pub fn channel() -> (NodeHandle, Commands) {
    let (sender, receiver) = mpsc::channel(16);
    (NodeHandle(sender), Commands(receiver))
}

impl NodeHandle {
    /// Applies a transaction, or tells why it was refused.
    pub async fn apply(
        &self,
        transaction: Transaction,
        entry: Entry,
    ) -> Result<Result<v1::ApplyResponse, Refused>, Stopped> {
        let transaction = Box::new(transaction);
        let apply = |reply| Command::Apply(transaction, entry, reply);
        let (answer, not_stored) = self.settled(apply).await?;
        Ok(answer.map(|answer| v1::ApplyResponse {
            not_stored,
            ..answer
        }))
    }

    /// Makes what waits for its confirmation stay, and tells the generation.
    pub async fn confirm(
        &self,
        request: v1::ConfirmRequest,
        entry: Entry,
    ) -> Result<Result<u64, Refused>, Stopped> {
        let confirm = |reply| Command::Confirm(request, entry, reply);
        Ok(self.settled(confirm).await?.0)
    }

    /// Takes back what waits for its confirmation, and tells how far.
    pub async fn rollback(
        &self,
        request: v1::RollbackRequest,
        entry: Entry,
    ) -> Result<Result<v1::RollbackResponse, Refused>, Stopped> {
        let rollback = |reply| Command::Rollback(request, entry, reply);
        Ok(self.settled(rollback).await?.0)
    }

    /// Takes out of service or back into it, as `by` asked; tells what drains then.
    pub async fn drain(
        &self,
        request: v1::DrainRequest,
        by: String,
        entry: Entry,
    ) -> Result<Result<Vec<v1::DrainState>, Refused>, Stopped> {
        let drain = |reply| Command::Drain(request, by, entry, reply);
        Ok(self.settled(drain).await?.0)
    }

    /// The answer, once it is stored and taken down, and whether it could not be stored.
    async fn settled<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<(Result<T, Refused>, bool), Stopped> {
        let settled = self.ask(command).await?;
        let stored = not_stored(settled.stored);
        let (not_stored, ()) = tokio::join!(stored, settled.written.done());
        Ok((settled.answer, not_stored))
    }

    /// Begins to copy frames.
    pub async fn capture(
        &self,
        request: v1::CaptureRequest,
        tapping: Tapping,
    ) -> Result<Tapped<Captured>, Stopped> {
        let capture = |reply| Command::Capture(request, tapping, reply);
        let (tapped, written) = self.ask(capture).await?;
        written.done().await;
        Ok(tapped)
    }

    /// Begins to trace packets.
    pub async fn trace(
        &self,
        request: v1::TraceRequest,
        tapping: Tapping,
    ) -> Result<Tapped<Traced>, Stopped> {
        let trace = |reply| Command::Trace(request, tapping, reply);
        let (tapped, written) = self.ask(trace).await?;
        written.done().await;
        Ok(tapped)
    }

    /// Begins to ask the other end of a link or circuit for echoes, for a client of this name.
    pub async fn ping(
        &self,
        request: v1::PingRequest,
        client: String,
        entry: Entry,
    ) -> Result<Result<Pinging, Refused>, Stopped> {
        let ping = |reply| Command::Ping(request, client, entry, reply);
        let (begun, written) = self.ask(ping).await?;
        written.done().await;
        Ok(begun)
    }

    /// Traces as the API tells them.
    pub async fn told(&self, taken: Vec<Taken>) -> Result<Vec<v1::TracedPacket>, Stopped> {
        self.ask(|reply| Command::Told(taken, reply)).await
    }

    /// Where a packet would be led.
    pub async fn explain(
        &self,
        request: v1::ExplainRequest,
    ) -> Result<Result<v1::ExplainResponse, Refused>, Stopped> {
        self.ask(|reply| Command::Explain(request, reply)).await
    }

    /// Whether the node has stopped.
    pub fn stopped(&self) -> bool {
        self.0.is_closed()
    }

    /// The desired state and what became of it, to be told elsewhere.
    pub async fn moment(&self) -> Result<Moment, Stopped> {
        self.ask(Command::Get).await.map(|moment| *moment)
    }

    /// All counters, to be told elsewhere.
    pub async fn counts(&self) -> Result<Counts, Stopped> {
        self.ask(Command::Stats).await.map(|counts| *counts)
    }

    /// The events.
    pub async fn events(&self) -> Result<Log, Stopped> {
        self.ask(Command::Events).await
    }

    /// What circuits carried; of the running interval what `running` wants.
    pub async fn usage(&self, running: Option<Filter>) -> Result<Usage, Stopped> {
        self.ask(|reply| Command::Usage(running, reply)).await
    }

    /// Has something told that is wrong.
    pub async fn fault(&self, kind: FaultKind, detail: String) {
        // A node that has stopped tells nothing more.
        let _ = self.0.send(Command::Fault(kind, detail)).await;
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.0.send(command(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}
