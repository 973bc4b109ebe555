//! One node: its daemon, and the way to its control socket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use twinseal_api::v1;
use twinseal_api::v1::control_client::ControlClient;
use twinseal_lab::{Namespace, Process};
use twinseal_testbed::daemon::Daemon;

/// How long a daemon may take to stop.
const PATIENCE: Duration = Duration::from_secs(20);
/// Socket counters that count lost packets, and no packet that is counted as a drop as well.
const SOCKET_DROPS: [&str; 4] = [
    "rx_dropped",
    "rx_ring_full",
    "multi_buffer_dropped",
    "tx_invalid_descs",
];

/// A running daemon.
pub struct Node {
    name: String,
    process: Process,
    runtime: Runtime,
    client: ControlClient<Channel>,
}

impl Node {
    /// Starts a daemon in its namespace, with a configuration of these lines beside what it needs, its files in `folder`.
    pub(super) fn start(
        name: &str,
        program: &Path,
        namespace: &Namespace,
        folder: PathBuf,
        lines: &[String],
    ) -> anyhow::Result<Self> {
        let daemon = Daemon::start(program, name, namespace, &folder, &lines.join("\n"))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let socket = daemon.socket.to_str();
        let socket = socket.context("the lab's folder is not UTF-8")?;
        let channel = Endpoint::from_shared(format!("unix:{socket}"))?;
        let channel = runtime.block_on(channel.connect())?;
        Ok(Self {
            name: name.into(),
            process: daemon.process,
            runtime,
            client: ControlClient::new(channel).max_decoding_message_size(usize::MAX),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Whether its daemon runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.process.log_text()
    }

    /// Stops it as an operator would, and says whether it ended well.
    pub fn stop(&mut self) -> anyhow::Result<bool> {
        Ok(self.process.terminate(PATIENCE)?.success())
    }

    /// One transaction.
    pub fn apply(&mut self, changes: Vec<v1::Change>) -> anyhow::Result<u64> {
        let request = v1::ApplyRequest {
            changes,
            ..v1::ApplyRequest::default()
        };
        let applied = self.runtime.block_on(self.client.apply(request));
        let applied =
            applied.map_err(|status| anyhow::anyhow!("{}: {}", self.name, status.message()))?;
        Ok(applied.into_inner().generation)
    }

    /// Its state, and what became of it.
    pub fn get(&mut self) -> anyhow::Result<v1::GetResponse> {
        self.read(|mut client| async move { client.get(v1::GetRequest {}).await })
    }

    /// Its counters.
    pub fn stats(&mut self) -> anyhow::Result<v1::StatsResponse> {
        self.read(|mut client| async move { client.stats(v1::StatsRequest {}).await })
    }

    /// Asks for something that changes nothing. Nodes close connections on which nothing came for a minute, as while
    /// something is measured; that is noticed by asking.
    fn read<T, F>(&self, ask: impl Fn(ControlClient<Channel>) -> F) -> anyhow::Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let once = || self.runtime.block_on(ask(self.client.clone()));
        let got = match once() {
            Err(status) if status.code() == Code::Unknown => once(),
            got => got,
        };
        Ok(got.with_context(|| self.name.clone())?.into_inner())
    }

    /// What it and its sockets dropped, by reason; only reasons that occurred.
    pub fn drops(&mut self) -> anyhow::Result<BTreeMap<String, u64>> {
        let stats = self.stats()?;
        let sockets = stats.ports.into_iter().flat_map(|port| {
            let sockets = port.sockets.into_iter();
            let sockets = sockets.filter(|counter| SOCKET_DROPS.contains(&counter.name.as_str()));
            sockets.map(move |counter| (format!("{} {}", port.port, counter.name), counter.value))
        });
        let drops = stats
            .drops
            .into_iter()
            .map(|counter| (counter.name, counter.value));
        Ok(drops
            .chain(sockets)
            .filter(|(_, count)| *count > 0)
            .collect())
    }
}
