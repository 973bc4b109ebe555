//! What the tests found, for people and programs.

use std::collections::BTreeMap;

use serde::Serialize;
use twinseal_ebpf::XdpOutcome;
use twinseal_lab::traffic::{Finding, Summary};
use twinseal_xsk::{Outcome, ZeroCopy};

use crate::generator::Account;
use crate::testbed::Testbed;
use crate::{Machine, Sample, Size};

/// Ethernet's header and checksum.
const FRAMING: f64 = 18.0;

/// All of the results.
#[derive(Debug, Serialize)]
pub struct Results {
    /// What measured.
    pub machine: Machine,
    /// Whether these are figures of the device under test.
    pub verdict: Verdict,
    /// Why not.
    pub reasons: Vec<String>,
    /// What was measured.
    pub dut: Dut,
    /// The generator's own sockets.
    pub sockets: Vec<SocketMode>,
    /// Flows, told apart by source port.
    pub flows: u32,
    /// Whether the test packets were IPv6.
    pub v6: bool,
    /// Whether packets went both ways at once; rates are of both together.
    pub both_ways: bool,
    /// How long a trial sent.
    pub trial_seconds: f64,
    /// How often each figure was measured.
    pub repeats: usize,
    /// A result a size.
    pub sizes: Vec<SizeResult>,
    /// Of all trials together.
    pub total: Total,
}

/// What the results are worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything could be measured.
    Success,
    /// Packets were lost at every rate, or nobody knows where.
    Failure,
    /// Some search could not be made.
    Inconclusive,
}

/// The verdict, and the reasons against success.
pub(super) fn judge(sizes: &[SizeResult], total: &Total) -> (Verdict, Vec<String>) {
    let (mut failures, mut doubts) = (Vec::new(), Vec::new());
    for size in sizes {
        let name = size.size;
        for it in size.throughput.iter().chain(&size.tolerant) {
            match it.finding {
                Finding::Lossy => failures.push(format!("{name}: packets were lost at every rate")),
                Finding::Inconclusive => doubts.push(format!(
                    "{name}: none of {} searches could be made; of {} trials {} were void",
                    it.searches, it.trials, it.void
                )),
                Finding::Found | Finding::AtLeastGenerator | Finding::AtLeastTried => {}
            }
            if let Some(pps) = it.contradicted_by_pps {
                doubts.push(format!(
                    "{name}: {pps:.0} packets a second passed in the loss test, above the throughput of {:.0}",
                    it.pps.max
                ));
            }
        }
    }
    if let Some(unexplained) = total.unexplained().filter(|it| *it > 0) {
        failures.push(format!("{unexplained} lost packets are unexplained"));
    }
    let verdict = match (failures.is_empty(), doubts.is_empty()) {
        (false, _) => Verdict::Failure,
        (true, false) => Verdict::Inconclusive,
        (true, true) => Verdict::Success,
    };
    failures.append(&mut doubts);
    (verdict, failures)
}

/// The device under test, as far as it is ours.
#[derive(Debug, Default, Serialize)]
pub struct Dut {
    /// Its nodes.
    pub nodes: Vec<DutNode>,
}

/// One node of it.
#[derive(Debug, Serialize)]
pub struct DutNode {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its workers.
    pub workers: u32,
    /// Who seals.
    pub provider: String,
    /// "huge pages" or "ordinary pages".
    pub memory: String,
    /// Its AF_XDP ports.
    pub sockets: Vec<SocketMode>,
}

/// How an AF_XDP port works.
#[derive(Debug, Serialize)]
pub struct SocketMode {
    /// Which.
    pub name: String,
    /// "native" or "generic"; none for one that receives nothing.
    pub xdp: Option<String>,
    /// "zero-copy" or "copy", a queue.
    pub bind: Vec<String>,
    /// Whether the driver says when it wants to be woken.
    pub need_wakeup: bool,
}

/// The results of one size.
#[derive(Debug, Serialize)]
pub struct SizeResult {
    /// Of the IP packets.
    pub size: Size,
    /// Bytes of the IP packets, on average.
    pub octets: f64,
    /// Bytes of the frames with their checksum, as RFC 2544 counts.
    pub frame_bytes: f64,
    /// The highest rate without loss (NDR).
    pub throughput: Option<Throughput>,
    /// The highest rates with a part of loss that is tolerated (PDR).
    pub tolerant: Vec<Throughput>,
    /// At parts of the throughput.
    pub latency: Vec<LatencyAt>,
    /// From the highest rate down.
    pub loss: Vec<LossAt>,
    /// The longest burst without loss.
    pub back_to_back: Option<BackToBack>,
}

