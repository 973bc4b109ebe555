//! `twinseal agent etcd`: the loop between a cluster of etcd and a node.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep_until};
use twinseal_etcd::{Change, Client, EtcdError, Lease, Watch};

use super::args::EtcdArgs;
use super::desired::Desired;
use super::node::{By, Node, NotDone};
use super::status::{MAX_REASONS, Progress, Reason, Status};
use twinseal_base::text::sentence;
use twinseal_base::{forbid_dumps, signals};
use twinseal_ctl::client::Target;

/// Changes come in bursts, as a transaction's keys do; this long after the first they are applied together.
const COALESCE: Duration = Duration::from_millis(50);
/// How long after a failure the same is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long after a refusal, which as a rule only a change of the desired state mends.
const REFUSED_AGAIN: Duration = Duration::from_secs(10);

/// Runs until SIGINT or SIGTERM.
pub(super) fn run(args: EtcdArgs) -> anyhow::Result<ExitCode> {
    // Secrets pass through this process.
    forbid_dumps().context("cannot switch core dumps off")?;
    // There is nothing to read again: at SIGHUP it goes on.
    let stop = signals::watch(|| ()).context("cannot take signals")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(async {
        let agent = Agent::new(args)?;
        let stop = async {
            let signal = stop.await.unwrap_or("the signal watcher's end");
            tracing::info!("{signal}: stopping");
        };
        agent.run(stop).await;
        Ok(ExitCode::SUCCESS)
    })
}

struct Agent {
    etcd: Client,
    /// What the keys of the desired state begin with: tables, and secrets.
    prefixes: [String; 2],
    status_key: String,
    target: Target,
    by: By,
    ttl: Duration,
    desired: Desired,
    /// The revision that `desired` is of; none before it was read.
    revision: Option<i64>,
    watch: Option<Watch>,
    node: Option<Node>,
    /// Whether the node needs the whole state, not what changed.
    whole: bool,
    /// When the node is to be told.
    tell_at: Option<Instant>,
    status: Status,
    /// What etcd has of it.
    written: Option<Status>,
    lease: Option<Lease>,
    renew_at: Instant,
    /// When to look after etcd again.
    etcd_at: Instant,
}

impl Agent {
    fn new(args: EtcdArgs) -> anyhow::Result<Self> {
        let named = |text: &str| !text.is_empty() && !text.contains('/');
        if !named(&args.node) {
            bail!("--node {:?}: give a name without /", args.node);
        }
        let config = args.config()?;
        let by = By {
            owner: args.owner.clone(),
            take_over: args.take_over,
        };
        let prefix = args.prefix.trim_end_matches('/');
        let under = |kind: &str| format!("{prefix}/{kind}/{}", args.node);
        let prefixes = ["state", "keys"].map(|kind| under(kind) + "/");
        let now = Instant::now();
        Ok(Self {
            etcd: Client::new(&config).map_err(option)?,
            desired: Desired::new(&prefixes[0]),
            prefixes,
            status_key: under("status"),
            target: args.target,
            by,
            ttl: Duration::from_secs(args.lease),
            revision: None,
            watch: None,
            node: None,
            whole: true,
            tell_at: None,
            status: Status::new(&args.node),
            written: None,
            lease: None,
            renew_at: now,
            etcd_at: now,
        })
    }

