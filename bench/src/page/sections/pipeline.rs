//! Cost by stage, and what one core comes to at each size.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde::Deserialize;

use super::{Said, spread};
use crate::Sample;
use crate::page::axis::figure;
use crate::page::plot::{Axis, Series, Stack, lines, stacks};

/// The longest packets whose stages are plotted, in bytes.
const LONGEST: u32 = 1500;

/// What the page shows of the results.
#[derive(Deserialize)]
pub(super) struct Pipeline {
    provider: String,
    suite: String,
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    role: String,
    /// "64" or "imix"; results of old have none.
    #[serde(default)]
    size: String,
    octets: u32,
    #[serde(default = "one")]
    workers: u32,
    total_ns: Sample,
    aead_ns: Sample,
    packets_per_second: f64,
    stages: BTreeMap<String, Stage>,
}

/// The time of a stage, in nanoseconds a packet; with its spread, or without.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stage {
    Median(f64),
    Spread { ns: Sample },
}

impl Stage {
    fn ns(&self) -> f64 {
        match self {
            Stage::Median(ns) => *ns,
            Stage::Spread { ns } => ns.median,
        }
    }
}

fn one() -> u32 {
    1
}

impl Line {
    /// By its name: the mix is no size, though it has a mean.
    fn size(&self) -> String {
        match self.size.as_str() {
            "imix" => "IMIX".into(),
            _ => self.octets.to_string(),
        }
    }

    fn is_mix(&self) -> bool {
        self.size == "imix"
    }

    /// Of inner packets.
    fn gbps(&self) -> f64 {
        self.packets_per_second * f64::from(self.octets) * 8e-9
    }
}

pub(super) fn body(pipeline: &Pipeline) -> Markup {
    let mut names: Vec<&str> = Vec::new();
    for name in single(pipeline).flat_map(|line| line.stages.keys()) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let place = |name: &str| names.iter().position(|it| *it == name).unwrap_or(0);
    // One that is many times as long makes all others too short to see; the table has it.
    let least = single(pipeline).map(|line| line.octets).min().unwrap_or(0);
    let by_stage: Vec<Stack> = single(pipeline)
        .filter(|line| line.octets <= LONGEST.max(least))
        .map(|line| Stack {
            label: format!("{}, {}", line.role, line.size()),
            // In the order of the legend.
            parts: line
                .stages
                .iter()
                .map(|(name, stage)| (place(name), stage.ns()))
                .collect(),
        })
        .collect();
    html! {
        h3 { "Nanoseconds a packet, by stage" }
        (stacks("Nanoseconds a packet by stage", "ns", &names, &by_stage))
        @if single(pipeline).any(|line| line.octets != first_octets(pipeline)) {
            h3 { "Throughput of one core by size" }
            (by_size(pipeline))
        }
        @if pipeline.lines.iter().any(|line| line.workers > 1) {
            h3 { "Scaling over workers" }
            (by_workers(pipeline))
        }
        div.scroll {
            table {
                caption { "Sealed by " (pipeline.provider) ", " (pipeline.suite) "; medians (least..greatest)" }
                tr {
                    th { "role, bytes" } th { "workers" } th { "ns" } th { "of it AEAD" } th { "Mpps" } th { "Gbit/s" }
                }
                @for line in &pipeline.lines {
                    tr {
                        td { (line.role) ", " (line.size()) }
                        td { (line.workers) }
                        td { (spread(line.total_ns)) }
                        td { (spread(line.aead_ns)) }
                        td { (figure(line.packets_per_second * 1e-6)) }
                        td { (figure(line.gbps())) }
                    }
                }
            }
        }
    }
}

pub(super) fn said(pipeline: &Pipeline) -> Said {
    let mut said = Said::default();
    let ingress = || single(pipeline).filter(|line| line.role == "ingress" && !line.is_mix());
    let of = |line: &Line| {
        format!(
            "{} ns for {} bytes ({} million packets, {} Gbit/s a second)",
            figure(line.total_ns.median),
            line.octets,
            figure(line.packets_per_second * 1e-6),
            figure(line.gbps())
        )
    };
    let sizes = [
        ingress().min_by_key(|it| it.octets),
        ingress().max_by_key(|it| it.octets),
    ];
    if let [Some(short), Some(long)] = sizes {
        let sizes = match short.octets == long.octets {
            true => of(short),
            false => format!("{} to {}", of(short), of(long)),
        };
        said.sentences.push(format!(
            "In memory, without any device or kernel, one core looks up, wraps and seals a packet twice in {sizes}: what a \
             packet costs inside, not what passes from host to host.",
        ));
    }
    said
}

/// What one worker does.
fn single(pipeline: &Pipeline) -> impl Iterator<Item = &Line> {
    pipeline.lines.iter().filter(|line| line.workers == 1)
}

fn first_octets(pipeline: &Pipeline) -> u32 {
    pipeline.lines.first().map_or(0, |line| line.octets)
}

fn roles(pipeline: &Pipeline) -> Vec<&str> {
    let mut roles: Vec<&str> = Vec::new();
    for line in &pipeline.lines {
        if !roles.contains(&line.role.as_str()) {
            roles.push(&line.role);
        }
    }
    roles
}

fn by_size(pipeline: &Pipeline) -> Markup {
    let series: Vec<Series> = roles(pipeline)
        .into_iter()
        .map(|role| {
            let own = single(pipeline).filter(|line| line.role == role && !line.is_mix());
            let mut points: Vec<_> = own.map(|it| (f64::from(it.octets), it.gbps())).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Series::new(role, points)
        })
        .collect();
    let (x, y) = (
        Axis::log("bytes of the inner packet"),
        Axis::linear("Gbit/s of inner packets"),
    );
    lines("Throughput of one core by packet size", &x, &y, &series)
}

fn by_workers(pipeline: &Pipeline) -> Markup {
    let series: Vec<Series> = roles(pipeline)
        .into_iter()
        .flat_map(|role| {
            let mut sizes: BTreeMap<(u32, String), Vec<(f64, f64)>> = BTreeMap::new();
            for line in pipeline.lines.iter().filter(|line| line.role == role) {
                let point = (f64::from(line.workers), line.packets_per_second * 1e-6);
                sizes
                    .entry((line.octets, line.size()))
                    .or_default()
                    .push(point);
            }
            let sizes = sizes.into_iter().filter(|(_, points)| points.len() > 1);
            sizes.map(move |((_, size), points)| Series::new(format!("{role}, {size}"), points))
        })
        .collect();
    let (x, y) = (
        Axis::linear("workers"),
        Axis::linear("million packets a second"),
    );
    lines("Throughput by number of workers", &x, &y, &series)
}
