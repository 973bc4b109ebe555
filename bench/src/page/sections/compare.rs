//! Against others: bars a figure, a table of all, and who took part.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::{Said, bound};
use crate::Sample;
use crate::compare::{Comparison, Metric, MetricLine, Participant};
use crate::page::axis::figure;
use crate::page::plot::{Bar, bars};

const OURS: &str = "twinseal";
const KERNEL: &str = "kernel";

pub(super) fn body(comparison: &Comparison) -> Markup {
    html! {
        @for metric in &comparison.metrics {
            h3 {
                (metric.title)
                span.soft { @if metric.more_is_better { ": more is better" } @else { ": less is better" } }
            }
            (bars(&metric.title, &metric.unit, &bars_of(comparison, metric)))
        }
        p.how {
            "Blue: Twinseal, sealed twice. Orange: others, sealed once. Grey: not sealed."
        }
        (table(comparison))
        @for peer in comparison.peers.iter().filter(|peer| !peer.failures.is_empty()) {
            div.warning {
                p { (peer.name) " failed:" }
                @for failure in &peer.failures { pre { (failure) } }
            }
        }
        details {
            summary { "How it was measured" }
            pre { (comparison.setup) }
        }
    }
}

pub(super) fn said(comparison: &Comparison) -> Said {
    let mut said = Said::default();
    let rates = comparison
        .metrics
        .iter()
        .filter(|it| it.id.starts_with("rate-"));
    for metric in rates {
        let Some(ours) = line(metric, OURS) else {
            continue;
        };
        let octets = metric.id.trim_start_matches("rate-");
        let mpps = figure(ours.value.median);
        let (bound, mode) = (bound(ours.at_least), mode(comparison));
        said.figures.push((
            format!("{bound}{mpps} Mpps"),
            format!("from host to host without loss, {octets} bytes, {mode}"),
        ));
        said.sentences.push(format!(
            "Between two gateways that share {} CPUs with the hosts ({mode}), Twinseal forwards {}{mpps} million packets of \
             {octets} bytes a second without losing one, each sealed twice{}.",
            comparison.machine.cpus,
            if ours.at_least { "at least " } else { "" },
            against(metric, ours)
        ));
    }
    let metric = |id: &str| comparison.metrics.iter().find(|it| it.id == id);
    if let Some((metric, ours)) = metric("tcp").and_then(|it| Some((it, line(it, OURS)?))) {
        let gbps = figure(ours.value.median);
        said.figures.push((
            format!("{gbps} Gbit/s"),
            format!("one TCP stream from host to host, {}", mode(comparison)),
        ));
        said.sentences.push(format!(
            "One TCP stream brings {gbps} Gbit/s of payload{}.",
            against(metric, ours)
        ));
    }
    if let Some((metric, ours)) = metric("rtt-p50").and_then(|it| Some((it, line(it, OURS)?))) {
        let us = figure(ours.value.median);
        said.figures.push((
            format!("{us} us"),
            format!("round trip from host to host, median, {}", mode(comparison)),
        ));
        let kernel = line(metric, KERNEL).map(|it| {
            format!(
                ", against {} us of plain forwarding",
                figure(it.value.median)
            )
        });
        said.sentences.push(format!(
            "A ping takes {us} us there and back{}.",
            kernel.unwrap_or_default()
        ));
    }
    said
}

/// How the gateways' XDP programs were attached; what was asked for, where they did not tell.
fn mode(comparison: &Comparison) -> String {
    let own = comparison.rounds.iter().filter(|round| round.peer == OURS);
    let told = own
        .filter_map(|round| round.counts.as_ref())
        .flat_map(|it| &it.xdp);
    let told: BTreeSet<&str> = told.map(String::as_str).collect();
    match told.is_empty() {
        true => format!("{} XDP", comparison.setup.xdp),
        false => format!("{} XDP", told.into_iter().collect::<Vec<_>>().join(" and ")),
    }
}

/// What a figure is beside the kernel's and the best of the sealed.
fn against(metric: &Metric, ours: &MetricLine) -> String {
    let times = |ratio: Sample| figure(ratio.median);
    let best = metric.best_sealed.as_ref().zip(ours.to_best_sealed);
    let kernel = ours.to_kernel;
    let best = best.map(|(name, ratio)| {
        format!(
            "{} times the best of those that seal once ({name})",
            times(ratio)
        )
    });
    let kernel =
        kernel.map(|ratio| format!("{} times plain forwarding by the kernel", times(ratio)));
    let parts: Vec<String> = [best, kernel].into_iter().flatten().collect();
    match parts.is_empty() {
        true => String::new(),
        false => format!(": {}", parts.join(" and ")),
    }
}

fn bars_of(comparison: &Comparison, metric: &Metric) -> Vec<Bar> {
    let seals = |name: &str| {
        let peer = comparison.peers.iter().find(|peer| peer.name == name);
        peer.map_or(0, |peer| peer.seals)
    };
    let bar = |line: &MetricLine| Bar {
        label: line.peer.clone(),
        value: line.value.median,
        spread: Some((line.value.min, line.value.max)),
        colour: match (line.peer.as_str(), seals(&line.peer)) {
            (OURS, _) => 0,
            (_, 0) => 7,
            _ => 1,
        },
        note: if line.at_least {
            " at least".into()
        } else {
            String::new()
        },
    };
    metric.lines.iter().map(bar).collect()
}

fn line<'a>(metric: &'a Metric, peer: &str) -> Option<&'a MetricLine> {
    metric.lines.iter().find(|line| line.peer == peer)
}

/// A row a peer, a column a figure; below the figure what part of the kernel's it is.
fn table(comparison: &Comparison) -> Markup {
    let cell = |metric: &Metric, peer: &Participant| {
        let line = line(metric, &peer.name);
        html! {
            td {
                @if let Some(line) = line {
                    (bound(line.at_least)) (figure(line.value.median))
                    @if let Some(ratio) = line.to_kernel.filter(|_| peer.name != KERNEL) {
                        span.soft { " ×" (figure(ratio.median)) }
                    }
                }
            }
        }
    };
    html! {
        div.scroll {
            table {
                caption { "Medians; × is the ratio to plain forwarding in the same round; ≥: the sender could do no more. Twinseal by " (mode(comparison)) }
                tr {
                    th { "" }
                    th { "seals" }
                    @for metric in &comparison.metrics { th { (metric.title) " (" (metric.unit) ")" } }
                    th { "version" }
                }
                @for peer in &comparison.peers {
                    tr.ours[peer.name == OURS] {
                        td { (peer.name) }
                        td { (peer.seals) }
                        @match (&peer.version, &peer.missing) {
                            (Some(version), _) => {
                                @for metric in &comparison.metrics { (cell(metric, peer)) }
                                td.words { (version) }
                            }
                            (None, how) => {
                                td.words colspan=(comparison.metrics.len() + 1) {
                                    "not installed here: " (how.as_deref().unwrap_or("unknown"))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
