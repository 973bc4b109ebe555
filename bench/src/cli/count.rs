//! `twinseal-bench count`: what `ci/bench-smoke` has callgrind count the instructions of.

use std::process::ExitCode;

use clap::Args;
use twinseal_bench::net::{Extent, Net};
use twinseal_bench::{Harness, ROUND, Role, Size};
use twinseal_crypto::Suite;

use super::provider;

/// One round of packets through the pipeline, in a function named `counted`; prints how many packets they are.
#[derive(Args)]
pub(crate) struct Count {
    /// Who seals.
    #[arg(long)]
    provider: String,
    /// The role.
    #[arg(long)]
    role: Role,
    /// Octets of the packets, or imix.
    #[arg(long)]
    size: Size,
}

impl Count {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let provider = provider(&self.provider)?;
        let mut net = Net::new(provider, Suite::Aes256Gcm, &Extent::default())?;
        let worker = &mut net.workers[0];
        let mut rig = Harness::new(&net.tables, worker, &net.routes, self.role, self.size, 0)?;
        rig.round(counted)?;
        println!("{ROUND}");
        Ok(ExitCode::SUCCESS)
    }
}

#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
    // Not to become a jump, which no tool sees as a call.
    std::hint::black_box(());
}
