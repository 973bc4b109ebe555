//! Throughput (RFC 2544, 26.1): the highest rate at which as many packets come as were sent.

use twinseal_lab::traffic::{Search, find_rate};

use super::Bench;
use super::result::Throughput;
use crate::Sample;

/// The rate that the first search begins with, packets a second.
const START_PPS: f64 = 20_000.0;
/// Trials of a search at most.
const TRIALS: u32 = 30;
/// A trial that lost packets, or of which the generator offered less than this part, is tried once more: other programs
/// of the machine want the processors too.
const KEPT_UP: f64 = 0.97;

pub(super) fn measure(bench: &mut Bench<'_>, octets: usize) -> anyhow::Result<Throughput> {
    let config = bench.config;
    let mut rates: Vec<f64> = Vec::new();
    let (mut trials, mut retries, mut generator_limited) = (0, 0, false);
    for _ in 0..config.repeats.max(1) {
        let search = Search {
            // What was found before is a good guess.
            start_pps: rates
                .last()
                .copied()
                .filter(|rate| *rate > 0.0)
                .unwrap_or(START_PPS),
            max_pps: config.rate_max,
            trials: TRIALS,
            resolution: config.resolution,
            tolerated_loss: 0.0,
            margin: 0.0,
        };
        let rate = find_rate(&search, |pps| {
            let first = bench.trial(octets, pps)?.trial();
            if first.received == first.sent && first.offered_pps > pps * KEPT_UP {
                return Ok::<_, anyhow::Error>(first);
            }
            retries += 1;
            Ok(bench.trial(octets, pps)?.trial())
        })?;
        rates.push(rate.pps);
        trials += rate.trials.len();
        generator_limited |= rate.generator_limited;
    }
    let pps = Sample::new(rates);
    Ok(Throughput {
        gbps: pps.median * octets as f64 * 8e-9,
        pps,
        generator_limited,
        trials,
        retries,
    })
}
