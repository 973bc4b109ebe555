//! The rings alone: a bare forwarder, and one node as transit beside it.

use maud::{Markup, html};
use serde::Deserialize;

use super::{Said, spread};
use crate::Sample;
use crate::page::axis::figure;
use crate::page::plot::{Bar, bars};

/// What the page shows of the results.
#[derive(Deserialize)]
pub(super) struct Report {
    provider: String,
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    mode: String,
    octets: u32,
    bare: Rate,
    transit: Rate,
    ratio: Sample,
}

#[derive(Deserialize)]
struct Rate {
    forwarded: Sample,
    cpu_ns: Sample,
}

pub(super) fn body(report: &Report) -> Markup {
    let pair = |line: &Line| {
        let bar = |what: &str, rate: &Rate, colour, note| Bar {
            label: format!("{what}, {}, {}", line.octets, line.mode),
            value: rate.cpu_ns.median,
            spread: Some((rate.cpu_ns.min, rate.cpu_ns.max)),
            colour,
            note,
        };
        let note = format!(", {} %", figure(line.ratio.median * 100.0));
        [
            bar("bare", &line.bare, 7, String::new()),
            bar("transit", &line.transit, 0, note),
        ]
    };
    let all: Vec<Bar> = report.lines.iter().flat_map(pair).collect();
    html! {
        h3 { "Processor time a packet, the kernel's among it: less is better" }
        (bars("Processor time a packet of a bare forwarder and of a transit node", "ns", &all))
        div.scroll {
            table {
                caption { "Transit opens and seals the link, by " (report.provider) }
                tr { th { "bytes, XDP" } th { "bare, Mpps" } th { "transit, Mpps" } th { "packets for one of bare" } }
                @for line in &report.lines {
                    tr {
                        td { (line.octets) ", " (line.mode) }
                        td { (figure(line.bare.forwarded.median * 1e-6)) }
                        td { (figure(line.transit.forwarded.median * 1e-6)) }
                        td { (spread(line.ratio)) }
                    }
                }
            }
        }
    }
}

pub(super) fn said(report: &Report) -> Said {
    // Each mode and size is compared with itself: there is no one figure of all.
    let each: Vec<String> = report
        .lines
        .iter()
        .map(|line| {
            format!(
                "{} % with {} bytes in {} XDP",
                figure(line.ratio.median * 100.0),
                line.octets,
                line.mode
            )
        })
        .collect();
    let sentence = (!each.is_empty()).then(|| {
        format!(
            "Of what a bare AF_XDP forwarder does in the same processor time, a node in the middle, which opens and seals \
             every packet, forwards {}.",
            each.join(", ")
        )
    });
    Said {
        figures: Vec::new(),
        sentences: sentence.into_iter().collect(),
    }
}
