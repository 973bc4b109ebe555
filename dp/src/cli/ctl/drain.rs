//! `twinseal ctl drain` and `undrain`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use twinseal_api::v1::{self, drain_target::Target as Of};

use super::client::{self, Client, Target};
use crate::cli::print;

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
    for target in &targets {
        writeln!(io::stdout(), "{} drains", print::drain_name(Some(target)))?;
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
            look(seen, of.packets, now, &name)?;
        }
        let over = |seen: &Option<Seen>| {
            seen.as_ref()
                .is_some_and(|seen| now.duration_since(seen.changed) >= quiet)
        };
        for (target, _) in left.extract_if(.., |(_, seen)| over(seen)) {
            let name = print::drain_name(Some(&target));
            writeln!(io::stdout(), "{name}: no packet for {} s", args.quiet)?;
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

/// Notes what has passed, and tells how much it is in a second.
fn look(seen: &mut Option<Seen>, packets: u64, now: Instant, name: &str) -> io::Result<()> {
    let Some(before) = seen else {
        *seen = Some(Seen {
            packets,
            changed: now,
            looked: now,
        });
        return Ok(());
    };
    if packets != before.packets {
        // Of what was deleted meanwhile nothing is counted any more.
        let passed = packets.saturating_sub(before.packets) as f64;
        let rate = passed / now.duration_since(before.looked).as_secs_f64();
        writeln!(io::stdout(), "{name}: {rate:.0} packets a second left")?;
        (before.packets, before.changed) = (packets, now);
    }
    before.looked = now;
    Ok(())
}

/// Takes back into service.
pub(super) async fn undrain(target: Target, scopes: Scopes) -> anyhow::Result<ExitCode> {
    let mut client = target.connect().await?;
    let targets = scopes.targets();
    let left = ask(&mut client, targets.clone(), true).await?;
    let mut out = io::stdout().lock();
    for target in &targets {
        writeln!(out, "{} is in service", print::drain_name(Some(target)))?;
    }
    for drain in left {
        writeln!(
            out,
            "{} still drains",
            print::drain_name(drain.target.as_ref())
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
