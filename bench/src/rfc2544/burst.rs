//! Back-to-back frames (RFC 2544, 26.4): the longest burst that comes through whole.

use super::Bench;
use super::result::BackToBack;
use crate::generator::Offer;
use crate::{Sample, Size};

/// The first burst tried, packets.
const START: u64 = 64;

pub(super) fn measure(bench: &mut Bench<'_>, size: Size) -> anyhow::Result<BackToBack> {
    let config = bench.config;
    let (mut longest, mut rates, mut trials) = (Vec::new(), Vec::new(), 0);
    for _ in 0..config.repeats.max(1) {
        let whole = |length: u64| -> anyhow::Result<bool> {
            let account = bench.offer(Offer::burst(size, config.flows, length))?;
            trials += 1;
            rates.push(account.offered_pps);
            Ok(account.summary.lost == 0)
        };
        longest.push(search(config.burst_max, config.resolution, whole)?);
    }
    Ok(BackToBack {
        limited: longest.iter().all(|length| *length == config.burst_max),
        packets: Sample::new(longest.into_iter().map(|length| length as f64).collect()),
        offered_pps: Sample::new(rates).median,
        trials,
    })
}

/// The longest length up to `max` that is whole: doubles until one is not, then bisects.
fn search(
    max: u64,
    resolution: f64,
    mut whole: impl FnMut(u64) -> anyhow::Result<bool>,
) -> anyhow::Result<u64> {
    let (mut pass, mut fail) = (0, None);
    let mut next = START.min(max).max(1);
    loop {
        match whole(next)? {
            true => pass = next,
            false => fail = Some(next),
        }
        next = match fail {
            None if pass >= max => return Ok(max),
            None => (pass * 2).min(max),
            Some(fail) if fail - pass <= 1 + (pass as f64 * resolution) as u64 => return Ok(pass),
            Some(fail) => pass + (fail - pass) / 2,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_the_longest(longest in 0u64..200_000, max in 1u64..100_000) {
            let found = search(max, 0.0, |length| Ok(length <= longest)).expect("no error");
            prop_assert_eq!(found, longest.min(max));
            let roughly = search(max, 0.1, |length| Ok(length <= longest)).expect("no error");
            prop_assert!(roughly <= found && roughly as f64 >= found as f64 * 0.9 - 1.0);
        }
    }
}
