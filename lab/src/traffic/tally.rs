//! What became of the packets.

use std::collections::{HashMap, VecDeque};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Marker, Payload, Sent};

/// Sequence numbers that a flow remembers behind its highest, in words of 64.
const WINDOW_WORDS: usize = 1024;
/// Latencies above this count as this, in nanoseconds: a minute.
const LATENCY_MAX: u64 = 60_000_000_000;

/// The receiver's account of all flows with one marker.
#[derive(Debug, Clone)]
pub struct Tally {
    marker: Marker,
    flows: HashMap<u32, FlowTally>,
    received: u64,
    damaged: u64,
    foreign: u64,
    socket_drops: u64,
    latency: Histogram<u64>,
}

/// The account of one flow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowTally {
    /// Different packets received.
    pub received: u64,
    /// Packets received again.
    pub duplicates: u64,
    /// Packets received after one with a higher number (RFC 4737, type-P-reordered).
    pub reordered: u64,
    /// More than 65,000 numbers late: known neither as new nor as a duplicate.
    pub stale: u64,
    /// Payload bytes of different packets.
    pub bytes: u64,
    /// The highest number received.
    pub highest: Option<u64>,
    /// One bit for each number from `base` on, set when received.
    window: VecDeque<u64>,
    base: u64,
    /// Numbers below `base` that were not received.
    forgotten: u64,
}

/// Percentiles of one-way times, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Latency {
    pub min: u64,
    pub mean: f64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub p9999: u64,
    pub max: u64,
}

/// A tally in a few numbers. All count packets unless they say else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Flows of which anything came.
    pub flows: u64,
    /// Sent.
    pub sent: u64,
    /// Different packets received.
    pub received: u64,
    /// Sent and never received, whatever the cause.
    pub lost: u64,
    /// Of these, dropped at the receiver's own socket: the measurement's fault, not the network's.
    pub socket_drops: u64,
    /// Received again.
    pub duplicates: u64,
    /// Received after a later one of their flow.
    pub reordered: u64,
    /// Received damaged: with a changed fill, or where headers are checked, a wrong checksum.
    pub damaged: u64,
    /// Received without our marker.
    pub foreign: u64,
    /// Payload bytes of different packets.
    pub bytes: u64,
    /// One-way times.
    pub latency: Latency,
}

impl Tally {
    /// An empty tally of packets with this marker.
    pub fn new(marker: Marker) -> Self {
        Tally {
            marker,
            flows: HashMap::new(),
            received: 0,
            damaged: 0,
            foreign: 0,
            socket_drops: 0,
            latency: Histogram::new_with_max(LATENCY_MAX, 3)
                .expect("a minute with three digits is in range"),
        }
    }

    /// Accounts for a payload received at `now_ns` ([`now_ns`](super::now_ns)); false when it is not one of ours or damaged.
    pub fn record(&mut self, now_ns: u64, payload: &[u8]) -> bool {
        let Some(parsed) = Payload::parse(&self.marker, payload) else {
            self.foreign += 1;
            return false;
        };
        if !parsed.is_intact(payload) {
            self.damaged += 1;
            return false;
        }
        let flow = self.flows.entry(parsed.flow).or_default();
        if flow.record(parsed.seq) {
            flow.bytes += payload.len() as u64;
            self.received += 1;
            // A duplicate's time would tell of the duplication, not of the path.
            self.latency
                .saturating_record(now_ns.saturating_sub(parsed.sent_ns));
        }
        true
    }

    /// Adds packets of ours that came damaged where [`record`](Tally::record) does not look, such as in a header.
    pub fn add_damaged(&mut self, packets: u64) {
        self.damaged += packets;
    }

    /// Adds packets that the kernel dropped at the receiver's socket.
    pub fn add_socket_drops(&mut self, drops: u64) {
        self.socket_drops += drops;
    }

    /// Different packets received, of all flows.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Packets dropped at the receiver's own socket.
    pub fn socket_drops(&self) -> u64 {
        self.socket_drops
    }

