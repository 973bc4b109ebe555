//! `twinseal ctl watch`.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;
use twinseal_api::v1;

use crate::cli::client::{self, Client};
use crate::cli::print;

/// Prints events until the node goes away, which is a failure: whoever watches wants to know.
pub(super) async fn run(mut client: Client, json: bool) -> anyhow::Result<ExitCode> {
    let response = client
        .watch(v1::WatchRequest {})
        .await
        .map_err(|status| client::explain(&status))?;
    tracing::info!("watching");
    let mut stream = response.into_inner();
    while let Some(event) = stream
        .message()
        .await
        .map_err(|status| client::explain(&status))?
    {
        // Not locked across the wait; a line of standard output leaves with its end.
        let mut out = io::stdout();
        if json {
            writeln!(out, "{}", print::event_json(&event))?;
        } else {
            writeln!(out, "{}", print::event(&event))?;
        }
    }
    bail!("the node closed the stream: it has stopped")
}
