//! `twinseal-bench soak`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use twinseal_bench::Size;
use twinseal_bench::generator::Options;
use twinseal_bench::soak::{Config, run};
use twinseal_bench::testbed::Setup;
use twinseal_lab::impair::Impairment;

use super::rfc2544::LabArgs;
use super::{positive, print};

/// Steady traffic through real daemons for as long as you like, while keys rotate and tables churn (needs root).
///
/// Ends with the account of every packet, and of each daemon's memory and descriptors. Exit status 1 if a lost packet is
/// unexplained, or anything else was as it must not be.
#[derive(Args)]
pub(crate) struct Soak {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// How long: 90s, 30m, 2h.
    #[arg(long, default_value = "2h", value_parser = duration)]
    duration: Duration,
    /// Bytes of the IP packets from A to B, or imix.
    #[arg(long, default_value = "512")]
    size: Size,
    /// Their flows.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    flows: u32,
    /// Packets a second; else --load of the rate that is found to pass without loss.
    #[arg(long, value_parser = positive)]
    pps: Option<f64>,
    /// That part.
    #[arg(long, default_value_t = 0.3, value_parser = positive)]
    load: f64,
    /// Time between rotations of all keys.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    rotate_every: Duration,
    /// Time between two tenants that come (VRF, circuit, keys, labels, routes) and go again.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = duration)]
    churn_every: Duration,
    /// Routes of each such tenant.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(0..=512))]
    routes: u16,
    /// Growth of a daemon's memory after warming up that is a failure, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 32)]
    growth_limit: u64,
    /// Workers of each daemon.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
    #[command(flatten)]
    lab: LabArgs,
    #[command(flatten)]
    wires: Wires,
}

/// With any of these, wires between nodes are ours and bad, and slow: 5,000 packets a second unless --pps says else.
#[derive(Args)]
#[command(next_help_heading = "Bad wires between the nodes")]
struct Wires {
    /// Part of packets lost.
    #[arg(long, value_name = "PART")]
    loss: Option<f64>,
    /// Part of packets made twice.
    #[arg(long, value_name = "PART")]
    duplicate: Option<f64>,
    /// Part of packets that come late.
    #[arg(long, value_name = "PART")]
    reorder: Option<f64>,
    /// Delay of all packets.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    delay: Option<Duration>,
}

impl Soak {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let config = Config {
            setup: Setup {
                impairment: self.wires.impairment()?,
                ..self.lab.setup(self.workers)?
            },
            duration: self.duration,
            size: self.size,
            flows: self.flows,
            pps: self.pps,
            load: self.load,
            rotate_every: self.rotate_every,
            churn_every: self.churn_every,
            routes: self.routes.into(),
            growth_limit: self.growth_limit << 20,
            options: Options {
                queues: self.workers,
                ..Options::default()
            },
        };
        let soak = run(&config, |text| eprintln!("{text}"))?;
        print(&soak, self.json)?;
        Ok(match soak.failures.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}

impl Wires {
    fn impairment(&self) -> anyhow::Result<Option<Impairment>> {
        let parts = [
            ("loss", self.loss),
            ("duplicate", self.duplicate),
            ("reorder", self.reorder),
        ];
        for (name, part) in parts {
            let part = part.unwrap_or(0.0);
            anyhow::ensure!(
                (0.0..=1.0).contains(&part),
                "--{name} {part}: give a part, 0 to 1"
            );
        }
        let given = parts.iter().any(|(_, part)| part.is_some()) || self.delay.is_some();
        Ok(given.then(|| Impairment {
            loss: self.loss.unwrap_or(0.0),
            duplicate: self.duplicate.unwrap_or(0.0),
            reorder: self.reorder.unwrap_or(0.0),
            delay: self.delay.unwrap_or_default(),
            ..Impairment::default()
        }))
    }
}

/// A time with its unit: `250ms`, `90s`, `30m`, `2h`.
fn duration(text: &str) -> anyhow::Result<Duration> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    let parsed = units.into_iter().find_map(|(unit, ms)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(Duration::from_millis(number.checked_mul(ms)?))
    });
    parsed
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| anyhow::anyhow!("give a number and ms, s, m or h, such as 90s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let ms = |text| duration(text).map(|it| it.as_millis()).ok();
        assert_eq!(ms("250ms"), Some(250));
        assert_eq!(ms("90s"), Some(90_000));
        assert_eq!(ms("30m"), Some(1_800_000));
        assert_eq!(ms("2h"), Some(7_200_000));
        for bad in [
            "",
            "2",
            "h",
            "0s",
            "-1s",
            "1.5h",
            "99999999999999999999h",
            "18446744073709551615h",
        ] {
            assert_eq!(ms(bad), None, "{bad}");
        }
    }
}
