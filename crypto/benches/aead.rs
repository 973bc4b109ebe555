//! What the fast path pays here: sealing and opening by provider, suite and size, and the counters
//! and windows.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use twinseal_crypto::{
    AAD_LEN, Context, DEFAULT_PROVIDER, Direction, Key, Lanes, Layer, MAX_COUNTER, OpenSa, Packet,
    SECRET_LEN, SealSa, Secret, Suite, TAG_LEN, open, provider, providers, seal,
};

/// Packets a call, as in the dataplane.
const BATCH: usize = 64;

fn aead(c: &mut Criterion) {
    for provider in providers() {
        for suite in Suite::ALL {
            let key = provider
                .key(suite, &vec![7; suite.key_len()])
                .expect("the key has the suite's length");
            let mut group = c.benchmark_group(format!("{}/{suite}", provider.name()));
            for size in [64, 256, 512, 1400] {
                group.throughput(Throughput::Bytes((size * BATCH) as u64));
                let mut buffers = vec![vec![0x5a; size + TAG_LEN]; BATCH];
                group.bench_function(BenchmarkId::new("seal", size), |b| {
                    let mut batch = packets(&key, &mut buffers);
                    b.iter(|| seal(black_box(&mut batch)));
                });
                seal(&mut packets(&key, &mut buffers));
                group.bench_function(BenchmarkId::new("open", size), |b| {
                    // Opening destroys its input, so every round has a fresh copy, which is not
                    // timed.
                    b.iter_batched_ref(
                        || buffers.clone(),
                        |sealed| {
                            let mut batch = packets(&key, sealed);
                            open(black_box(&mut batch));
                            assert!(batch[0].ok);
                        },
                        BatchSize::SmallInput,
                    );
                });
            }
        }
    }
}

fn packets<'a>(key: &'a Key, buffers: &'a mut [Vec<u8>]) -> Vec<Packet<'a>> {
    (0..)
        .zip(buffers)
        .map(|(n, data)| Packet::new(key, [n; 12], [n; AAD_LEN], data))
        .collect()
}

fn state(c: &mut Criterion) {
    let context = Context {
        layer: Layer::Link,
        direction: Direction::AToB,
        suite: Suite::Aes256Gcm,
        epoch: 1,
    };
    let provider = provider(DEFAULT_PROVIDER).expect("the default is built in");
    let (lanes, owners) = Lanes::split(1, 8).expect("few lanes");
    let secret = Secret::from_bytes(&mut [1; SECRET_LEN]).expect("memory for a secret");

    let mut group = c.benchmark_group("state");
    let rx = OpenSa::new(provider, &secret, context, 4096).expect("good parameters");
    let mut counter = 0;
    group.bench_function("commit, in order", |b| {
        b.iter(|| {
            counter += 1;
            rx.commit(0, counter)
        });
    });
    let tx = SealSa::new(provider, &secret, context, lanes, MAX_COUNTER).expect("good parameters");
    group.bench_function("reserve one", |b| {
        b.iter(|| tx.reserve(&owners[0], black_box(0), 1))
    });
    group.bench_function("reserve a batch", |b| {
        b.iter(|| tx.reserve(&owners[0], black_box(1), BATCH as u32))
    });
    group.bench_function("nonce", |b| {
        b.iter(|| tx.nonce(black_box(1), black_box(77)))
    });
    group.finish();

    c.bench_function("derive and make a transmit SA", |b| {
        b.iter(|| SealSa::new(provider, &secret, context, lanes, MAX_COUNTER));
    });
}

/// Short, so that all benches of the workspace take three minutes and not ten.
fn brief() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! {
    name = benches;
    config = brief();
    targets = aead, state
}
criterion_main!(benches);
