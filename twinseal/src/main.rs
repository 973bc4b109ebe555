//! The `twinseal` program. The command line: `twinseal run`, `init`, `ctl`, `agent`, `demo`, `genkey` and `completions`.
//!
//! Exit statuses: 0 it worked, 1 it failed (the reason is on stderr), 2 the command line was wrong; 3 `demo` could not
//! measure.

#![forbid(unsafe_code)]

mod config;
mod demo;
#[cfg(test)]
mod docs;
mod genkey;
mod init;
mod run;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use twinseal_agent as agent;
use twinseal_ctl as ctl;

/// Secrets pass through buffers of libraries that do not wipe them.
#[global_allocator]
static ALLOCATOR: twinseal_crypto::Wiping = twinseal_crypto::Wiping;

/// The heading of options that every command takes: they do not stand between a command's own.
const GLOBAL: &str = "Global options";

/// An encrypted overlay router: packets sealed end to end and hop by hop, at the speed of the wire.
#[derive(Debug, Parser)]
#[command(name = "twinseal", version)]
struct Args {
    /// What to log: error, warn, info, debug, trace, or a filter [env: TWINSEAL_LOG].
    #[arg(long, global = true, value_name = "FILTER", help_heading = GLOBAL)]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until SIGINT or SIGTERM.
    Run(run::RunArgs),
    /// Make a node's state directory, once, before its first start.
    Init(init::InitArgs),
    /// Control a running node over its socket.
    Ctl(ctl::CtlArgs),
    /// Bring a node to the desired state that a store has, and keep it there.
    Agent(agent::AgentArgs),
    /// Show the whole path in one command.
    Demo(demo::DemoArgs),
    /// Print a new secret for a key: 32 random octets in base64.
    Genkey,
    /// Print what completes command lines in a shell: `source <(twinseal completions bash)`.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = start_log(&args).and_then(|()| match args.command {
        Command::Run(args) => run::run(&args),
        Command::Init(args) => init::run(args),
        Command::Ctl(args) => ctl::run(args),
        Command::Agent(args) => agent::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Genkey => genkey::run(),
        Command::Completions { shell } => completions(shell),
    });
    match result {
        Ok(status) => status,
        // `twinseal ctl get | head` is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("twinseal: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, each told once: some say theirs themselves.
fn with_causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
    }
    text
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "twinseal", &mut script);
    io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

fn start_log(args: &Args) -> anyhow::Result<()> {
    let default = if matches!(args.command, Command::Run(_) | Command::Agent(_)) {
        "info"
    } else {
        "warn"
    };
    let (from, filter) = match (&args.log, std::env::var("TWINSEAL_LOG")) {
        (Some(filter), _) => ("--log", filter.clone()),
        (None, Ok(filter)) => ("TWINSEAL_LOG", filter),
        (None, Err(_)) => ("--log", default.to_owned()),
    };
    let filter = EnvFilter::builder().parse(&filter).map_err(|error| {
        anyhow::anyhow!(
            "{from}: {filter:?} is no log filter: {error}; use error, warn, info, debug or trace"
        )
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .init();
    Ok(())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
