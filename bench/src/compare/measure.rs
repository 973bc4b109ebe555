//! What is measured of a network, whatever its gateways are.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;
use twinseal_lab::frame::UdpFrame;
use twinseal_lab::traffic::{
    Load, RawConfig, RawSender, Receiver, Search, TrialResult, Until, find_rate,
};
use twinseal_lab::{Namespace, PingConfig, ping};

use super::network::{HOST, LAN, Network, Side};
use super::result::{Rate, RoundTrip, Tcp};
use super::{Setup, TrafficBy};
use crate::Size;
use crate::generator::{End, Generator, Offer, Options, Route};

/// Marks our packets.
const MARKER: [u8; 8] = *b"compare!";
/// Where test packets go.
const PORT: u16 = 9009;
/// Flows' source ports begin here.
const FIRST_SOURCE_PORT: u16 = 40_000;
/// IPv4 and UDP headers.
const HEADERS: usize = 28;
/// How long nothing must have come before packets count as lost.
const QUIET: Duration = Duration::from_millis(100);
/// The lowest rate that a search begins with.
const START_PPS: f64 = 20_000.0;
/// The highest rate that is asked for: more than any sender here comes to.
const MAX_PPS: f64 = 4e6;

/// Sends test packets from host A and receives them at host B.
pub(super) enum Traffic {
    /// Through packet sockets, and a UDP socket at the far end.
    Sockets { sender: RawSender, at: Namespace },
    /// Through the rings of both hosts' devices.
    AfXdp(Box<Generator>),
}

impl Traffic {
    pub(super) fn open(network: &Network, setup: &Setup) -> anyhow::Result<Self> {
        let (from, to) = (network.host(Side::A), network.host(Side::B));
        let (src, dst) = (Side::A.host().into(), Side::B.host().into());
        let src_mac = from.mac(HOST)?;
        let dst_mac = network.gateway(Side::A).mac(LAN)?;
        if setup.traffic == TrafficBy::AfXdp {
            let route = Route {
                from: End::in_namespace(from, HOST),
                to: End::in_namespace(to, HOST),
                src,
                dst,
                src_mac,
                dst_mac,
            };
            let options = Options {
                quiet: QUIET,
                ..Options::default()
            };
            return Ok(Self::AfXdp(Box::new(Generator::open(&route, &options)?)));
        }
        let frame = UdpFrame {
            dst_mac,
            src_mac,
            src,
            dst,
            src_port: FIRST_SOURCE_PORT,
            dst_port: PORT,
            ttl: 64,
            traffic_class: 0,
        };
        let src_ports = FIRST_SOURCE_PORT..=FIRST_SOURCE_PORT + setup.flows as u16 - 1;
        let config = RawConfig { frame, src_ports };
        Ok(Self::Sockets {
            sender: RawSender::open(from, HOST, &config)?,
            at: to.clone(),
        })
    }

    fn trial(&mut self, setup: &Setup, octets: u16, pps: f64) -> anyhow::Result<TrialResult> {
        // Numbers within a flow begin anew with every load, so each has its own flows.
        static FLOW: AtomicU32 = AtomicU32::new(0);
        let until = Until::Elapsed(Duration::from_millis(setup.trial_ms));
        let (sender, at) = match self {
            Self::Sockets { sender, at } => (sender, at),
            Self::AfXdp(generator) => {
                let offer = Offer {
                    size: Size::Octets(octets),
                    flows: setup.flows,
                    pps,
                    until,
                };
                return Ok(generator.run(&offer)?.trial());
            }
        };
        let to = SocketAddr::new(Side::B.host().into(), PORT);
        let receiver = Receiver::start(at, to, MARKER)?;
        let sent = sender.send(&Load {
            marker: MARKER,
            first_flow: FLOW.fetch_add(setup.flows, Ordering::Relaxed),
            flows: setup.flows,
            payload_size: usize::from(octets) - HEADERS,
            pps,
            until,
        })?;
        receiver.wait_for(sent.packets, QUIET);
        let tally = receiver.stop()?;
        Ok(TrialResult {
            offered_pps: sent.pps(),
            sent: sent.packets,
            received: sent.packets - tally.lost(&sent),
        })
    }

