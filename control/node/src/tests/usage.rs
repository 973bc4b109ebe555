//! Sums over changes of all kinds, and what is left of damaged files.

use std::path::Path;

use super::*;
use crate::keys::Live;
use crate::usage::{Filter, Flushed, Meter, Scan, Store, UsageConfig};
use twinseal_api::v1::item::Item;
use twinseal_fib::traffic::Traffic;
use twinseal_forward::reason::DropReason;
use twinseal_model::state::CircuitName;

/// A state, its counters, and what is metered of them.
struct Metered {
    state: State,
    live: Live,
    meter: Meter,
}

impl Metered {
    fn new() -> Self {
        let mut it = Self {
            state: State::default(),
            live: Live::default(),
            // Nothing closes by itself.
            meter: Meter::new(1 << 30),
        };
        it.apply(sets(edge_items()));
        it
    }

    fn apply(&mut self, changes: Vec<v1::Change>) {
        let outcome = apply(&self.state, changes);
        let config = compile::sa_config();
        let live = self.live.next(&outcome.state, &outcome.secrets, &config);
        let live = live.expect("it is sound");
        let old = std::mem::replace(&mut self.state, outcome.state);
        self.live = live;
        self.meter.changed(&old, &self.state, &self.live);
    }

    fn traffic(&self, name: &str) -> Traffic {
        let name = CircuitName::new(name).expect("a name");
        self.live.circuit(&name).expect("it is there").clone()
    }
}

/// Circuit, a tag, packets and octets sent and received.
type Line = (String, String, [u64; 4]);

fn lines(records: &[v1::UsageRecord]) -> Vec<Line> {
    let line = |it: &v1::UsageRecord| {
        let tag = it.tags.get("t").cloned().unwrap_or_default();
        let counts = [
            it.sent_packets,
            it.sent_bytes,
            it.received_packets,
            it.received_bytes,
        ];
        (it.circuit.clone(), tag, counts)
    };
    records.iter().map(line).collect()
}

fn line(circuit: &str, tag: &str, counts: [u64; 4]) -> Line {
    (circuit.into(), tag.into(), counts)
}

fn tagged(label: u32, tag: &str) -> Vec<v1::Change> {
    vec![set(Item::Circuit(v1::Circuit {
        tags: [("t".into(), tag.into())].into(),
        ..circuit("c2", 8, label)
    }))]
}

#[test]
fn every_packet_is_in_one_record() {
    let mut it = Metered::new();
    it.apply(tagged(7, "x"));
    let traffic = it.traffic("c2");
    traffic.sent(0, 2, 100);
    // Another path: nothing begins anew.
    it.apply(tagged(9, "x"));
    traffic.sent(0, 1, 50);
    traffic.received(0, 4, 10);
    // Another tag: what came before has the old one.
    it.apply(tagged(9, "y"));
    traffic.received(0, 1, 1);
    traffic.dropped(DropReason::CircuitReplayed as usize);
    let all = [
        line("c2", "x", [3, 150, 4, 10]),
        line("c2", "y", [0, 0, 1, 1]),
    ];
    let running = it.meter.running(&Filter::default());
    assert!(running.iter().all(|record| record.running));
    assert_eq!(lines(&running), all);
    let records = it.meter.close_now();
    assert_eq!(lines(&records), all);
    assert!(records[0].drops.is_empty());
    assert_eq!(records[1].drops.len(), 1);
    assert_eq!(records[1].drops[0].name, "circuit_replayed");
    assert_eq!((records[1].id, records[1].end()), (8, v1::End::A));
    assert!(it.meter.close_now().is_empty(), "told once");
}

