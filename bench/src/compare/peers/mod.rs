//! Who is compared: what each needs, and how it becomes the two gateways.
//!
//! A new one implements [`Peer`] in a file of its own and is listed in [`ALL`].

mod fastd;
mod kernel;
mod nebula;
mod openvpn;
mod twinseal;
mod wireguard;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use twinseal_lab::Process;

use super::Setup;
use super::network::Network;
use super::result::Counts;

/// Something that can be the two gateways.
pub(super) trait Peer: Sync {
    /// By which it is chosen.
    fn name(&self) -> &'static str;
    /// What it is and how it seals.
    fn about(&self) -> &'static str;
    /// How often it seals a packet.
    fn seals(&self) -> u8;
    /// Its version if it is installed here; else how to get it.
    fn version(&self, setup: &Setup) -> Result<String, String>;
    /// Queues that the gateways' devices need.
    fn queues(&self, _: &Setup) -> u32 {
        1
    }
    /// Makes both gateways of it. What it starts is kept in `running` even if it fails: its logs say why.
    fn start(&self, setup: &Setup, network: &Network, running: &mut Running) -> anyhow::Result<()>;
}

/// What makes a gateway's own account of packets.
pub(super) type Account = Box<dyn Fn() -> anyhow::Result<Counts>>;

/// The programs of a peer that run; they end with it.
#[derive(Default)]
pub(super) struct Running {
    processes: Vec<Process>,
    /// Reads what the gateways counted, if they can tell.
    pub(super) account: Option<Account>,
}

impl Running {
    /// Keeps a program, and gives it back to be watched.
    fn keep(&mut self, process: Process) -> &mut Process {
        self.processes.push(process);
        self.processes.last_mut().expect("just pushed")
    }

    /// The last lines of what each program said.
    pub(super) fn logs(&self) -> String {
        const LINES: usize = 20;
        let tail = |process: &Process| {
            let text = process.log_text();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(LINES)..].join("\n")
        };
        let logs: Vec<String> = self.processes.iter().map(tail).collect();
        logs.join("\n---\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // Asked first: some leave sockets or devices behind when they are killed.
            let _ = process.terminate(std::time::Duration::from_secs(2));
        }
    }
}

/// All of them, in the order of the report.
pub(super) const ALL: [&dyn Peer; 10] = [
    &kernel::Forwarding,
    &kernel::Vxlan,
    &twinseal::Twinseal,
    &wireguard::KERNEL,
    &wireguard::WIREGUARD_GO,
    &wireguard::BORINGTUN,
    &wireguard::GOTATUN,
    &nebula::Nebula,
    &openvpn::Openvpn,
    &fastd::Fastd,
];

/// Twinseal's own name among them.
pub(super) const OURS: &str = "twinseal";
/// The name of plain forwarding, which all others are a part of.
pub(super) const KERNEL: &str = "kernel";

/// Where a program is, by the PATH and where administrators' programs are.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(admin)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// The first line that holds a version of what a program says of itself; `how` to get it if it is not there.
fn version_of(program: &str, argument: &str, how: &str) -> Result<String, String> {
    let file = find(program).ok_or(how)?;
    let said = Command::new(&file).arg(argument).output();
    let said = said.map_err(|error| format!("{program} {argument}: {error}; {how}"))?;
    // Some say it on stderr, and some with an exit status that is no success.
    let text = [said.stdout, said.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let number = |line: &&str| line.contains(|c: char| c.is_ascii_digit());
    let line = text.lines().find(number).unwrap_or("unknown").trim();
    Ok(line.chars().take(40).collect::<String>().trim().into())
}

/// Runs a program that needs no network to its end, and returns what it printed.
fn output<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> anyhow::Result<String> {
    let file = find(program).with_context(|| format!("{program} is not installed"))?;
    let done = Command::new(file).args(arguments).output()?;
    anyhow::ensure!(
        done.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(String::from_utf8(done.stdout)?)
}

/// Writes a file that only its owner may read.
fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
