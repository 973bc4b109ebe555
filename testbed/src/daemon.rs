//! A real daemon in a namespace of a lab.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use twinseal_lab::{Namespace, Process};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon that runs, and ends when this is dropped.
#[derive(Debug)]
pub struct Daemon {
    /// The process.
    pub process: Process,
    /// Its control socket.
    pub socket: PathBuf,
}

impl Daemon {
    /// Runs `program` as the node `name` in `namespace`, with its files in `folder` and these `lines` of configuration
    /// beside what it needs. It is ready, and has no tables but those that the folder keeps.
    ///
    /// # Errors
    /// When it does not start; with its log.
    pub fn start(
        program: &Path,
        name: &str,
        namespace: &Namespace,
        folder: &Path,
        lines: &str,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let socket = folder.join("control.sock");
        let config = folder.join("twinseal.toml");
        let state = folder.join("state");
        let text = format!(
            "state_dir = {state:?}\nnode.name = {name:?}\ncontrol.socket = {socket:?}\n{lines}\n"
        );
        std::fs::write(&config, text)?;
        if !state.exists() {
            twinseal_node::state_dir::init(&state, false)?;
        }
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(&config);
        let mut process = namespace.spawn(command)?;
        process
            .wait_for_log("is ready on", PATIENCE)
            .with_context(|| format!("{name} did not start:\n{}", process.log_text()))?;
        Ok(Self { process, socket })
    }
}
