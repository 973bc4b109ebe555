//! What a packet costs: the whole pipeline, its AEAD calls, and the rest.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use twinseal::pipeline::{BATCH, STAGES};
use twinseal_crypto::{Provider, Suite};

use crate::alone::Alone;
use crate::{BenchError, ROUND, Rig, Role};

/// The fewest runs that a median is taken of, however little time there is.
pub(crate) const MIN_RUNS: usize = 5;

/// All of the results.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The processor, as the kernel names it.
    pub cpu: String,
    /// The library of AEADs.
    pub provider: String,
    /// The algorithm of every key.
    pub suite: String,
    /// Packets a batch.
    pub batch: usize,
    /// Packets a run.
    pub packets_a_run: usize,
    /// Whether the compiler optimised; if not, the times mean nothing.
    pub optimised: bool,
    /// A line a role and size.
    pub lines: Vec<Line>,
    /// Allocations a packet over all lines, after the first round of each.
    pub allocations_a_packet: f64,
}

/// The cost of one role at one size.
#[derive(Debug, Serialize)]
pub struct Line {
    /// What the node does.
    pub role: Role,
    /// Octets of the inner IP packet.
    pub octets: usize,
    /// How many runs there were.
    pub runs: usize,
    /// The whole pipeline, nanoseconds a packet.
    pub total_ns: Sample,
    /// By the median of the whole pipeline.
    pub packets_per_second: f64,
    /// The AEAD calls alone, nanoseconds a packet.
    pub aead_ns: Sample,
    /// Everything but the AEAD calls: the difference of the medians.
    pub rest_ns: f64,
    /// The difference of the minima, which a busy machine disturbs least.
    pub rest_ns_of_minima: f64,
    /// The median of each stage that the role's packets pass, nanoseconds a packet, its AEAD call among it. Taken in
    /// runs of their own, as reading the clock costs something too.
    pub stages: BTreeMap<&'static str, f64>,
    /// In the timed part of all runs.
    pub allocations: u64,
}

/// Several runs of one thing.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// The middle one.
    pub median: f64,
    /// The best.
    pub min: f64,
    /// The worst.
    pub max: f64,
}

impl Sample {
    /// Of nanoseconds a packet; all zero if there are none.
    pub fn new(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let at = |n: usize| values.get(n).copied().unwrap_or(0.0);
        let median = if values.len() % 2 == 1 || values.is_empty() {
            at(middle)
        } else {
            (at(middle - 1) + at(middle)) / 2.0
        };
        Self {
            median,
            min: at(0),
            max: at(values.len().saturating_sub(1)),
        }
    }
}

impl Sample {
    /// In another unit.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self {
            median: self.median * factor,
            min: self.min * factor,
            max: self.max * factor,
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:.1} ({:.1}..{:.1})", self.median, self.min, self.max);
        f.pad(&text)
    }
}

impl Report {
    /// Measures these roles with packets of these sizes, in about `budget` together. `allocations` is a
    /// counter of all allocations so far.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn measure(
        provider: &dyn Provider,
        suite: Suite,
        roles: &[Role],
        sizes: &[usize],
        budget: Duration,
        allocations: fn() -> u64,
    ) -> Result<Self, BenchError> {
        let share = budget / (roles.len() * sizes.len()) as u32;
        let mut lines = Vec::new();
        for &role in roles {
            for &octets in sizes {
                let mut rig = Rig::new(provider, suite, role, octets)?;
                let alone = Alone::new(provider, suite, role)?;
                lines.push(Line::measure(&mut rig, &alone, octets, share, allocations)?);
            }
        }
        let count: u64 = lines.iter().map(|line| line.allocations).sum();
        let packets: usize = lines.iter().map(|line| line.runs * ROUND).sum();
        Ok(Self {
            cpu: crate::cpu::name(),
            provider: provider.name().into(),
            suite: suite.name().into(),
            batch: BATCH,
            packets_a_run: ROUND,
            optimised: !cfg!(debug_assertions),
            lines,
            allocations_a_packet: count as f64 / packets as f64,
        })
    }
}

impl Line {
    fn measure(
        rig: &mut Rig,
        alone: &Alone,
        octets: usize,
        budget: Duration,
        allocations: fn() -> u64,
    ) -> Result<Self, BenchError> {
        let begin = Instant::now();
        // The first packet of a lane makes its replay window.
        rig.round(|work| work())?;
        alone.round(rig)?;
        let (mut total, mut aead, mut allocated) = (Vec::new(), Vec::new(), 0);
        let mut stages: [Vec<f64>; STAGES.len()] = Default::default();
        // Turn by turn: what else the machine does disturbs both alike.
        while total.len() < MIN_RUNS || begin.elapsed() < budget {
            let (time, count) = rig.round(|work| {
                let before = allocations();
                let start = Instant::now();
                work();
                (start.elapsed(), allocations() - before)
            })?;
            total.push(a_packet(time));
            allocated += count;
            aead.push(a_packet(alone.round(rig)?));
            for (stage, time) in stages.iter_mut().zip(rig.stages()?) {
                stage.push(a_packet(time));
            }
        }
        let stages = STAGES
            .into_iter()
            .zip(stages.map(|times| Sample::new(times).median))
            .filter(|(_, median)| *median > 0.0)
            .collect();
        let (total_ns, aead_ns) = (Sample::new(total.clone()), Sample::new(aead));
        Ok(Self {
            role: rig.role(),
            octets,
            runs: total.len(),
            total_ns,
            packets_per_second: 1e9 / total_ns.median,
            aead_ns,
            rest_ns: total_ns.median - aead_ns.median,
            rest_ns_of_minima: total_ns.min - aead_ns.min,
            stages,
            allocations: allocated,
        })
    }
}

