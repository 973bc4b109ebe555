//! `twinseal-bench pipeline`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use twinseal_bench::net::Extent;
use twinseal_bench::report::Plan;
use twinseal_bench::{Report, Role, Size};
use twinseal_crypto::{DEFAULT_PROVIDER, Suite};

use super::{print, provider};
use crate::counting;

/// The pipeline in memory, no kernel and no devices: what a packet costs at an ingress edge, a transit node, an egress
/// edge, and on the whole path through them.
///
/// A run is 4096 packets made ready ahead, in batches of 64, each to an address drawn at random within a route drawn at
/// random; so caches are as cold as tables are large. By turns with the pipeline, its AEAD calls are measured alone, and
/// as many calls of aws-lc-rs, which the results are compared with.
///
/// Exit status 1 if a packet was dropped or anything was allocated on a packet's way.
#[derive(Args)]
pub(crate) struct Pipeline {
    /// Print JSON. With one role, size and worker, the figures are at the top level too.
    #[arg(long)]
    json: bool,
    /// Who seals: auto (what a node takes by default), aws-lc-rs, ring, twinseal (our own kernel), or none, which leaves
    /// everything but the AEAD.
    #[arg(long, default_value = DEFAULT_PROVIDER)]
    provider: String,
    /// aes-256-gcm, aes-128-gcm or chacha20-poly1305.
    #[arg(long, default_value_t = Suite::Aes256Gcm)]
    suite: Suite,
    /// Only this role.
    #[arg(long)]
    role: Option<Role>,
    /// Only packets of so many octets (28 to 9000: of the inner IPv4 packet), or imix (of twelve, seven of 64, four of
    /// 576, one of 1400).
    #[arg(long)]
    size: Option<Size>,
    /// Circuits between the edges, each with keys and labels of its own.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    circuits: u32,
    /// Routes at the edges, with lengths as in the Internet's table; as many as circuits if not given. With one circuit
    /// and one route, all packets go to one host.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    routes: Option<u32>,
    /// Also forward with so many workers at the same time, each on a CPU of its own, and compare with one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// For everything together, about; making the tables comes on top.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

impl Pipeline {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let routes = self.routes.unwrap_or(self.circuits);
        if routes < self.circuits {
            bail!(
                "--routes {routes} is too few for --circuits {0}: a route leads to one circuit, so some would have no \
                 packets; use --routes {0} or more",
                self.circuits
            );
        }
        let report = Report::measure(&Plan {
            provider: provider(&self.provider)?,
            suite: self.suite,
            roles: self.role.map_or(Role::ALL.to_vec(), |role| vec![role]),
            sizes: self.size.map_or(Size::ALL.to_vec(), |size| vec![size]),
            extent: Extent {
                workers: self.workers.into(),
                circuits: self.circuits,
                routes,
            },
            budget: Duration::from_secs(self.seconds),
            allocations: counting::allocations,
        })?;
        print(&report, self.json)?;
        if report.allocates() {
            eprintln!("the packet path allocates: it must not");
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    }
}
