//! What a packet costs: the whole pipeline, its AEAD calls, and the rest.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;
use twinseal_crypto::{Provider, Suite, provider};
use twinseal_forward::{BATCH, STAGES};

use crate::aead_only::AeadOnly;
use crate::net::{Extent, Net};
use crate::scaling::Scaling;
use crate::{BenchError, Harness, Machine, ROUND, Role, Sample, Size, cpu};

/// The fewest runs that a median is taken of, however little time there is.
pub(crate) const MIN_RUNS: usize = 5;
/// Whose calls alone everything is compared with.
const REFERENCE: &str = "aws-lc-rs";

/// What to measure.
pub struct Plan<'a> {
    /// Who seals.
    pub provider: &'a dyn Provider,
    /// The algorithm of every key.
    pub suite: Suite,
    /// In this order.
    pub roles: Vec<Role>,
    /// In this order.
    pub sizes: Vec<Size>,
    /// What the nodes have in their tables. With more than one worker, one and all are measured.
    pub extent: Extent,
    /// For everything together, about.
    pub budget: Duration,
    /// Counts all allocations so far.
    pub allocations: fn() -> u64,
}

/// All of the results.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What they are of.
    pub machine: Machine,
    /// Who seals.
    pub provider: String,
    /// The algorithm of every key.
    pub suite: String,
    /// Circuits, with keys and labels of their own.
    pub circuits: u32,
    /// Routes of each edge.
    pub routes: u32,
    /// Packets a batch.
    pub batch: usize,
    /// Packets a run.
    pub packets_a_run: usize,
    /// Ticks of the time stamp counter a nanosecond, by which times become cycles.
    pub cycles_per_ns: f64,
    /// A line a role, size and number of workers.
    pub lines: Vec<Line>,
    /// The fields of the only line again, if there is one only.
    #[serde(flatten)]
    pub only: Option<Line>,
}

/// The cost of one role at one size.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// What is done.
    pub role: Role,
    /// Sizes of the inner IP packets.
    pub size: Size,
    /// Octets of the inner IP packets, on average.
    pub octets: u32,
    /// Workers that forward at the same time.
    pub workers: usize,
    /// How many runs there were.
    pub runs: usize,
    /// The whole pipeline, on one worker: the median.
    pub ns_per_packet: f64,
    /// By the time stamp counter.
    pub cycles_per_packet: f64,
    /// Million packets a second, of all workers.
    pub mpps: f64,
    /// Of inner packets, of all workers.
    pub gbps: f64,
    /// In the timed part of all runs with one worker.
    pub allocs_per_packet: f64,
    /// Packets a second, of all workers.
    pub packets_per_second: f64,
    /// The whole pipeline, nanoseconds a packet, with its spread.
    pub total_ns: Sample,
    /// The AEAD calls alone, nanoseconds a packet, with one key a layer.
    pub aead_ns: Sample,
    /// Everything but the AEAD calls: the difference of the medians.
    pub rest_ns: f64,
    /// The difference of the minima, which a busy machine disturbs least.
    pub rest_ns_of_minima: f64,
    /// As many calls of aws-lc-rs alone, nanoseconds a packet, taken by turns with the pipeline.
    pub aws_lc_rs_ns: Sample,
    /// The whole pipeline's time, divided by that of the calls of aws-lc-rs right after it.
    pub ratio_to_aws_lc_rs: Sample,
    /// How many times the packets of one worker all of them forward; none of one.
    pub scaling: Option<f64>,
    /// Each stage that packets pass, its AEAD call among it; measured with one worker, in runs of their own, as reading
    /// the clock costs something too.
    pub stages: BTreeMap<&'static str, Stage>,
}

/// The cost of a stage.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Stage {
    /// Nanoseconds a packet.
    pub ns: Sample,
    /// By the time stamp counter.
    pub cycles: f64,
    /// Million packets a second, if there were nothing else.
    pub mpps: f64,
}

