//! The pipeline as ingress, transit and egress, a batch at a time; only the work on packets is timed, not making them.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use twinseal_bench::net::{Extent, Net};
use twinseal_bench::{Harness, ROUND, Role, Size};
use twinseal_crypto::{Suite, default_provider};
use twinseal_forward::BATCH;

const SIZES: [Size; 3] = [Size::Octets(64), Size::Octets(512), Size::Octets(1400)];

fn roles(c: &mut Criterion) {
    let extent = Extent::default();
    let mut net = Net::new(default_provider(), Suite::Aes256Gcm, &extent).expect("nodes");
    for role in Role::ALL {
        let mut group = c.benchmark_group(role.name());
        group.throughput(Throughput::Elements(BATCH as u64));
        for size in SIZES {
            let worker = &mut net.workers[0];
            let mut rig =
                Harness::new(&net.tables, worker, &net.routes, role, size, 0).expect("memory");
            group.bench_function(BenchmarkId::from_parameter(size), |b| {
                b.iter_custom(|batches| time(&mut rig, batches));
            });
        }
    }
}

/// The first stage alone: Ethernet from a host, and the outer headers of another node.
fn parse(c: &mut Criterion) {
    let extent = Extent::default();
    let mut net = Net::new(default_provider(), Suite::Aes256Gcm, &extent).expect("nodes");
    let mut group = c.benchmark_group("parse");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, role) in [("host", Role::Ingress), ("underlay", Role::Transit)] {
        let worker = &mut net.workers[0];
        let size = Size::Octets(64);
        let mut rig =
            Harness::new(&net.tables, worker, &net.routes, role, size, 0).expect("memory");
        group.bench_function(name, |b| {
            b.iter_custom(|batches| {
                in_rounds(batches, || {
                    let [parse, ..] = rig.stages().expect("every packet is sent");
                    parse
                })
            });
        });
    }
}

fn time(rig: &mut Harness<'_>, batches: u64) -> Duration {
    in_rounds(batches, || {
        let mut time = Duration::ZERO;
        rig.round(|work| {
            let start = Instant::now();
            work();
            time += start.elapsed();
        })
        .expect("every packet is sent");
        time
    })
}

/// The time of so many batches: whole rounds are run, and their time is taken in proportion.
fn in_rounds(batches: u64, round: impl FnMut() -> Duration) -> Duration {
    let a_round = (ROUND / BATCH) as u64;
    let rounds = batches.div_ceil(a_round);
    let total: Duration = std::iter::repeat_with(round).take(rounds as usize).sum();
    total.mul_f64(batches as f64 / (rounds * a_round) as f64)
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = parse, roles
}
criterion_main!(benches);
