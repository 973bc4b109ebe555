//! Longest-prefix match over tables of 1 000 and 100 000 routes, for addresses of which most have a route.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use twinseal::tables::fib::Fib;
use twinseal::tables::hash;

/// Lookups an iteration, each of another address: more than a cache's worth of luck.
const LOOKUPS: u64 = 4096;

fn lookups(c: &mut Criterion) {
    for routes in [1_000, 100_000] {
        let fib = Fib::new((0..routes).map(route_v4), (0..routes).map(route_v6));
        let mut group = c.benchmark_group("fib");
        group.throughput(Throughput::Elements(LOOKUPS));
        // Addresses within prefixes taken from all over the table; one in eight from elsewhere.
        let of = |n| (random(2, n) % u64::from(routes)) as u32;
        let v4: Vec<[u8; 4]> = (0..LOOKUPS)
            .map(|n| match n % 8 {
                0 => (random(3, n) as u32).to_be_bytes(),
                _ => {
                    let (prefix, len, _) = route_v4(of(n));
                    let host = (random(4, n) as u32) >> len;
                    (u32::from_be_bytes(prefix) | host).to_be_bytes()
                }
            })
            .collect();
        let v6: Vec<[u8; 16]> = (0..LOOKUPS)
            .map(|n| match n % 8 {
                0 => wide(3, n).to_be_bytes(),
                _ => {
                    let (prefix, len, _) = route_v6(of(n));
                    (u128::from_be_bytes(prefix) | wide(4, n) >> len).to_be_bytes()
                }
            })
            .collect();
        group.bench_function(BenchmarkId::new("v4", routes), |b| {
            b.iter(|| sum(&v4, |address| fib.lookup_v4(address)));
        });
        group.bench_function(BenchmarkId::new("v6", routes), |b| {
            b.iter(|| sum(&v6, |address| fib.lookup_v6(address)));
        });
    }
}

fn sum<const N: usize>(addresses: &[[u8; N]], lookup: impl Fn([u8; N]) -> u32) -> u64 {
    addresses
        .iter()
        .map(|address| u64::from(lookup(*black_box(address))))
        .sum()
}

/// A prefix of the length that most have, or shorter.
fn route_v4(n: u32) -> ([u8; 4], u8, u32) {
    let len = [24, 24, 24, 23, 22, 20, 19, 16][n as usize % 8];
    let address = (random(0, n.into()) as u32) >> (32 - len) << (32 - len);
    (address.to_be_bytes(), len, n % 1000 + 1)
}

/// As [`route_v4`], under 2000::/3.
fn route_v6(n: u32) -> ([u8; 16], u8, u32) {
    let len = [48, 48, 48, 44, 40, 36, 32, 29][n as usize % 8];
    let address = (1 << 125 | wide(1, n.into()) >> 3) >> (128 - len) << (128 - len);
    (address.to_be_bytes(), len, n % 1000 + 1)
}

/// The same numbers every time.
fn random(stream: u64, n: u64) -> u64 {
    hash::words(stream, &[n, 0x7477_696e])
}

fn wide(stream: u64, n: u64) -> u128 {
    u128::from(random(stream, n)) << 64 | u128::from(random(stream + 100, n))
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = lookups
}
criterion_main!(benches);
