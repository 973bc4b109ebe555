//! Sealing alone: provider against provider.

use maud::{Markup, html};
use serde::Deserialize;

use super::{Said, spread};
use crate::Sample;
use crate::page::axis::figure;
use crate::page::plot::{Bar, bars};

/// What the page shows of the results.
#[derive(Deserialize)]
pub(super) struct Seals {
    batch: u32,
    cycles_per_ns: f64,
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    suite: String,
    octets: u32,
    operation: String,
    seals: u32,
    /// Calls that they take; those of results without it are as many as seals.
    calls: Option<u32>,
    limit_cycles: Option<f64>,
    providers: Vec<Provider>,
}

#[derive(Deserialize)]
struct Provider {
    provider: String,
    ns_per_packet: Sample,
    times_as_fast: f64,
}

/// The suite that plots show.
const SUITE: &str = "aes-256-gcm";
/// The provider that is ours; the first is what the others are measured by.
const OURS: &str = "twinseal";

impl Line {
    fn limit_ns(&self, seals: &Seals) -> Option<f64> {
        let limit = self.limit_cycles.filter(|_| seals.cycles_per_ns > 0.0)?;
        Some(limit / seals.cycles_per_ns)
    }

    fn calls(&self) -> u32 {
        self.calls.unwrap_or(self.seals)
    }
}

impl Seals {
    /// Two seals by the suite that is plotted, a line a size: by as few calls as were measured.
    fn shown(&self) -> impl Iterator<Item = &Line> {
        let plotted = || {
            let all = self.lines.iter();
            all.filter(|it| it.suite == SUITE && it.operation == "seal" && it.seals == 2)
        };
        plotted().filter(move |line| {
            let same = plotted().filter(|it| it.octets == line.octets);
            same.map(Line::calls).min() == Some(line.calls())
        })
    }
}

pub(super) fn body(seals: &Seals) -> Markup {
    html! {
        @for line in seals.shown() {
            h3 { "Two seals of " (line.octets) " octets, " (SUITE) ": less is better" }
            (bars("Nanoseconds a packet by provider", "ns", &bars_of(seals, line)))
        }
        details {
            summary { "All suites and operations" }
            div.scroll {
                table {
                    caption { "ns a packet: medians (least..greatest); " (seals.batch) " packets a call" }
                    tr {
                        th { "" } th { "octets" } th { "seals" } th { "calls" }
                        @if let Some(line) = seals.lines.first() {
                            @for it in &line.providers { th { (it.provider) } }
                        }
                        th { "limit" }
                    }
                    @for line in &seals.lines {
                        tr {
                            td { (line.operation) ", " (line.suite) }
                            td { (line.octets) }
                            td { (line.seals) } td { (line.calls()) }
                            @for it in &line.providers { td { (spread(it.ns_per_packet)) } }
                            td { @if let Some(ns) = line.limit_ns(seals) { (figure(ns)) } }
                        }
                    }
                }
            }
        }
        p.soft {
            "The limit is what the arithmetic alone takes at the clock rate of the time stamp counter; a processor that
            runs faster just then may beat it."
        }
    }
}

fn bars_of(seals: &Seals, line: &Line) -> Vec<Bar> {
    let bar = |it: &Provider| Bar {
        label: it.provider.clone(),
        value: it.ns_per_packet.median,
        spread: Some((it.ns_per_packet.min, it.ns_per_packet.max)),
        colour: if it.provider == OURS { 0 } else { 1 },
        note: match it.provider == OURS {
            true => format!(", {} times as fast", figure(it.times_as_fast)),
            false => String::new(),
        },
    };
    let limit = line.limit_ns(seals).map(|ns| Bar {
        label: "arithmetic limit".into(),
        value: ns,
        spread: None,
        colour: 7,
        note: String::new(),
    });
    line.providers.iter().map(bar).chain(limit).collect()
}

pub(super) fn said(seals: &Seals) -> Said {
    let shown: Vec<String> = seals
        .shown()
        .filter_map(|line| {
            let ours = line.providers.iter().find(|it| it.provider == OURS)?;
            Some(format!(
                "{} times at {} octets",
                figure(ours.times_as_fast),
                line.octets
            ))
        })
        .collect();
    let first = seals.lines.first().and_then(|line| line.providers.first());
    let sentences = first.filter(|_| !shown.is_empty()).map(|first| {
        format!(
            "Our sealing kernel puts on two AES-256-GCM seals faster than two calls of {}: {}.",
            first.provider,
            shown.join(", ")
        )
    });
    Said {
        figures: Vec::new(),
        sentences: sentences.into_iter().collect(),
    }
}
