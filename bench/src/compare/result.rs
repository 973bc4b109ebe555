//! What a comparison came to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use twinseal_lab::traffic::Finding;

use super::Setup;
use crate::{Machine, Sample};

/// All of it: who took part, every round, and the rounds put together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// Where it was measured.
    pub machine: Machine,
    /// How it was measured.
    pub setup: Setup,
    /// Who was to take part.
    pub peers: Vec<Participant>,
    /// The rounds put together, a table each.
    pub metrics: Vec<Metric>,
    /// Every round of every peer that was measured, in order.
    pub rounds: Vec<Round>,
}

/// Who was to take part, and whether it did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Participant {
    /// By which it is chosen.
    pub name: String,
    /// What it is and how it seals.
    pub about: String,
    /// How often it seals a packet.
    pub seals: u8,
    /// What it says of itself; none if it is not installed.
    pub version: Option<String>,
    /// If it is not installed: how to get it.
    pub missing: Option<String>,
    /// What went wrong, with the last lines of its logs.
    pub failures: Vec<String>,
}

/// One figure of all peers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Metric {
    /// `rate-64`, `tcp`, `rtt-p50`, ...
    pub id: String,
    /// For people.
    pub title: String,
    /// Of all values.
    pub unit: String,
    /// Whether more is better.
    pub more_is_better: bool,
    /// The best of those that seal, Twinseal aside.
    pub best_sealed: Option<String>,
    /// A line a peer that was measured.
    pub lines: Vec<MetricLine>,
}

/// One figure of one peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MetricLine {
    /// Whose.
    pub peer: String,
    /// Over the rounds.
    pub value: Sample,
    /// In some round the sender was the limit: the true figure may be higher.
    pub at_least: bool,
    /// Divided by the kernel's of the same round.
    pub to_kernel: Option<Sample>,
    /// Divided by that of the best of those that seal, of the same round.
    pub to_best_sealed: Option<Sample>,
}

/// What one peer showed in one round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Round {
    /// Counted from 1.
    pub round: u32,
    /// Whose.
    pub peer: String,
    /// A rate a size.
    pub rates: Vec<Rate>,
    /// None without iperf3.
    pub tcp: Option<Tcp>,
    /// Of pings.
    pub round_trip: RoundTrip,
    /// What the gateways counted while the rates were looked for, if they can tell.
    pub counts: Option<Counts>,
}

/// The highest rate at which nothing was lost, and what was sent to find it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rate {
    /// Of the IP packet.
    pub octets: u16,
    /// Millions of packets a second; 0 if every rate lost some, or none could be found.
    pub mpps: f64,
    /// Whether it is the gateways' rate, or they may do more.
    pub finding: Finding,
    /// Trials it took.
    pub trials: usize,
    /// Trials of which the sender did not send what it should; they were made again.
    pub void: usize,
    /// Packets of all trials.
    pub sent: u64,
    /// Those of them that arrived.
    pub received: u64,
}

/// One TCP stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tcp {
    /// Payload, in Gbit/s.
    pub gbps: f64,
    /// Segments that were sent again.
    pub retransmits: u64,
    /// Processors busy meanwhile, of the whole machine and with both hosts.
    pub cpus: f64,
}

/// Pings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoundTrip {
    /// The median, in microseconds.
    pub p50_us: f64,
    /// What 99 of 100 do not exceed, in microseconds.
    pub p99_us: f64,
    /// Requests.
    pub sent: u32,
    /// Answers.
    pub received: u32,
}

/// The gateways' own account.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Counts {
    /// Points on the way from host A to host B, in order.
    pub passed: Vec<Passed>,
    /// Drops of both gateways by reason, without those that are zero.
    pub drops: BTreeMap<String, u64>,
    /// How their ports' XDP programs are attached: native or generic.
    #[serde(default)]
    pub xdp: BTreeSet<String>,
}

/// Packets that passed a point.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Passed {
    /// Where.
    pub point: String,
    /// How many.
    pub packets: u64,
}

impl Counts {
    /// What was counted since `before`.
    pub(super) fn since(mut self, before: &Counts) -> Self {
        for (now, then) in self.passed.iter_mut().zip(&before.passed) {
            now.packets -= then.packets;
        }
        for (reason, count) in &mut self.drops {
            *count -= before.drops.get(reason).unwrap_or(&0);
        }
        self.drops.retain(|_, count| *count > 0);
        self
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "{}", self.setup)?;
        writeln!(f)?;
        for peer in &self.peers {
            let version = match (&peer.version, &peer.missing) {
                (Some(version), _) => version.clone(),
                (None, how) => {
                    let how = how.as_deref().unwrap_or_default();
                    format!("NOT INSTALLED: {how}")
                }
            };
            writeln!(f, "{:13} {}; {version}", peer.name, peer.about)?;
        }
        writeln!(
            f,
            "\nmedian of the rounds (min..max); ratios are of the same round; ≥: the sender could do no more"
        )?;
        for metric in &self.metrics {
            metric.fmt(f)?;
        }
        for peer in &self.peers {
            for failure in &peer.failures {
                writeln!(f, "\n{} FAILED: {failure}", peer.name)?;
            }
        }
        self.fmt_counts(f)
    }
}

impl Comparison {
    fn fmt_counts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for round in &self.rounds {
            let Some(counts) = &round.counts else {
                continue;
            };
            let sum = |of: fn(&Rate) -> u64| round.rates.iter().map(of).sum::<u64>();
            write!(f, "\n{}, round {}: sent", round.peer, round.round)?;
            write!(f, " {}", sum(|rate| rate.sent))?;
            for Passed { point, packets } in &counts.passed {
                write!(f, ", {point} {packets}")?;
            }
            write!(f, ", received {}", sum(|rate| rate.received))?;
            if counts.drops.is_empty() {
                write!(f, "; no drops")?;
            }
            for (reason, count) in &counts.drops {
                write!(f, "; {reason} {count}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let best = match &self.best_sealed {
            Some(name) => format!("of {name}"),
            None => String::new(),
        };
        let heading = format!("{} ({})", self.title, self.unit);
        writeln!(f, "\n{heading:38} {:>20}  {best:>20}", "of kernel")?;
        for line in &self.lines {
            let at_least = if line.at_least { "≥ " } else { "" };
            let value = format!("{at_least}{}", Spread(line.value, 3));
            let ratio =
                |ratio: Option<Sample>| ratio.map_or(String::new(), |it| Spread(it, 2).to_string());
            let (kernel, best) = (ratio(line.to_kernel), ratio(line.to_best_sealed));
            let row = format!("  {:13} {value:>22} {kernel:>20}  {best:>20}", line.peer);
            writeln!(f, "{}", row.trim_end())?;
        }
        Ok(())
    }
}

/// A sample with so many significant decimals, fewer for large numbers.
struct Spread(Sample, usize);

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread(Sample { median, min, max }, digits) = *self;
        let digits = if median >= 100.0 { 0 } else { digits };
        write!(f, "{median:.digits$} ({min:.digits$}..{max:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_time_between() {
        let counts = |packets, drops: &[(&str, u64)]| Counts {
            passed: vec![Passed {
                point: "in".into(),
                packets,
            }],
            drops: drops.iter().map(|(name, n)| ((*name).into(), *n)).collect(),
            xdp: BTreeSet::new(),
        };
        let before = counts(10, &[("replayed", 1)]);
        let after = counts(25, &[("replayed", 1), ("ttl", 2)]);
        let between = after.since(&before);
        assert_eq!(between.passed[0].packets, 15);
        assert_eq!(between.drops, BTreeMap::from([("ttl".into(), 2)]));
    }
}
