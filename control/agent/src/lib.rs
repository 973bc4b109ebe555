//! `twinseal agent`: takes a node's desired state from a store and applies it over the control API, as any controller
//! would.
//!
//! [`args`] is the command line and [`etcd`] the loop; [`desired`] is what the store holds, pure; [`node`] is the node's end; [`status`] is what is
//! written back.

#![forbid(unsafe_code)]

mod args;
mod desired;
mod etcd;
mod node;
mod status;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Options of `twinseal agent`.
#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    #[command(subcommand)]
    store: Store,
}

#[derive(Clone, Debug, Subcommand)]
enum Store {
    /// Follow the node's state under an etcd prefix until SIGINT or SIGTERM.
    ///
    /// Keys of etcd: PREFIX/state/NODE/... and PREFIX/keys/NODE/... hold state files, any number of them, which together
    /// are the node's desired state; PREFIX/status/NODE is what became of it. docs/etcd.md has the rest.
    ///
    /// With etcd on this machine:
    ///
    ///   twinseal agent etcd --endpoints http://127.0.0.1:2379 --node a
    ///
    ///   etcdctl put /twinseal/state/a/base 'vrfs: [{name: red}]'
    ///
    ///   etcdctl get /twinseal/status/a --print-value-only
    Etcd(args::EtcdArgs),
}

/// Runs it.
///
/// # Errors
/// If it cannot start. Afterwards it goes on whatever happens to etcd or the node.
pub fn run(args: AgentArgs) -> anyhow::Result<ExitCode> {
    match args.store {
        Store::Etcd(args) => etcd::run(args),
    }
}
