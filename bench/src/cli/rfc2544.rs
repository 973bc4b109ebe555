//! `twinseal-bench rfc2544`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use twinseal_bench::Size;
use twinseal_bench::generator::{Offer, Options, min_octets};
use twinseal_bench::rfc2544::{Config, Devices, Subject, Test, Verdict, run};
use twinseal_bench::testbed::Setup;
use twinseal_wire::ethernet::Mac;

use super::{positive, print};

/// Sizes of IP packets, in bytes: those of RFC 2544, but what must fit into a circuit over 1500, and the mix.
const SIZES: [Size; 8] = [
    Size::Octets(64),
    Size::Octets(128),
    Size::Octets(256),
    Size::Octets(512),
    Size::Imix,
    Size::Octets(1024),
    Size::Octets(1280),
    Size::Octets(1400),
];

/// The tests of RFC 2544: throughput, latency, frame loss rate, back-to-back frames.
///
/// Without devices, of a lab: host, two or three nodes with real daemons, host (needs root). With --tx and --rx, of
/// whatever is between those two.
///
/// Exit status 1 if packets were lost at every rate, or if lost packets are unexplained; 3 if some search could not be made
/// (the generator did not keep up).
#[derive(Args)]
pub(crate) struct Rfc2544 {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Bytes of the IP packets, 56 (IPv6: 76) or more, or imix; the default is those of the RFC up to 1400, and imix.
    #[arg(long, value_delimiter = ',')]
    sizes: Vec<Size>,
    /// Both ways at once; rates are of both together.
    #[arg(long)]
    bidirectional: bool,
    /// Loss that is tolerated, in percent of the packets, for further throughputs beside that without loss (PDR beside
    /// NDR); 0 for none.
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', default_value = "0.5", value_parser = percent)]
    loss_tolerance: Vec<f64>,
    /// Flows, told apart by source port.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    flows: u32,
    /// How long a trial sends. The RFC has 60.
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = positive)]
    trial_seconds: f64,
    /// How often each figure is measured; the result is the median.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeats: u16,
    /// The highest rate to try, packets a second; else what the generator can send.
    #[arg(long, value_name = "PPS", default_value_t = Offer::FLAT_OUT, value_parser = positive)]
    rate_max: f64,
    /// How close searches come, as a part of the result.
    #[arg(long, default_value_t = 0.02, value_parser = positive)]
    resolution: f64,
    /// The longest burst to try, packets.
    #[arg(long, default_value_t = 1 << 20, value_parser = clap::value_parser!(u64).range(1..))]
    burst_max: u64,
    /// Which tests.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "throughput,latency,loss,burst"
    )]
    tests: Vec<Test>,
    /// Short trials, one of each: to see whether it works. Its figures mean little.
    #[arg(long)]
    quick: bool,
    /// Test packets over IPv6.
    #[arg(long)]
    ipv6: bool,
    /// Queues of the generator's devices; in a lab, workers of each daemon.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    queues: u32,
    /// How long the receiver looks for packets again and again before it sleeps, in microseconds.
    #[arg(long, value_name = "US", default_value_t = 0)]
    spin: u64,
    /// The processor that sends.
    #[arg(long, value_name = "CPU")]
    tx_cpu: Option<usize>,
    /// The processor that receives.
    #[arg(long, value_name = "CPU")]
    rx_cpu: Option<usize>,
    #[command(flatten)]
    lab: LabArgs,
    #[command(flatten)]
    devices: DeviceArgs,
}

/// The lab.
#[derive(Args)]
#[command(next_help_heading = "In a lab")]
pub(super) struct LabArgs {
    /// A third node in the middle.
    #[arg(long)]
    transit: bool,
    /// The program twinseal; the default is the one beside this.
    #[arg(long, value_name = "PROGRAM")]
    twinseal: Option<PathBuf>,
    /// A line of configuration for each daemon; may be repeated.
    #[arg(long, value_name = "LINE")]
    config: Vec<String>,
}

