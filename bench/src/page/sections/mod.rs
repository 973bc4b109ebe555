//! A section of the page for each kind of results.

mod compare;
mod l2fwd;
mod pipeline;
mod plain;
mod rfc2544;
mod seal;

use maud::{Markup, html};
use serde::de::DeserializeOwned;

use super::axis::figure;
use super::{Kind, Piece};
use crate::Sample;

/// What a piece comes to, for the top of the page.
#[derive(Default)]
pub(super) struct Said {
    /// A figure from one host to another, and what it is. What is measured inside of the program only is none.
    pub(super) figures: Vec<(String, String)>,
    /// For somebody who reads nothing else.
    pub(super) sentences: Vec<String>,
}

/// Repeats of a figure that its spread can be told of.
const REPEATS: u64 = 3;

/// Why a piece's figures are to be taken with care.
pub(super) fn doubts(piece: &Piece) -> Vec<String> {
    let mut doubts = Vec::new();
    if piece
        .machine
        .command
        .split(' ')
        .any(|word| word == "--quick")
    {
        doubts.push("--quick: short trials, rough figures".to_owned());
    }
    let results = &piece.results;
    let repeats = match piece.kind {
        Kind::Compare => results["setup"]["rounds"].as_u64(),
        Kind::Rfc2544 => results["repeats"].as_u64(),
        Kind::L2fwd => results["runs"].as_u64(),
        _ => None,
    };
    match repeats {
        Some(1) => doubts.push("measured once: how far figures scatter is not known".to_owned()),
        Some(few) if few < REPEATS => doubts.push(format!("measured {few} times only")),
        _ => {}
    }
    if let Some(verdict) = results["verdict"].as_str().filter(|it| *it != "success") {
        let reasons = results["reasons"].as_array().into_iter().flatten();
        let reasons: Vec<&str> = reasons.filter_map(|it| it.as_str()).collect();
        doubts.push(format!("{verdict}: {}", reasons.join("; ")));
    }
    doubts
}

/// A rate's mark where the true one may be higher.
fn bound(at_least: bool) -> &'static str {
    if at_least { "≥ " } else { "" }
}

/// A section's heading.
pub(super) fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Compare => "Against others",
        Kind::Rfc2544 => "RFC 2544",
        Kind::L2fwd => "The rings alone",
        Kind::Pipeline => "Cost by stage",
        Kind::Seal => "Sealing alone",
        Kind::Tables => "Tables",
        Kind::Load => "Control",
        Kind::Soak => "Soak",
    }
}

/// The question that a section answers.
pub(super) fn question(kind: Kind) -> &'static str {
    match kind {
        Kind::Compare => {
            "The same load through the kernel, through Twinseal and through other tunnels, in turn, between the same two
            hosts. All of them share this machine's CPUs with the hosts."
        }
        Kind::Rfc2544 => {
            "How fast can packets come before one is lost, how long do they take, and what is lost beyond that?"
        }
        Kind::L2fwd => {
            "What AF_XDP itself costs: packets forwarded from one device to another with nothing done to them."
        }
        Kind::Pipeline => {
            "What a packet costs inside of Twinseal, stage by stage, with no kernel and no device."
        }
        Kind::Seal => "What the seals alone cost, by each library and by our own kernel.",
        Kind::Tables => "Lookups and updates in tables of a million routes.",
        Kind::Load => {
            "A whole node loaded through its control socket, and its routes changed while packets pass: how long, how much
            memory, and was a packet lost?"
        }
        Kind::Soak => "Hours of traffic while keys rotate and tables change: is every packet accounted for?",
    }
}

/// A piece's plots and tables.
pub(super) fn body(piece: &Piece) -> Markup {
    match piece.kind {
        Kind::Compare => typed(piece, compare::body),
        Kind::Rfc2544 => typed(piece, rfc2544::body),
        Kind::L2fwd => typed(piece, l2fwd::body),
        Kind::Pipeline => typed(piece, pipeline::body),
        Kind::Seal => typed(piece, seal::body),
        Kind::Tables | Kind::Load | Kind::Soak => plain::body(&piece.results),
    }
}

/// What a piece comes to.
pub(super) fn said(piece: &Piece) -> Said {
    match piece.kind {
        Kind::Compare => in_words(piece, compare::said),
        Kind::Rfc2544 => in_words(piece, rfc2544::said),
        Kind::L2fwd => in_words(piece, l2fwd::said),
        Kind::Pipeline => in_words(piece, pipeline::said),
        Kind::Seal => in_words(piece, seal::said),
        Kind::Tables | Kind::Load | Kind::Soak => Said::default(),
    }
}

fn in_words<T: DeserializeOwned>(piece: &Piece, said: fn(&T) -> Said) -> Said {
    // What cannot be read is told in its section.
    read(piece).map(|it| said(&it)).unwrap_or_default()
}

/// The section of results that are what they should be.
fn typed<T: DeserializeOwned>(piece: &Piece, body: fn(&T) -> Markup) -> Markup {
    match read(piece) {
        Ok(results) => body(&results),
        Err(error) => html! {
            p.missing { "These results cannot be read: " (error) ". Were they made by another version?" }
        },
    }
}

fn read<T: DeserializeOwned>(piece: &Piece) -> serde_json::Result<T> {
    T::deserialize(&piece.results)
}

/// A median with the least and the greatest.
fn spread(it: Sample) -> String {
    let (median, min, max) = (figure(it.median), figure(it.min), figure(it.max));
    match min == max {
        true => median,
        false => format!("{median} ({min}..{max})"),
    }
}
