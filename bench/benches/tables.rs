//! Lookup tables: batches of lookups in tries of several sizes, and what a transaction of route changes takes until workers
//! have it.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use twinseal_bench::routes::{Draw, Prefix, address_in, prefixes};
use twinseal_fib::draft::Draft;
use twinseal_fib::trie::{Editor, Key, NO_ROUTE, Number, Tries, burst};
use twinseal_fib::{CircuitIndex, Fib, Target, Vrf, VrfIndex};

const BATCH: usize = 64;
/// Route changes of a transaction.
const TRANSACTION: usize = 100;

/// A batch of lookups in one trie.
fn look_up<K: Key>(tries: &Tries, root: &K::Root, keys: &[K]) -> [u32; BATCH] {
    let mut leaves = [NO_ROUTE; BATCH];
    let mut queries = [(root, keys[0]); BATCH];
    for (query, key) in queries.iter_mut().zip(keys) {
        query.1 = *key;
    }
    tries.lookup_all(&queries[..keys.len()], &mut leaves);
    leaves
}

/// IPv4 routes, at addresses within them drawn at random.
fn fib(c: &mut Criterion) {
    let mut group = c.benchmark_group("fib");
    group.throughput(Throughput::Elements(BATCH as u64));
    for count in [1000, 100_000, 1_000_000] {
        let routes = prefixes(count);
        let mut editor = Editor::default();
        let mut root = burst::Root::default();
        for (nth, (prefix, len)) in (1..).zip(&routes) {
            editor.set(&mut root, *prefix, (*len).into(), nth);
        }
        let tries = editor.publish();
        let mut draw = Draw::new(3);
        group.bench_function(BenchmarkId::new("64 lookups", count), |b| {
            b.iter_batched_ref(
                || [(); BATCH].map(|()| anywhere(&routes, &mut draw)),
                |keys| look_up(&tries, &root, keys),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// An address within a route drawn at random.
fn anywhere(routes: &[Prefix], draw: &mut Draw) -> [u8; 4] {
    let nth = draw.number() as usize % routes.len();
    address_in(routes[nth], draw)
}

/// Labels of a link, as many as a batch and all different.
fn labels(c: &mut Criterion) {
    let mut group = c.benchmark_group("labels");
    group.throughput(Throughput::Elements(BATCH as u64));
    for count in [64, 100_000] {
        let mut editor = Editor::default();
        let mut root = burst::Root::default();
        for label in 0..count {
            editor.set(&mut root, Number(label), Number::BITS, label + 1);
        }
        let tries = editor.publish();
        let mut draw = Draw::new(4);
        group.bench_function(BenchmarkId::new("64 lookups", count), |b| {
            b.iter_batched_ref(
                || [(); BATCH].map(|()| Number(draw.number() as u32 % count)),
                |keys| look_up(&tries, &root, keys),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Routes led elsewhere, and a snapshot of it all.
fn transaction(c: &mut Criterion) {
    let routes = prefixes(1_000_000);
    let mut draft = Draft::default();
    draft.tables.vrfs.set(0, Vrf::default());
    let target = |nth: u64| Target::Circuit(CircuitIndex((nth % 1000) as u32));
    for (nth, (prefix, len)) in (0..).zip(&routes) {
        draft.set_route(VrfIndex(0), *prefix, *len, target(nth));
    }
    let mut draw = Draw::new(5);
    let mut before: Fib = draft.publish(0);
    let mut group = c.benchmark_group("transaction");
    group.throughput(Throughput::Elements(TRANSACTION as u64));
    group.bench_function("100 of a million routes", |b| {
        b.iter(|| {
            for _ in 0..TRANSACTION {
                let (prefix, len) = routes[draw.number() as usize % routes.len()];
                draft.set_route(VrfIndex(0), prefix, len, target(draw.number()));
            }
            before = draft.publish(before.generation + 1);
        });
    });
    group.finish();
}

fn brief() -> Criterion {
    Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1))
        .sample_size(20)
}

criterion_group! {
    name = tables;
    config = brief();
    targets = fib, labels, transaction
}
criterion_main!(tables);
