//! `twinseal ctl watch`.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;
use clap::ValueEnum;
use twinseal_api::v1;

use super::output::Output;
use crate::client::Client;
use crate::{client, print};
use twinseal_model::json::json;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct WatchArgs {
    // JSON is as docs/events.md describes it.
    #[command(flatten)]
    output: Output,
    /// Only these kinds; several by commas.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND")]
    kinds: Vec<Kind>,
    /// Begin with this event, if the node still has it; 1: with the oldest that it has.
    #[arg(long, value_name = "SEQUENCE")]
    from: Option<u64>,
    /// The `boot` of the event that was seen last: tells if the node restarted since.
    #[arg(long, value_name = "BOOT", requires = "from")]
    boot: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Fault,
    Configuration,
    Accounting,
    Performance,
    Security,
}

impl Kind {
    fn number(self) -> i32 {
        match self {
            Self::Fault => v1::EventKind::Fault,
            Self::Configuration => v1::EventKind::Configuration,
            Self::Accounting => v1::EventKind::Accounting,
            Self::Performance => v1::EventKind::Performance,
            Self::Security => v1::EventKind::Security,
        }
        .into()
    }
}

/// Prints events until the node goes away, which is a failure: whoever watches wants to know.
pub(super) async fn run(mut client: Client, args: WatchArgs) -> anyhow::Result<ExitCode> {
    let request = v1::WatchRequest {
        kinds: args.kinds.iter().map(|kind| kind.number()).collect(),
        from_sequence: args.from,
        boot: args.boot.unwrap_or(0),
    };
    let response = client
        .watch(request)
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
        match args.output.table() {
            true => writeln!(out, "{}", print::event(&event))?,
            false => args.output.one(&mut out, &json(&event))?,
        }
    }
    bail!("the node closed the stream: it has stopped")
}
