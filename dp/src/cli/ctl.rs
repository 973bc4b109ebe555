//! `twinseal ctl`.

use std::process::ExitCode;

/// Options of `twinseal ctl`.
#[derive(Clone, Debug, clap::Args)]
pub struct CtlArgs {}

/// Runs it.
///
/// # Errors
/// Not yet built.
pub fn run(_args: CtlArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
