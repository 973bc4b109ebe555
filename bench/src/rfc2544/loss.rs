//! Frame loss rate (RFC 2544, 26.3): from the highest rate down in steps of a tenth, until two in a row lose nothing.

use super::Bench;
use super::result::LossAt;

const STEPS: u32 = 10;

pub(super) fn measure(bench: &mut Bench<'_>, octets: usize) -> anyhow::Result<Vec<LossAt>> {
    let mut results: Vec<LossAt> = Vec::new();
    // The first trial finds out what the highest rate is.
    let mut highest = bench.config.rate_max;
    for step in (1..=STEPS).rev() {
        let load = f64::from(step) / f64::from(STEPS);
        let account = bench.trial(octets, highest * load)?;
        if step == STEPS {
            highest = account.offered_pps.min(highest);
        }
        results.push(LossAt {
            load,
            offered_pps: account.offered_pps,
            received_pps: account.received_pps,
            sent: account.summary.sent,
            lost: account.summary.lost,
        });
        if results.iter().rev().take_while(|it| it.lost == 0).count() >= 2 {
            break;
        }
    }
    Ok(results)
}
