//! The pipeline as ingress, transit and egress, a batch at a time; only the work on packets is timed, not making them.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use twinseal::pipeline::BATCH;
use twinseal_bench::{ROUND, Rig, Role, SIZES};
use twinseal_crypto::{Suite, default_provider};

fn roles(c: &mut Criterion) {
    let provider = default_provider();
    for role in Role::ALL {
        let mut group = c.benchmark_group(role.name());
        group.throughput(Throughput::Elements(BATCH as u64));
        for octets in SIZES {
            let mut rig = Rig::new(provider, Suite::Aes256Gcm, role, octets).expect("nodes");
            group.bench_function(BenchmarkId::from_parameter(octets), |b| {
                b.iter_custom(|batches| time(&mut rig, batches));
            });
        }
    }
}

/// The time of so many batches. Whole rounds are run, and the time is taken in proportion.
fn time(rig: &mut Rig, batches: u64) -> Duration {
    let a_round = (ROUND / BATCH) as u64;
    let rounds = batches.div_ceil(a_round);
    let total: Duration = (0..rounds)
        .map(|_| {
            rig.round(|work| {
                let start = Instant::now();
                work();
                start.elapsed()
            })
            .expect("every packet is sent")
        })
        .sum();
    total.mul_f64(batches as f64 / (rounds * a_round) as f64)
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = roles
}
criterion_main!(benches);
