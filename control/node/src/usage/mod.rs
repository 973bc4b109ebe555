//! Accounting: what each circuit carried and dropped, minute by minute.
//!
//! ```text
//! Traffic (tables) -> Meter --closed minutes--> Store (thread, files) -> Scan -> Usage
//!                        \--> usage events
//! ```
//!
//! Workers only count up. The meter remembers how far each counter was when the running interval began; what came since is
//! the interval's, whatever happened to the circuit's path or keys. So nothing is counted twice or lost between two
//! intervals. A deleted circuit is kept until no snapshot of the tables has it any more, and no worker can still count.

mod scan;
mod store;

use std::collections::{HashMap, HashSet};

use twinseal_api::v1;

use crate::keys::Live;
pub use scan::Scan;
pub use store::{Flushed, Store, StoreError, UsageConfig};
use twinseal_base::time::unix;
use twinseal_fib::traffic::{REASONS, Traffic, TrafficTotals};
use twinseal_forward::reason::DropReason;
use twinseal_model::items;
use twinseal_model::state::{Circuit, CircuitName, State};

/// What circuits did since the running interval began.
pub struct Meter {
    interval: u64,
    /// When the running interval began, in seconds since 1970; a multiple of `interval`.
    start: u64,
    circuits: HashMap<CircuitName, Entry>,
    /// Deleted ones on which a worker may still count.
    deleted: Vec<Entry>,
    /// Parts of the running interval that were closed early, as what they are told with has changed.
    parts: Vec<v1::UsageRecord>,
}

struct Entry {
    name: CircuitName,
    circuit: Circuit,
    traffic: Traffic,
    /// How far the counters were when the interval began.
    counted: Counts,
}

#[derive(Clone, Default)]
struct Counts {
    totals: TrafficTotals,
    /// `None` while nothing was ever dropped.
    drops: Option<Box<[u64; REASONS]>>,
}

/// Which records are wanted.
#[derive(Clone, Default, Debug)]
pub struct Filter {
    /// Only these circuits; none: all.
    pub circuits: HashSet<String>,
    /// Intervals that begin then, in seconds since 1970, or later.
    pub from: u64,
    /// And before this; 0: all.
    pub until: u64,
}

impl Filter {
    /// Whether a record is wanted.
    pub fn wants(&self, record: &v1::UsageRecord) -> bool {
        let start = record.interval_start_unix;
        start >= self.from
            && (self.until == 0 || start < self.until)
            && (self.circuits.is_empty() || self.circuits.contains(&record.circuit))
    }
}

