//! `twinseal ctl`: a client of the control API and nothing else.

#![forbid(unsafe_code)]

mod apply;
pub mod client;
mod confirm;
mod drain;
mod events;
mod output;
mod pcapng;
mod ping;
pub mod print;
mod stats;
mod taps;
mod usage;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;
use twinseal_api::v1;
use twinseal_model::owners;

use self::output::Output;
use crate::client::{Client, Target};

/// Options of `twinseal ctl`.
#[derive(Clone, Debug, Args)]
pub struct CtlArgs {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Apply a state file as one transaction: whole or not at all.
    Apply(apply::ApplyArgs),
    /// Make an owner's items what a state file says: what is not in the file is deleted, what is equal stays untouched.
    Replace(apply::ReplaceArgs),
    /// Make a transaction stay that was applied with --confirm-within.
    Confirm(confirm::PendingArgs),
    /// Take such a transaction back before its time.
    Rollback(confirm::PendingArgs),
    /// Take the node, links or ports out of service without loss: they forward what is there and take nothing new.
    Drain(drain::DrainArgs),
    /// Take them back into service.
    Undrain(drain::UndrainArgs),
    /// Tell what the node does with packets as they pass. Never a key, never an octet of a payload.
    Trace(taps::TraceArgs),
    /// Copy the frames of a port as they are on the wire: on an edge port in plaintext. The node's audit log has it.
    Capture(taps::CaptureArgs),
    /// Ask the other end of a link or circuit for echoes, and tell round-trip times and loss.
    Ping(ping::PingArgs),
    /// Tell where a packet would be led by the tables of this moment.
    Explain(taps::ExplainArgs),
    /// Print the desired state as a state file, and what became of it as comments in it.
    Get(GetArgs),
    /// Print all counters.
    Stats(stats::StatsArgs),
    /// Print events, a line each.
    Watch(events::WatchArgs),
    /// Print what circuits carried, minute by minute.
    Usage(usage::UsageArgs),
}

#[derive(Clone, Debug, Args)]
struct GetArgs {
    /// Only this owner's items, in a form that `apply --owner` takes.
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Runs it.
///
/// # Errors
/// If the node cannot be reached or went away. A refused transaction is told on stderr, with status 1.
pub fn run(args: CtlArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(async {
        match args.command {
            Command::Apply(apply) => apply::apply(args.target, apply).await,
            Command::Replace(replace) => apply::replace(args.target, replace).await,
            Command::Confirm(confirm) => confirm::confirm(args.target, confirm).await,
            Command::Rollback(rollback) => confirm::rollback(args.target, rollback).await,
            Command::Drain(drain) => drain::drain(args.target, drain).await,
            Command::Undrain(undrain) => drain::undrain(args.target, undrain).await,
            Command::Trace(trace) => taps::trace(args.target.connect().await?, trace).await,
            Command::Capture(capture) => taps::capture(args.target.connect().await?, capture).await,
            Command::Ping(ping) => ping::ping(args.target.connect().await?, ping).await,
            Command::Explain(explain) => taps::explain(args.target.connect().await?, explain).await,
            Command::Get(options) => get(args.target.connect().await?, options).await,
            Command::Stats(stats) => stats::run(args.target.connect().await?, &stats).await,
            Command::Watch(watch) => events::run(args.target.connect().await?, watch).await,
            Command::Usage(usage) => usage::run(args.target.connect().await?, usage).await,
        }
    })
}

/// Keeps an owner's items, in a form that can be given back for any.
fn keep_owned(items: &mut Vec<v1::Item>, owner: &str) {
    items.retain(|item| owners::shown(&item.owner) == owners::shown(owner));
    for item in items {
        item.owner.clear();
    }
}

async fn get(mut client: Client, options: GetArgs) -> anyhow::Result<ExitCode> {
    let GetArgs { owner, output } = options;
    let mut got = client.state().await.map_err(client::advise)?;
    if let Some(owner) = owner {
        keep_owned(&mut got.items, &owner);
    }
    let mut out = io::stdout().lock();
    if !output.table() {
        let state = twinseal_statefile::json(&got.items)?;
        let all = json!({
            "node": got.node,
            "version": got.version,
            "generation": got.generation,
            "workers": got.workers,
            "provider": got.provider,
            "memory": got.memory,
            "restoring": got.restoring,
            "rollback_incomplete": got.rollback_incomplete,
            "warnings": got.warnings,
            "secrets_refused": got.secrets_refused,
            "tables_not_stored": got.tables_not_stored,
            "stored_tables_damaged": got.stored_tables_damaged,
            "pending": got.pending.map(|it| json!({
                "generation": it.generation,
                "until_unix_nanos": it.until_unix_nanos,
            })),
            "owners": got.owners.iter().map(print::owner_json).collect::<Vec<_>>(),
            "drains": got.drains.iter().map(print::drain_json).collect::<Vec<_>>(),
            "state": state,
            "ports": got.ports.iter().map(print::port_json).collect::<Vec<_>>(),
            "links": got.links.iter().map(print::link_json).collect::<Vec<_>>(),
            "keys": got.keys.iter().map(print::key_json).collect::<Vec<_>>(),
            "neighbours": got.neighbours.iter().map(print::neighbour_json).collect::<Vec<_>>(),
        });
        output.whole(&mut out, &all)?;
    } else {
        print::outcome(&mut out, &got)?;
        if !got.items.is_empty() {
            write!(out, "{}", twinseal_statefile::render(&got.items))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_has_its_own_items() {
        let vrf = |name: &str, owner: &str| v1::Item {
            item: Some(v1::item::Item::Vrf(v1::Vrf { name: name.into() })),
            owner: owner.into(),
        };
        for (owner, name) in [("bgp", "a"), ("", "b"), ("controller", "b")] {
            let mut items = vec![vrf("a", "bgp"), vrf("b", ""), vrf("c", "etcd")];
            keep_owned(&mut items, owner);
            assert_eq!(items, [vrf(name, "")]);
        }
    }
}
