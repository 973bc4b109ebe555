//! Accounting on the node: closes intervals in time, has them stored, and tells them as events.

use std::collections::{HashMap, VecDeque};

use tokio::sync::oneshot;
use twinseal_api::v1::{self, EventKind, event::Event as Body};

use crate::events::{Events, FaultKind};
use crate::handle::Usage;
use crate::keys::Live;
use crate::usage::{Filter, Flushed, Meter, Store};
use twinseal_model::state::State;
use twinseal_runtime::workers::Pool;
use twinseal_runtime::workers::stats::Snapshot;

/// Usage events that are told at once: a hundred thousand circuits must not push all else out of the ring before anybody
/// could read it, nor hold up the control thread.
const PACE: usize = 256;

/// The node's accounts.
pub struct Accounts {
    meter: Meter,
    /// `None` while there is no state directory.
    store: Option<Store>,
    /// Records of closed intervals that are still to be told.
    untold: VecDeque<v1::UsageRecord>,
    /// The whole node's counters when the interval began.
    before: Snapshot,
}

impl Accounts {
    /// Begins with the running interval.
    pub fn new(meter: Meter) -> Self {
        Self {
            meter,
            store: None,
            untold: VecDeque::new(),
            before: Snapshot::default(),
        }
    }

    /// Has what is closed from now on kept.
    pub fn keep_in(&mut self, store: Store) {
        self.store = Some(store);
    }

    /// Follows a transaction.
    pub fn changed(&mut self, old: &State, new: &State, live: &Live) {
        self.meter.changed(old, new, live);
    }

    /// What is asked for of the running interval, and when the rest is on disk.
    pub fn usage(&self, running: Option<&Filter>) -> Usage {
        Usage {
            running: running.map_or_else(Vec::new, |filter| self.meter.running(filter)),
            closed: match &self.store {
                Some(store) => store.flush(),
                None => {
                    let (reply, none) = oneshot::channel();
                    let _ = reply.send(Flushed::new());
                    none
                }
            },
        }
    }

    /// Closes the interval if it is over, and tells some of what is closed.
    pub fn tick(&mut self, events: &Events, pool: &Pool) {
        let start = self.meter.start();
        if let Some(records) = self.meter.close_if_over() {
            self.keep(events, records);
            let now = pool.stats();
            let body = performance(start, self.meter.interval(), &self.before, &now);
            events.emit(EventKind::Performance, Body::Performance(body));
            self.before = now;
        }
        self.tell(events, PACE);
    }

    /// Closes the running interval for good, and waits until it is stored.
    pub fn finish(&mut self, events: &Events) {
        let records = self.meter.close_now();
        self.keep(events, records);
        self.tell(events, usize::MAX);
        if let Some(store) = &mut self.store {
            store.close();
        }
    }

    fn keep(&mut self, events: &Events, records: Vec<v1::UsageRecord>) {
        self.untold.extend(records.iter().cloned());
        // Without a state directory nothing is kept, which is told as that.
        if self
            .store
            .as_ref()
            .is_some_and(|store| !store.append(records))
        {
            let detail =
                "an interval of usage was not stored: the disk of the state directory is too slow";
            events.fault(FaultKind::UsageLost, detail.to_owned());
        }
    }

    fn tell(&mut self, events: &Events, most: usize) {
        for record in self.untold.drain(..most.min(self.untold.len())) {
            let body = v1::UsageEvent {
                record: Some(record),
            };
            events.emit(EventKind::Accounting, Body::Usage(body));
        }
    }
}

fn performance(
    start: u64,
    interval: u32,
    before: &Snapshot,
    now: &Snapshot,
) -> v1::PerformanceEvent {
    let workers = |of: &Snapshot| {
        of.workers.iter().fold((0, 0), |sum, worker| {
            (sum.0 + worker.packets, sum.1 + worker.batches)
        })
    };
    // Ports that went take their counters with them; one that came begins at zero.
    let old: HashMap<_, _> = before.ports.iter().map(|it| (it.port, it)).collect();
    let mut sums = [0; 3];
    for port in &now.ports {
        let old = old.get(&port.port).filter(|old| {
            old.received_packets <= port.received_packets && old.sent_packets <= port.sent_packets
        });
        let counters = [
            (port.received_bytes, old.map_or(0, |it| it.received_bytes)),
            (port.sent_packets, old.map_or(0, |it| it.sent_packets)),
            (port.sent_bytes, old.map_or(0, |it| it.sent_bytes)),
        ];
        for (sum, (now, before)) in sums.iter_mut().zip(counters) {
            *sum += now.saturating_sub(before);
        }
    }
    let drops = now.drops.iter().filter_map(|(name, total)| {
        let old = before.drops.iter().find(|(old, _)| old == name);
        let value = total - old.map_or(0, |(_, old)| *old).min(*total);
        (value > 0).then(|| v1::Counter {
            name: (*name).to_owned(),
            value,
        })
    });
    let (packets, batches) = workers(now);
    let (old_packets, old_batches) = workers(before);
    v1::PerformanceEvent {
        interval_start_unix: start,
        interval_seconds: interval,
        packets: packets.saturating_sub(old_packets),
        batches: batches.saturating_sub(old_batches),
        received_bytes: sums[0],
        sent_packets: sums[1],
        sent_bytes: sums[2],
        drops: drops.collect(),
    }
}
