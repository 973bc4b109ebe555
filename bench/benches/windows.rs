//! Replay windows: what it takes to ask them and to mark a batch, in the orders that networks bring about.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use twinseal_crypto::{Commits, OpenSa, Replay, Suite, default_provider};
use twinseal_forward::fixture::{LANES, Seal};

const BATCH: usize = 64;
/// Counters of a lane that a batch takes.
const STEP: u64 = BATCH as u64 / LANES as u64;

/// The lane and counter of packet `nth` of batch `batch`.
type Order = fn(batch: u64, nth: usize) -> (u8, u64);

const ORDERS: [(&str, Order); 3] = [
    // A flow, or several in one lane.
    ("one lane", |batch, nth| {
        (0, batch * BATCH as u64 + nth as u64)
    }),
    // Lanes by turns.
    ("four lanes", by_turns),
    // By turns, and pairs of neighbours have changed places.
    ("four lanes, reordered", |batch, nth| {
        by_turns(batch, nth ^ usize::from(LANES))
    }),
];

fn by_turns(batch: u64, nth: usize) -> (u8, u64) {
    let lanes = usize::from(LANES);
    ((nth % lanes) as u8, batch * STEP + (nth / lanes) as u64)
}

fn windows(c: &mut Criterion) {
    let mut group = c.benchmark_group("windows");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, order) in ORDERS {
        group.bench_function(BenchmarkId::new("commit", name), |b| {
            b.iter_custom(|batches| {
                let sa = window();
                time(batches, |batch| mark(&sa, batch, order))
            });
        });
    }
    group.bench_function("commit replays", |b| {
        let sa = window();
        mark(&sa, 0, by_turns);
        b.iter(|| {
            for nth in 0..BATCH {
                let (lane, counter) = by_turns(0, nth);
                assert_eq!(sa.commit(lane, counter), Replay::Replayed);
            }
        });
    });
}

fn window() -> OpenSa {
    let sa = Seal::Circuit.open_sa(default_provider(), Suite::Aes256Gcm);
    let sa = sa.expect("a key");
    for lane in 0..LANES {
        sa.prepare(lane as u8);
    }
    sa
}

/// As for packets that verified.
fn mark(sa: &OpenSa, batch: u64, order: Order) {
    let mut commits = Commits::default();
    for nth in 0..BATCH {
        let (lane, counter) = order(batch, nth);
        sa.commit_with(&mut commits, nth, lane, counter);
    }
    let committed = commits.finish();
    assert!((0..BATCH).all(|nth| committed.of(nth) == Replay::Fresh));
}

fn time(batches: u64, mut work: impl FnMut(u64)) -> Duration {
    let start = Instant::now();
    (0..batches).for_each(&mut work);
    start.elapsed()
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = windows
}
criterion_main!(benches);