impl Meter {
    /// Of intervals of so many seconds.
    pub fn new(interval: u32) -> Self {
        let interval = u64::from(interval.max(1));
        Self {
            interval,
            start: start_of(interval),
            circuits: HashMap::new(),
            deleted: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// When the running interval began, in seconds since 1970.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Seconds of an interval.
    pub fn interval(&self) -> u32 {
        self.interval as u32
    }

    /// Follows a transaction that turned `old` into `new`, whose counters are `live`.
    pub fn changed(&mut self, old: &State, new: &State, live: &Live) {
        if new.circuits.same(&old.circuits) {
            return;
        }
        let names = old.circuits.keys();
        for name in names.filter(|name| !new.circuits.contains_key(name)) {
            self.deleted.extend(self.circuits.remove(name));
        }
        for (name, circuit) in new.circuits.iter() {
            let Some(traffic) = live.circuit(name) else {
                continue;
            };
            match self.circuits.get_mut(name) {
                Some(entry) if entry.traffic.is(traffic) => {
                    if !told_alike(&entry.circuit, circuit) {
                        self.parts.extend(entry.take(self.start, self.interval));
                    }
                    entry.circuit = circuit.clone();
                }
                _ => {
                    let entry = self.begin(name, circuit, traffic);
                    self.deleted
                        .extend(self.circuits.insert(name.clone(), entry));
                }
            }
        }
    }

    /// A circuit that is new, or was deleted and is back with its counters, as after a transaction that was rolled back.
    fn begin(&mut self, name: &CircuitName, circuit: &Circuit, traffic: &Traffic) -> Entry {
        let back = |entry: &Entry| entry.traffic.is(traffic);
        let mut counted = Counts::default();
        if let Some(nth) = self.deleted.iter().position(back) {
            let mut entry = self.deleted.swap_remove(nth);
            self.parts.extend(entry.take(self.start, self.interval));
            counted = entry.counted;
        }
        Entry {
            name: name.clone(),
            circuit: circuit.clone(),
            traffic: traffic.clone(),
            counted,
        }
    }

    /// The records of the interval that is over; `None` while it is not.
    pub fn close_if_over(&mut self) -> Option<Vec<v1::UsageRecord>> {
        let now = start_of(self.interval);
        // A clock that was set back begins another interval too: records add up.
        (now != self.start).then(|| self.close(now))
    }

    /// Deleted circuits that a worker may still count on.
    #[cfg(test)]
    pub(super) fn lingering(&self) -> usize {
        self.deleted.len()
    }

    /// The records of the running interval, which ends here.
    pub fn close_now(&mut self) -> Vec<v1::UsageRecord> {
        self.close(start_of(self.interval))
    }

    fn close(&mut self, next: u64) -> Vec<v1::UsageRecord> {
        let (start, interval) = (self.start, self.interval);
        let mut records = std::mem::take(&mut self.parts);
        self.deleted.retain_mut(|entry| {
            // Looked at first: once we are the last to hold it, nobody counts any more.
            let last = entry.traffic.is_last();
            records.extend(entry.take(start, interval));
            !last
        });
        let circuits = self.circuits.values_mut();
        records.extend(circuits.filter_map(|entry| entry.take(start, interval)));
        records.sort_by(|a, b| a.circuit.cmp(&b.circuit));
        self.start = next;
        records
    }

    /// What the running interval comes to so far.
    pub fn running(&self, filter: &Filter) -> Vec<v1::UsageRecord> {
        let entries = self.circuits.values().chain(&self.deleted);
        let open = entries.filter_map(|entry| {
            let (record, _) = entry.since(self.start, self.interval)?;
            Some(record)
        });
        let mut records: Vec<_> = self
            .parts
            .iter()
            .cloned()
            .chain(open)
            .filter(|record| filter.wants(record))
            .map(|record| v1::UsageRecord {
                running: true,
                ..record
            })
            .collect();
        records.sort_by(|a, b| a.circuit.cmp(&b.circuit));
        records
    }
}

impl Entry {
    /// What came since the interval began, which begins anew; `None` if nothing did.
    fn take(&mut self, start: u64, interval: u64) -> Option<v1::UsageRecord> {
        let (record, counts) = self.since(start, interval)?;
        self.counted = counts;
        Some(record)
    }

    fn since(&self, start: u64, interval: u64) -> Option<(v1::UsageRecord, Counts)> {
        let totals = self.traffic.totals();
        let (drops, reasons) = self.drops();
        let before = self.counted.totals;
        if totals == before && drops.is_empty() {
            return None;
        }
        let end = items::end(self.circuit.end);
        let record = v1::UsageRecord {
            interval_start_unix: start,
            interval_seconds: interval as u32,
            circuit: self.name.to_string(),
            id: self.circuit.id,
            end: end.into(),
            tags: (*self.circuit.tags).clone(),
            received_packets: totals.received_packets - before.received_packets,
            received_bytes: totals.received_bytes - before.received_bytes,
            sent_packets: totals.sent_packets - before.sent_packets,
            sent_bytes: totals.sent_bytes - before.sent_bytes,
            drops,
            running: false,
        };
        let counts = Counts {
            totals,
            drops: reasons,
        };
        Some((record, counts))
    }

    /// Drops by reason since the interval began, and all so far.
    fn drops(&self) -> (Vec<v1::Counter>, Option<Box<[u64; REASONS]>>) {
        let mut all = self.counted.drops.clone();
        let mut grown = Vec::new();
        for (nth, reason) in DropReason::ALL.iter().enumerate() {
            let total = self.traffic.drops(nth);
            let before = self.counted.drops.as_ref().map_or(0, |drops| drops[nth]);
            if total > before {
                all.get_or_insert_with(|| Box::new([0; REASONS]))[nth] = total;
                grown.push(v1::Counter {
                    name: reason.name().to_owned(),
                    value: total - before,
                });
            }
        }
        (grown, all)
    }
}

/// Whether records of both say the same of the circuit.
fn told_alike(a: &Circuit, b: &Circuit) -> bool {
    (a.id, a.end, &a.tags) == (b.id, b.end, &b.tags)
}

/// When the interval of this moment began.
fn start_of(interval: u64) -> u64 {
    unix().as_secs() / interval * interval
}
