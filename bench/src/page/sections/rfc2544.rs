//! Throughput by size, latency percentiles, loss against offered rate, bursts.

use maud::{Markup, html};
use serde::Deserialize;

use super::{Said, spread};
use crate::Sample;
use crate::page::axis::figure;
use crate::page::plot::{Axis, Series, lines};

/// What the page shows of the results.
#[derive(Deserialize)]
pub(super) struct Results {
    dut: Dut,
    flows: u32,
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
    octets: u32,
    throughput: Option<Throughput>,
    latency: Vec<LatencyAt>,
    loss: Vec<LossAt>,
    back_to_back: Option<BackToBack>,
}

#[derive(Deserialize)]
struct Throughput {
    pps: Sample,
    gbps: f64,
    generator_limited: bool,
}

#[derive(Deserialize)]
struct LatencyAt {
    load: f64,
    pps: f64,
    p50_us: Sample,
    p90_us: Sample,
    p99_us: Sample,
    p999_us: Sample,
    p9999_us: Sample,
    max_us: Sample,
}

#[derive(Deserialize)]
struct LossAt {
    offered_pps: f64,
    sent: u64,
    lost: u64,
}

#[derive(Deserialize)]
struct BackToBack {
    packets: Sample,
    limited: bool,
}

impl LatencyAt {
    /// Each with one in so many packets that take longer.
    fn percentiles(&self) -> [(f64, &'static str, Sample); 5] {
        [
            (2.0, "50 %", self.p50_us),
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
                (results.flows) " flows, trials of " (figure(results.trial_seconds)) " s, each figure "
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
    let found = |size: &SizeResult| {
        let found = size.throughput.as_ref().filter(|it| it.pps.median > 0.0)?;
        Some((size.octets, found.pps.median, found.gbps))
    };
    let found: Vec<_> = results.sizes.iter().filter_map(found).collect();
    if let (Some(short), Some(long)) = (found.first(), found.last()) {
        said.sentences.push(format!(
            "By RFC 2544 the path loses nothing up to {} million packets a second of {} octets, and {} Gbit/s of {}.",
            figure(short.1 * 1e-6),
            short.0,
            figure(long.2),
            long.0
        ));
    }
    said
}

fn throughput(results: &Results) -> Markup {
    let found = || {
        results.sizes.iter().filter_map(|size| {
            let throughput = size.throughput.as_ref()?;
            Some((f64::from(size.octets), throughput))
        })
    };
    let x = Axis::log("octets of the IP packet");
    html! {
        @if found().count() > 1 {
            h3 { "Throughput without loss by size" }
            (lines("Packets a second by size", &x, &Axis::linear("million packets a second"),
                &[Series::new("without loss", found().map(|(x, it)| (x, it.pps.median * 1e-6)).collect())]))
        }
        div.scroll {
            table {
                caption { "+: the generator could offer no more" }
                tr { th { "octets" } th { "Mpps" } th { "Gbit/s" } th { "longest burst" } }
                @for size in &results.sizes {
                    tr {
                        td { (size.octets) }
                        @match &size.throughput {
                            Some(it) => {
                                td { (spread(scaled(it.pps, 1e-6))) @if it.generator_limited { "+" } }
                                td { (figure(it.gbps)) }
                            }
                            None => { td {} td {} }
                        }
                        td {
                            @if let Some(burst) = &size.back_to_back {
                                (figure(burst.packets.median)) @if burst.limited { "+" }
                            }
                        }
                    }
                }
            }
        }
    }
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
        if shown
            .iter()
            .all(|it: &&SizeResult| it.octets != size.octets)
        {
            shown.push(size);
        }
    }
    html! {
        @for size in shown {
            h3 { "One-way times, " (size.octets) " octets" }
            (curves(size))
        }
        div.scroll {
            table {
                caption { "Microseconds: medians of the repeats" }
                tr {
                    th { "octets" } th { "load" } th { "Mpps" }
                    th { "50 %" } th { "90 %" } th { "99 %" } th { "99.9 %" } th { "99.99 %" } th { "longest" }
                }
                @for size in &results.sizes {
                    @for at in &size.latency {
                        tr {
                            td { (size.octets) }
                            td { (figure(at.load * 100.0)) " %" }
                            td { (figure(at.pps * 1e-6)) }
                            @for (_, _, us) in at.percentiles() { td { (figure(us.median)) } }
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
            let points = at.percentiles().map(|(one_in, _, us)| (one_in, us.median));
            Series::new(
                format!("at {} % of the throughput", figure(at.load * 100.0)),
                points.to_vec(),
            )
        })
        .collect();
    let mut x = Axis::log("of the packets took no longer");
    x.named = size.latency.first().map_or(Vec::new(), |at| {
        at.percentiles()
            .map(|(one_in, name, _)| (one_in, name.to_owned()))
            .to_vec()
    });
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
            let mut points: Vec<_> = size.loss.iter().map(point).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Series::new(format!("{} octets", size.octets), points)
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
