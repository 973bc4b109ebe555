//! Frame loss rate (RFC 2544, 26.3): from the highest rate down in steps of a tenth, until two in a row lose nothing.
//!
//! The highest rate is the highest that the generator keeps: a step is a part of something that was really offered.

use twinseal_lab::traffic::{TrialResult, VOID_AGAIN};

use super::Bench;
use super::result::{LossAt, Throughput};
use crate::Size;

const STEPS: u32 = 10;
/// How often the highest rate is looked for, each time lower.
const TOPS: u32 = 6;
/// What the generator comes to flat out it seldom keeps in even steps.
const BACK_OFF: f64 = 0.95;

pub(super) fn measure(
    bench: &mut Bench<'_>,
    size: Size,
    throughput: Option<&Throughput>,
) -> anyhow::Result<Vec<LossAt>> {
    let known = throughput.map_or(0.0, |it| it.pps.min);
    let rate_max = bench.config.rate_max;
    ladder(rate_max, known, |pps| {
        Ok::<_, anyhow::Error>(bench.trial(size, pps)?.trial())
    })
}

/// The steps. Loss at a rate up to `known`, which passed before, counts when it comes again.
fn ladder<E>(
    rate_max: f64,
    known: f64,
    mut trial: impl FnMut(f64) -> Result<TrialResult, E>,
) -> Result<Vec<LossAt>, E> {
    // Until the generator keeps up, and the loss is told from a hiccup; also the most that it came to.
    let mut settle = |asked: f64| -> Result<(TrialResult, f64), E> {
        let (mut voids, mut lost, mut most) = (0, 0, 0.0_f64);
        loop {
            let shown = trial(asked)?;
            most = most.max(shown.offered_pps);
            match shown.kept_up(asked) {
                false if voids < VOID_AGAIN => voids += 1,
                true if shown.lost() > 0 && asked <= known && lost == 0 => lost += 1,
                _ => return Ok((shown, most)),
            }
        }
    };
    let mut highest = rate_max;
    let (mut top, mut most) = settle(highest)?;
    for _ in 0..TOPS {
        if top.kept_up(highest) {
            break;
        }
        highest = highest.min(most) * BACK_OFF;
        (top, most) = settle(highest)?;
    }
    let mut results = vec![step(1.0, highest, top)];
    for part in (1..STEPS).rev() {
        let load = f64::from(part) / f64::from(STEPS);
        let asked = highest * load;
        results.push(step(load, asked, settle(asked)?.0));
        let whole = |it: &&LossAt| it.lost == 0 && it.kept_up;
        if results.iter().rev().take_while(whole).count() >= 2 {
            break;
        }
    }
    Ok(results)
}

fn step(load: f64, asked: f64, shown: TrialResult) -> LossAt {
    LossAt {
        load,
        asked_pps: asked,
        offered_pps: shown.offered_pps,
        received_pps: shown.offered_pps * shown.received as f64 / shown.sent.max(1) as f64,
        sent: shown.sent,
        lost: shown.lost(),
        kept_up: shown.kept_up(asked),
    }
}

/// The highest rate that passed in steps though it is above all that the searches found, by more than their resolution.
pub(super) fn contradiction(steps: &[LossAt], found: &Throughput, resolution: f64) -> Option<f64> {
    let whole = steps.iter().filter(|it| it.lost == 0 && it.kept_up);
    let best = whole.map(|it| it.offered_pps).reduce(f64::max)?;
    // A step of one trial is no better known than to what a generator may lag.
    (best > found.pps.max * (1.0 + resolution.max(0.03))).then_some(best)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use twinseal_lab::traffic::Finding;

    use super::*;
    use crate::Sample;

    /// A path of so many packets a second, and a generator that has hiccups in some trials.
    fn path(
        capacity: f64,
        generator: f64,
        hiccup: impl Fn(usize) -> bool,
    ) -> impl FnMut(f64) -> Result<TrialResult, Infallible> {
        let mut nth = 0;
        move |asked| {
            let slow = if hiccup(nth) { 0.3 } else { 1.0 };
            nth += 1;
            let offered = asked.min(generator) * slow;
            Ok(TrialResult {
                offered_pps: offered,
                sent: offered as u64,
                received: offered.min(capacity) as u64,
            })
        }
    }

    #[test]
    fn steps_are_tenths_of_what_the_generator_keeps() {
        // Every third trial is disturbed, as on a busy machine; the first, flat out, is not.
        let Ok(steps) = ladder(1e12, 0.0, path(2.1e5, 7e5, |nth| nth % 3 == 1));
        let highest = steps[0].asked_pps;
        assert!(highest > 5e5 && highest <= 7e5, "{steps:#?}");
        for (nth, step) in steps.iter().enumerate() {
            assert!(step.kept_up, "{steps:#?}");
            assert!((step.load - (1.0 - nth as f64 / 10.0)).abs() < 1e-9);
            assert!(
                (step.offered_pps / (highest * step.load) - 1.0).abs() < 0.02,
                "{steps:#?}"
            );
        }
        assert!(steps.is_sorted_by(|a, b| a.offered_pps > b.offered_pps));
        let [.., before, last] = &steps[..] else {
            panic!("{steps:?}")
        };
        assert_eq!((before.lost, last.lost), (0, 0));
        assert!(steps[0].lost > 0);
    }

    #[test]
    fn a_step_that_could_not_be_made_says_so() {
        let Ok(steps) = ladder(1e6, 0.0, path(1e9, 1e9, |nth| nth > 0));
        assert!(steps.iter().skip(1).all(|it| !it.kept_up), "{steps:#?}");
        assert_eq!(steps.len(), 10);
    }

    #[test]
    fn loss_below_what_passed_before_counts_when_it_comes_again() {
        let mut nth = 0;
        let Ok(steps) = ladder(1e5, 2e5, |asked| {
            nth += 1;
            path(if nth == 2 { 0.0 } else { 1e9 }, 1e9, |_| false)(asked)
        });
        assert_eq!(steps.iter().map(|it| it.lost).collect::<Vec<_>>(), [0, 0]);
    }

    #[test]
    fn a_step_above_the_throughput_contradicts_it() {
        let found = |max: f64| Throughput {
            tolerated_loss: 0.0,
            pps: Sample {
                median: max,
                min: max,
                max,
            },
            gbps: 0.0,
            finding: Finding::Found,
            searches: 1,
            inconclusive: 0,
            trials: 1,
            lost: 0,
            void: 0,
            contradicted_by_pps: None,
        };
        let Ok(steps) = ladder(1.8e5, 0.0, path(1e9, 1e9, |_| false));
        assert_eq!(contradiction(&steps, &found(1.09e5), 0.02), Some(1.8e5));
        assert_eq!(contradiction(&steps, &found(1.79e5), 0.02), None);
    }
}
