//! `twinseal ctl usage`.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;
use serde_json::Value;
use twinseal_api::v1;

use super::output::Output;
use crate::client;
use crate::client::Client;
use twinseal_base::time::rfc3339;
use twinseal_model::json::usage_record;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct UsageArgs {
    // JSON has the fields of usage events.
    #[command(flatten)]
    output: Output,
    /// Only this circuit; may be given several times.
    #[arg(long, value_name = "NAME")]
    circuit: Vec<String>,
    /// Minutes that begin at this time or later, in seconds since 1970.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    from: u64,
    /// Minutes that begin before this time.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 0,
        hide_default_value = true
    )]
    until: u64,
    /// Leave the running minute out.
    #[arg(long)]
    closed: bool,
    /// One line a circuit: sums over all its minutes.
    #[arg(long)]
    sum: bool,
}

pub(super) async fn run(mut client: Client, args: UsageArgs) -> anyhow::Result<ExitCode> {
    let mut unseen: BTreeSet<_> = args.circuit.iter().cloned().collect();
    let request = v1::UsageRequest {
        circuits: args.circuit,
        from_unix: args.from,
        until_unix: args.until,
        closed_only: args.closed,
    };
    let response = client
        .usage(request)
        .await
        .map_err(|status| client::explain(&status))?;
    let mut stream = response.into_inner();
    let mut sums = std::collections::BTreeMap::<String, v1::UsageRecord>::new();
    if args.output.table() {
        writeln!(io::stdout(), "{}", HEAD)?;
    }
    while let Some(record) = stream
        .message()
        .await
        .map_err(|status| client::explain(&status))?
    {
        unseen.remove(&record.circuit);
        if args.sum {
            let sum = sums.entry(record.circuit.clone()).or_default();
            add(sum, &record);
        } else {
            print(args.output, &record)?;
        }
    }
    for sum in sums.values() {
        print(args.output, sum)?;
    }
    // One that was deleted has its records still, and one that is there may have none in that time.
    if !unseen.is_empty() {
        forget_existing(&mut client, &mut unseen).await?;
    }
    if let Some(name) = unseen.first() {
        bail!("there is no circuit {name:?}, and no usage of one that was in that time");
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes the circuits that there are out of these.
async fn forget_existing(client: &mut Client, names: &mut BTreeSet<String>) -> anyhow::Result<()> {
    let parts = client.list_stats(v1::StatsRequest {}).await;
    let mut parts = parts
        .map_err(|status| client::explain(&status))?
        .into_inner();
    while let Some(part) = parts
        .message()
        .await
        .map_err(|status| client::explain(&status))?
    {
        for circuit in part.circuits {
            names.remove(&circuit.name);
        }
    }
    Ok(())
}

fn print(output: Output, record: &v1::UsageRecord) -> io::Result<()> {
    let mut out = io::stdout();
    match output.table() {
        true => writeln!(out, "{}", line(record)),
        false => output.one(&mut out, &Value::Object(usage_record(record))),
    }
}

const HEAD: &str = "FROM                 CIRCUIT              SENT PACKETS       SENT BYTES    RECV PACKETS       RECV BYTES  DROPS";

/// Adds a record to a sum, which begins when its first record does.
fn add(sum: &mut v1::UsageRecord, record: &v1::UsageRecord) {
    if sum.circuit.is_empty() {
        *sum = record.clone();
        return;
    }
    sum.interval_start_unix = sum.interval_start_unix.min(record.interval_start_unix);
    sum.sent_packets += record.sent_packets;
    sum.sent_bytes += record.sent_bytes;
    sum.received_packets += record.received_packets;
    sum.received_bytes += record.received_bytes;
    for drops in &record.drops {
        match sum.drops.iter_mut().find(|it| it.name == drops.name) {
            Some(it) => it.value += drops.value,
            None => sum.drops.push(drops.clone()),
        }
    }
}

fn line(it: &v1::UsageRecord) -> String {
    let mut from = rfc3339(it.interval_start_unix.saturating_mul(1_000_000_000));
    from.truncate("2026-11-20T14:40:00".len());
    let drops: Vec<_> = it
        .drops
        .iter()
        .map(|drops| format!("{} {}", drops.name, drops.value))
        .collect();
    let line = format!(
        "{from}Z {:<20} {:>12} {:>16} {:>15} {:>16}  {}",
        it.circuit,
        it.sent_packets,
        it.sent_bytes,
        it.received_packets,
        it.received_bytes,
        drops.join(", ")
    );
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_add_up_and_lines_are_aligned() {
        let record = |start, sent, drops: &[(&str, u64)]| v1::UsageRecord {
            interval_start_unix: start,
            circuit: "c".into(),
            sent_packets: sent,
            drops: drops
                .iter()
                .map(|(name, value)| v1::Counter {
                    name: (*name).to_owned(),
                    value: *value,
                })
                .collect(),
            ..Default::default()
        };
        let mut sum = v1::UsageRecord::default();
        add(&mut sum, &record(120, 3, &[("a", 1)]));
        add(&mut sum, &record(60, 4, &[("a", 2), ("b", 1)]));
        assert_eq!(sum, record(60, 7, &[("a", 3), ("b", 1)]));
        let column = HEAD.find("SENT PACKETS").expect("it is there") + "SENT PACKETS".len();
        let line = line(&sum);
        assert_eq!(&line[..column], format!("1970-01-01T00:01:00Z c{:>32}", 7));
        assert!(line.ends_with("a 3, b 1"), "{line}");
    }
}
