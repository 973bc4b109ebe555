//! `twinseal genkey`.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use twinseal_crypto::SECRET_LEN;
use zeroize::Zeroizing;

/// Prints a new secret in base64, as `secret` and `secret_file` of a state file take it.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let mut secret = Zeroizing::new([0; SECRET_LEN]);
    twinseal_base::random(secret.as_mut())?;
    let mut line = Zeroizing::new(STANDARD.encode(secret.as_ref()));
    line.push('\n');
    io::stdout()
        .write_all(line.as_bytes())
        .context("standard output")?;
    Ok(ExitCode::SUCCESS)
}
