//! The search for the highest rate without loss, as RFC 2544 (26.1) has it.
//!
//! Pure: it is told what each trial showed. A trial of which the sender did not send what it should says little about the
//! path, so it is void and made again; if that goes on, the generator is the limit, and the result is "at least".

use serde::{Deserialize, Serialize};

/// How to search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Search {
    /// The first rate tried, packets a second.
    pub start_pps: f64,
    /// What every generator can offer: one that cannot is disturbed, and measures nothing.
    pub least_pps: f64,
    /// The highest rate tried.
    pub max_pps: f64,
    /// Trials at most, with those that are made again.
    pub trials: u32,
    /// Stops when the rates that pass and fail are this close, as a part of the one that passes.
    pub resolution: f64,
    /// Loss that counts as none, as a part of what was sent. RFC 2544 wants 0.
    pub tolerated_loss: f64,
    /// The result is this much below the highest rate that passed, as a part of it.
    pub margin: f64,
    /// How often a rate that lost packets is tried again before that counts: other programs of the machine want the
    /// processors too.
    pub lost_again: u32,
}

impl Default for Search {
    /// From 10,000 to 100 million packets a second in 40 trials, to 2 %, no loss, 5 % of margin, no second chance.
    fn default() -> Self {
        Search {
            start_pps: 1e4,
            least_pps: 1e4,
            max_pps: 1e8,
            trials: 40,
            resolution: 0.02,
            tolerated_loss: 0.0,
            margin: 0.05,
            lost_again: 0,
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

/// The generator keeps up when it offers this part of what is asked.
pub const KEEPS_UP: f64 = 0.98;
/// How often a trial is made again because the generator did not keep up.
pub const VOID_AGAIN: u32 = 2;
/// How often a rate at which it did not is tried once more when the search comes back to it: it may have been a hiccup.
const CEILING_AGAIN: u32 = 2;

impl TrialResult {
    /// Whether the sender sent what it was asked to; a packet more or less is rounding.
    pub fn kept_up(&self, asked_pps: f64) -> bool {
        let due = asked_pps * self.sent as f64 / self.offered_pps.max(f64::MIN_POSITIVE);
        self.sent > 0 && self.sent as f64 + 1.0 >= due * KEEPS_UP
    }

    /// Packets that did not come.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    fn is_within(&self, tolerated_loss: f64) -> bool {
        self.sent > 0 && self.lost() as f64 <= self.sent as f64 * tolerated_loss
    }
}

/// What a trial is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The sender kept up, and no more was lost than tolerated.
    Passed,
    /// The sender kept up, and more was lost.
    Lost,
    /// The sender did not keep up.
    Void,
}

/// One trial of a search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Trial {
    /// The rate asked for.
    pub asked_pps: f64,
    /// What it showed.
    pub result: TrialResult,
    /// What it is worth.
    pub verdict: Verdict,
}

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// The rate is the path's: beyond it packets are lost.
    Found,
    /// At least this rate: the generator could offer no more.
    AtLeastGenerator,
    /// At least this rate: no higher one was tried.
    AtLeastTried,
    /// The path lost packets at every rate that was tried.
    Lossy,
    /// The search could not be made: the generator did not keep up, or no rate passed twice.
    Inconclusive,
}

impl Finding {
    /// Whether the true rate may be higher than the one that was found.
    pub fn at_least(self) -> bool {
        matches!(self, Self::AtLeastGenerator | Self::AtLeastTried)
    }

    /// Whether there is a rate.
    pub fn has_rate(self) -> bool {
        self == Self::Found || self.at_least()
    }
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rate {
    /// A rate that passed in a trial of its own, below `highest_pps` by the margin; 0 unless `finding` has a rate.
    pub pps: f64,
    /// How the search ended.
    pub finding: Finding,
    /// The highest rate offered that passed, on the way there.
    pub highest_pps: f64,
    /// The lowest rate offered that lost packets.
    pub failed_pps: Option<f64>,
    /// All trials in order.
    pub trials: Vec<Trial>,
}

impl Rate {
    /// Trials that were void.
    pub fn voids(&self) -> usize {
        let void = |trial: &&Trial| trial.verdict == Verdict::Void;
        self.trials.iter().filter(void).count()
    }
}

/// Looks for the highest rate without loss: doubles until packets are lost or the generator does not keep up, then bisects,
/// then confirms what it found. `trial` offers a rate once.
///
/// # Errors
/// The first error of `trial`.
pub fn find_rate<E>(
    search: &Search,
    trial: impl FnMut(f64) -> Result<TrialResult, E>,
) -> Result<Rate, E> {
    let mut run = Run {
        search,
        trial,
        trials: Vec::new(),
    };
    // Bounds in terms of what was asked; what was offered is what is reported.
    let (mut pass, mut fail, mut ceiling): (f64, Option<f64>, Option<f64>) = (0.0, None, None);
    let mut ceiling_again = CEILING_AGAIN;
    // The last trials confirm.
    let budget = search.trials - (search.trials / 4).clamp(1, 6).min(search.trials);
    let mut next = search.start_pps.min(search.max_pps);
    while let Some(verdict) = run.ask(next, budget)? {
        match verdict {
            Verdict::Passed => {
                pass = pass.max(next);
                ceiling = ceiling.filter(|ceiling| *ceiling > next);
            }
            Verdict::Lost => fail = Some(fail.map_or(next, |fail| fail.min(next))),
            Verdict::Void => {
                ceiling = Some(next);
                // What came through whole did come through, however unevenly it was sent.
                pass = pass.max(run.highest().min(next));
            }
        }
        let bound = [fail, ceiling].into_iter().flatten().reduce(f64::min);
        next = match bound {
            None if pass >= search.max_pps => break,
            None => (pass * 2.0).min(search.max_pps),
            Some(bound) if pass == 0.0 => bound / 2.0,
            Some(bound) if bound - pass > pass * search.resolution => (pass + bound) / 2.0,
            Some(bound) if ceiling == Some(bound) && ceiling_again > 0 => {
                ceiling_again -= 1;
                bound
            }
            Some(_) => break,
        };
    }
    let highest = run.highest();
    let confirmed = run.confirm(highest)?;
    Ok(run.finish(confirmed, fail, ceiling))
}

/// A search under way.
struct Run<'a, F> {
    search: &'a Search,
    trial: F,
    trials: Vec<Trial>,
}