    /// The account of a flow, if anything of it came.
    pub fn flow(&self, flow: u32) -> Option<&FlowTally> {
        self.flows.get(&flow)
    }

    /// The accounts of all flows, in no order.
    pub fn flows(&self) -> impl Iterator<Item = (u32, &FlowTally)> {
        self.flows.iter().map(|(id, flow)| (*id, flow))
    }

    /// One-way times in nanoseconds of all different packets received.
    pub fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    /// Packets of one sending that never came.
    pub fn lost(&self, sent: &Sent) -> u64 {
        sent.flows()
            .map(|(id, count)| count.saturating_sub(self.flow(id).map_or(0, |f| f.received)))
            .sum()
    }

    /// The tally in a few numbers, beside what was sent.
    pub fn summary(&self, sent: &Sent) -> Summary {
        let total = |of: fn(&FlowTally) -> u64| self.flows.values().map(of).sum();
        let at = |q| self.latency.value_at_quantile(q);
        Summary {
            flows: self.flows.len() as u64,
            sent: sent.packets,
            received: self.received,
            lost: self.lost(sent),
            socket_drops: self.socket_drops,
            duplicates: total(|f| f.duplicates),
            reordered: total(|f| f.reordered),
            damaged: self.damaged,
            foreign: self.foreign,
            bytes: total(|f| f.bytes),
            latency: Latency {
                min: self.latency.min(),
                mean: self.latency.mean(),
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p999: at(0.999),
                p9999: at(0.9999),
                max: self.latency.max(),
            },
        }
    }
}

impl Summary {
    /// Whether every packet came, once, in order and whole.
    pub fn is_perfect(&self) -> bool {
        self.lost + self.duplicates + self.reordered + self.damaged == 0
    }

    /// This account and that of another receiver together. Percentiles cannot be added: they are those of the slower.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let (a, b) = (&self.latency, &other.latency);
        let packets = (self.received + other.received).max(1) as f64;
        Summary {
            flows: self.flows + other.flows,
            sent: self.sent + other.sent,
            received: self.received + other.received,
            lost: self.lost + other.lost,
            socket_drops: self.socket_drops + other.socket_drops,
            duplicates: self.duplicates + other.duplicates,
            reordered: self.reordered + other.reordered,
            damaged: self.damaged + other.damaged,
            foreign: self.foreign + other.foreign,
            bytes: self.bytes + other.bytes,
            latency: Latency {
                min: a.min.min(b.min),
                mean: (a.mean * self.received as f64 + b.mean * other.received as f64) / packets,
                p50: a.p50.max(b.p50),
                p90: a.p90.max(b.p90),
                p99: a.p99.max(b.p99),
                p999: a.p999.max(b.p999),
                p9999: a.p9999.max(b.p9999),
                max: a.max.max(b.max),
            },
        }
    }
}

impl FlowTally {
    /// Numbers up to the highest that never came.
    pub fn missing(&self) -> u64 {
        self.highest
            .map_or(0, |highest| highest.saturating_add(1) - self.received)
    }

    /// Accounts for a number; true when it is new.
    fn record(&mut self, seq: u64) -> bool {
        if seq < self.base {
            match self.forgotten {
                0 => self.duplicates += 1,
                _ => self.stale += 1,
            }
            return false;
        }
        self.slide_to(seq);
        let at = seq - self.base;
        let (word, bit) = ((at / 64) as usize, 1 << (at % 64));
        if word >= self.window.len() {
            self.window.resize(word + 1, 0);
        }
        if self.window[word] & bit != 0 {
            self.duplicates += 1;
            return false;
        }
        self.window[word] |= bit;
        self.received += 1;
        if self.highest > Some(seq) {
            self.reordered += 1;
        }
        self.highest = self.highest.max(Some(seq));
        // Complete words need no memory; the newest stays.
        while self.window.len() > 1 && self.window[0] == u64::MAX {
            self.window.pop_front();
            self.base += 64;
        }
        true
    }

