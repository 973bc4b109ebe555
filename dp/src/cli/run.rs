//! `twinseal run`.

use std::path::PathBuf;
use std::process::ExitCode;

/// Options of `twinseal run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// The node's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and do nothing.
    #[arg(long)]
    check: bool,
}

/// Runs it.
///
/// # Errors
/// Not yet built.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let config = crate::config::Config::load(&args.config)?;
    anyhow::bail!("not built yet: {} {}", config.name, args.check)
}
