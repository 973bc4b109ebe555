//! Throughput by size, latency percentiles, loss against offered rate, bursts.

use std::collections::BTreeSet;

use maud::{Markup, html};
use serde::Deserialize;
use twinseal_lab::traffic::Finding;

use super::{Said, bound, spread};
use crate::Sample;
use crate::page::axis::figure;
use crate::page::plot::{Axis, Series, lines};

/// What the page shows of the results.
#[derive(Deserialize)]
pub(super) struct Results {
    dut: Dut,
    flows: u32,
    both_ways: bool,
    trial_seconds: f64,
    repeats: u32,
    sizes: Vec<SizeResult>,
}

#[derive(Deserialize)]
struct Dut {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    name: String,
    workers: u32,
    provider: String,
    sockets: Vec<Socket>,
}

#[derive(Deserialize)]
struct Socket {
    name: String,
    xdp: Option<String>,
    bind: Vec<String>,
}

#[derive(Deserialize)]
struct SizeResult {
    /// "64" or "imix".
    size: String,
    octets: f64,
    throughput: Option<Throughput>,
    tolerant: Vec<Throughput>,
    latency: Vec<LatencyAt>,
    loss: Vec<LossAt>,
    back_to_back: Option<BackToBack>,
}

#[derive(Deserialize)]
struct Throughput {
    tolerated_loss: f64,
    pps: Sample,
    gbps: f64,
    finding: Finding,
}

#[derive(Deserialize)]
struct LatencyAt {
    load: f64,
    pps: f64,
    p50_us: Sample,
    p90_us: Option<Sample>,
    p99_us: Option<Sample>,
    p999_us: Option<Sample>,
    p9999_us: Option<Sample>,
    max_us: Sample,
}

#[derive(Deserialize)]
struct LossAt {
    offered_pps: f64,
    kept_up: bool,
    sent: u64,
    lost: u64,
}

#[derive(Deserialize)]
struct BackToBack {
    packets: Sample,
    limited: bool,
}

impl SizeResult {
    /// By its name: the mix is no size, though it has a mean.
    fn name(&self) -> String {
        match self.is_mix() {
            true => "IMIX".into(),
            false => self.size.clone(),
        }
    }

    fn is_mix(&self) -> bool {
        self.size == "imix"
    }

    /// With its unit.
    fn packets(&self) -> String {
        match self.is_mix() {
            true => "IMIX".into(),
            false => format!("{} bytes", self.size),
        }
    }
}