impl Report {
    /// Measures everything.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn measure(plan: &Plan<'_>) -> Result<Self, BenchError> {
        let machine = Machine::this();
        let cycles_per_ns = cpu::cycles_per_ns();
        // A line for one worker, one for all of them.
        let cases = plan.roles.len() * plan.sizes.len() * plan.extent.workers.min(2);
        let budget = plan.budget / cases.max(1) as u32;
        let mut nets = Nets::new(plan)?;
        let mut lines = Vec::new();
        for &role in &plan.roles {
            for &size in &plan.sizes {
                let line = nets.one(plan, role, size, budget, cycles_per_ns)?;
                let all = match plan.extent.workers {
                    1 => None,
                    _ => Some(nets.all(&line, budget, cycles_per_ns)?),
                };
                lines.push(line);
                lines.extend(all);
            }
        }
        Ok(Self {
            machine,
            provider: plan.provider.label().into(),
            suite: plan.suite.name().into(),
            circuits: plan.extent.circuits,
            routes: plan.extent.routes,
            batch: BATCH,
            packets_a_run: ROUND,
            cycles_per_ns,
            only: match &lines[..] {
                [line] => Some(line.clone()),
                _ => None,
            },
            lines,
        })
    }

    /// Whether anything was allocated on a packet's way.
    pub fn allocates(&self) -> bool {
        self.lines.iter().any(|line| line.allocs_per_packet > 0.0)
    }
}

/// The nodes under measurement, and those whose packets only the AEAD calls alone see: a worker a part of a path.
struct Nets {
    pipeline: Net,
    alone: Net,
    reference: Net,
}

impl Nets {
    fn new(plan: &Plan<'_>) -> Result<Self, BenchError> {
        let parts = Extent {
            workers: Role::Path.parts().len(),
            ..Extent::default()
        };
        Ok(Self {
            pipeline: Net::new(plan.provider, plan.suite, &plan.extent)?,
            alone: Net::new(plan.provider, plan.suite, &parts)?,
            reference: Net::new(provider(REFERENCE)?, plan.suite, &parts)?,
        })
    }

    /// One worker.
    fn one(
        &mut self,
        plan: &Plan<'_>,
        role: Role,
        size: Size,
        budget: Duration,
        cycles_per_ns: f64,
    ) -> Result<Line, BenchError> {
        let begin = Instant::now();
        let Net {
            tables,
            workers,
            routes,
        } = &mut self.pipeline;
        let mut rig = Harness::new(tables, &mut workers[0], routes, role, size, 0)?;
        let mut alone = Calls::new(&mut self.alone, plan.provider, plan.suite, role, size)?;
        let reference = provider(REFERENCE)?;
        let mut reference = Calls::new(&mut self.reference, reference, plan.suite, role, size)?;
        // Warms what is warm in life: code, and the tables as far as they fit.
        rig.round(|work| work())?;
        let (mut total, mut aead, mut aws) = (Vec::new(), Vec::new(), Vec::new());
        let mut stages: [Vec<f64>; STAGES.len()] = Default::default();
        let mut allocated = 0;
        // Turn by turn: what else the machine does disturbs all alike.
        while total.len() < MIN_RUNS || begin.elapsed() < budget {
            let mut time = Duration::ZERO;
            rig.round(|work| {
                let before = (plan.allocations)();
                let start = Instant::now();
                work();
                time += start.elapsed();
                allocated += (plan.allocations)() - before;
            })?;
            total.push(a_packet(time));
            aws.push(reference.round()?);
            aead.push(alone.round()?);
            for (stage, time) in stages.iter_mut().zip(rig.stages()?) {
                stage.push(a_packet(time));
            }
        }
        let stages = stages.map(Sample::new).map(|ns| Stage {
            ns,
            cycles: ns.median * cycles_per_ns,
            mpps: 1e3 / ns.median,
        });
        let stages = STAGES.into_iter().zip(stages);
        let ratios = total.iter().zip(&aws).map(|(total, aws)| total / aws);
        let ratio_to_aws_lc_rs = Sample::new(ratios.collect());
        let runs = total.len();
        let (total_ns, aead_ns) = (Sample::new(total), Sample::new(aead));
        let mpps = 1e3 / total_ns.median;
        Ok(Line {
            role,
            size,
            octets: rig.octets().round() as u32,
            workers: 1,
            runs,
            ns_per_packet: total_ns.median,
            cycles_per_packet: total_ns.median * cycles_per_ns,
            mpps,
            gbps: mpps * rig.octets() * 8e-3,
            allocs_per_packet: allocated as f64 / (runs * ROUND) as f64,
            packets_per_second: mpps * 1e6,
            total_ns,
            aead_ns,
            rest_ns: total_ns.median - aead_ns.median,
            rest_ns_of_minima: total_ns.min - aead_ns.min,
            aws_lc_rs_ns: Sample::new(aws),
            ratio_to_aws_lc_rs,
            scaling: None,
            stages: stages.filter(|(_, stage)| stage.ns.median > 0.0).collect(),
        })
    }