fn a_packet(time: Duration) -> f64 {
    time.as_nanos() as f64 / ROUND as f64
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cpu: {}, one core", self.cpu)?;
        writeln!(f, "provider: {}, suite: {}", self.provider, self.suite)?;
        writeln!(
            f,
            "ns a packet: median of the runs (min..max); a run is {} packets in batches of {}",
            self.packets_a_run, self.batch
        )?;
        write_unoptimised(f, self.optimised)?;
        writeln!(
            f,
            "\n{:8} {:>6} {:>5}  {:>22} {:>10}  {:>22}  {:>22}",
            "role", "octets", "runs", "ns", "packets/s", "aead ns", "rest ns (of minima)"
        )?;
        for line in &self.lines {
            let rest = format!("{:.1} ({:.1})", line.rest_ns, line.rest_ns_of_minima);
            writeln!(
                f,
                "{:8} {:>6} {:>5}  {:>22} {:>10.0}  {:>22}  {:>22}",
                line.role,
                line.octets,
                line.runs,
                line.total_ns,
                line.packets_per_second,
                line.aead_ns,
                rest
            )?;
        }
        writeln!(f, "\nns a packet by stage, the AEAD calls among it:")?;
        for line in &self.lines {
            write!(f, "{:8} {:>6} ", line.role, line.octets)?;
            for stage in STAGES {
                if let Some(median) = line.stages.get(stage) {
                    write!(f, "  {stage} {median:.1}")?;
                }
            }
            writeln!(f)?;
        }
        write!(f, "\nallocations a packet: {}", self.allocations_a_packet)
    }
}

/// A line of warning, if the compiler did not optimise.
pub(crate) fn write_unoptimised(f: &mut fmt::Formatter<'_>, optimised: bool) -> fmt::Result {
    if optimised {
        return Ok(());
    }
    writeln!(
        f,
        "NOT OPTIMISED: build with --release, or the times mean nothing"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SIZES;
    use twinseal_crypto::default_provider;

    fn report(allocations: fn() -> u64) -> Report {
        let (provider, suite) = (default_provider(), Suite::Aes256Gcm);
        Report::measure(
            provider,
            suite,
            &Role::ALL,
            &SIZES,
            Duration::ZERO,
            allocations,
        )
        .unwrap()
    }

    #[test]
    fn medians_and_spread() {
        let sample = |values: &[f64]| Sample::new(values.to_vec());
        let of = |median, min, max| Sample { median, min, max };
        assert_eq!(sample(&[3.0, 1.0, 2.0]), of(2.0, 1.0, 3.0));
        assert_eq!(sample(&[4.0, 1.0, 2.0, 3.0]), of(2.5, 1.0, 4.0));
        assert_eq!(sample(&[]), of(0.0, 0.0, 0.0));
        assert_eq!(sample(&[7.0, 7.0]).to_string(), "7.0 (7.0..7.0)");
    }

    #[test]
    fn a_report_has_every_role_and_size() {
        let report = report(|| 0);
        assert_eq!(report.lines.len(), 9);
        assert!(report.lines.iter().all(|line| line.runs == MIN_RUNS));
        let text = report.to_string();
        for role in Role::ALL {
            assert_eq!(text.matches(role.name()).count(), 6, "{text}");
        }
        assert!(text.ends_with("allocations a packet: 0"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["lines"][3]["role"], "transit");
        let stages = json["lines"][3]["stages"].as_object().unwrap();
        let names: Vec<_> = stages.keys().map(String::as_str).collect();
        assert_eq!(names, ["label", "link_open", "link_seal", "parse"]);
        assert_eq!(json["allocations_a_packet"], 0.0);
    }

    #[test]
    fn allocations_are_counted_in_the_timed_part_only() {
        use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
        static READS: AtomicU64 = AtomicU64::new(0);
        // Every reading is one more, so a run seems to allocate once.
        let report = report(|| READS.fetch_add(1, Relaxed));
        assert!(
            report
                .lines
                .iter()
                .all(|line| line.allocations == line.runs as u64)
        );
        assert_eq!(report.allocations_a_packet, 1.0 / ROUND as f64);
    }
}
