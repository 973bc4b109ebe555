//! `twinseal ctl drain` and `undrain`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use twinseal_api::v1::{self, drain_target::Target as Of};

use super::client::{self, Client, Target};
use super::output::Output;
use crate::print;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Scopes {
    /// Only this link; may be given several times.
    #[arg(long, value_name = "NAME")]
    link: Vec<String>,
    /// Only this port, with all links on it; may be given several times.
    #[arg(long, value_name = "NAME")]
    port: Vec<String>,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    scopes: Scopes,
    /// Wait until nothing passes any more; status 1 if something still does after --timeout.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "SECS", default_value_t = 300, requires = "wait", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// For how long nothing must have passed.
    #[arg(long, value_name = "SECS", default_value_t = 3, requires = "wait", value_parser = clap::value_parser!(u64).range(1..=3600))]
    quiet: u64,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct UndrainArgs {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    scopes: Scopes,
}

impl Scopes {
    fn targets(&self) -> Vec<v1::DrainTarget> {
        let links = self.link.iter().cloned().map(Of::Link);
        let ports = self.port.iter().cloned().map(Of::Port);
        let mut targets: Vec<_> = links.chain(ports).collect();
        if targets.is_empty() {
            targets.push(Of::Node(v1::WholeNode {}));
        }
        let targets = targets
            .into_iter()
            .map(|it| v1::DrainTarget { target: Some(it) });
        targets.collect()
    }
}

/// Takes out of service, and waits if that was asked for.
pub(super) async fn drain(target: Target, args: DrainArgs) -> anyhow::Result<ExitCode> {
    let mut client = target.connect().await?;
    let targets = args.scopes.targets();
    ask(&mut client, targets.clone(), false).await?;
    let say = |target: &v1::DrainTarget, state: &str, words: &str| {
        tell(args.output, Some(target), state, words)
    };
    for target in &targets {
        say(target, "draining", "drains")?;
    }
    if !args.wait {
        return Ok(ExitCode::SUCCESS);
    }
    let quiet = Duration::from_secs(args.quiet);
    let until = Instant::now() + Duration::from_secs(args.timeout);
    let mut left: Vec<_> = targets.into_iter().map(|it| (it, None)).collect();
    loop {
        let stats = first_counters(&mut client).await;
        let stats = stats.map_err(|status| client::explain(&status))?;
        let now = Instant::now();
        for (target, seen) in &mut left {
            let of = stats
                .drains
                .iter()
                .find(|it| it.target.as_ref() == Some(target));
            let name = print::drain_name(Some(target));
            let Some(of) = of else {
                anyhow::bail!("{name} drains no more: somebody ended it meanwhile");
            };
            if let Some(rate) = look(seen, of.packets, now) {
                let words = format!("{rate:.0} packets a second left");
                say(target, "passing", &format!(": {words}"))?;
            }
        }
        let over = |seen: &Option<Seen>| {
            seen.as_ref()
                .is_some_and(|seen| now.duration_since(seen.changed) >= quiet)
        };
        for (target, _) in left.extract_if(.., |(_, seen)| over(seen)) {
            say(
                &target,
                "quiet",
                &format!(": no packet for {} s", args.quiet),
            )?;
        }
        if left.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        if now >= until {
            let names: Vec<_> = left
                .iter()
                .map(|(it, _)| print::drain_name(Some(it)))
                .collect();
            anyhow::bail!(
                "packets still pass {} after {} s: see by `twinseal ctl trace` whose they are; it goes on draining",
                names.join(", "),
                args.timeout
            );
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// How many packets had passed when that last changed.
struct Seen {
    packets: u64,
    changed: Instant,
    looked: Instant,
}

/// How a target stands, in words for people.
fn tell(
    output: Output,
    target: Option<&v1::DrainTarget>,
    state: &str,
    words: &str,
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if !output.table() {
        return output.one(&mut out, &print::draining_json(target, state));
    }
    let name = print::drain_name(target);
    match words.starts_with(':') {
        true => writeln!(out, "{name}{words}"),
        false => writeln!(out, "{name} {words}"),
    }
}

/// Notes what has passed, and tells how much it is in a second, unless that is nothing.
fn look(seen: &mut Option<Seen>, packets: u64, now: Instant) -> Option<f64> {
    let Some(before) = seen else {
        *seen = Some(Seen {
            packets,
            changed: now,
            looked: now,
        });
        return None;
    };
    let mut rate = None;
    if packets != before.packets {
        // Of what was deleted meanwhile nothing is counted any more.
        let passed = packets.saturating_sub(before.packets) as f64;
        rate = Some(passed / now.duration_since(before.looked).as_secs_f64());
        (before.packets, before.changed) = (packets, now);
    }
    before.looked = now;
    rate
}

/// Takes back into service.
pub(super) async fn undrain(target: Target, args: UndrainArgs) -> anyhow::Result<ExitCode> {
    let mut client = target.connect().await?;
    let targets = args.scopes.targets();
    let left = ask(&mut client, targets.clone(), true).await?;
    for target in &targets {
        tell(args.output, Some(target), "in-service", "is in service")?;
    }
    for drain in left {
        tell(
            args.output,
            drain.target.as_ref(),
            "draining",
            "still drains",
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(
    client: &mut Client,
    targets: Vec<v1::DrainTarget>,
    active: bool,
) -> anyhow::Result<Vec<v1::DrainState>> {
    let answer = client.drain(v1::DrainRequest { targets, active }).await;
    Ok(answer
        .map_err(|status| client::explain(&status))?
        .into_inner()
        .drains)
}

/// All counters but those of each link and circuit, of which there may be many.
async fn first_counters(client: &mut Client) -> Result<v1::StatsResponse, tonic::Status> {
    let parts = client.list_stats(v1::StatsRequest {}).await?;
    let first = parts.into_inner().message().await?;
    Ok(first.unwrap_or_default())
}
