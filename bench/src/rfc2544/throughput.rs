//! Throughput (RFC 2544, 26.1): the highest rate at which as many packets come as were sent, or but for a part that is
//! tolerated (NDR and PDR, as others call them).

use twinseal_lab::traffic::{Finding, Rate, Search, Verdict, find_rate};

use super::Bench;
use super::result::Throughput;
use crate::{Sample, Size};

/// The rate that the first search begins with, packets a second; every generator can offer it.
pub(super) const START_PPS: f64 = 20_000.0;
/// Trials of a search at most.
const TRIALS: u32 = 60;

/// Looks for it, beginning at `start` packets a second.
pub(super) fn measure(
    bench: &mut Bench<'_>,
    size: Size,
    tolerated_loss: f64,
    start: f64,
) -> anyhow::Result<Throughput> {
    let config = bench.config;
    let mut rates: Vec<Rate> = Vec::new();
    for _ in 0..config.repeats.max(1) {
        // What was found before is a good guess.
        let hint = rates
            .iter()
            .rev()
            .map(|rate| rate.pps)
            .find(|pps| *pps > 0.0);
        let search = Search {
            start_pps: hint.unwrap_or(start),
            least_pps: START_PPS,
            max_pps: config.rate_max,
            trials: TRIALS,
            resolution: config.resolution,
            tolerated_loss,
            margin: 0.0,
            lost_again: 1,
        };
        rates.push(find_rate(&search, |pps| {
            Ok::<_, anyhow::Error>(bench.trial(size, pps)?.trial())
        })?);
    }
    Ok(combine(&rates, tolerated_loss, bench.mean(size)))
}

/// Several searches together: the median of those that could be made, and what is true of it.
fn combine(rates: &[Rate], tolerated_loss: f64, octets: f64) -> Throughput {
    let mut made: Vec<&Rate> = rates
        .iter()
        .filter(|it| it.finding != Finding::Inconclusive)
        .collect();
    made.sort_by(|a, b| a.pps.total_cmp(&b.pps));
    let pps = Sample::new(made.iter().map(|it| it.pps).collect());
    let finding = made
        .get(made.len() / 2)
        .map_or(Finding::Inconclusive, |it| it.finding);
    let trials = || rates.iter().flat_map(|it| &it.trials);
    let count = |verdict| trials().filter(|it| it.verdict == verdict).count();
    Throughput {
        tolerated_loss,
        gbps: pps.median * octets * 8e-9,
        pps,
        finding,
        searches: rates.len(),
        inconclusive: rates.len() - made.len(),
        trials: trials().count(),
        lost: count(Verdict::Lost),
        void: count(Verdict::Void),
        contradicted_by_pps: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(pps: f64, finding: Finding) -> Rate {
        Rate {
            pps,
            finding,
            highest_pps: pps,
            failed_pps: None,
            trials: Vec::new(),
        }
    }

    #[test]
    fn searches_that_could_not_be_made_do_not_count() {
        let of = |rates: &[Rate]| combine(rates, 0.0, 1000.0);
        let nothing = rate(0.0, Finding::Inconclusive);
        let it = of(&[
            rate(3e5, Finding::Found),
            nothing.clone(),
            rate(4e5, Finding::AtLeastGenerator),
            rate(1e5, Finding::Found),
        ]);
        assert_eq!(
            (it.pps.median, it.finding, it.inconclusive),
            (3e5, Finding::Found, 1)
        );
        assert!((it.gbps - 2.4).abs() < 1e-9);
        let it = of(&[rate(2e5, Finding::AtLeastGenerator)]);
        assert!(it.finding.at_least());
        let it = of(&[nothing.clone(), nothing]);
        assert_eq!((it.pps.median, it.finding), (0.0, Finding::Inconclusive));
        // A path that loses at every rate is a result.
        let it = of(&[rate(0.0, Finding::Lossy)]);
        assert_eq!((it.finding, it.inconclusive), (Finding::Lossy, 0));
    }
}
