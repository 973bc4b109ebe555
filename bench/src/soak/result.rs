//! What a soak showed, and the verdict.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use twinseal_lab::traffic::Summary;

use super::Config;
use super::process::{Daemon, mib};
use crate::Machine;
use crate::generator::Account;
use crate::rfc2544::{Dut, enough};

/// Drops that steady traffic may see: somebody had no room just then.
const CONGESTION: [&str; 4] = ["rx_ring_full", "rx_dropped", "peer_full", "transmit_full"];
/// Drops that bad wires cause.
const BAD_WIRES: [&str; 2] = ["link_replayed", "link_too_old"];
/// Descriptors that may come and go.
const FDS: u64 = 8;

/// The results.
#[derive(Debug, Serialize)]
pub struct Soak {
    /// What measured.
    pub machine: Machine,
    /// What was measured.
    pub dut: Dut,
    /// How long traffic flowed.
    pub seconds: f64,
    /// The rate asked for from A to B.
    pub offered_pps: f64,
    /// The load from A to B.
    pub forward: Account,
    /// The light load back.
    pub back: Summary,
    /// What was done meanwhile.
    pub work: Work,
    /// What the network dropped meanwhile, by place and reason.
    pub drops: BTreeMap<String, u64>,
    /// Packets that bad wires made twice.
    pub duplicated: u64,
    /// Lost packets that nobody counted: sent + made twice - received, once or again - dropped.
    pub unexplained: i64,
    /// What each daemon took of the machine.
    pub daemons: Vec<Daemon>,
    /// What must not be. Empty is success.
    pub failures: Vec<String>,
}

/// What was done to the nodes.
#[derive(Debug, Default, Serialize)]
pub struct Work {
    /// Rotations of all keys.
    pub rotations: u64,
    /// Transactions, of rotations and churn.
    pub transactions: u64,
    /// Items that churn set or deleted.
    pub changes: u64,
    /// Tenants that came, and went again.
    pub tenants: u64,
}

impl Soak {
    /// Fills in what is unexplained, and what must not be. `ends`: how each daemon ended, and its log.
    pub(super) fn judge(&mut self, config: &Config, ends: &[(String, bool, String)]) {
        let impaired = config.setup.impairment.is_some();
        let loads = [&self.forward.summary, &self.back];
        let sum = |of: fn(&Summary) -> u64| loads.iter().map(|load| of(load)).sum::<u64>();
        let dropped = self.drops.values().sum::<u64>() + sum(|load| load.socket_drops);
        // A packet that a wire made twice came twice, or one of the two was dropped.
        let dropped_twins = self.duplicated as i64 - sum(|load| load.duplicates) as i64;
        self.unexplained = sum(|load| load.lost) as i64 + dropped_twins - dropped as i64;

        let mut failures = Vec::new();
        let mut fail = |failed: bool, text: String| failures.extend(failed.then_some(text));
        fail(
            sum(|load| load.received) == 0,
            "nothing was received".into(),
        );
        fail(
            self.unexplained > 0,
            format!("{} lost packets are unexplained", self.unexplained),
        );
        fail(sum(|load| load.damaged) > 0, "packets were damaged".into());
        fail(
            !impaired && sum(|load| load.duplicates) > 0,
            "packets came twice".into(),
        );
        fail(
            !impaired && sum(|load| load.reordered) > 0,
            "packets came out of order".into(),
        );
        for (place, count) in &self.drops {
            let is_of = |reasons: &[&str]| reasons.iter().any(|reason| place.ends_with(reason));
            let expected =
                is_of(&CONGESTION) || impaired && (place.starts_with("wire-") || is_of(&BAD_WIRES));
            fail(
                !expected,
                format!("{count} packets dropped, as never in steady traffic: {place}"),
            );
        }
        for daemon in &self.daemons {
            let name = &daemon.name;
            let grown = daemon.growth() > config.growth_limit as i64;
            fail(
                grown,
                format!(
                    "{name} grew by {:.1} MiB",
                    mib(daemon.growth().unsigned_abs())
                ),
            );
            let more = daemon.fds_last.saturating_sub(daemon.fds_first);
            fail(
                more > FDS,
                format!("{name} has {more} more descriptors than at the beginning"),
            );
        }
        for (name, well, log) in ends {
            fail(!well, format!("{name} did not end well"));
            fail(log.contains("panicked"), format!("{name} panicked"));
        }
        self.failures = failures;
    }
}

impl fmt::Display for Soak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        write!(f, "{}", self.dut)?;
        writeln!(
            f,
            "\n{:.0} s: {} rotations of all keys, {} transactions, {} tenants came and went with {} changes",
            self.seconds,
            self.work.rotations,
            self.work.transactions,
            self.work.tenants,
            self.work.changes
        )?;
        for (way, load) in [("A to B", &self.forward.summary), ("B to A", &self.back)] {
            let us = |ns: u64| ns as f64 * 1e-3;
            // Not of too few packets.
            let rare = |one_in, name: &str, ns| match enough(load.received, one_in) {
                true => format!(", {name} {:.1}", us(ns)),
                false => String::new(),
            };
            writeln!(
                f,
                "{way}: {} sent, {} received, {} lost, {} twice, {} reordered, {} damaged; p50 {:.1}{}{} µs",
                load.sent,
                load.received,
                load.lost,
                load.duplicates,
                load.reordered,
                load.damaged,
                us(load.latency.p50),
                rare(100, "p99", load.latency.p99),
                rare(10_000, "p99.99", load.latency.p9999)
            )?;
            if load.socket_drops > 0 {
                writeln!(
                    f,
                    "  {} of the lost at the receiver's own socket",
                    load.socket_drops
                )?;
            }
        }
        for (place, count) in &self.drops {
            writeln!(f, "  {count} dropped: {place}")?;
        }
        if self.duplicated > 0 {
            writeln!(f, "  {} made twice by wires", self.duplicated)?;
        }
        writeln!(f, "  {} unexplained", self.unexplained)?;
        for daemon in &self.daemons {
            let memory = match daemon.rss_slope {
                Some(slope) => format!(
                    "{:.1} MiB after warming up, {:.1} at the end, {:+.2} MiB an hour",
                    mib(daemon.rss_first),
                    mib(daemon.rss_last),
                    slope / f64::from(1 << 20)
                ),
                None => format!(
                    "{:.1} MiB at the end, too soon to be judged",
                    mib(daemon.rss_last)
                ),
            };
            writeln!(
                f,
                "{}: {memory}; {} and {} descriptors",
                daemon.name, daemon.fds_first, daemon.fds_last
            )?;
        }
        for failure in &self.failures {
            writeln!(f, "FAILED: {failure}")?;
        }
        write!(
            f,
            "{}",
            if self.failures.is_empty() {
                "success"
            } else {
                "failure"
            }
        )
    }
}
