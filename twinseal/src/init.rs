//! `twinseal init`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::Config;

/// Options of `twinseal init`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// Of the node with this configuration.
    #[arg(long, value_name = "FILE", required_unless_present = "state_dir")]
    config: Option<PathBuf>,
    /// This directory.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    state_dir: Option<PathBuf>,
    /// I have replaced all secrets of this node: forget that its memory of used ones was lost.
    #[arg(long)]
    secrets_replaced: bool,
}

/// Makes and marks a node's state directory, before its first start, by the user that the node will run as.
///
/// # Errors
/// If it was initialised before, or cannot be made; the message says what to do.
pub(crate) fn run(args: InitArgs) -> anyhow::Result<ExitCode> {
    let path = match (args.state_dir, args.config) {
        (Some(path), _) => path,
        (None, Some(config)) => Config::load(&config)?.state_dir,
        (None, None) => anyhow::bail!("give --config or --state-dir"),
    };
    twinseal_node::state_dir::init(&path, args.secrets_replaced)
        .map_err(|error| anyhow::anyhow!("{error}: {}", error.fix()))?;
    writeln!(io::stdout(), "{} is initialised", path.display())?;
    Ok(ExitCode::SUCCESS)
}