impl<E, F: FnMut(f64) -> Result<TrialResult, E>> Run<'_, F> {
    /// Offers a rate until it is known what that shows; none when there are already `budget` trials.
    fn ask(&mut self, pps: f64, budget: u32) -> Result<Option<Verdict>, E> {
        let (mut voids, mut lost) = (0, 0);
        let mut shown = None;
        while self.trials.len() < budget as usize {
            let verdict = self.once(pps)?;
            let enough = match verdict {
                Verdict::Passed => true,
                Verdict::Lost => {
                    lost += 1;
                    lost > self.search.lost_again
                }
                Verdict::Void => {
                    voids += 1;
                    voids > VOID_AGAIN
                }
            };
            shown = Some(verdict);
            if enough {
                break;
            }
        }
        Ok(shown)
    }

    fn once(&mut self, asked_pps: f64) -> Result<Verdict, E> {
        let result = (self.trial)(asked_pps)?;
        let verdict = match result.kept_up(asked_pps) {
            false => Verdict::Void,
            true if result.is_within(self.search.tolerated_loss) => Verdict::Passed,
            true => Verdict::Lost,
        };
        self.trials.push(Trial {
            asked_pps,
            result,
            verdict,
        });
        Ok(verdict)
    }

    /// The highest rate offered of which no more was lost than tolerated.
    fn highest(&self) -> f64 {
        let whole =
            (self.trials.iter()).filter(|it| it.result.is_within(self.search.tolerated_loss));
        whole.map(|it| it.result.offered_pps).fold(0.0, f64::max)
    }

    /// The rate that passes again, at the margin below the highest or lower, and whether it was sent evenly.
    fn confirm(&mut self, highest: f64) -> Result<Option<(f64, bool)>, E> {
        let mut candidate = highest * (1.0 - self.search.margin);
        let step = self.search.margin.max(self.search.resolution);
        // What an uneven sender brought through whole: a rate too, if no better is confirmed.
        let mut uneven: Option<f64> = None;
        let mut void_again = CEILING_AGAIN;
        while candidate > 0.0 {
            let before = self.trials.len();
            let Some(verdict) = self.ask(candidate, self.search.trials)? else {
                break;
            };
            let again = &self.trials[before..];
            let whole = again
                .iter()
                .map(|it| it.result)
                .filter(|it| it.is_within(self.search.tolerated_loss));
            let offered = whole
                .map(|it| it.offered_pps.min(candidate))
                .reduce(f64::max);
            if verdict == Verdict::Passed {
                return Ok(offered.map(|pps| (pps, true)));
            }
            uneven = [uneven, offered].into_iter().flatten().reduce(f64::max);
            match verdict {
                Verdict::Void if void_again > 0 => void_again -= 1,
                _ => candidate *= 1.0 - step,
            }
        }
        Ok(uneven.map(|pps| (pps, false)))
    }

    fn finish(
        self,
        confirmed: Option<(f64, bool)>,
        fail: Option<f64>,
        ceiling: Option<f64>,
    ) -> Rate {
        let highest_pps = self.highest();
        let lost = self.trials.iter().filter(|it| it.verdict == Verdict::Lost);
        let failed_pps = lost.map(|it| it.result.offered_pps).reduce(f64::min);
        let below = |ceiling: f64| fail.is_none_or(|fail| ceiling < fail);
        let finding = match confirmed {
            Some((pps, even)) if !even || ceiling.is_some_and(below) => {
                match pps < self.search.least_pps.min(self.search.max_pps) * KEEPS_UP {
                    true => Finding::Inconclusive,
                    false => Finding::AtLeastGenerator,
                }
            }
            Some(_) if fail.is_none() => Finding::AtLeastTried,
            Some(_) => Finding::Found,
            None if highest_pps == 0.0 && failed_pps.is_some() => Finding::Lossy,
            None => Finding::Inconclusive,
        };
        Rate {
            pps: confirmed
                .filter(|_| finding.has_rate())
                .map_or(0.0, |(pps, _)| pps),
            finding,
            highest_pps,
            failed_pps,
            trials: self.trials,
        }
    }
}

#[cfg(test)]
mod tests;
