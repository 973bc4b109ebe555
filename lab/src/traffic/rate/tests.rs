//! The search over simulated paths, with generators that keep up or do not.

use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

/// A link that carries `capacity` packets a second, offered by a generator that makes up to `generator`, for a second.
fn link(capacity: f64, generator: f64) -> impl FnMut(f64) -> Result<TrialResult, Infallible> {
    move |pps| {
        let offered = pps.min(generator);
        Ok(TrialResult {
            offered_pps: offered,
            sent: offered as u64,
            received: offered.min(capacity) as u64,
        })
    }
}

/// The same, and in the trials that `hiccup` names the sender stands still for most of the time.
fn hiccuping(
    capacity: f64,
    hiccup: impl Fn(usize) -> bool,
) -> impl FnMut(f64) -> Result<TrialResult, Infallible> {
    let (mut link, mut nth) = (link(capacity, 1e9), 0);
    move |pps| {
        nth += 1;
        link(if hiccup(nth - 1) { pps / 10.0 } else { pps })
    }
}

fn search(trials: u32) -> Search {
    Search {
        trials,
        ..Search::default()
    }
}

proptest! {
    #[test]
    fn finds_the_capacity_of_a_link(capacity in 1e3..5e7f64) {
        let Ok(rate) = find_rate(&search(40), link(capacity, 1e9));
        prop_assert_eq!(rate.finding, Finding::Found);
        prop_assert!(rate.highest_pps <= capacity + 1.0);
        prop_assert!(rate.highest_pps >= capacity * 0.975, "{:?}", rate);
        prop_assert!(rate.pps <= capacity && rate.pps >= capacity * 0.92);
        prop_assert!(rate.failed_pps.is_some_and(|f| f > capacity - 1.0));
        prop_assert_eq!(rate.voids(), 0);
    }

    #[test]
    fn keeps_to_its_trials(capacity in 1e2..1e8f64, trials in 0u32..12) {
        let Ok(rate) = find_rate(&search(trials), link(capacity, 1e9));
        prop_assert!(rate.trials.len() <= trials as usize);
        prop_assert!(rate.pps <= capacity);
    }

    #[test]
    fn a_hiccup_of_the_generator_is_not_the_path(capacity in 1e4..1e7f64, first in 0usize..30, long in 1usize..=3) {
        let Ok(rate) = find_rate(&search(60), hiccuping(capacity, |nth| (first..first + long).contains(&nth)));
        prop_assert_eq!(rate.finding, Finding::Found, "{:?}", rate);
        prop_assert!(rate.pps <= capacity && rate.pps >= capacity * 0.9, "{:?}", rate);
    }

    #[test]
    fn a_generator_that_is_always_disturbed_is_no_rate(capacity in 1e4..1e7f64, trials in 1u32..60) {
        let Ok(rate) = find_rate(&search(trials), hiccuping(capacity, |_| true));
        prop_assert_eq!((rate.finding, rate.pps), (Finding::Inconclusive, 0.0), "{:?}", rate);
    }

    #[test]
    fn what_the_generator_cannot_is_at_least(capacity in 5e5..1e7f64, generator in 2e4..4e5f64) {
        let Ok(rate) = find_rate(&search(40), link(capacity, generator));
        prop_assert_eq!(rate.finding, Finding::AtLeastGenerator, "{:?}", rate);
        prop_assert!(rate.pps <= generator && rate.pps >= generator * 0.9, "{:?}", rate);
    }
}

#[test]
fn every_second_trial_disturbed_costs_trials_only() {
    let Ok(rate) = find_rate(&search(80), hiccuping(3e5, |nth| nth % 2 == 0));
    assert_eq!(rate.finding, Finding::Found, "{rate:?}");
    assert!(rate.pps <= 3e5 && rate.pps >= 2.7e5, "{rate:?}");
    assert!(rate.voids() > 5);
}

#[test]
fn loss_counts_when_it_comes_again() {
    // Other programs of the machine have the path lose packets in one trial.
    for (lost_again, low) in [(0, true), (1, false)] {
        let mut nth = 0;
        let how = Search {
            lost_again,
            ..search(60)
        };
        let Ok(rate) = find_rate(&how, |pps| {
            nth += 1;
            link(if nth == 3 { 0.0 } else { 1e6 }, 1e9)(pps)
        });
        assert_eq!(rate.pps < 5e4, low, "{rate:?}");
    }
}

#[test]
fn what_was_not_tried_is_at_least() {
    let how = Search {
        max_pps: 5e4,
        ..search(40)
    };
    let Ok(rate) = find_rate(&how, link(1e9, 1e9));
    assert_eq!(rate.finding, Finding::AtLeastTried);
    assert_eq!(rate.highest_pps, 5e4);
}

#[test]
fn a_dead_link_loses_at_every_rate() {
    let Ok(rate) = find_rate(&search(10), link(0.0, 1e9));
    assert_eq!((rate.pps, rate.highest_pps), (0.0, 0.0));
    assert_eq!(rate.finding, Finding::Lossy);
}

#[test]
fn a_rate_that_does_not_last_is_not_reported() {
    // Passes on the way up, but from the sixth trial on the link is worse.
    let mut trials = 0;
    let Ok(rate) = find_rate(&search(12), |pps| {
        trials += 1;
        link(if trials < 6 { 1e5 } else { 7e4 }, 1e9)(pps)
    });
    assert!(rate.pps <= 7e4, "{rate:?}");
}

#[test]
fn a_rate_that_passes_once_only_is_inconclusive() {
    let mut trials = 0;
    let Ok(rate) = find_rate(&search(12), |pps| {
        trials += 1;
        link(if trials == 1 { 1e9 } else { 0.0 }, 1e9)(pps)
    });
    assert_eq!(
        (rate.finding, rate.pps),
        (Finding::Inconclusive, 0.0),
        "{rate:?}"
    );
    assert!(rate.highest_pps > 0.0);
}

#[test]
fn keeping_up_allows_for_rounding() {
    let result = |offered_pps, sent| TrialResult {
        offered_pps,
        sent,
        received: sent,
    };
    assert!(result(1000.0, 100).kept_up(1000.0));
    assert!(result(985.0, 985).kept_up(1000.0));
    assert!(!result(970.0, 970).kept_up(1000.0));
    // One of twenty.
    assert!(result(950.0, 19).kept_up(1000.0));
    assert!(!result(0.0, 0).kept_up(1000.0));
}
