//! `twinseal-bench`: what the parts of Twinseal cost, each subcommand in a module of its own.

mod cli;
mod counting;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    Compare(cli::compare::Compare),
    L2fwd(cli::l2fwd::L2fwd),
    #[command(hide = true)]
    Count(cli::count::Count),
    Load(cli::load::Load),
    Pipeline(cli::pipeline::Pipeline),
    Rfc2544(cli::rfc2544::Rfc2544),
    Report(cli::report::Report),
    Seal(cli::seal::Seal),
    Soak(cli::soak::Soak),
    Tables(cli::tables::Tables),
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Compare(args) => args.run(),
        Command::L2fwd(args) => args.run(),
        Command::Count(args) => args.run(),
        Command::Load(args) => args.run(),
        Command::Pipeline(args) => args.run(),
        Command::Rfc2544(args) => args.run(),
        Command::Report(args) => args.run(),
        Command::Seal(args) => args.run(),
        Command::Soak(args) => args.run(),
        Command::Tables(args) => args.run(),
    }
}
