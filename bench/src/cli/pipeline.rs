//! `twinseal-bench pipeline`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use twinseal_bench::{Report, Role, SIZES};
use twinseal_crypto::{DEFAULT_PROVIDER, Suite, provider};

use super::print;
use crate::counting;

/// The pipeline in memory: nanoseconds a packet as ingress, transit and egress, and the share of the AEAD.
///
/// Exit status 1 if a packet was dropped or anything was allocated on a packet's way.
#[derive(Args)]
pub(crate) struct Pipeline {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Who seals: aws-lc-rs, ring or twinseal.
    #[arg(long, default_value = DEFAULT_PROVIDER)]
    provider: String,
    /// aes-256-gcm, aes-128-gcm or chacha20-poly1305.
    #[arg(long, default_value_t = Suite::Aes256Gcm)]
    suite: Suite,
    /// Only this role: ingress, transit or egress.
    #[arg(long)]
    role: Option<Role>,
    /// Only packets of so many octets.
    #[arg(long, value_parser = clap::value_parser!(u16).range(28..=1408))]
    size: Option<u16>,
    /// For everything together.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

impl Pipeline {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let report = Report::measure(
            provider(&self.provider)?,
            self.suite,
            &self.role.map_or(Role::ALL.to_vec(), |role| vec![role]),
            &self.size.map_or(SIZES.to_vec(), |size| vec![size.into()]),
            Duration::from_secs(self.seconds),
            counting::allocations,
        )?;
        print(&report, self.json)?;
        if report.allocations_a_packet > 0.0 {
            eprintln!("the packet path allocates: it must not");
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    }
}
