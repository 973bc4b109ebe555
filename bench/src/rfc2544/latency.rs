//! Latency (RFC 2544, 26.2) at parts of the throughput.

use super::Bench;
use super::result::LatencyAt;
use crate::Sample;
use twinseal_lab::traffic::Latency;

/// In parts of the throughput.
const LOADS: [f64; 3] = [0.1, 0.5, 0.9];

pub(super) fn measure(
    bench: &mut Bench<'_>,
    octets: usize,
    throughput: f64,
) -> anyhow::Result<Vec<LatencyAt>> {
    if throughput == 0.0 {
        return Ok(Vec::new());
    }
    LOADS
        .into_iter()
        .map(|load| at(bench, octets, load, throughput * load))
        .collect()
}

fn at(bench: &mut Bench<'_>, octets: usize, load: f64, pps: f64) -> anyhow::Result<LatencyAt> {
    let (mut latencies, mut packets, mut lost) = (Vec::new(), 0, 0);
    for _ in 0..bench.config.repeats.max(1) {
        let summary = bench.trial(octets, pps)?.summary;
        packets += summary.received;
        lost += summary.lost;
        latencies.push(summary.latency);
    }
    let us = |of: fn(&Latency) -> u64| {
        Sample::new(latencies.iter().map(|it| of(it) as f64 * 1e-3).collect())
    };
    Ok(LatencyAt {
        load,
        pps,
        packets,
        lost,
        p50_us: us(|it| it.p50),
        p90_us: us(|it| it.p90),
        p99_us: us(|it| it.p99),
        p999_us: us(|it| it.p999),
        p9999_us: us(|it| it.p9999),
        max_us: us(|it| it.max),
    })
}