    /// Forgets the oldest words until `seq` fits into the window.
    fn slide_to(&mut self, seq: u64) {
        let needed = (seq - self.base) / 64 + 1;
        let surplus = needed.saturating_sub(WINDOW_WORDS as u64);
        for _ in 0..surplus.min(self.window.len() as u64) {
            let word = self.window.pop_front().unwrap_or_default();
            self.forgotten += u64::from(word.count_zeros());
            self.base += 64;
        }
        let rest = (seq - self.base) / 64 + 1;
        let skipped = rest.saturating_sub(WINDOW_WORDS as u64) * 64;
        self.forgotten = self.forgotten.saturating_add(skipped);
        self.base += skipped;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const MARKER: Marker = *b"tallymrk";

    fn payload(flow: u32, seq: u64, sent_ns: u64) -> Vec<u8> {
        let mut buf = vec![0; 64];
        let payload = Payload {
            marker: MARKER,
            flow,
            seq,
            sent_ns,
        };
        payload.write(&mut buf).expect("long enough");
        buf
    }

    fn flow_of(numbers: &[u64]) -> FlowTally {
        let mut flow = FlowTally::default();
        numbers.iter().for_each(|n| {
            flow.record(*n);
        });
        flow
    }

    #[test]
    fn loss_duplicates_and_reordering_are_told_apart() {
        let flow = flow_of(&[0, 1, 4, 3, 4, 6]);
        assert_eq!((flow.received, flow.missing()), (5, 2));
        assert_eq!((flow.duplicates, flow.reordered), (1, 1));
    }

    #[test]
    fn a_summary_counts_what_was_sent_and_never_came() {
        let mut tally = Tally::new(MARKER);
        assert!(tally.record(1_500, &payload(3, 0, 1_000)));
        assert!(!tally.record(0, b"something else entirely, of some length"));
        let mut damaged = payload(3, 1, 0);
        *damaged.last_mut().expect("bytes") ^= 1;
        assert!(!tally.record(0, &damaged));
        let sent = Sent::for_flows(3, vec![2, 5]);
        let summary = tally.summary(&sent);
        assert_eq!((summary.sent, summary.received, summary.lost), (7, 1, 6));
        assert_eq!((summary.foreign, summary.damaged, summary.flows), (1, 1, 1));
        assert_eq!((summary.bytes, summary.latency.min), (64, 500));
        assert!(!summary.is_perfect());
    }

    #[test]
    fn a_leap_costs_no_memory() {
        let mut flow = flow_of(&[0, u64::MAX - 1]);
        assert!(flow.window.len() <= WINDOW_WORDS);
        flow.record(5);
        assert_eq!((flow.received, flow.stale), (2, 1));
    }

    #[test]
    fn a_long_clean_flow_is_remembered_in_a_word() {
        let flow = flow_of(&(0..100_000).collect::<Vec<_>>());
        assert_eq!(
            (flow.received, flow.missing(), flow.window.len()),
            (100_000, 0, 1)
        );
        let mut flow = flow;
        flow.record(17);
        assert_eq!((flow.duplicates, flow.stale), (1, 0));
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(numbers in prop::collection::vec(0u64..20_000, 0..400)) {
            let (mut seen, mut highest) = (HashSet::new(), None);
            let (mut duplicates, mut reordered) = (0, 0);
            for n in &numbers {
                if !seen.insert(*n) {
                    duplicates += 1;
                } else if highest > Some(*n) {
                    reordered += 1;
                }
                highest = highest.max(Some(*n));
            }
            let flow = flow_of(&numbers);
            prop_assert_eq!(flow.received, seen.len() as u64);
            prop_assert_eq!(flow.duplicates, duplicates);
            prop_assert_eq!(flow.reordered, reordered);
            prop_assert_eq!(flow.missing(), highest.map_or(0, |h| h + 1) - seen.len() as u64);
            prop_assert_eq!(flow.stale, 0);
        }
    }
}
