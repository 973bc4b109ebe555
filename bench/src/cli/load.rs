//! `twinseal-bench load`.

use std::process::ExitCode;

use clap::Args;
use tempfile::TempDir;
use twinseal_bench::load::{LoadSizes, load};
use twinseal_crypto::{DEFAULT_PROVIDER, MAX_COUNTER};
use twinseal_runtime::workers::{DEFAULT_SLICE, Idle, PoolConfig};
use twinseal_server::NodeConfig;
use twinseal_server::SocketConfig;
use twinseal_xsk::HugePages;

use super::print;
use crate::counting;

/// A node on memory ports, loaded through its control socket, and its routes changed while packets pass.
///
/// Exit status 1 if a packet was lost, or none was sent.
#[derive(Args)]
pub(crate) struct Load {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// IPv4 routes.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    v4: u32,
    /// IPv6 routes.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(..=10_000_000))]
    v6: u32,
    /// VRFs.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    vrfs: u32,
    /// Circuits, at least one a VRF.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    circuits: u32,
    /// Links.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    links: u32,
    /// Circuits with keys, two each.
    #[arg(long, default_value_t = 1000)]
    keyed: u32,
    /// Seconds of updates.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Updates a second at most; else as many as go.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Packets a second meanwhile.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
    pps: u32,
    /// Store the tables on disk, as a node does by default: every transaction then waits for the disk.
    #[arg(long)]
    keep_tables: bool,
}

impl Load {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let dir = TempDir::new()?;
        let config = NodeConfig {
            name: "load".into(),
            socket: SocketConfig::new(dir.path().join("load.sock")),
            state_dir: dir.path().join("state"),
            provider: DEFAULT_PROVIDER.into(),
            window_bits: 2048,
            lane_limit: MAX_COUNTER,
            keep_tables: self.keep_tables,
            key_limits: Default::default(),
            pool: PoolConfig {
                cpus: vec![None],
                frames: 4096,
                frame_size: 2048,
                jumbo_frames: 0,
                huge_pages: HugePages::Never,
                ring: 256,
                idle: Idle::Sleep,
                slice: DEFAULT_SLICE,
                lanes: 2,
            },
            events: Default::default(),
            usage: Default::default(),
            audit: None,
            reopen: Default::default(),
        };
        twinseal_node::state_dir::init(&config.state_dir, false)?;
        anyhow::ensure!(
            self.circuits >= self.vrfs,
            "give at least one circuit a VRF"
        );
        let sizes = LoadSizes {
            v4: self.v4 as usize,
            v6: self.v6 as usize,
            vrfs: self.vrfs,
            circuits: self.circuits,
            links: self.links,
            keyed: self.keyed,
            seconds: self.seconds,
            rate: self.rate,
            pps: self.pps,
        };
        let report = load(config, sizes, counting::live)?;
        print(&report, self.json)?;
        if report.packets == 0 {
            eprintln!("no packet was sent: that none was lost means nothing");
        }
        if report.lost > 0 {
            eprintln!("packets were lost: none may be");
        }
        Ok(match report.packets > 0 && report.lost == 0 {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}
