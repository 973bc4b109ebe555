//! The yardstick of a transit node: a bare AF_XDP layer-2 forwarder, which neither looks anything up nor seals.
//!
//! Both stand on the same sockets, between the same veths, in copy mode, on one core, under the same load; so what a
//! transit node is slower by is what its crypto, its lookups and its loop cost. The load is real: every frame is
//! sealed for the transit node with a counter of its own.
//!
//! The kernel's work for a veth is done where the sender is: what the load sends is put into the node's memory on the
//! load's core, what the node sends is put into the sink's memory on the node's core. So the load works about as hard a
//! packet as a node, and cannot always drive one to its limit. Therefore the measure is the processor time of the node's
//! thread a packet, which leaves out its sleep; the rate that one core could do follows from it.

pub mod bare;
mod load;
mod transit;
mod workload;

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use twinseal_crypto::{CryptoError, Provider, Suite};
use twinseal_ebpf::{SteerError, XdpMode};
use twinseal_lab::LabError;
use twinseal_runtime::ports::PortError;
use twinseal_xsk::XskError;

use crate::Sample;
use crate::machine::Machine;
use bare::Bare;
use load::Load;
use transit::Transit;
use workload::Workload;

/// Octets of the inner IP packets that are measured.
pub const SIZES: [usize; 2] = [64, 1400];
/// How long a node runs before packets count.
const WARM_UP: Duration = Duration::from_millis(200);