#[derive(Args)]
#[command(next_help_heading = "On devices of this machine")]
struct DeviceArgs {
    /// The device that sends.
    #[arg(long, value_name = "DEV", requires = "rx")]
    tx: Option<String>,
    /// The device that receives.
    #[arg(long, value_name = "DEV", requires_all = ["tx", "src", "dst"])]
    rx: Option<String>,
    /// Source of the test packets.
    #[arg(long, value_name = "IP", requires = "tx")]
    src: Option<IpAddr>,
    /// Their destination, best an address of the device that receives.
    #[arg(long, value_name = "IP", requires = "tx")]
    dst: Option<IpAddr>,
    /// The next hop, whose hardware address is asked for; else the destination itself.
    #[arg(long, value_name = "IP", requires = "tx")]
    gateway: Option<IpAddr>,
    /// The next hop's hardware address, if it is not to be asked for.
    #[arg(long, value_name = "MAC", requires = "tx")]
    dst_mac: Option<Mac>,
    /// Source of the frames, if it is not to be the device's own.
    #[arg(long, value_name = "MAC", requires = "tx")]
    src_mac: Option<Mac>,
}

impl Rfc2544 {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let results = run(&self.config()?, |text| eprintln!("{text}"))?;
        print(&results, self.json)?;
        Ok(match results.verdict {
            Verdict::Success => ExitCode::SUCCESS,
            Verdict::Failure => ExitCode::FAILURE,
            Verdict::Inconclusive => ExitCode::from(3),
        })
    }

    fn config(&self) -> anyhow::Result<Config> {
        let v6 = self.devices.dst.map_or(self.ipv6, |dst| dst.is_ipv6());
        let config = Config {
            subject: match self.devices.devices()? {
                Some(devices) => Subject::Devices(devices),
                None => Subject::Lab(self.lab.setup(self.queues)?),
            },
            v6,
            sizes: self.sizes(v6),
            both_ways: self.bidirectional,
            tolerated: self.tolerated(),
            flows: self.flows,
            trial: Duration::try_from_secs_f64(self.trial_seconds).context("--trial-seconds")?,
            repeats: self.repeats.into(),
            rate_max: self.rate_max,
            resolution: self.resolution,
            burst_max: self.burst_max,
            tests: self.tests.clone(),
            options: Options {
                queues: self.queues,
                spin: Duration::from_micros(self.spin),
                tx_cpu: self.tx_cpu,
                rx_cpu: self.rx_cpu,
                ..Options::default()
            },
        };
        Ok(match self.quick {
            false => config,
            true => config.quick(),
        })
    }
}

impl Rfc2544 {
    /// Those asked for; else all, the smallest as small as a test packet can be.
    fn sizes(&self, v6: bool) -> Vec<Size> {
        let least = min_octets(v6) as u16;
        let fits = |size: Size| match size {
            Size::Octets(octets) => Size::Octets(octets.max(least)),
            Size::Imix => Size::Imix,
        };
        match self.sizes.is_empty() {
            true => SIZES.map(fits).to_vec(),
            false => self.sizes.clone(),
        }
    }

    /// In parts.
    fn tolerated(&self) -> Vec<f64> {
        let above_zero = self.loss_tolerance.iter().filter(|it| **it > 0.0);
        above_zero.map(|percent| percent / 100.0).collect()
    }
}

/// A part of a hundred.
fn percent(text: &str) -> anyhow::Result<f64> {
    let number: Option<f64> = text.parse().ok();
    number
        .filter(|number| (0.0..100.0).contains(number))
        .ok_or_else(|| anyhow::anyhow!("give 0 to less than 100"))
}

impl LabArgs {
    pub(super) fn setup(&self, workers: u32) -> anyhow::Result<Setup> {
        let setup = Setup::new()?;
        Ok(Setup {
            transit: self.transit,
            workers,
            config: self.config.clone(),
            program: self.twinseal.clone().unwrap_or(setup.program),
            ..setup
        })
    }
}

impl DeviceArgs {
    fn devices(&self) -> anyhow::Result<Option<Devices>> {
        let (Some(tx), Some(rx), Some(src), Some(dst)) = (&self.tx, &self.rx, self.src, self.dst)
        else {
            return Ok(None);
        };
        Ok(Some(Devices {
            tx: tx.clone(),
            rx: rx.clone(),
            src,
            dst,
            gateway: self.gateway,
            dst_mac: self.dst_mac,
            src_mac: self.src_mac,
        }))
    }
}