impl LatencyAt {
    /// Each with one in so many packets that take longer; none that too few packets were measured for.
    fn percentiles(&self) -> [(f64, &'static str, Option<Sample>); 5] {
        [
            (2.0, "50 %", Some(self.p50_us)),
            (10.0, "90 %", self.p90_us),
            (100.0, "99 %", self.p99_us),
            (1000.0, "99.9 %", self.p999_us),
            (10_000.0, "99.99 %", self.p9999_us),
        ]
    }
}

pub(super) fn body(results: &Results) -> Markup {
    html! {
        (throughput(results))
        @if results.sizes.iter().any(|size| !size.latency.is_empty()) {
            (latency(results))
        }
        @if results.sizes.iter().any(|size| !size.loss.is_empty()) {
            h3 { "Packets lost against packets offered" }
            (loss(results))
        }
        details {
            summary { "How it was measured" }
            p {
                (results.flows) " flows" @if results.both_ways { ", both ways at once, rates of both together" } ", trials of " (figure(results.trial_seconds)) " s, each figure "
                (results.repeats) " times."
            }
            ul {
                @for node in &results.dut.nodes {
                    li {
                        (node.name) ": " (node.workers) " workers, sealed by " (node.provider)
                        @for socket in &node.sockets {
                            "; " (socket.name) " " (socket.xdp.as_deref().unwrap_or("")) " " (socket.bind.join(", "))
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn said(results: &Results) -> Said {
    let mut said = Said::default();
    let found = |size: &&SizeResult| {
        size.throughput
            .as_ref()
            .is_some_and(|it| it.finding.has_rate())
    };
    let found: Vec<&SizeResult> = results.sizes.iter().filter(found).collect();
    let mix = found.iter().copied().find(|size| size.is_mix());
    let plain = || found.iter().copied().filter(|size| !size.is_mix());
    let mut shown: Vec<&SizeResult> = Vec::new();
    for size in [plain().next(), mix, plain().next_back()]
        .into_iter()
        .flatten()
    {
        if shown.iter().all(|it| it.size != size.size) {
            shown.push(size);
        }
    }
    let mode = mode(results);
    let ways = if results.both_ways {
        ", both ways together"
    } else {
        ""
    };
    let mut parts = Vec::new();
    for size in shown {
        let Some(it) = &size.throughput else { continue };
        let at_least = it.finding.at_least();
        said.figures.push((
            format!("{}{} Mpps", bound(at_least), figure(it.pps.median * 1e-6)),
            format!(
                "RFC 2544 throughput, {}, {mode}{ways}: {} Gbit/s",
                size.packets(),
                figure(it.gbps)
            ),
        ));
        parts.push(format!(
            "{}{} million packets a second of {} ({} Gbit/s)",
            if at_least { "at least " } else { "" },
            figure(it.pps.median * 1e-6),
            size.packets(),
            figure(it.gbps)
        ));
    }
    if !parts.is_empty() {
        said.sentences.push(format!(
            "By RFC 2544 the path ({mode}{ways}) loses nothing up to {}.",
            parts.join(", ")
        ));
    }
    said
}

/// How the device under test receives, as far as it is ours.
fn mode(results: &Results) -> String {
    let sockets = || results.dut.nodes.iter().flat_map(|node| &node.sockets);
    let xdp: BTreeSet<&str> = sockets()
        .filter_map(|it| it.xdp.as_deref())
        .filter(|it| !it.is_empty())
        .collect();
    let bind: BTreeSet<&str> = sockets()
        .flat_map(|it| &it.bind)
        .map(String::as_str)
        .collect();
    let words = |of: BTreeSet<&str>| of.into_iter().collect::<Vec<_>>().join(" and ");
    match xdp.is_empty() {
        true => "devices of others".into(),
        false => format!("{} XDP, {}", words(xdp), words(bind)),
    }
}

fn throughput(results: &Results) -> Markup {
    let found = || {
        let plain = results.sizes.iter().filter(|size| !size.is_mix());
        plain.filter_map(|size| {
            Some((
                size.octets,
                size.throughput
                    .as_ref()
                    .filter(|it| it.finding.has_rate())?,
            ))
        })
    };
    let x = Axis::log("bytes of the IP packet");
    html! {
        @if found().count() > 1 {
            h3 { "Throughput without loss by size" }
            (lines("Packets a second by size", &x, &Axis::linear("million packets a second"),
                &[Series::new("without loss", found().map(|(x, it)| (x, it.pps.median * 1e-6)).collect())]))
        }
        div.scroll {
            table {
                caption { "≥: at least, the generator could offer no more (of bursts: no longer one was tried)" }
                tr { th { "bytes" } th { "loss" } th { "Mpps" } th { "Gbit/s" } th { "longest burst" } }
                @for size in &results.sizes {
                    @for (nth, it) in size.throughput.iter().chain(&size.tolerant).enumerate() {
                        tr {
                            td { (size.name()) }
                            td { @if it.tolerated_loss > 0.0 { (figure(it.tolerated_loss * 100.0)) " %" } @else { "none" } }
                            @match it.finding.has_rate() {
                                true => {
                                    td { (bound(it.finding.at_least())) (spread(scaled(it.pps, 1e-6))) }
                                    td { (bound(it.finding.at_least())) (figure(it.gbps)) }
                                }
                                false => {
                                    td colspan="2" {
                                        @if it.finding == Finding::Lossy { "lost at every rate" } @else { "inconclusive" }
                                    }
                                }
                            }
                            td { @if nth == 0 { (burst(size)) } }
                        }
                    }
                    @if size.throughput.is_none() {
                        @if size.back_to_back.is_some() {
                            tr { td { (size.name()) } td {} td {} td {} td { (burst(size)) } }
                        }
                    }
                }
            }
        }
    }
}

fn burst(size: &SizeResult) -> String {
    size.back_to_back.as_ref().map_or(String::new(), |it| {
        format!("{}{}", bound(it.limited), figure(it.packets.median))
    })
}

fn latency(results: &Results) -> Markup {
    let last = results
        .sizes
        .iter()
        .rev()
        .find(|size| !size.latency.is_empty());
    let plots = [
        results.sizes.iter().find(|size| !size.latency.is_empty()),
        last,
    ];
    let mut shown = Vec::new();
    for size in plots.into_iter().flatten() {
        if shown.iter().all(|it: &&SizeResult| it.size != size.size) {
            shown.push(size);
        }
    }
    html! {
        @for size in shown {
            h3 { "One-way times, " (size.packets()) }
            (curves(size))
        }
        div.scroll {
            table {
                caption { "Microseconds: medians of the repeats; nothing where too few packets were measured to say" }
                tr {
                    th { "bytes" } th { "load" } th { "Mpps" }
                    th { "50 %" } th { "90 %" } th { "99 %" } th { "99.9 %" } th { "99.99 %" } th { "longest" }
                }
                @for size in &results.sizes {
                    @for at in &size.latency {
                        tr {
                            td { (size.name()) }
                            td { (figure(at.load * 100.0)) " %" }
                            td { (figure(at.pps * 1e-6)) }
                            @for (_, _, us) in at.percentiles() { td { @if let Some(us) = us { (figure(us.median)) } } }
                            td { (figure(at.max_us.median)) }
                        }
                    }
                }
            }
        }
    }
}

/// Percentiles at each load; the x axis stretches the last ones.
fn curves(size: &SizeResult) -> Markup {
    let series: Vec<Series> = size
        .latency
        .iter()
        .map(|at| {
            let points = at.percentiles().into_iter();
            let points = points.filter_map(|(one_in, _, us)| Some((one_in, us?.median)));
            Series::new(
                format!("at {} % of the throughput", figure(at.load * 100.0)),
                points.collect(),
            )
        })
        .collect();
    let mut x = Axis::log("of the packets took no longer");
    let all = size.latency.iter().flat_map(LatencyAt::percentiles);
    for (one_in, name, us) in all {
        if us.is_some() && x.named.iter().all(|(it, _)| *it != one_in) {
            x.named.push((one_in, name.to_owned()));
        }
    }
    lines(
        "One-way times by percentile",
        &x,
        &Axis::log("microseconds"),
        &series,
    )
}

fn loss(results: &Results) -> Markup {
    let series: Vec<Series> = results
        .sizes
        .iter()
        .filter(|size| !size.loss.is_empty())
        .map(|size| {
            let point = |at: &LossAt| {
                let part = at.lost as f64 / at.sent.max(1) as f64;
                (at.offered_pps * 1e-6, part * 100.0)
            };
            // A step that was not offered as it should be shows nothing.
            let mut points: Vec<_> = size
                .loss
                .iter()
                .filter(|it| it.kept_up)
                .map(point)
                .collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Series::new(size.packets(), points)
        })
        .collect();
    let x = Axis::linear("million packets a second offered");
    lines(
        "Loss against offered rate",
        &x,
        &Axis::linear("lost, %"),
        &series,
    )
}

fn scaled(it: Sample, by: f64) -> Sample {
    Sample {
        median: it.median * by,
        min: it.min * by,
        max: it.max * by,
    }
}
