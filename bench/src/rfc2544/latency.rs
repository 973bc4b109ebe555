//! Latency (RFC 2544, 26.2) at parts of the throughput.

use super::Bench;
use super::result::LatencyAt;
use crate::{Sample, Size};
use twinseal_lab::traffic::{Latency, VOID_AGAIN};

/// In parts of the throughput.
const LOADS: [f64; 3] = [0.1, 0.5, 0.9];
/// A percentile needs so many packets beyond it, or it is one packet's time.
const BEYOND: u64 = 10;

pub(super) fn measure(
    bench: &mut Bench<'_>,
    size: Size,
    throughput: f64,
) -> anyhow::Result<Vec<LatencyAt>> {
    if throughput == 0.0 {
        return Ok(Vec::new());
    }
    LOADS
        .into_iter()
        .map(|load| at(bench, size, load, throughput * load))
        .collect()
}

fn at(bench: &mut Bench<'_>, size: Size, load: f64, pps: f64) -> anyhow::Result<LatencyAt> {
    let (mut latencies, mut packets, mut lost) = (Vec::new(), 0, 0);
    let (mut fewest, mut kept_up) = (u64::MAX, true);
    for _ in 0..bench.config.repeats.max(1) {
        let mut account = bench.trial(size, pps)?;
        for _ in 0..VOID_AGAIN {
            if account.trial().kept_up(pps) {
                break;
            }
            account = bench.trial(size, pps)?;
        }
        kept_up &= account.trial().kept_up(pps);
        let summary = account.summary;
        packets += summary.received;
        fewest = fewest.min(summary.received / bench.ways());
        lost += summary.lost;
        latencies.push(summary.latency);
    }
    let us = |of: fn(&Latency) -> u64| {
        Sample::new(latencies.iter().map(|it| of(it) as f64 * 1e-3).collect())
    };
    let rare = |one_in: u64, of: fn(&Latency) -> u64| enough(fewest, one_in).then(|| us(of));
    Ok(LatencyAt {
        load,
        pps,
        kept_up,
        packets,
        lost,
        p50_us: us(|it| it.p50),
        p90_us: rare(10, |it| it.p90),
        p99_us: rare(100, |it| it.p99),
        p999_us: rare(1_000, |it| it.p999),
        p9999_us: rare(10_000, |it| it.p9999),
        max_us: us(|it| it.max),
    })
}

/// Whether so many packets say what one in `one_in` of them exceeds.
pub(crate) fn enough(packets: u64, one_in: u64) -> bool {
    packets >= one_in * BEYOND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_needs_packets_beyond_it() {
        assert!(!enough(70, 10_000) && !enough(70, 100) && !enough(70, 10));
        assert!(enough(100, 10) && !enough(999, 100) && enough(100_000, 10_000));
    }
}
