//! Traffic between the hosts: the search for a rate, and the load under which keys rotate.

use std::time::{Duration, Instant};

use twinseal_lab::traffic::{
    Finding, KEEPS_UP, Load, Rate, Search, Summary, TrialResult, Until, find_rate as search,
};

use crate::demo::hosts::Testbed;
use crate::demo::verdict::LatencyUs;
use crate::demo::{DemoArgs, say};
use twinseal_testbed::controller::Controller;
use twinseal_testbed::drops;
use twinseal_testbed::drops::Drops;
use twinseal_testbed::plan::{Host, Plan};

/// Flows of the main load, from A to B over IPv4.
const FLOWS: u32 = 64;
/// The load the other way, over IPv6: light, so that all keys of the path are in use.
const BACK_PPS: f64 = 500.0;
const BACK_FLOWS: u32 = 4;
const BACK_PAYLOAD: usize = 200;
/// IP and UDP headers before the payload.
const HEADERS_V4: usize = 28;
/// How long a trial of the search sends.
const TRIAL: Duration = Duration::from_millis(400);
/// How long nothing must have come before the last packets count as lost.
const QUIET: Duration = Duration::from_millis(500);
/// What is driven, as a part of the rate that was found: other programs want the cores too.
const CAUTION: f64 = 0.75;
/// What is driven when no rate could be found, packets a second: enough to see whether everything works.
const FALLBACK_PPS: f64 = 2_000.0;
/// How often the load is driven at most, before loss, or a sender that does not keep up, is the verdict.
const ATTEMPTS: u32 = 3;

/// What the load came to.
pub(super) struct Result {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) duplicates: u64,
    pub(super) reordered: u64,
    pub(super) damaged: u64,
    pub(super) gbps: f64,
    pub(super) mpps: f64,
    pub(super) rate: f64,
    /// What left the main load's sender, in packets a second.
    pub(super) offered: f64,
    pub(super) attempts: u32,
    /// Whether packets were lost at the rate that the search had found, so that less was driven.
    pub(super) slowed: bool,
    /// What the routers dropped meanwhile.
    pub(super) drops: Drops,
    pub(super) rotations: u32,
    pub(super) latency: LatencyUs,
}

impl Result {
    /// Whether the main load was sent at the rate that was asked for.
    pub(super) fn kept_up(&self) -> bool {
        self.offered >= self.rate * KEEPS_UP
    }
}

/// The highest rate from A to B at which nothing is lost.
pub(super) fn find_rate(args: &DemoArgs, path: &Testbed, marker: [u8; 8]) -> anyhow::Result<Rate> {
    let mut first_flow = 1_000_000;
    let trial = |pps: f64| -> anyhow::Result<TrialResult> {
        let inlet = path.receive(Host::B, false, marker)?;
        let load = main_load(args, marker, first_flow, pps, TRIAL);
        first_flow += FLOWS;
        let sent = path.send(Host::A, false, load)?.join()?;
        let tally = inlet.finish(sent.packets, QUIET)?;
        let received = sent.packets - tally.lost(&sent);
        Ok(TrialResult {
            offered_pps: sent.pps(),
            sent: sent.packets,
            received,
        })
    };
    let how = Search {
        max_pps: 2_000_000.0,
        trials: 28,
        resolution: 0.1,
        margin: 0.1,
        ..Search::default()
    };
    let rate = search(&how, trial)?;
    let trials = rate.trials.len();
    say(
        args,
        &match rate.finding {
            Finding::Found => format!(
                "found {:.0} packets a second without loss, in {trials} trials",
                rate.pps
            ),
            Finding::AtLeastGenerator => format!(
                "at least {:.0} packets a second without loss, in {trials} trials: the generator can no more",
                rate.pps
            ),
            Finding::AtLeastTried => format!(
                "at least {:.0} packets a second without loss: no more was tried",
                rate.pps
            ),
            Finding::Lossy | Finding::Inconclusive => format!(
                "no rate was found: of {trials} trials the sender kept up in {}; driving {FALLBACK_PPS:.0} packets a second",
                trials - rate.voids()
            ),
        },
    );
    Ok(rate)
}

