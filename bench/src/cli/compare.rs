//! `twinseal-bench compare`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use twinseal_bench::compare::{Setup, TrafficBy, compare, names};
use twinseal_lab::traffic::Finding;

use super::print;

/// The same load through kernel forwarding, kernel VXLAN, Twinseal and the peers that are installed, side by side.
///
/// Two hosts and two gateways in network namespaces of their own on this machine; needs root. For each peer: the highest
/// rate without loss, the goodput of one TCP stream (by iperf3) and the round trip of pings. Ratios are taken within a
/// round. Exit status 1 if an installed peer failed; its log is in the result, and the others are measured all the same.
/// 3 if some search for a rate could not be made, because the sender did not keep up.
#[derive(Args)]
pub(crate) struct Compare {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Only these, separated by commas; the default is all.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(names()))]
    only: Vec<String>,
    /// How often each gets its turn: 3, or with --quick 1.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Octets of the IP packets whose rate is looked for.
    #[arg(long, value_delimiter = ',', default_value = "64,1400", value_parser = clap::value_parser!(u16).range(56..=1400))]
    sizes: Vec<u16>,
    /// Short trials, to see that it works: the figures are rough.
    #[arg(long)]
    quick: bool,
    /// What sends and receives UDP packets, for all alike.
    #[arg(long, value_enum, default_value_t = TrafficBy::Sockets)]
    traffic: TrafficBy,
    /// UDP flows.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10000))]
    flows: u32,
    /// Workers of each Twinseal daemon.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    workers: u32,
    /// How the Twinseal daemons attach to their devices.
    #[arg(long, default_value = "auto", value_parser = ["auto", "native", "generic"])]
    xdp: String,
    /// A line for the Twinseal daemons' configuration, such as 'workers.idle = "spin"'; may be repeated.
    #[arg(long, value_name = "LINE")]
    config: Vec<String>,
    /// The program twinseal; the default is the one beside this.
    #[arg(long, value_name = "PATH")]
    twinseal: Option<PathBuf>,
}

impl Compare {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let beside = || Ok::<_, anyhow::Error>(std::env::current_exe()?.with_file_name("twinseal"));
        let program = self.twinseal.clone().map_or_else(beside, Ok);
        let setup = Setup {
            rounds: self.rounds.unwrap_or(if self.quick { 1 } else { 3 }),
            sizes: self.sizes.clone(),
            traffic: self.traffic,
            flows: self.flows,
            trial_ms: if self.quick { 100 } else { 250 },
            resolution: if self.quick { 0.2 } else { 0.05 },
            tcp_seconds: if self.quick { 1 } else { 3 },
            pings: if self.quick { 200 } else { 2000 },
            ping_interval_us: 1000,
            workers: self.workers,
            xdp: self.xdp.clone(),
            config: self.config.clone(),
            program: program.context("where is this program?")?,
        };
        let comparison = compare(setup, &self.only, |line| eprintln!("{line}"))?;
        print(&comparison, self.json)?;
        let mut rates = comparison.rounds.iter().flat_map(|round| &round.rates);
        Ok(
            if comparison
                .peers
                .iter()
                .any(|peer| !peer.failures.is_empty())
            {
                ExitCode::FAILURE
            } else if rates.any(|rate| rate.finding == Finding::Inconclusive) {
                ExitCode::from(3)
            } else {
                ExitCode::SUCCESS
            },
        )
    }
}