    async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            let now = Instant::now();
            if self.watch.is_none() && now >= self.etcd_at {
                self.follow().await;
            }
            if self.tell_at.is_some_and(|at| now >= at) {
                self.tell().await;
            }
            if now >= self.renew_at
                || self.written.as_ref() != Some(&self.status) && now >= self.etcd_at
            {
                self.write_status().await;
            }
            let mut wakes = vec![self.renew_at];
            wakes.extend(self.tell_at);
            if self.watch.is_none() || self.written.as_ref() != Some(&self.status) {
                wakes.push(self.etcd_at);
            }
            let wake = wakes.into_iter().min().unwrap_or(now);
            tokio::select! {
                () = &mut stop => break,
                change = next(&mut self.watch) => self.changed(change),
                disturbed = disturbed(&mut self.node) => {
                    if let Err(why) = disturbed {
                        self.node_gone(why);
                    }
                    // Whoever changed it, or whatever it is after a restart: the store says what it is to be.
                    self.whole = true;
                    self.tell_soon(COALESCE);
                }
                () = sleep_until(wake) => {}
            }
        }
        // Nobody looks after the node from here on, and etcd should not wait to say so.
        if let Some(lease) = self.lease {
            let _ = tokio::time::timeout(Duration::from_secs(2), self.etcd.revoke(lease)).await;
        }
    }

    /// Reads all if need be, and watches from there.
    async fn follow(&mut self) {
        if let Err(error) = self.try_follow().await {
            tracing::warn!("{}", said(&error));
            self.etcd_at = Instant::now() + AGAIN;
        }
    }

    async fn try_follow(&mut self) -> Result<(), EtcdError> {
        let revision = match self.revision {
            Some(revision) => revision,
            None => {
                let [state, keys] = self.prefixes.clone();
                let state = self.etcd.read(state.as_bytes(), None).await?;
                let keys = self
                    .etcd
                    .read(keys.as_bytes(), Some(state.revision))
                    .await?;
                self.desired = Desired::new(&self.prefixes[0]);
                for entry in state.entries.iter().chain(&keys.entries) {
                    self.desired.set(&entry.key, &entry.value);
                }
                tracing::info!(
                    revision = state.revision,
                    fragments = state.entries.len() + keys.entries.len(),
                    "desired state read"
                );
                self.revision = Some(state.revision);
                self.whole = true;
                self.tell_soon(Duration::ZERO);
                state.revision
            }
        };
        let prefixes: Vec<_> = self.prefixes.iter().map(String::as_bytes).collect();
        self.watch = Some(self.etcd.watch(&prefixes, revision + 1).await?);
        Ok(())
    }

    fn changed(&mut self, change: Result<Change, EtcdError>) {
        let revision = match change {
            Ok(Change::Put {
                revision,
                key,
                value,
            }) => {
                self.desired.set(&key, &value);
                revision
            }
            Ok(Change::Delete { revision, key }) => {
                self.desired.remove(&key);
                revision
            }
            Ok(Change::Compacted) => {
                tracing::warn!("etcd has compacted what was missed: reading all anew");
                (self.revision, self.watch) = (None, None);
                return;
            }
            Err(error) => {
                tracing::warn!("watch lost: {}", said(&error));
                self.watch = None;
                return;
            }
        };
        self.revision = self.revision.max(Some(revision));
        self.tell_soon(COALESCE);
    }

    fn tell_soon(&mut self, delay: Duration) {
        let at = Instant::now() + delay;
        self.tell_at = Some(self.tell_at.map_or(at, |other| other.min(at)));
    }

    /// Brings the node to the desired state.
    async fn tell(&mut self) {
        self.tell_at = None;
        let Some(revision) = self.revision else {
            return;
        };
        match self.try_tell().await {
            Ok(generation) => {
                tracing::info!(revision, generation, "applied");
                self.desired.told();
                self.whole = false;
                self.status.applied(revision, generation);
            }
            Err(Untold::Invalid(mistakes)) => {
                for mistake in mistakes.iter().take(MAX_REASONS) {
                    tracing::error!("{mistake}");
                }
                if let Some(more @ 1..) = mistakes.len().checked_sub(MAX_REASONS) {
                    tracing::error!("{more} mistakes more");
                }
                self.status.failed(Progress::Invalid, mistakes);
            }
            Err(Untold::Node(NotDone::Refused { moved: true, .. })) => {
                self.whole = true;
                self.tell_soon(Duration::ZERO);
            }
            Err(Untold::Node(NotDone::Refused { reasons, .. })) => {
                for reason in reasons.iter().take(MAX_REASONS) {
                    tracing::error!("refused: {reason}");
                }
                self.status.failed(Progress::Refused, reasons);
                self.tell_soon(REFUSED_AGAIN);
            }
            Err(Untold::Node(why)) => {
                self.node_gone(why);
                self.tell_soon(AGAIN);
            }
        }
    }

    async fn try_tell(&mut self) -> Result<u64, Untold> {
        let node = match &mut self.node {
            Some(node) => node,
            None => {
                self.whole = true;
                let node = Node::connect(self.target.clone(), self.by.clone()).await?;
                self.node.insert(node)
            }
        };
        let told = if self.whole {
            let items = self.desired.all().map_err(Untold::Invalid)?;
            node.replace(items).await
        } else {
            // A fragment that is wrong changes no item, and must be told all the same.
            let changes = self.desired.changes().map_err(Untold::Invalid)?;
            if changes.is_empty() {
                return Ok(self.status.generation);
            }
            node.apply(changes).await
        };
        Ok(told?)
    }

    fn node_gone(&mut self, why: NotDone) {
        self.node = None;
        self.whole = true;
        if let NotDone::Gone(why) = why {
            // Said once: it is tried every second.
            if self.status.state != Progress::Unreachable {
                tracing::warn!("{why}");
            }
            self.status
                .failed(Progress::Unreachable, vec![Reason::text(why)]);
        }
    }

    /// Has etcd know the status, under a lease.
    async fn write_status(&mut self) {
        match self.try_write_status().await {
            Ok(()) => self.renew_at = Instant::now() + self.ttl / 3,
            Err(EtcdError::LeaseLost) => {
                (self.lease, self.written) = (None, None);
                self.etcd_at = Instant::now();
            }
            Err(error) => {
                tracing::warn!("status not written: {}", said(&error));
                let again = Instant::now() + AGAIN;
                (self.etcd_at, self.renew_at) = (again, again);
            }
        }
    }

    async fn try_write_status(&mut self) -> Result<(), EtcdError> {
        let lease = match self.lease {
            Some(lease) => {
                self.etcd.keep_alive(lease).await?;
                lease
            }
            None => {
                self.written = None;
                *self.lease.insert(self.etcd.grant(self.ttl).await?)
            }
        };
        if self.written.as_ref() != Some(&self.status) {
            let value = serde_json::to_vec(&self.status).unwrap_or_default();
            let key = self.status_key.as_bytes();
            self.etcd.put(key, &value, Some(lease)).await?;
            self.written = Some(self.status.clone());
        }
        Ok(())
    }
}

/// What is wrong with the command line, with the option that mends it.
fn option(error: EtcdError) -> anyhow::Error {
    let option = match error {
        EtcdError::NoIssuer(_) => "; name the file with --etcd-ca",
        EtcdError::Plain(_) => ", by --plain-http",
        _ => "",
    };
    anyhow::anyhow!("--endpoints: {error}{option}")
}

/// Why the node is not at the desired state.
enum Untold {
    /// The state itself is wrong.
    Invalid(Vec<Reason>),
    /// The node did not take it.
    Node(NotDone),
}

impl From<NotDone> for Untold {
    fn from(why: NotDone) -> Self {
        Self::Node(why)
    }
}

async fn next(watch: &mut Option<Watch>) -> Result<Change, EtcdError> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

async fn disturbed(node: &mut Option<Node>) -> Result<(), NotDone> {
    match node {
        Some(node) => node.disturbed().await,
        None => std::future::pending().await,
    }
}

/// What went wrong with etcd, in whose words there may be anything.
fn said(error: &EtcdError) -> String {
    sentence(&error.to_string()).into_owned()
}
