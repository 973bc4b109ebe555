//! `twinseal-bench seal`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use twinseal_bench::seal::{SealReport, TEXTS};
use twinseal_crypto::Suite;

use super::print;

/// Sealing and opening alone, once and twice over the same octets: all providers in turn, in one run.
#[derive(Args)]
pub(crate) struct Seal {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Only this suite: aes-256-gcm, aes-128-gcm or chacha20-poly1305.
    #[arg(long)]
    suite: Option<Suite>,
    /// Only packets of so many octets.
    #[arg(long, value_parser = clap::value_parser!(u16).range(0..=9000))]
    size: Option<u16>,
    /// Packets a call.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
    /// Keys of circuits, and as many of links, that the packets are drawn from at random; else each has its own.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    keys: Option<u32>,
    /// For everything together.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

impl Seal {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let report = SealReport::measure(
            &self.suite.map_or(Suite::ALL.to_vec(), |suite| vec![suite]),
            &self.size.map_or(TEXTS.to_vec(), |size| vec![size.into()]),
            self.batch.into(),
            self.keys.map_or(self.batch.into(), |keys| keys as usize),
            Duration::from_secs(self.seconds),
        )?;
        print(&report, self.json)?;
        Ok(ExitCode::SUCCESS)
    }
}