#[test]
fn a_deleted_circuit_is_counted_to_its_end() {
    let mut it = Metered::new();
    it.apply(tagged(7, "x"));
    let traffic = it.traffic("c2");
    traffic.sent(0, 1, 10);
    let c2 = v1::item_ref::Item::Circuit("c2".into());
    it.apply(vec![delete(c2)]);
    // A worker with the old tables.
    traffic.sent(0, 1, 10);
    assert_eq!(
        lines(&it.meter.close_now()),
        [line("c2", "x", [2, 20, 0, 0])]
    );
    traffic.sent(0, 1, 10);
    // Another of that name.
    it.apply(tagged(7, "z"));
    it.traffic("c2").received(0, 1, 5);
    let expected = [
        line("c2", "x", [1, 10, 0, 0]),
        line("c2", "z", [0, 0, 1, 5]),
    ];
    let mut got = lines(&it.meter.close_now());
    got.sort();
    assert_eq!(got, expected);
    assert_eq!(it.meter.lingering(), 1, "somebody may still count");
    drop(traffic);
    it.meter.close_now();
    assert_eq!(it.meter.lingering(), 0);
}

fn record(n: u64) -> v1::UsageRecord {
    v1::UsageRecord {
        interval_start_unix: 60 * n,
        interval_seconds: 60,
        circuit: format!("c{}", n % 3),
        sent_packets: n,
        tags: [("clientId".into(), "k".into())].into(),
        ..Default::default()
    }
}

/// What a folder has.
fn flushed(path: &Path) -> Flushed {
    let store = Store::open(path.to_owned(), &UsageConfig::default()).expect("it opens");
    store.flush().blocking_recv().expect("it answers")
}

fn scan(flushed: Flushed, filter: Filter) -> Vec<u64> {
    let mut scan = Scan::new(flushed, filter);
    let mut all = Vec::new();
    while let Some(records) = scan.next_block().expect("readable") {
        all.extend(records.iter().map(|record| record.sent_packets));
    }
    all
}

#[test]
fn what_is_stored_is_read_back_whatever_was_damaged() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = UsageConfig::default();
    for life in 0..2u64 {
        let store = Store::open(dir.path().to_owned(), &config).expect("it opens");
        for minute in 1..=3 {
            // More than one block.
            let first = 10_000 * life + 1000 * minute;
            assert!(store.append((first..first + 600).map(record).collect()));
        }
        let flushed = store.flush().blocking_recv().expect("it is written");
        assert_eq!(flushed.len() as u64, life + 1, "a segment each life");
    }
    let expected: Vec<u64> = [1000, 2000, 3000, 11_000, 12_000, 13_000]
        .into_iter()
        .flat_map(|first| first..first + 600)
        .collect();
    let whole = flushed(dir.path());
    assert_eq!(scan(whole.clone(), Filter::default()), expected);
    let filter = Filter {
        circuits: ["c1".to_owned()].into(),
        from: 60 * 2000,
        until: 60 * 2010,
    };
    assert_eq!(scan(whole.clone(), filter), [2002, 2005, 2008]);

    // A torn end loses its block alone, a changed octet the block that it is in.
    let (path, size) = &whole[1];
    let file = std::fs::OpenOptions::new().write(true).open(path);
    file.expect("it is there")
        .set_len(size - 1)
        .expect("it is cut");
    let (path, _) = &whole[0];
    let mut octets = std::fs::read(path).expect("readable");
    octets[100] ^= 1;
    std::fs::write(path, octets).expect("writable");
    let left: Vec<u64> = expected
        .into_iter()
        .filter(|n| !(1000..1512).contains(n) && *n < 13_512)
        .collect();
    assert_eq!(scan(flushed(dir.path()), Filter::default()), left);
}

#[test]
fn the_oldest_go_when_there_is_too_much() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = UsageConfig {
        max_bytes: 9 << 20,
        ..Default::default()
    };
    let store = Store::open(dir.path().to_owned(), &config).expect("it opens");
    let big = |n: u64| v1::UsageRecord {
        tags: (0..16)
            .map(|tag| (tag.to_string(), "x".repeat(256)))
            .collect(),
        ..record(n)
    };
    for minute in 0..12 {
        assert!(store.append((minute * 256..(minute + 1) * 256).map(big).collect()));
    }
    let flushed = store.flush().blocking_recv().expect("it is written");
    let total: u64 = flushed.iter().map(|(_, size)| size).sum();
    assert!(total <= 9 << 20, "{total}");
    let left = scan(flushed, Filter::default());
    assert!(left.len() < 12 * 256);
    let last: Vec<u64> = (12 * 256 - left.len() as u64..12 * 256).collect();
    assert_eq!(left, last, "the newest are left");
}
