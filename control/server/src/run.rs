//! A node from its start to its end.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::oneshot;
use twinseal_crypto::{
    CryptoError, LaneOwner, Lanes, MAX_COUNTER, MAX_LANES, MAX_WINDOW_BITS, MIN_WINDOW_BITS,
};

use twinseal_model::state;
use twinseal_node::accounts::Accounts;
use twinseal_node::audit::{self, Audit};
use twinseal_node::events::Events;
use twinseal_node::events::file::{self, EventsConfig};
use twinseal_node::handle;
use twinseal_node::jsonl::{Lines, Output, Reopen, Writer};
use twinseal_node::keys::SaConfig;
use twinseal_node::node::Node;
use twinseal_node::state_dir::{StateDir, StateDirError, Wanted};
use twinseal_node::usage::{Meter, UsageConfig};
use twinseal_runtime::ports::PortError;
use twinseal_runtime::workers::{Pool, PoolConfig};

use crate::socket::{Socket, SocketConfig, SocketError};

/// How long clients may take to hear the last answers once the node has stopped. What is asked then is refused at once.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// A node to run.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its name, for people.
    pub name: String,
    /// Its control socket.
    pub socket: SocketConfig,
    /// Where it keeps what must outlive it, made by [`init`](twinseal_node::state_dir::init). Without it the node runs, and takes no secrets.
    pub state_dir: PathBuf,
    /// Who seals and opens: `auto`, `aws-lc-rs`, `ring` or `twinseal`.
    pub provider: String,
    /// Counters of a replay window: a power of two, 2048 to 1048576.
    pub window_bits: u32,
    /// Counters that a lane may use under one key, at most 2^40.
    pub lane_limit: u64,
    /// Whether the tables are stored there, and restored at the start.
    pub keep_tables: bool,
    /// When a key stops to transmit, unless it says otherwise itself.
    pub key_limits: state::Limits,
    /// The workers.
    pub pool: PoolConfig,
    /// Where events go.
    pub events: EventsConfig,
    /// How usage is accounted.
    pub usage: UsageConfig,
    /// The file of the audit log; none: the program's log.
    pub audit: Option<Output>,
    /// Has files of JSON lines opened anew.
    pub reopen: Reopen,
}

