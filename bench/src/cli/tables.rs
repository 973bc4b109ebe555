//! `twinseal-bench tables`.

use std::process::ExitCode;

use clap::Args;
use twinseal_bench::tables::{Sizes, TablesReport};

use super::print;
use crate::counting;

/// Routing tables: lookups, updates and memory, ours beside poptrie, prefix-trie and treebitmap.
#[derive(Args)]
pub(crate) struct Tables {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// IPv4 routes.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    v4: u32,
    /// IPv6 routes.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    v6: u32,
    /// Besides one VRF, measure with the routes spread over so many.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    vrfs: u32,
    /// How often each measurement is made.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

impl Tables {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let sizes = Sizes {
            v4: self.v4 as usize,
            v6: self.v6 as usize,
            vrfs: self.vrfs,
            rounds: self.rounds as usize,
        };
        print(&TablesReport::measure(sizes, counting::live), self.json)?;
        Ok(ExitCode::SUCCESS)
    }
}