/// The highest rate without loss, or with a part of it.
#[derive(Debug, Serialize)]
pub struct Throughput {
    /// The part of packets whose loss was tolerated.
    pub tolerated_loss: f64,
    /// Packets a second, of the searches that could be made; 0 if none could.
    pub pps: Sample,
    /// Gigabits of IP packets a second, at the median.
    pub gbps: f64,
    /// Whether the median is the device's rate, or it may do more.
    pub finding: Finding,
    /// How often it was looked for.
    pub searches: usize,
    /// Searches that could not be made.
    pub inconclusive: usize,
    /// Of all searches.
    pub trials: usize,
    /// Trials that lost more than tolerated.
    pub lost: usize,
    /// Trials of which the sender did not send what it should; they were made again.
    pub void: usize,
    /// A rate above it that passed in the loss test, though it was looked for again from there.
    pub contradicted_by_pps: Option<f64>,
}

/// One-way times at one load.
#[derive(Debug, Serialize)]
pub struct LatencyAt {
    /// As a part of the throughput.
    pub load: f64,
    /// Packets a second.
    pub pps: f64,
    /// Whether the sender kept to it in all repeats.
    pub kept_up: bool,
    /// Packets measured.
    pub packets: u64,
    /// Packets lost, which have no latency.
    pub lost: u64,
    /// Median, in microseconds.
    pub p50_us: Sample,
    /// 90 %; none where there were too few packets to say, as with all that follow.
    pub p90_us: Option<Sample>,
    /// 99 %.
    pub p99_us: Option<Sample>,
    /// 99.9 %.
    pub p999_us: Option<Sample>,
    /// 99.99 %.
    pub p9999_us: Option<Sample>,
    /// The longest.
    pub max_us: Sample,
}

/// Loss at one load.
#[derive(Debug, Serialize)]
pub struct LossAt {
    /// As a part of the highest rate.
    pub load: f64,
    /// The rate asked for.
    pub asked_pps: f64,
    /// The rate at which packets left.
    pub offered_pps: f64,
    /// Whether that is what was asked for; else the step says nothing of this load.
    pub kept_up: bool,
    /// The rate at which they came.
    pub received_pps: f64,
    /// Packets sent.
    pub sent: u64,
    /// Packets lost.
    pub lost: u64,
}

/// The longest burst without loss.
#[derive(Debug, Serialize)]
pub struct BackToBack {
    /// Packets.
    pub packets: Sample,
    /// No longer one was tried: it may be longer.
    pub limited: bool,
    /// How fast they followed each other, packets a second.
    pub offered_pps: f64,
    /// Of all searches.
    pub trials: usize,
}

/// The account of all trials together.
#[derive(Debug, Default, Serialize)]
pub struct Total {
    /// Trials.
    pub trials: u64,
    /// Packets sent.
    pub sent: u64,
    /// Different packets received.
    pub received: u64,
    /// Sent and not received while their trial lasted.
    pub lost: u64,
    /// Of these, received later, when their trial was over and the sockets were waited for no more.
    pub late: u64,
    /// Received again.
    pub duplicates: u64,
    /// Received after a later one of their flow.
    pub reordered: u64,
    /// Received damaged.
    pub damaged: u64,
    /// Of the lost, dropped at the receiver's own sockets: the measurement's fault.
    pub receiver_drops: u64,
    /// Where the nodes, their sockets and veths dropped how many; none where they are not ours.
    pub drops: Option<BTreeMap<String, u64>>,
}

impl Total {
    /// Adds a trial, be it void or not.
    pub(super) fn add(&mut self, account: &Account) {
        let summary = &account.summary;
        self.trials += 1;
        self.sent += summary.sent;
        self.received += summary.received;
        self.lost += summary.lost;
        self.duplicates += summary.duplicates;
        self.reordered += summary.reordered;
        self.damaged += summary.damaged;
        self.receiver_drops += summary.socket_drops;
        self.add_late(&account.late);
    }

    /// Adds what came of trials, or was found to have been dropped at the receiver, when they were over.
    pub(super) fn add_late(&mut self, late: &Summary) {
        self.late += late.received;
        self.duplicates += late.duplicates;
        self.reordered += late.reordered;
        self.damaged += late.damaged;
        self.receiver_drops += late.socket_drops;
    }

    /// Lost packets that did not come later, and that nobody counted as dropped; below zero when others' packets were dropped too. None where the
    /// device under test is not ours.
    pub fn unexplained(&self) -> Option<i64> {
        let drops: u64 = self.drops.as_ref()?.values().sum();
        Some(self.lost as i64 - (self.late + drops + self.receiver_drops) as i64)
    }
}

impl Throughput {
    /// Where nothing is lost, no more is lost than tolerated: a search that found less was disturbed.
    pub(super) fn is_no_less_than(&mut self, without_loss: &Self) {
        if without_loss.finding.has_rate() && self.pps.median < without_loss.pps.median {
            (self.pps, self.gbps) = (without_loss.pps, without_loss.gbps);
            self.finding = Finding::AtLeastGenerator;
        }
    }
}

