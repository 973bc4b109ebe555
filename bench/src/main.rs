//! `twinseal-bench`: what the pipeline, and sealing alone, cost a packet.

mod counting;

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use twinseal_bench::seal::{SealReport, TEXTS};
use twinseal_bench::{Report, Role, SIZES};
use twinseal_crypto::{DEFAULT_PROVIDER, Suite, provider};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Benchmarks of Twinseal.
#[derive(Parser)]
#[command(name = "twinseal-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The pipeline in memory: nanoseconds a packet as ingress, transit and egress, and the share of the AEAD.
    ///
    /// Exit status 1 if a packet was dropped or anything was allocated on a packet's way.
    Pipeline(Pipeline),
    /// Sealing and opening alone, once and twice over the same octets: all providers in turn, in one run.
    Seal(Seal),
}

#[derive(Args)]
struct Pipeline {
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

#[derive(Args)]
struct Seal {
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
    /// For everything together.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Pipeline(args) => pipeline(&args),
        Command::Seal(args) => seal(&args),
    }
}

fn pipeline(args: &Pipeline) -> anyhow::Result<ExitCode> {
    let report = Report::measure(
        provider(&args.provider)?,
        args.suite,
        &args.role.map_or(Role::ALL.to_vec(), |role| vec![role]),
        &args.size.map_or(SIZES.to_vec(), |size| vec![size.into()]),
        Duration::from_secs(args.seconds),
        counting::allocations,
    )?;
    print(&report, args.json)?;
    if report.allocations_a_packet > 0.0 {
        eprintln!("the packet path allocates: it must not");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn seal(args: &Seal) -> anyhow::Result<ExitCode> {
    let report = SealReport::measure(
        &args.suite.map_or(Suite::ALL.to_vec(), |suite| vec![suite]),
        &args.size.map_or(TEXTS.to_vec(), |size| vec![size.into()]),
        args.batch.into(),
        Duration::from_secs(args.seconds),
    )?;
    print(&report, args.json)?;
    Ok(ExitCode::SUCCESS)
}

fn print(report: &(impl Serialize + Display), json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}
