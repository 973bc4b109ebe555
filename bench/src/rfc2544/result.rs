//! What the tests found, for people and programs.

use std::collections::BTreeMap;

use serde::Serialize;
use twinseal_ebpf::XdpOutcome;
use twinseal_lab::traffic::Summary;
use twinseal_xsk::{Outcome, ZeroCopy};

use crate::testbed::Testbed;
use crate::{Machine, Sample};

/// Ethernet's header and checksum.
const FRAMING: usize = 18;

/// All of the results.
#[derive(Debug, Serialize)]
pub struct Results {
    /// What measured.
    pub machine: Machine,
    /// What was measured.
    pub dut: Dut,
    /// The generator's own sockets.
    pub sockets: Vec<SocketMode>,
    /// Flows, told apart by source port.
    pub flows: u32,
    /// Whether the test packets were IPv6.
    pub v6: bool,
    /// How long a trial sent.
    pub trial_seconds: f64,
    /// How often each figure was measured.
    pub repeats: usize,
    /// A result a size.
    pub sizes: Vec<SizeResult>,
    /// Of all trials together.
    pub total: Total,
}

/// The device under test, as far as it is ours.
#[derive(Debug, Default, Serialize)]
pub struct Dut {
    /// Its nodes.
    pub nodes: Vec<DutNode>,
}

/// One node of it.
#[derive(Debug, Serialize)]
pub struct DutNode {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its workers.
    pub workers: u32,
    /// Who seals.
    pub provider: String,
    /// "huge pages" or "ordinary pages".
    pub memory: String,
    /// Its AF_XDP ports.
    pub sockets: Vec<SocketMode>,
}

/// How an AF_XDP port works.
#[derive(Debug, Serialize)]
pub struct SocketMode {
    /// Which.
    pub name: String,
    /// "native" or "generic"; none for one that receives nothing.
    pub xdp: Option<String>,
    /// "zero-copy" or "copy", a queue.
    pub bind: Vec<String>,
    /// Whether the driver says when it wants to be woken.
    pub need_wakeup: bool,
}

/// The results of one size.
#[derive(Debug, Serialize)]
pub struct SizeResult {
    /// Octets of the IP packets.
    pub octets: usize,
    /// Bytes of the frames with their checksum, as RFC 2544 counts.
    pub frame_bytes: usize,
    /// The highest rate without loss.
    pub throughput: Option<Throughput>,
    /// At parts of the throughput.
    pub latency: Vec<LatencyAt>,
    /// From the highest rate down.
    pub loss: Vec<LossAt>,
    /// The longest burst without loss.
    pub back_to_back: Option<BackToBack>,
}

/// The highest rate without loss.
#[derive(Debug, Serialize)]
pub struct Throughput {
    /// Packets a second.
    pub pps: Sample,
    /// Gigabits of IP packets a second, at the median.
    pub gbps: f64,
    /// The generator could offer no more: the true rate may be higher.
    pub generator_limited: bool,
    /// Of all searches.
    pub trials: usize,
    /// Trials that did not pass and were tried once more, so that a hiccup of the machine is no verdict.
    pub retries: usize,
}

/// One-way times at one load.
#[derive(Debug, Serialize)]
pub struct LatencyAt {
    /// As a part of the throughput.
    pub load: f64,
    /// Packets a second.
    pub pps: f64,
    /// Packets measured.
    pub packets: u64,
    /// Packets lost, which have no latency.
    pub lost: u64,
    /// Median, in microseconds.
    pub p50_us: Sample,
    /// 90 %.
    pub p90_us: Sample,
    /// 99 %.
    pub p99_us: Sample,
    /// 99.9 %.
    pub p999_us: Sample,
    /// 99.99 %.
    pub p9999_us: Sample,
    /// The longest.
    pub max_us: Sample,
}

/// Loss at one load.
#[derive(Debug, Serialize)]
pub struct LossAt {
    /// As a part of the highest rate.
    pub load: f64,
    /// The rate at which packets left.
    pub offered_pps: f64,
    /// The rate at which they came.
    pub received_pps: f64,
    /// Packets sent.
    pub sent: u64,
    /// Packets lost.
    pub lost: u64,
}

/// The longest burst without loss.
#[derive(Debug, Serialize)]
pub struct BackToBack {
    /// Packets.
    pub packets: Sample,
    /// No longer one was tried: it may be longer.
    pub limited: bool,
    /// How fast they followed each other, packets a second.
    pub offered_pps: f64,
    /// Of all searches.
    pub trials: usize,
}

/// The account of all trials together.
#[derive(Debug, Default, Serialize)]
pub struct Total {
    /// Trials.
    pub trials: u64,
    /// Packets sent.
    pub sent: u64,
    /// Different packets received.
    pub received: u64,
    /// Sent and not received.
    pub lost: u64,
    /// Received again.
    pub duplicates: u64,
    /// Received after a later one of their flow.
    pub reordered: u64,
    /// Received damaged.
    pub damaged: u64,
    /// Of the lost, dropped at the receiver's own sockets: the measurement's fault.
    pub receiver_drops: u64,
    /// Where the nodes, their sockets and veths dropped how many; none where they are not ours.
    pub drops: Option<BTreeMap<String, u64>>,
}

impl Total {
    pub(super) fn add(&mut self, summary: &Summary) {
        self.trials += 1;
        self.sent += summary.sent;
        self.received += summary.received;
        self.lost += summary.lost;
        self.duplicates += summary.duplicates;
        self.reordered += summary.reordered;
        self.damaged += summary.damaged;
        self.receiver_drops += summary.socket_drops;
    }

    /// Lost packets that nobody counted as dropped; below zero when others' packets were dropped too. None where the
    /// device under test is not ours.
    pub fn unexplained(&self) -> Option<i64> {
        let drops: u64 = self.drops.as_ref()?.values().sum();
        Some(self.lost as i64 - (drops + self.receiver_drops) as i64)
    }
}

impl Dut {
    pub(crate) fn of(testbed: &mut Testbed) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        for node in testbed.nodes() {
            let state = node.get()?;
            let sockets = state.ports.into_iter().map(|port| SocketMode {
                name: port.port,
                xdp: Some(port.xdp),
                bind: port.bind,
                need_wakeup: port.need_wakeup,
            });
            nodes.push(DutNode {
                name: state.node,
                version: state.version,
                workers: state.workers,
                provider: state.provider,
                memory: state.memory,
                sockets: sockets.collect(),
            });
        }
        Ok(Self { nodes })
    }
}

impl SocketMode {
    pub(super) fn new(name: &str, xdp: Option<XdpOutcome>, mode: Outcome) -> Self {
        let bind = match mode.bind {
            ZeroCopy::ZeroCopy => "zero-copy",
            ZeroCopy::Copy => "copy",
        };
        Self {
            name: name.into(),
            xdp: xdp.map(|xdp| xdp.to_string()),
            bind: vec![bind.into()],
            need_wakeup: mode.need_wakeup,
        }
    }
}

impl SizeResult {
    pub(super) fn new(octets: usize) -> Self {
        Self {
            octets,
            frame_bytes: octets + FRAMING,
            throughput: None,
            latency: Vec::new(),
            loss: Vec::new(),
            back_to_back: None,
        }
    }
}
