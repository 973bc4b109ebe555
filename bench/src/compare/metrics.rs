//! Rounds put together: medians, and ratios within each round.

use std::collections::BTreeMap;

use twinseal_lab::traffic::Finding;

use super::peers::{KERNEL, OURS};
use super::result::{Metric, MetricLine, Participant, Round};
use crate::Sample;

/// Puts the rounds together.
pub(super) fn of_rounds(sizes: &[u16], peers: &[Participant], rounds: &[Round]) -> Vec<Metric> {
    let table = Table { peers, rounds };
    let mut metrics: Vec<Metric> = sizes
        .iter()
        .map(|&octets| {
            let title = format!("No-loss rate, {octets} octets");
            table.metric(&format!("rate-{octets}"), &title, "Mpps", true, |round| {
                let rate = round.rates.iter().find(|rate| rate.octets == octets)?;
                // A search that could not be made is no rate of 0.
                let made = rate.finding != Finding::Inconclusive;
                made.then_some((rate.mpps, rate.finding.at_least()))
            })
        })
        .collect();
    let tcp = |round: &Round| Some((round.tcp.as_ref()?.gbps, false));
    metrics.extend([
        table.metric("tcp", "Goodput of one TCP stream", "Gbit/s", true, tcp),
        table.metric(
            "tcp-cpu",
            "CPU time a Gbit of that stream, hosts and gateways",
            "s",
            false,
            |round| {
                let tcp = round.tcp.as_ref()?;
                Some((tcp.cpus / tcp.gbps, false))
            },
        ),
        table.metric("rtt-p50", "Round trip, median", "us", false, |round| {
            Some((round.round_trip.p50_us, false))
        }),
        table.metric("rtt-p99", "Round trip, 99 %", "us", false, |round| {
            Some((round.round_trip.p99_us, false))
        }),
    ]);
    metrics.retain(|metric| !metric.lines.is_empty());
    metrics
}

struct Table<'a> {
    peers: &'a [Participant],
    rounds: &'a [Round],
}

impl Table<'_> {
    fn metric(
        &self,
        id: &str,
        title: &str,
        unit: &str,
        more_is_better: bool,
        value: impl Fn(&Round) -> Option<(f64, bool)>,
    ) -> Metric {
        // By peer, then by round.
        let values: Vec<(&Participant, BTreeMap<u32, f64>)> = self
            .peers
            .iter()
            .map(|peer| {
                let own = self.rounds.iter().filter(|round| round.peer == peer.name);
                let own = own.filter_map(|round| Some((round.round, value(round)?.0)));
                (peer, own.collect::<BTreeMap<_, _>>())
            })
            .filter(|(_, values)| !values.is_empty())
            .collect();
        let median = |values: &BTreeMap<u32, f64>| sample(values.values().copied()).median;
        let best = values
            .iter()
            .filter(|(peer, values)| peer.seals > 0 && peer.name != OURS && median(values) > 0.0)
            .max_by(|(_, a), (_, b)| {
                let order = median(a).total_cmp(&median(b));
                if more_is_better {
                    order
                } else {
                    order.reverse()
                }
            });
        let kernel = values.iter().find(|(peer, _)| peer.name == KERNEL);
        // Whose limit was the sender in a round is compared with nobody then: the ratio of two bounds is none.
        let is_bound = |peer: &Participant, number: u32| {
            let mut own = self.rounds.iter();
            let own = own.find(|round| round.peer == peer.name && round.round == number);
            own.and_then(&value).is_some_and(|(_, at_least)| at_least)
        };
        let ratio = |peer: &Participant,
                     own: &BTreeMap<u32, f64>,
                     to: Option<&(&Participant, BTreeMap<u32, f64>)>| {
            let (other, to) = to?;
            let ratios: Vec<f64> = own
                .iter()
                .filter(|(round, _)| !is_bound(peer, **round) && !is_bound(other, **round))
                .filter_map(|(round, value)| Some(value / to.get(round).filter(|&&to| to > 0.0)?))
                .collect();
            (!ratios.is_empty()).then(|| Sample::new(ratios))
        };
        let at_least = |peer: &str| {
            let mut own = self.rounds.iter().filter(|round| round.peer == peer);
            own.any(|round| value(round).is_some_and(|(_, at_least)| at_least))
        };
        Metric {
            id: id.into(),
            title: title.into(),
            unit: unit.into(),
            more_is_better,
            best_sealed: best.map(|(peer, _)| peer.name.clone()),
            lines: values
                .iter()
                .map(|(peer, values)| MetricLine {
                    peer: peer.name.clone(),
                    value: sample(values.values().copied()),
                    at_least: at_least(&peer.name),
                    to_kernel: ratio(peer, values, kernel),
                    to_best_sealed: ratio(peer, values, best),
                })
                .collect(),
        }
    }
}