/// What to measure.
#[derive(Clone)]
pub struct Options {
    /// How the nodes' XDP programs attach.
    pub modes: Vec<XdpMode>,
    /// Octets of the inner IP packets, 28 to 1408.
    pub sizes: Vec<usize>,
    /// Runs of each node, in turn.
    pub runs: usize,
    /// How long a run counts.
    pub time: Duration,
    /// Who seals.
    pub provider: &'static dyn Provider,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The network of namespaces.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// Packet memory or a socket.
    #[error(transparent)]
    Socket(#[from] XskError),
    /// The XDP program.
    #[error(transparent)]
    Steering(#[from] SteerError),
    /// A port of the transit node.
    #[error(transparent)]
    Port(#[from] PortError),
    /// A key.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// The tables of the transit node.
    #[error(transparent)]
    Fixture(#[from] twinseal_forward::fixture::FixtureError),
    /// A thread could not be started or pinned.
    #[error("{doing}: {source}")]
    System {
        /// What was attempted.
        doing: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// Nothing came out.
    #[error("{node} forwarded nothing of {sent} frames ({drops}): it is broken")]
    Silent {
        /// Who.
        node: &'static str,
        /// Frames that were sent to it.
        sent: u64,
        /// What it counted.
        drops: String,
    },
    /// A thread panicked.
    #[error("a thread of the bench panicked")]
    Panicked,
}

/// A node in the middle, packets a second.
#[derive(Debug, Clone, Serialize)]
pub struct Rate {
    /// Packets a second that arrived at its other side.
    pub forwarded: Sample,
    /// Packets a second that were sent to it. Where this is hardly more than `forwarded`, the load was the limit.
    pub offered: Sample,
    /// Processor time of the node's thread, nanoseconds a packet, that of the kernel on its behalf among it.
    pub cpu_ns: Sample,
}

/// Both nodes in one mode at one size.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// How XDP is attached: native or generic.
    pub mode: String,
    /// Octets of the inner IP packet.
    pub octets: usize,
    /// Octets of the frames, with Ethernet header: 106 more.
    pub frame: usize,
    /// The bare forwarder.
    pub bare: Rate,
    /// One Twinseal node as transit.
    pub transit: Rate,
    /// By pair of runs: how many packets transit forwards in the processor time in which the bare forwarder forwards one.
    pub ratio: Sample,
}

/// All of the results.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What the results are of.
    pub machine: Machine,
    /// Who seals.
    pub provider: String,
    /// Runs of each node.
    pub runs: usize,
    /// A line a mode and size.
    pub lines: Vec<Line>,
}

/// Measures, on CPUs 0 (the load) and 1 (the node).
///
/// # Errors
/// [`Error`]; most of all where no lab can run.
pub fn measure(options: &Options) -> Result<Report, Error> {
    let mut lines = Vec::new();
    for &mode in &options.modes {
        let course = Workload::new()?;
        for &octets in &options.sizes {
            lines.push(line(options, &course, mode, octets)?);
        }
    }
    Ok(Report {
        machine: Machine::this(),
        provider: options.provider.label().to_owned(),
        runs: options.runs,
        lines,
    })
}

fn line(options: &Options, course: &Workload, mode: XdpMode, octets: usize) -> Result<Line, Error> {
    let (mut bare, mut transit) = (Runs::default(), Runs::default());
    let mut frame = 0;
    for _ in 0..options.runs {
        let mut load = Load::new(course, options.provider, Suite::Aes256Gcm, mode, octets)?;
        frame = load.frame();
        let node = Bare::start(course.node(), workload::WEST, workload::EAST, mode)?;
        bare.add(load.run("the bare forwarder", WARM_UP, options.time, || node.drops())?);
        node.stop()?;
        drop(load);

        let mut load = Load::new(course, options.provider, Suite::Aes256Gcm, mode, octets)?;
        let node = Transit::start(course, options.provider, Suite::Aes256Gcm, mode)?;
        transit.add(load.run("the transit node", WARM_UP, options.time, || node.drops())?);
        node.stop();
    }
    let ratio = bare.cpu_ns.iter().zip(&transit.cpu_ns);
    Ok(Line {
        mode: format!("{mode:?}").to_lowercase(),
        octets,
        frame,
        ratio: Sample::new(ratio.map(|(bare, transit)| bare / transit).collect()),
        bare: bare.rate(),
        transit: transit.rate(),
    })
}

/// What the runs of one node gave, packets a second.
#[derive(Default)]
struct Runs {
    forwarded: Vec<f64>,
    offered: Vec<f64>,
    cpu_ns: Vec<f64>,
}

impl Runs {
    fn add(&mut self, run: load::Run) {
        let seconds = run.time.as_secs_f64();
        self.forwarded.push(run.received as f64 / seconds);
        self.offered.push(run.sent as f64 / seconds);
        let cpu = run.cpu.as_nanos() as f64;
        self.cpu_ns.push(cpu / run.received.max(1) as f64);
    }

    fn rate(self) -> Rate {
        Rate {
            forwarded: Sample::new(self.forwarded),
            offered: Sample::new(self.offered),
            cpu_ns: Sample::new(self.cpu_ns),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}\n{} seals, {} runs each in turn: median (lowest..highest)",
            self.machine, self.provider, self.runs
        )?;
        writeln!(
            f,
            "{:8} {:>6} {:>6} {:8} {:>22} {:>8} {:>24} {:>20}",
            "mode", "inner", "frame", "node", "Mpps", "offered", "cpu ns a packet", "of bare"
        )?;
        for line in &self.lines {
            for (node, rate, ratio) in [
                ("bare", &line.bare, None),
                ("transit", &line.transit, Some(line.ratio)),
            ] {
                let mpps = rate.forwarded.scaled(1e-6);
                writeln!(
                    f,
                    "{:8} {:>6} {:>6} {:8} {:>22} {:>8.3} {:>24} {:>20}",
                    line.mode,
                    line.octets,
                    line.frame,
                    node,
                    format!("{:.3} ({:.3}..{:.3})", mpps.median, mpps.min, mpps.max),
                    rate.offered.median / 1e6,
                    format!(
                        "{:.0} ({:.0}..{:.0})",
                        rate.cpu_ns.median, rate.cpu_ns.min, rate.cpu_ns.max
                    ),
                    ratio.map_or_else(String::new, |ratio| format!(
                        "{:.2} ({:.2}..{:.2})",
                        ratio.median, ratio.min, ratio.max
                    )),
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinseal_crypto::default_provider;
    use twinseal_lab::Lab;

    #[test]
    fn both_nodes_forward_in_both_modes() {
        if let Err(why) = Lab::available() {
            eprintln!("SKIPPED: {why}");
            return;
        }
        if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
            eprintln!("SKIPPED: the load and the node need a CPU each");
            return;
        }
        let report = measure(&Options {
            modes: vec![XdpMode::Native, XdpMode::Generic],
            sizes: SIZES.to_vec(),
            runs: 1,
            time: Duration::from_millis(50),
            provider: default_provider(),
        })
        .unwrap();
        assert_eq!(report.lines.len(), 4);
        for line in &report.lines {
            assert_eq!(line.frame, line.octets + 106);
            for rate in [&line.bare, &line.transit] {
                assert!(rate.forwarded.min > 0.0, "{report}");
            }
        }
    }
}