impl Dut {
    pub(crate) fn of(testbed: &mut Testbed) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        for node in testbed.nodes() {
            let state = node.get()?;
            let sockets = state.ports.into_iter().map(|port| SocketMode {
                name: port.port,
                xdp: Some(port.xdp),
                bind: port.bind,
                need_wakeup: port.need_wakeup,
            });
            nodes.push(DutNode {
                name: state.node,
                version: state.version,
                workers: state.workers,
                provider: state.provider,
                memory: state.memory,
                sockets: sockets.collect(),
            });
        }
        Ok(Self { nodes })
    }
}

impl SocketMode {
    pub(super) fn new(name: &str, xdp: Option<XdpOutcome>, mode: Outcome) -> Self {
        let bind = match mode.bind {
            ZeroCopy::ZeroCopy => "zero-copy",
            ZeroCopy::Copy => "copy",
        };
        Self {
            name: name.into(),
            xdp: xdp.map(|xdp| xdp.to_string()),
            bind: vec![bind.into()],
            need_wakeup: mode.need_wakeup,
        }
    }
}

impl SizeResult {
    pub(super) fn new(size: Size, octets: f64) -> Self {
        Self {
            size,
            octets,
            frame_bytes: octets + FRAMING,
            throughput: None,
            tolerant: Vec::new(),
            latency: Vec::new(),
            loss: Vec::new(),
            back_to_back: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(finding: Finding) -> SizeResult {
        let mut size = SizeResult::new(Size::Imix, 346.0);
        size.throughput = Some(Throughput {
            tolerated_loss: 0.0,
            pps: Sample::default(),
            gbps: 0.0,
            finding,
            searches: 3,
            inconclusive: 0,
            trials: 9,
            lost: 0,
            void: 9,
            contradicted_by_pps: None,
        });
        size
    }

    #[test]
    fn what_loses_nothing_loses_no_more_than_tolerated() {
        let with = |pps: f64, finding| {
            let mut it = found(finding).throughput.unwrap();
            it.pps = Sample::new(vec![pps]);
            it
        };
        let mut disturbed = with(2e5, Finding::Found);
        disturbed.is_no_less_than(&with(5e5, Finding::Found));
        assert_eq!(
            (disturbed.pps.median, disturbed.finding),
            (5e5, Finding::AtLeastGenerator)
        );
        let mut more = with(6e5, Finding::Found);
        more.is_no_less_than(&with(5e5, Finding::Found));
        assert_eq!((more.pps.median, more.finding), (6e5, Finding::Found));
    }

    /// On a busy machine the receiver may find out late what it has, and what it had no room for.
    #[test]
    fn what_is_found_when_a_trial_is_over_explains_its_loss() {
        let sent = |sent, received, late| Account {
            size: Size::Imix,
            offered_pps: 0.0,
            received_pps: 0.0,
            summary: Summary {
                sent,
                received,
                lost: sent - received,
                ..Summary::default()
            },
            late,
        };
        let late = |received, socket_drops| Summary {
            received,
            socket_drops,
            ..Summary::default()
        };
        let mut total = Total {
            drops: Some(BTreeMap::from([("edge-a no_route".into(), 5)])),
            ..Total::default()
        };
        total.add(&sent(1000, 100, Summary::default()));
        assert_eq!(total.unexplained(), Some(895));
        total.add(&sent(50, 50, late(600, 90)));
        assert_eq!(total.unexplained(), Some(205));
        total.add_late(&late(200, 5));
        assert_eq!(total.unexplained(), Some(0));
        assert_eq!((total.sent, total.received + total.lost), (1050, 1050));
        assert_eq!((total.late, total.receiver_drops), (800, 95));
        assert_eq!(judge(&[], &total).0, Verdict::Success);
    }

    #[test]
    fn what_could_not_be_measured_is_no_success() {
        let total = Total::default();
        for (finding, verdict) in [
            (Finding::Found, Verdict::Success),
            (Finding::AtLeastGenerator, Verdict::Success),
            (Finding::Lossy, Verdict::Failure),
            (Finding::Inconclusive, Verdict::Inconclusive),
        ] {
            let (found, reasons) = judge(&[found(finding)], &total);
            assert_eq!(
                (found, reasons.len()),
                (verdict, usize::from(verdict != Verdict::Success))
            );
        }
        let mut contradicted = found(Finding::Found);
        let throughput = contradicted.throughput.as_mut().unwrap();
        throughput.contradicted_by_pps = Some(1.8e5);
        let (verdict, reasons) = judge(&[contradicted], &total);
        assert_eq!(verdict, Verdict::Inconclusive);
        assert!(
            reasons[0].starts_with("imix: 180000 packets a second passed"),
            "{reasons:?}"
        );
        let total = Total {
            lost: 1,
            drops: Some(BTreeMap::new()),
            ..total
        };
        assert_eq!(judge(&[], &total).0, Verdict::Failure);
    }
}