/// Why a node did not run.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Another process has the state directory.
    #[error("{0}: {fix}", fix = .0.fix())]
    StateDir(StateDirError),
    /// The provider.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// The workers.
    #[error("the workers did not start: {0}")]
    Workers(#[from] PortError),
    /// A file of JSON lines.
    #[error("{field}: cannot write {}: {source}", .path.display())]
    Lines {
        /// As the node's configuration calls it.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A number of the configuration is out of range.
    #[error("{field} is {value}: give {allowed}")]
    Range {
        /// As the node's configuration calls it.
        field: &'static str,
        /// What it is.
        value: u64,
        /// What it may be.
        allowed: String,
    },
}

/// Runs a node until `shutdown`. Must be called on a tokio runtime with I/O and time; may be called several times in one
/// process, on threads of their own, each then in the network namespace of its thread.
///
/// `ready` is told when the control socket takes connections.
pub async fn run(
    config: NodeConfig,
    shutdown: impl Future<Output = ()>,
    ready: Option<oneshot::Sender<()>>,
) -> Result<(), ControlError> {
    let (sa, lanes) = sa_config(&config)?;
    let provider = sa.provider.label();
    let wanted = Wanted {
        path: config.state_dir.clone(),
        keep_tables: config.keep_tables,
        usage: config.usage.clone(),
    };
    let state_dir = match StateDir::open(&wanted) {
        Err(error @ StateDirError::InUse { .. }) => return Err(ControlError::StateDir(error)),
        opened => opened,
    };
    // Before anything that takes packets: two daemons of one name would fight over ports.
    let socket = Socket::bind(config.socket.clone(), config.reopen.clone()).await?;
    let events = Events::new(&config.name, config.events.ring);
    let writer = write_events(&config, &events)?;
    let (audit, auditor) = start_audit(&config)?;
    let accounts = Accounts::new(Meter::new(config.usage.interval));
    let pool = Pool::start(config.pool, lanes)?;
    let access = config.socket.access.clone();
    let name = config.name.clone();
    let mut node = Node::start(name, sa, wanted, pool, events, accounts, access).await;
    node.audit = audit.clone();
    match state_dir {
        Ok(state_dir) => node.take_up(state_dir),
        Err(error) => node.without_state_dir(&error),
    }
    node.key_limits = config.key_limits;
    let (handle, commands) = handle::channel();
    let (stop_server, stopping) = oneshot::channel::<()>();
    let server = socket.serve(handle, audit, async {
        // A dropped sender stops it too.
        let _ = stopping.await;
    });
    let mut server = std::pin::pin!(server);
    tracing::info!(node = config.name, provider, "ready");
    if let Some(ready) = ready {
        let _ = ready.send(());
    }
    tokio::select! {
        served = &mut server => return Ok(served?),
        () = node.run(commands, shutdown) => {}
    }
    drop(stop_server);
    if let Some(writer) = writer {
        writer.finish();
    }
    tracing::info!("stopping: waits for clients to take the last answers");
    let served = tokio::time::timeout(LAST_WORDS, &mut server).await;
    if let (Ok(_), Some(auditor)) = (&served, auditor) {
        auditor.finish();
    }
    match served {
        Ok(served) => Ok(served?),
        Err(_) => {
            tracing::warn!(
                "a client kept its connection open beyond the node's end: it is cut off"
            );
            Ok(())
        }
    }
}

/// Begins to write events to their file, if they have one.
fn write_events(config: &NodeConfig, events: &Events) -> Result<Option<Writer>, ControlError> {
    let kinds = config.events.kinds.clone();
    let start = |lines| file::write(&events.log(), kinds, lines);
    open_lines(config, "events.file", config.events.output.as_ref(), start)
}

/// Where the audit goes.
fn start_audit(config: &NodeConfig) -> Result<(Audit, Option<Writer>), ControlError> {
    let last = match &config.audit {
        Some(Output::File { path, .. }) => Some(audit::last_generation(path)),
        _ => None,
    };
    let start = |lines| Audit::to_file(&config.name, lines, last);
    let opened = open_lines(config, "audit.file", config.audit.as_ref(), start)?;
    Ok(match opened {
        Some((audit, writer)) => (audit, Some(writer)),
        None => (Audit::to_log(&config.name), None),
    })
}

fn open_lines<T>(
    config: &NodeConfig,
    field: &'static str,
    output: Option<&Output>,
    start: impl FnOnce(Lines) -> std::io::Result<T>,
) -> Result<Option<T>, ControlError> {
    let Some(output) = output.cloned() else {
        return Ok(None);
    };
    let path = match &output {
        Output::Stdout => PathBuf::from("standard output"),
        Output::File { path, .. } => path.clone(),
    };
    Lines::open(output, config.reopen.clone())
        .and_then(start)
        .map(Some)
        .map_err(|source| ControlError::Lines {
            field,
            path,
            source,
        })
}

/// How SAs are made, and the right to their lanes for each worker.
fn sa_config(config: &NodeConfig) -> Result<(SaConfig, Vec<LaneOwner>), ControlError> {
    let range = |field, value, allowed: String| ControlError::Range {
        field,
        value,
        allowed,
    };
    let workers = config.pool.cpus.len();
    let lanes = workers * usize::from(config.pool.lanes);
    if !(1..=usize::from(MAX_LANES)).contains(&lanes) {
        let allowed = format!(
            "1 to {} for {workers} workers",
            usize::from(MAX_LANES) / workers.max(1)
        );
        return Err(range("workers.lanes", config.pool.lanes.into(), allowed));
    }
    let bits = config.window_bits;
    if !bits.is_power_of_two() || !(MIN_WINDOW_BITS..=MAX_WINDOW_BITS).contains(&bits) {
        let allowed = format!("a power of two from {MIN_WINDOW_BITS} to {MAX_WINDOW_BITS}");
        return Err(range("crypto.window_bits", bits.into(), allowed));
    }
    if !(1..=MAX_COUNTER).contains(&config.lane_limit) {
        return Err(range(
            "crypto.lane_limit",
            config.lane_limit,
            format!("1 to {MAX_COUNTER}"),
        ));
    }
    let (lanes, owners) = Lanes::split(workers, config.pool.lanes.into())?;
    let sa = SaConfig {
        provider: twinseal_crypto::provider(&config.provider)?,
        window_bits: bits,
        lanes,
        lane_limit: config.lane_limit,
        workers,
    };
    Ok((sa, owners))
}
