//! The search for the highest rate without loss, as RFC 2544 (26.1) has it.

use serde::Serialize;

/// How to search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Search {
    /// The first rate tried, packets a second.
    pub start_pps: f64,
    /// The highest rate tried.
    pub max_pps: f64,
    /// Trials at most.
    pub trials: u32,
    /// Stops when the rates that pass and fail are this close, as a part of the one that passes.
    pub resolution: f64,
    /// Loss that counts as none, as a part of what was sent. RFC 2544 wants 0.
    pub tolerated_loss: f64,
    /// The result is this much below the highest rate that passed, as a part of it.
    pub margin: f64,
}

impl Default for Search {
    /// From 10,000 to 100 million packets a second in 20 trials, to 2 %, no loss, 5 % of margin.
    fn default() -> Self {
        Search {
            start_pps: 1e4,
            max_pps: 1e8,
            trials: 20,
            resolution: 0.02,
            tolerated_loss: 0.0,
            margin: 0.05,
        }
    }
}

/// What one trial showed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TrialResult {
    /// The rate at which packets really left, packets a second.
    pub offered_pps: f64,
    /// Packets sent.
    pub sent: u64,
    /// Different packets received.
    pub received: u64,
}

/// One trial of a search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Trial {
    /// The rate asked for.
    pub asked_pps: f64,
    /// What it showed.
    pub result: TrialResult,
    /// No more lost than tolerated.
    pub passed: bool,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rate {
    /// A rate that passed in a trial of its own, below `highest_pps` by the margin; 0 when none did.
    pub pps: f64,
    /// The highest rate offered that passed, on the way there.
    pub highest_pps: f64,
    /// The lowest rate offered that failed.
    pub failed_pps: Option<f64>,
    /// The generator could not offer more: the true rate may be higher.
    pub generator_limited: bool,
    /// All trials in order.
    pub trials: Vec<Trial>,
}

/// The generator keeps up when it offers this part of what is asked.
const KEEPS_UP: f64 = 0.97;

/// Looks for the highest rate that passes: doubles (or halves) until trials differ, bisects, then confirms the rate
/// less the margin, going lower while that fails. `trial` offers the rate it is given for a while.
///
/// # Errors
/// The first error of `trial`.
pub fn find_rate<E>(
    search: &Search,
    mut trial: impl FnMut(f64) -> Result<TrialResult, E>,
) -> Result<Rate, E> {
    let mut rate = Rate {
        pps: 0.0,
        highest_pps: 0.0,
        failed_pps: None,
        generator_limited: false,
        trials: Vec::new(),
    };
    // The bounds in terms of what was asked; what was offered is what is reported.
    let (mut pass, mut fail): (f64, Option<f64>) = (0.0, None);
    let mut next = search.start_pps.min(search.max_pps);
    // The last trials confirm.
    let confirming = (search.trials / 5).clamp(1, 3);
    while rate.trials.len() < search.trials.saturating_sub(confirming) as usize {
        let done = rate.run(search, next, &mut trial)?;
        if done.passed {
            pass = next;
            if done.result.offered_pps < next * KEEPS_UP {
                rate.generator_limited = true;
                break;
            }
        } else {
            fail = Some(next);
        }
        next = match fail {
            None if pass >= search.max_pps => break,
            None => (pass * 2.0).min(search.max_pps),
            Some(fail) if pass == 0.0 => fail / 2.0,
            Some(fail) if fail - pass <= pass * search.resolution => break,
            Some(fail) => (pass + fail) / 2.0,
        };
    }
    let mut candidate = rate.highest_pps * (1.0 - search.margin);
    while candidate > 0.0 && rate.trials.len() < search.trials as usize {
        let done = rate.run(search, candidate, &mut trial)?;
        if done.passed {
            rate.pps = done.result.offered_pps.min(candidate);
            break;
        }
        candidate *= 1.0 - search.margin.max(search.resolution);
    }
    Ok(rate)
}

impl Rate {
    fn run<E>(
        &mut self,
        search: &Search,
        asked_pps: f64,
        trial: &mut impl FnMut(f64) -> Result<TrialResult, E>,
    ) -> Result<Trial, E> {
        let result = trial(asked_pps)?;
        let lost = result.sent.saturating_sub(result.received);
        let passed = result.sent > 0 && lost as f64 <= result.sent as f64 * search.tolerated_loss;
        let done = Trial {
            asked_pps,
            result,
            passed,
        };
        self.trials.push(done);
        let offered = result.offered_pps;
        if passed {
            self.highest_pps = self.highest_pps.max(offered);
        } else {
            self.failed_pps = Some(self.failed_pps.map_or(offered, |f| f.min(offered)));
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// A link that carries `capacity` packets a second, offered by a generator that makes up to `generator`.
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
            prop_assert!(rate.highest_pps <= capacity + 1.0);
            prop_assert!(rate.highest_pps >= capacity * 0.975, "{:?}", rate);
            prop_assert!(rate.pps <= capacity && rate.pps >= capacity * 0.92);
            prop_assert!(rate.failed_pps.is_some_and(|f| f > capacity - 1.0));
            prop_assert!(!rate.generator_limited);
        }

        #[test]
        fn keeps_to_its_trials(capacity in 1e2..1e8f64, trials in 0u32..12) {
            let Ok(rate) = find_rate(&search(trials), link(capacity, 1e9));
            prop_assert!(rate.trials.len() <= trials as usize);
            prop_assert!(rate.pps <= capacity);
        }
    }

    #[test]
    fn says_when_the_generator_is_the_limit() {
        let Ok(rate) = find_rate(&search(40), link(1e9, 3e5));
        assert!(rate.generator_limited);
        assert_eq!(rate.highest_pps, 3e5);
    }

    #[test]
    fn a_dead_link_has_no_rate() {
        let Ok(rate) = find_rate(&search(10), link(0.0, 1e9));
        assert_eq!((rate.pps, rate.highest_pps), (0.0, 0.0));
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
}