    /// All workers, in the case of which `one` is the line of one.
    fn all(
        &mut self,
        one: &Line,
        budget: Duration,
        cycles_per_ns: f64,
    ) -> Result<Line, BenchError> {
        let workers = self.pipeline.workers.len();
        let scaling = Scaling::measure(&mut self.pipeline, one.role, one.size, budget)?;
        let runs = scaling.one.len();
        let rates = (0..runs).map(|run| scaling.all.iter().map(|worker| 1e3 / worker[run]).sum());
        let mpps = Sample::new(rates.collect()).median;
        let total_ns = Sample::new(scaling.all.concat());
        let octets = one.gbps / one.mpps;
        Ok(Line {
            workers,
            runs,
            ns_per_packet: total_ns.median,
            cycles_per_packet: total_ns.median * cycles_per_ns,
            mpps,
            gbps: mpps * octets,
            packets_per_second: mpps * 1e6,
            total_ns,
            scaling: Some(mpps * Sample::new(scaling.one).median / 1e3),
            ..one.clone()
        })
    }
}

/// The AEAD calls alone of all parts of a role.
struct Calls<'n>(Vec<(Harness<'n>, AeadOnly)>);

impl<'n> Calls<'n> {
    fn new(
        net: &'n mut Net,
        provider: &dyn Provider,
        suite: Suite,
        role: Role,
        size: Size,
    ) -> Result<Self, BenchError> {
        let (tables, routes) = (&net.tables, &net.routes);
        let parts = net.workers.iter_mut().zip(role.parts());
        let calls = parts.map(|(states, &part)| {
            let rig = Harness::new(tables, states, routes, part, size, 0)?;
            Ok((rig, AeadOnly::new(provider, suite, part)?))
        });
        let mut calls = Self(calls.collect::<Result<_, BenchError>>()?);
        calls.round()?;
        Ok(calls)
    }

    /// Nanoseconds a packet.
    fn round(&mut self) -> Result<f64, BenchError> {
        let times = self.0.iter_mut().map(|(rig, alone)| alone.round(rig));
        Ok(a_packet(times.sum::<Result<Duration, _>>()?))
    }
}