    /// Ends it, so that the hosts are as they were.
    pub(super) fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Sockets { .. } => Ok(()),
            Self::AfXdp(generator) => Ok(generator.close().map(drop)?),
        }
    }
}

/// Looks for the highest rate from host A to host B at which nothing is lost. `hint`: where to begin.
pub(super) fn rate(
    traffic: &mut Traffic,
    setup: &Setup,
    octets: u16,
    hint: Option<f64>,
) -> anyhow::Result<Rate> {
    let search = Search {
        start_pps: hint.unwrap_or(0.0).max(START_PPS),
        least_pps: START_PPS,
        max_pps: MAX_PPS,
        trials: 40,
        resolution: setup.resolution,
        tolerated_loss: 0.0,
        margin: 0.02,
        lost_again: 1,
    };
    let found = find_rate(&search, |asked| traffic.trial(setup, octets, asked))?;
    let sum = |of: fn(&TrialResult) -> u64| found.trials.iter().map(|it| of(&it.result)).sum();
    Ok(Rate {
        octets,
        mpps: found.pps * 1e-6,
        finding: found.finding,
        trials: found.trials.len(),
        void: found.voids(),
        sent: sum(|it| it.sent),
        received: sum(|it| it.received),
    })
}

/// Payload that one TCP stream brings from host A to host B, by iperf3; none where that is not installed.
pub(super) fn tcp(network: &Network, setup: &Setup) -> anyhow::Result<Option<Tcp>> {
    let to = Side::B.host().to_string();
    let mut command = Command::new("iperf3");
    command.args(["--server", "--one-off", "--bind", &to]);
    // Without this its output would be kept until its end.
    command.arg("--forceflush");
    let Ok(mut server) = network.host(Side::B).spawn(command) else {
        return Ok(None);
    };
    server.wait_for_log("Server listening", Duration::from_secs(5))?;
    let mut command = Command::new("iperf3");
    command.args(["--json", "--client", &to, "--omit", "1", "--time"]);
    command.arg(setup.tcp_seconds.to_string());
    let (begin, busy) = (Instant::now(), busy_seconds());
    let mut client = network.host(Side::A).spawn(command)?;
    let patience = Duration::from_secs(setup.tcp_seconds + 10);
    let ended = client.wait(patience)?;
    let cpus = (busy_seconds() - busy) / begin.elapsed().as_secs_f64();
    let text = client.log_text();
    let said: Value = serde_json::from_str(&text).with_context(|| format!("iperf3: {text}"))?;
    let bits = said["end"]["sum_received"]["bits_per_second"].as_f64();
    let bits = bits.filter(|_| ended.is_some_and(|status| status.success()));
    Ok(Some(Tcp {
        gbps: bits.with_context(|| format!("iperf3: {}", said["error"]))? * 1e-9,
        retransmits: said["end"]["sum_sent"]["retransmits"].as_u64().unwrap_or(0),
        cpus,
    }))
}

/// Round trips of ICMP echos from host A to host B.
pub(super) fn round_trip(network: &Network, setup: &Setup) -> anyhow::Result<RoundTrip> {
    let config = PingConfig {
        count: setup.pings,
        interval: Duration::from_micros(setup.ping_interval_us),
        timeout: Duration::from_millis(500),
        ..PingConfig::default()
    };
    let result = ping(network.host(Side::A), Side::B.host().into(), &config)?;
    anyhow::ensure!(result.received > 0, "no ping was answered: {result}");
    let us = |quantile: f64| result.rtt.value_at_quantile(quantile) as f64 * 1e-3;
    Ok(RoundTrip {
        p50_us: us(0.5),
        p99_us: us(0.99),
        sent: result.sent,
        received: result.received,
    })
}

/// Seconds that all processors together have worked since the machine began.
fn busy_seconds() -> f64 {
    /// What the kernel counts in for users, whatever its own tick.
    const USER_HZ: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = first
        .split_whitespace()
        .skip(1)
        .map_while(|n| n.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq
    let busy = [0, 1, 2, 5, 6].map(|n| ticks.get(n).copied().unwrap_or(0));
    busy.iter().sum::<u64>() as f64 / USER_HZ
}
