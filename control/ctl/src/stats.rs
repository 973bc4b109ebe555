//! `twinseal ctl stats`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use twinseal_api::v1;

use super::output::Output;
use crate::client::Client;
use crate::{client, print};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct StatsArgs {
    #[command(flatten)]
    output: Output,
    /// Print again every SECS seconds: rates, or as JSON or YAML the counters.
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..=86400))]
    watch: Option<u64>,
}

pub(super) async fn run(mut client: Client, args: &StatsArgs) -> anyhow::Result<ExitCode> {
    let mut before = read(&mut client).await?;
    let Some(seconds) = args.watch else {
        let mut out = io::stdout().lock();
        if !args.output.table() {
            args.output.whole(&mut out, &print::stats_json(&before.1))?;
        } else {
            print::stats(&mut out, &before.1)?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let mut ticks = tokio::time::interval(Duration::from_secs(seconds));
    ticks.tick().await;
    loop {
        if !args.output.table() {
            let stats = print::stats_json(&before.1);
            args.output.one(&mut io::stdout(), &stats)?;
        }
        ticks.tick().await;
        let now = read(&mut client).await?;
        if args.output.table() {
            let elapsed = now.0 - before.0;
            let mut out = io::stdout().lock();
            writeln!(out, "per second, over {:.1} s", elapsed.as_secs_f64())?;
            if now.1.boot != before.1.boot {
                writeln!(out, "the node has started anew: all counters began at zero")?;
                before.1 = v1::StatsResponse::default();
            }
            print::stats(&mut out, &print::rates(&now.1, &before.1, elapsed))?;
            writeln!(out)?;
        }
        before = now;
    }
}

async fn read(client: &mut Client) -> anyhow::Result<(Instant, v1::StatsResponse)> {
    let counters = client.counters().await.map_err(client::advise)?;
    Ok((Instant::now(), counters))
}