/// Of the time of a round.
pub(crate) fn a_packet(time: Duration) -> f64 {
    time.as_nanos() as f64 / ROUND as f64
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(
            f,
            "sealed by {}, {}; {} circuits, {} routes, drawn at random",
            self.provider, self.suite, self.circuits, self.routes
        )?;
        writeln!(
            f,
            "ns a packet: median of the runs (least..greatest); a run is {} packets in batches of {}",
            self.packets_a_run, self.batch
        )?;
        writeln!(
            f,
            "\n{:8} {:>6} {:>4}  {:>24} {:>7} {:>7} {:>7}  {:>14}  {:>18}  {:>30}",
            "role",
            "octets",
            "runs",
            "ns",
            "cycles",
            "Mpps",
            "Gbit/s",
            "its AEAD calls",
            "rest (of minima)",
            "ratio to aws-lc-rs's calls"
        )?;
        for line in self.lines.iter().filter(|line| line.workers == 1) {
            let rest = format!("{:.1} ({:.1})", line.rest_ns, line.rest_ns_of_minima);
            let ratio = line.ratio_to_aws_lc_rs;
            let ratio = format!(
                "{:.2} ({:.2}..{:.2}) of {:.1}",
                ratio.median, ratio.min, ratio.max, line.aws_lc_rs_ns.median
            );
            writeln!(
                f,
                "{:8} {:>6} {:>4}  {:>24} {:>7.0} {:>7.2} {:>7.2}  {:>14.1}  {:>18}  {:>30}",
                line.role,
                line.size,
                line.runs,
                line.total_ns,
                line.cycles_per_packet,
                line.mpps,
                line.gbps,
                line.aead_ns.median,
                rest,
                ratio
            )?;
        }
        writeln!(
            f,
            "\nstages, their AEAD calls among them: ns, cycles and Mpps if there were nothing else"
        )?;
        for line in self.lines.iter().filter(|line| line.workers == 1) {
            writeln!(f, "{} {}", line.role, line.size)?;
            for name in STAGES {
                if let Some(stage) = line.stages.get(name) {
                    writeln!(
                        f,
                        "  {name:14} {:>24} {:>7.0} {:>7.1}",
                        stage.ns, stage.cycles, stage.mpps
                    )?;
                }
            }
        }
        for line in &self.lines {
            if let Some(scaling) = line.scaling {
                writeln!(
                    f,
                    "{} {}, {} workers: {:.2} Mpps, {:.2} times one worker's",
                    line.role, line.size, line.workers, line.mpps, scaling
                )?;
            }
        }
        let allocations = self.lines.iter().map(|line| line.allocs_per_packet);
        write!(
            f,
            "\nallocations a packet: {}",
            allocations.fold(0.0, f64::max)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinseal_crypto::default_provider;

    fn report(sizes: &[Size], workers: usize, allocations: fn() -> u64) -> Report {
        Report::measure(&Plan {
            provider: default_provider(),
            suite: Suite::Aes256Gcm,
            roles: Role::ALL.to_vec(),
            sizes: sizes.to_vec(),
            extent: Extent {
                workers,
                circuits: 3,
                routes: 20,
            },
            budget: Duration::ZERO,
            allocations,
        })
        .unwrap()
    }

    #[test]
    fn a_report_has_every_role_and_size() {
        let report = report(&[Size::Octets(64), Size::Imix], 1, || 0);
        assert_eq!(report.lines.len(), 8);
        assert!(report.only.is_none() && !report.allocates());
        for line in &report.lines {
            assert_eq!(line.runs, MIN_RUNS);
            assert!(line.ns_per_packet > 0.0 && line.ratio_to_aws_lc_rs.min > 0.0);
        }
        let text = report.to_string();
        for role in Role::ALL {
            assert_eq!(text.matches(role.name()).count(), 4, "{text}");
        }
        assert!(text.ends_with("allocations a packet: 0"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["lines"][2]["role"], "transit");
        let stages = json["lines"][2]["stages"].as_object().unwrap();
        let names: Vec<_> = stages.keys().map(String::as_str).collect();
        assert_eq!(names, ["label", "link_open", "link_seal", "parse"]);
        assert!(json["machine"]["kernel"].is_string());
    }

    #[test]
    fn one_line_is_also_at_the_top() {
        let plan = Plan {
            provider: default_provider(),
            suite: Suite::Aes256Gcm,
            roles: vec![Role::Ingress],
            sizes: vec![Size::Octets(1400)],
            extent: Extent::default(),
            budget: Duration::ZERO,
            allocations: || 0,
        };
        let json = serde_json::to_value(Report::measure(&plan).unwrap()).unwrap();
        for field in [
            "ns_per_packet",
            "cycles_per_packet",
            "mpps",
            "gbps",
            "allocs_per_packet",
            "stages",
        ] {
            assert!(!json[field].is_null(), "{field}");
            assert_eq!(json[field], json["lines"][0][field]);
        }
    }

    #[test]
    fn all_workers_have_a_line_of_their_own() {
        let workers = cpu::allowed().len().min(2);
        let report = report(&[Size::Octets(64)], workers, || 0);
        let of: Vec<_> = report.lines.iter().map(|line| line.workers).collect();
        if workers == 2 {
            assert_eq!(of, [1, 2, 1, 2, 1, 2, 1, 2]);
            assert!(report.lines[1].scaling.unwrap() > 0.0);
        }
    }

    #[test]
    fn allocations_are_counted_in_the_timed_part_only() {
        use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
        static READS: AtomicU64 = AtomicU64::new(0);
        // Every reading is one more, so a run seems to allocate once a node.
        let report = report(&[Size::Octets(64)], 1, || READS.fetch_add(1, Relaxed));
        let of = |nth: usize| report.lines[nth].allocs_per_packet * ROUND as f64;
        assert_eq!([of(0), of(1), of(2), of(3)], [1.0, 1.0, 1.0, 3.0]);
        assert!(report.allocates());
    }
}