fn sample(values: impl Iterator<Item = f64>) -> Sample {
    Sample::new(values.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::result::{Rate, RoundTrip};

    fn participant(name: &str, seals: u8) -> Participant {
        Participant {
            name: name.into(),
            about: String::new(),
            seals,
            version: Some("1".into()),
            missing: None,
            failures: Vec::new(),
        }
    }

    fn round(round: u32, peer: &str, mpps: f64, p50_us: f64) -> Round {
        Round {
            round,
            peer: peer.into(),
            rates: vec![Rate {
                octets: 64,
                mpps,
                finding: Finding::Found,
                trials: 1,
                void: 0,
                sent: 1,
                received: 1,
            }],
            tcp: None,
            round_trip: RoundTrip {
                p50_us,
                p99_us: p50_us,
                sent: 1,
                received: 1,
            },
            counts: None,
        }
    }

    #[test]
    fn ratios_are_of_the_same_round_and_the_best_is_a_sealed_peer() {
        let peers = [
            participant("kernel", 0),
            participant(OURS, 2),
            participant("slow", 1),
            participant("fast", 1),
            participant("absent", 1),
        ];
        let rounds = [
            round(1, "kernel", 0.4, 80.0),
            round(1, OURS, 0.2, 60.0),
            round(1, "slow", 0.01, 50.0),
            round(1, "fast", 0.1, 120.0),
            // All twice as fast in the second round, but ours.
            round(2, "kernel", 0.8, 40.0),
            round(2, OURS, 0.3, 30.0),
            round(2, "slow", 0.02, 25.0),
            round(2, "fast", 0.2, 60.0),
        ];
        let metrics = of_rounds(&[64], &peers, &rounds);
        let ids: Vec<_> = metrics.iter().map(|metric| metric.id.as_str()).collect();
        // Nobody has a figure for TCP.
        assert_eq!(ids, ["rate-64", "rtt-p50", "rtt-p99"]);
        let names: Vec<_> = metrics[0].lines.iter().map(|line| &line.peer).collect();
        assert_eq!(names, ["kernel", OURS, "slow", "fast"]);
        assert_eq!(metrics[0].best_sealed.as_deref(), Some("fast"));
        assert_eq!(metrics[1].best_sealed.as_deref(), Some("slow"));
        let ours = &metrics[0].lines[1];
        let near = |sample: Option<Sample>, min: f64, max: f64| {
            let sample = sample.unwrap();
            assert!((sample.min - min).abs() < 1e-9 && (sample.max - max).abs() < 1e-9);
        };
        near(ours.to_kernel, 0.375, 0.5);
        assert!(metrics[0].lines.iter().all(|line| !line.at_least));
        near(ours.to_best_sealed, 1.5, 2.0);
        near(metrics[0].lines[0].to_kernel, 1.0, 1.0);
    }

    #[test]
    fn a_search_that_could_not_be_made_is_no_rate_of_zero() {
        let peers = [participant(OURS, 2), participant("slow", 1)];
        let found = |number, peer, finding| {
            let mut it = round(number, peer, 0.3, 50.0);
            it.rates[0].finding = finding;
            if finding == Finding::Inconclusive {
                it.rates[0].mpps = 0.0;
            }
            it
        };
        let rounds = [
            found(1, OURS, Finding::Inconclusive),
            found(2, OURS, Finding::AtLeastGenerator),
            found(1, "slow", Finding::Inconclusive),
            found(2, "slow", Finding::Inconclusive),
        ];
        let metrics = of_rounds(&[64], &peers, &rounds);
        let [ours] = &metrics[0].lines[..] else {
            panic!("{metrics:?}");
        };
        assert_eq!(
            (&*ours.peer, ours.value.min, ours.at_least),
            (OURS, 0.3, true)
        );
        assert_eq!(metrics[0].best_sealed, None);
    }

    #[test]
    fn bounds_are_compared_with_nobody() {
        let peers = [participant("kernel", 0), participant(OURS, 2)];
        let mut bound = round(2, "kernel", 0.4, 80.0);
        bound.rates[0].finding = Finding::AtLeastGenerator;
        let rounds = [
            round(1, "kernel", 0.4, 80.0),
            round(1, OURS, 0.2, 60.0),
            bound,
            round(2, OURS, 0.4, 60.0),
        ];
        let metrics = of_rounds(&[64], &peers, &rounds);
        let to_kernel = |metric: &Metric| metric.lines[1].to_kernel.map(|it| it.max);
        assert_eq!(to_kernel(&metrics[0]), Some(0.5));
        // Of the other figures nobody's sender is the limit.
        assert_eq!(to_kernel(&metrics[1]), Some(0.75));
        let metrics = of_rounds(&[64], &peers, &rounds[2..]);
        assert_eq!(to_kernel(&metrics[0]), None);
    }
}
