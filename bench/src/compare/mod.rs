//! The same load through Twinseal and through others, side by side in one run.
//!
//! Every peer in turn becomes the two gateways of the same fresh [`network`], on this machine's own processors: nothing
//! else of the comparison runs meanwhile. [`measure`] does the same to each; the rounds go over all peers before the
//! next begins, so that what else the machine does disturbs all alike, and ratios are taken within a round.
//! [`peers`] is the only place that knows how a peer is configured.

mod measure;
mod metrics;
mod network;
mod peers;
mod result;

use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use twinseal_lab::traffic::Finding;

pub use result::{
    Comparison, Counts, Metric, MetricLine, Participant, Passed, Rate, Round, RoundTrip, Tcp,
};

use crate::Machine;
use measure::Traffic;
use network::Network;
use peers::{Peer, Running};

/// How to compare.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// How often each peer gets its turn.
    pub rounds: u32,
    /// Octets of the IP packets whose rate is looked for, 56 to 1400.
    pub sizes: Vec<u16>,
    /// What sends and receives the UDP packets.
    pub traffic: TrafficBy,
    /// UDP flows, told apart by source port.
    pub flows: u32,
    /// How long one trial sends, in milliseconds.
    pub trial_ms: u64,
    /// The search ends when the rates that pass and fail are this close, as a part of the one that passes.
    pub resolution: f64,
    /// How long the TCP stream is measured, in seconds, after one of warming up.
    pub tcp_seconds: u64,
    /// Echo requests.
    pub pings: u32,
    /// Between two of them, in microseconds.
    pub ping_interval_us: u64,
    /// Workers of each Twinseal daemon, and queues of its devices.
    pub workers: u32,
    /// How the Twinseal daemons attach to their devices: `auto`, `native` or `generic`.
    pub xdp: String,
    /// Lines for the Twinseal daemons' configuration, such as `workers.idle = "spin"`; none: the defaults.
    pub config: Vec<String>,
    /// The program `twinseal`.
    #[serde(skip)]
    pub program: PathBuf,
}

/// What sends and receives the UDP packets, the same for all peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TrafficBy {
    /// A packet socket, and a UDP socket at the far end: what programs of hosts do.
    Sockets,
    /// The rings of the hosts' devices, which cost the hosts less.
    AfXdp,
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "host A - gateway A - gateway B - host B: namespaces and veths without offloads, all on this machine's CPUs\n\
             {} rounds; UDP by {}, {} flows, trials of {} ms, no packet lost; TCP {} s; {} pings, one in {} us\n\
             twinseal with {} workers a daemon, XDP {}",
            self.rounds,
            match self.traffic {
                TrafficBy::Sockets => "sockets",
                TrafficBy::AfXdp => "AF_XDP",
            },
            self.flows,
            self.trial_ms,
            self.tcp_seconds,
            self.pings,
            self.ping_interval_us,
            self.workers,
            self.xdp,
        )?;
        match self.config.is_empty() {
            true => write!(f, ", else its defaults"),
            false => write!(f, " and {}", self.config.join(", ")),
        }
    }
}

/// The names of all peers.
pub fn names() -> Vec<&'static str> {
    peers::ALL.map(Peer::name).to_vec()
}

