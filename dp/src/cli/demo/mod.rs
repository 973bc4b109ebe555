//! `twinseal demo`: the whole path in one command.

mod args;

use std::process::ExitCode;

pub use args::DemoArgs;

/// Runs it.
///
/// # Errors
/// Always, until it is built.
pub fn run(_args: DemoArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
