//! `twinseal-bench l2fwd`.

use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use twinseal_bench::l2fwd::{self, Options, SIZES, bare};
use twinseal_crypto::{DEFAULT_PROVIDER, provider};
use twinseal_ebpf::XdpMode;
use twinseal_xsk::BindMode;

use super::print;

/// A transit node beside a bare AF_XDP layer-2 forwarder, in a lab of veths; or that forwarder alone.
///
/// Needs root and two CPUs: one for the load, one for the node.
#[derive(Args)]
pub(crate) struct L2fwd {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Only native or generic XDP.
    #[arg(long)]
    mode: Option<Mode>,
    /// Only inner packets of so many octets.
    #[arg(long, value_parser = clap::value_parser!(u16).range(28..=1408))]
    size: Option<u16>,
    /// Runs of each node, in turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// Milliseconds of a run.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=600_000))]
    millis: u32,
    /// Who seals: auto (what a node takes by default), aws-lc-rs, ring or twinseal.
    #[arg(long, default_value = DEFAULT_PROVIDER)]
    provider: String,
    /// Forward between these two devices until killed, and measure nothing.
    #[arg(long, num_args = 2, value_names = ["DEV", "DEV"])]
    between: Option<Vec<String>>,
    /// With --between: how to pass the time without frames.
    #[arg(long, default_value = "sleep", requires = "between")]
    idle: bare::Idle,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Mode {
    Native,
    Generic,
}

impl From<Mode> for XdpMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Native => Self::Native,
            Mode::Generic => Self::Generic,
        }
    }
}

impl L2fwd {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        if let Some([west, east]) = self.between.as_deref() {
            let mode = self.mode.map_or(XdpMode::Auto, XdpMode::from);
            let mut forwarder = bare::Forwarder::open(west, east, mode, BindMode::Auto)?;
            eprintln!("forwarding between {west} and {east}");
            forwarder.run(self.idle, &AtomicBool::new(false))?;
            return Ok(ExitCode::SUCCESS);
        }
        let modes = [Mode::Native, Mode::Generic];
        let report = l2fwd::measure(&Options {
            modes: self
                .mode
                .map_or(modes.to_vec(), |mode| vec![mode])
                .into_iter()
                .map(XdpMode::from)
                .collect(),
            sizes: self.size.map_or(SIZES.to_vec(), |size| vec![size.into()]),
            runs: self.runs.into(),
            time: Duration::from_millis(self.millis.into()),
            provider: provider(&self.provider)?,
        })?;
        print(&report, self.json)?;
        Ok(ExitCode::SUCCESS)
    }
}