/// Compares those named in `only`, or all if it is empty. `say` hears how far it is.
///
/// # Errors
/// Where no lab can run, and for a name that nobody has. What goes wrong with one peer is in its results.
pub fn compare(
    setup: Setup,
    only: &[String],
    mut say: impl FnMut(&str),
) -> anyhow::Result<Comparison> {
    let machine = Machine::this();
    for name in only {
        anyhow::ensure!(
            names().contains(&name.as_str()),
            "--only {name}: there are {}",
            names().join(", ")
        );
    }
    twinseal_lab::Lab::available()?;
    let chosen = |name: &str| only.is_empty() || only.iter().any(|it| it == name);
    let mut runners: Vec<Runner> = peers::ALL
        .into_iter()
        .filter(|peer| chosen(peer.name()))
        .map(|peer| Runner::new(peer, &setup))
        .collect();
    let mut rounds = Vec::new();
    for round in 1..=setup.rounds {
        for runner in &mut runners {
            if runner.participant.missing.is_some() {
                continue;
            }
            let begin = Instant::now();
            let name = runner.peer.name();
            match runner.round(&setup, round) {
                Ok(done) => {
                    say(&format!(
                        "{}, {:.0} s",
                        line(&done),
                        begin.elapsed().as_secs_f64()
                    ));
                    rounds.push(done);
                }
                Err(error) => {
                    say(&format!("round {round}: {name} FAILED: {error:#}"));
                    let failure = format!("round {round}: {error:#}");
                    runner.participant.failures.push(failure);
                }
            }
        }
    }
    let peers: Vec<Participant> = runners.into_iter().map(|it| it.participant).collect();
    Ok(Comparison {
        machine,
        metrics: metrics::of_rounds(&setup.sizes, &peers, &rounds),
        setup,
        peers,
        rounds,
    })
}

/// A peer, and what became of it so far.
struct Runner {
    peer: &'static dyn Peer,
    participant: Participant,
    /// The last rate of each size, where the next search begins.
    hints: Vec<f64>,
}

impl Runner {
    fn new(peer: &'static dyn Peer, setup: &Setup) -> Self {
        let (version, missing) = match peer.version(setup) {
            Ok(version) => (Some(version), None),
            Err(how) => (None, Some(how)),
        };
        let participant = Participant {
            name: peer.name().into(),
            about: peer.about().into(),
            seals: peer.seals(),
            version,
            missing,
            failures: Vec::new(),
        };
        Self {
            peer,
            participant,
            hints: Vec::new(),
        }
    }

    fn round(&mut self, setup: &Setup, round: u32) -> anyhow::Result<Round> {
        let network = Network::new(self.peer.queues(setup))?;
        let mut running = Running::default();
        let done = self
            .peer
            .start(setup, &network, &mut running)
            .and_then(|()| self.measure(setup, round, &network, &running));
        done.with_context(|| format!("its logs end with\n{}", running.logs()))
    }

    fn measure(
        &mut self,
        setup: &Setup,
        round: u32,
        network: &Network,
        running: &Running,
    ) -> anyhow::Result<Round> {
        network.settle()?;
        let count = || running.account.as_ref().map(|read| read()).transpose();
        let before = count()?;
        let mut traffic = Traffic::open(network, setup)?;
        let mut rates = Vec::new();
        for (place, &octets) in setup.sizes.iter().enumerate() {
            // Below the last rate, or every search would begin by losing packets.
            let hint = self.hints.get(place).map(|pps| pps * 0.7);
            rates.push(measure::rate(&mut traffic, setup, octets, hint)?);
        }
        traffic.close()?;
        let after = count()?;
        self.hints = rates.iter().map(|rate| rate.mpps * 1e6).collect();
        Ok(Round {
            round,
            peer: self.peer.name().into(),
            tcp: measure::tcp(network, setup)?,
            round_trip: measure::round_trip(network, setup)?,
            rates,
            counts: after
                .zip(before)
                .map(|(after, before)| after.since(&before)),
        })
    }
}

/// A round in one line.
fn line(round: &Round) -> String {
    let mut line = format!("round {}: {:13}", round.round, round.peer);
    for rate in &round.rates {
        line += &match rate.finding {
            Finding::Inconclusive => format!(" no rate of {} found,", rate.octets),
            finding => {
                let at_least = if finding.at_least() { "≥" } else { "" };
                format!(" {at_least}{:.3} Mpps of {},", rate.mpps, rate.octets)
            }
        };
    }
    if let Some(tcp) = &round.tcp {
        line += &format!(" TCP {:.2} Gbit/s,", tcp.gbps);
    }
    let RoundTrip { p50_us, p99_us, .. } = round.round_trip;
    line + &format!(" round trip {p50_us:.0} us, 99 % {p99_us:.0} us")
}