/// Drives both loads for the time asked for, rotating keys. Again and slower if packets were lost; again if the sender did
/// not keep up, which says little about the path.
pub(super) fn drive(
    args: &DemoArgs,
    path: &Testbed,
    controller: &mut Controller,
    plan: &mut Plan,
    marker: [u8; 8],
    found: &Rate,
) -> anyhow::Result<Result> {
    let mut rate = match found.finding.has_rate() {
        true => found.pps * CAUTION,
        false => FALLBACK_PPS,
    };
    let (mut attempt, mut slowed) = (1, false);
    loop {
        let mut result = drive_once(args, path, controller, plan, marker, (rate, attempt))?;
        result.attempts = attempt;
        result.slowed = slowed;
        let lost = result.sent - result.received;
        match next(lost, result.kept_up(), attempt) {
            Next::Done => return Ok(result),
            Next::Again => say(
                args,
                &format!(
                    "the sender came to {:.0} of {rate:.0} a second: once more",
                    result.offered
                ),
            ),
            Next::Slower => {
                say(
                    args,
                    &format!("{lost} packets lost at {rate:.0} a second: again at half of it"),
                );
                rate /= 2.0;
                slowed = true;
            }
        }
        attempt += 1;
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Done,
    Again,
    Slower,
}

/// What comes after an attempt.
fn next(lost: u64, kept_up: bool, attempt: u32) -> Next {
    match (lost, kept_up) {
        _ if attempt >= ATTEMPTS => Next::Done,
        (0, true) => Next::Done,
        (0, false) => Next::Again,
        _ => Next::Slower,
    }
}

fn drive_once(
    args: &DemoArgs,
    path: &Testbed,
    controller: &mut Controller,
    plan: &mut Plan,
    marker: [u8; 8],
    (rate, attempt): (f64, u32),
) -> anyhow::Result<Result> {
    let duration = Duration::from_secs(args.duration);
    // Each load has its own flows: numbers begin anew.
    let first_flow = attempt * 10_000;
    let before = drops::all(controller)?;
    let forth_inlet = path.receive(Host::B, false, marker)?;
    let back_inlet = path.receive(Host::A, true, marker)?;
    let back_load = Load {
        marker,
        first_flow,
        flows: BACK_FLOWS,
        payload_size: BACK_PAYLOAD,
        pps: BACK_PPS,
        until: Until::Elapsed(duration),
    };
    let forth_load = main_load(args, marker, first_flow, rate, duration);
    let back = path.send(Host::B, true, back_load)?;
    let forth = path.send(Host::A, false, forth_load)?;

    let rotations_wanted = (args.duration / 2).clamp(2, 20) as u32;
    let begin = Instant::now();
    let (mut rotations, mut line, mut last) = (0, 1, (begin, 0));
    say(
        args,
        "  time     sent  received  Gbit/s  p50 µs  p99 µs  p99.9 µs  epoch  drops",
    );
    while begin.elapsed() < duration {
        std::thread::sleep(Duration::from_millis(20));
        let elapsed = begin.elapsed();
        // Rotations are spread evenly, and none begins that could not end under load.
        let next = duration * (rotations + 1) / (rotations_wanted + 1);
        if rotations < rotations_wanted && elapsed >= next {
            controller.rotate(plan)?;
            rotations += 1;
        }
        if elapsed >= Duration::from_secs(line) && !args.json {
            line = elapsed.as_secs() + 1;
            let received = forth_inlet.received();
            let seconds = last.0.elapsed().as_secs_f64();
            let gbps = (received - last.1) as f64 * f64::from(args.size) * 8e-9 / seconds;
            last = (Instant::now(), received);
            let [p50, p99, p999] = forth_inlet.latency().map(|ns| ns / 1000);
            eprintln!(
                "{:>5.1}s {:>8} {received:>9} {gbps:>7.3} {p50:>7} {p99:>7} {p999:>9} {:>6}  {}",
                elapsed.as_secs_f64(),
                forth.sent(),
                plan.epoch(),
                drops::text(&drops::since(drops::all(controller)?, &before))
            );
        }
    }
    let forth_sent = forth.join()?;
    let back_sent = back.join()?;
    let forth_tally = forth_inlet.finish(forth_sent.packets, QUIET)?;
    let back_tally = back_inlet.finish(back_sent.packets, QUIET)?;
    let forth: Summary = forth_tally.summary(&forth_sent);
    let back: Summary = back_tally.summary(&back_sent);
    let seconds = forth_sent.elapsed_ns.max(1) as f64 * 1e-9;
    let received = forth.sent - forth.lost;
    let bits = received as f64 * f64::from(args.size) * 8.0;
    Ok(Result {
        sent: forth.sent + back.sent,
        received: received + back.sent - back.lost,
        duplicates: forth.duplicates + back.duplicates,
        reordered: forth.reordered + back.reordered,
        damaged: forth.damaged + back.damaged,
        gbps: bits * 1e-9 / seconds,
        mpps: received as f64 * 1e-6 / seconds,
        rate,
        offered: forth_sent.pps(),
        attempts: attempt,
        slowed: false,
        drops: drops::since(drops::all(controller)?, &before),
        rotations,
        latency: LatencyUs::from_ns([forth.latency.p50, forth.latency.p99, forth.latency.p999]),
    })
}

fn main_load(
    args: &DemoArgs,
    marker: [u8; 8],
    first_flow: u32,
    pps: f64,
    duration: Duration,
) -> Load {
    Load {
        marker,
        first_flow,
        flows: FLOWS,
        payload_size: usize::from(args.size) - HEADERS_V4,
        pps,
        until: Until::Elapsed(duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_tried_slower_and_a_hiccup_once_more_both_so_often_only() {
        assert_eq!(next(0, true, 1), Next::Done);
        assert_eq!(next(0, false, 1), Next::Again);
        assert_eq!(next(7, true, 1), Next::Slower);
        assert_eq!(next(7, false, 2), Next::Slower);
        assert_eq!(next(0, false, ATTEMPTS), Next::Done);
        assert_eq!(next(7, true, ATTEMPTS), Next::Done);
    }
}
