//! `twinseal run`: the daemon.

mod notify;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::oneshot;

use crate::config::Config;
use twinseal_access::Access;
use twinseal_base::{forbid_dumps, signals};
use twinseal_node::jsonl::Reopen;
use twinseal_server::{NodeConfig, SocketConfig};

/// Options of `twinseal run`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The node's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and do nothing.
    #[arg(long)]
    check: bool,
}

/// Files that a node may have open, if its hard limit allows it: connections and sockets of queues never come near.
const OPEN_FILES: u64 = 8192;

/// Raises the soft limit, which shells and service managers keep low for programs that use `select`.
fn more_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit
        .maximum
        .map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    if limit.current.is_some_and(|now| now < wanted) {
        limit.current = Some(wanted);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(%error, "the limit of open files stays");
        }
    }
}

/// Runs a node until SIGINT or SIGTERM. The first of them stops it in order, the second at once.
///
/// # Errors
/// If the configuration is wrong or the node cannot start; the message says what to do.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config)?;
    if args.check {
        writeln!(io::stdout(), "{} is right", args.config.display())?;
        return Ok(ExitCode::SUCCESS);
    }
    if !config.allow_core_dumps {
        forbid_dumps()
            .context("cannot switch core dumps off; node.allow_core_dumps = true goes without")?;
    }
    more_open_files();
    let name = config.name.clone();
    let socket = config.socket.clone();
    let reopen = Reopen::default();
    // Certificates may be readable by root alone, and mistakes in them are told now.
    let access = Access::new(config.access.clone())?;
    let hangup = {
        let (reopen, access, path) = (reopen.clone(), access.clone(), args.config.clone());
        move || {
            reopen.ask();
            reload(&path, &access);
        }
    };
    let stop = signals::watch(hangup).context("cannot take signals")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control thread's runtime")?;
    let (ready, is_ready) = oneshot::channel();
    runtime.block_on(async {
        let shutdown = async {
            // The watcher keeps its end open until a signal comes.
            let signal = stop.await.unwrap_or("the signal watcher's end");
            tracing::info!("{signal}: stopping");
            notify::send("STOPPING=1");
        };
        let announce = async {
            if is_ready.await.is_ok() {
                eprintln!("twinseal: node {name} is ready on {}", socket.display());
                notify::send("READY=1");
            }
        };
        let node = twinseal_server::run(node_config(config, access, reopen), shutdown, Some(ready));
        tokio::join!(node, announce).0
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Takes who may do what from the file again: lists, certificates, keys and limits. The rest needs a restart.
fn reload(path: &Path, access: &Access) {
    let reloaded = Config::load(path)
        .map_err(anyhow::Error::from)
        .and_then(|config| Ok(access.reload(config.access)?));
    match reloaded {
        Ok(()) => tracing::info!("SIGHUP: who may do what is as the configuration says now"),
        Err(error) => tracing::error!("SIGHUP: who may do what stays as it was: {error}"),
    }
}

fn node_config(config: Config, access: Access, reopen: Reopen) -> NodeConfig {
    NodeConfig {
        name: config.name,
        socket: SocketConfig {
            path: config.socket,
            mode: config.socket_mode,
            access,
        },
        state_dir: config.state_dir,
        keep_tables: config.keep_tables,
        provider: config.provider,
        window_bits: config.window_bits,
        lane_limit: config.lane_limit,
        key_limits: config.key_limits,
        pool: config.pool,
        events: config.events,
        usage: config.usage,
        audit: config.audit,
        reopen,
    }
}
