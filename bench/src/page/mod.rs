//! The report: one HTML page of all results, with plots, that needs nothing else.
//!
//! [`Piece`] is the results of one run, read back from the JSON that each subcommand prints. [`render`] puts pieces
//! together: what they come to in words, then a section a kind, which says how to measure it again, and what is missing.
//! A new kind of results is a [`Kind`] and a file in `sections`.

mod axis;
mod input;
mod plot;
mod sections;
mod svg;
#[cfg(test)]
mod tests;

use maud::{DOCTYPE, Markup, PreEscaped, html};

pub use input::{Kind, Piece};

use crate::Machine;

/// The page. `missing` says of kinds that are not among the pieces, why.
pub fn render(pieces: &[Piece], missing: &[(Kind, String)]) -> String {
    let machines = machines(pieces);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Twinseal: how fast" }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                main {
                    h1 { "Twinseal: how fast, and against whom" }
                    p.soft {
                        "Twinseal is an encrypted overlay router in userspace. It seals every packet twice: end to end for
                        its circuit, and hop by hop for the link. This page is made of measurements only."
                    }
                    (summary(pieces))
                    nav {
                        @for kind in Kind::ALL {
                            a href=(format!("#{}", kind.name())) { (sections::title(kind)) }
                        }
                        a href="#machine" { "Machine" }
                    }
                    @for kind in Kind::ALL {
                        section id=(kind.name()) {
                            h2 { (sections::title(kind)) }
                            p { (sections::question(kind)) }
                            @let own: Vec<&Piece> = pieces.iter().filter(|piece| piece.kind == kind).collect();
                            @for piece in &own {
                                @let doubts = sections::doubts(piece);
                                @if !doubts.is_empty() {
                                    p.warning { (doubts.join("; ")) }
                                }
                                (sections::body(piece))
                                (how(piece, &machines))
                            }
                            @if own.is_empty() {
                                (not_measured(kind, missing))
                            }
                        }
                    }
                    section id="machine" {
                        h2 { "Machine" }
                        (machine_table(&machines))
                    }
                }
            }
        }
    };
    page.into_string()
}

/// What the pieces come to, in words: from host to host first, then what is inside.
fn summary(pieces: &[Piece]) -> Markup {
    let in_order = Kind::ALL
        .iter()
        .flat_map(|kind| pieces.iter().filter(move |it| it.kind == *kind));
    let said: Vec<(sections::Said, String)> = in_order
        .map(|piece| (sections::said(piece), sections::doubts(piece).join("; ")))
        .collect();
    let optimised = pieces.iter().all(|piece| piece.machine.optimised);
    html! {
        @if !optimised {
            p.warning { "Some of this was measured with a program that the compiler did not optimise: its times mean nothing." }
        }
        div.figures {
            @for (said, doubts) in &said {
                @for (figure, what) in &said.figures {
                    div {
                        b { (figure) } span { (what) }
                        @if !doubts.is_empty() { span.doubt { (doubts) } }
                    }
                }
            }
        }
        ul.lead {
            @for (said, doubts) in &said {
                @for sentence in &said.sentences {
                    li { (sentence) @if !doubts.is_empty() { span.doubt { " (" (doubts) ")" } } }
                }
            }
            @if said.iter().all(|(it, _)| it.sentences.is_empty()) {
                li { "Nothing was measured." }
            }
        }
        @if said.iter().any(|(it, _)| it.figures.iter().any(|(figure, _)| figure.starts_with('≥'))) {
            p.soft { "≥: at least; the generator could send no more." }
        }
    }
}

/// How to measure a piece again.
fn how(piece: &Piece, machines: &[Machine]) -> Markup {
    let Machine {
        command,
        date,
        version,
        commit,
        ..
    } = &piece.machine;
    let place = machines.iter().position(|it| same(it, &piece.machine));
    html! {
        p.how {
            "Measured " (date) " by twinseal " (version)
            @if let Some(commit) = commit { " (" (commit) ")" }
            @if machines.len() > 1 {
                " on machine " (place.unwrap_or(0) + 1)
            }
            ". Again: " code { (command) }
        }
    }
}

fn not_measured(kind: Kind, missing: &[(Kind, String)]) -> Markup {
    let why = missing.iter().find(|(of, _)| *of == kind);
    html! {
        p.missing {
            "Not measured"
            @if let Some((_, why)) = why { ": " (why) }
            ". To add it: " code { "twinseal-bench " (kind.name()) " --json > " (kind.name()) ".json" }
            ", then " code { "twinseal-bench report " (kind.name()) ".json ..." } "."
        }
    }
}

/// The machines of all pieces, each once.
fn machines(pieces: &[Piece]) -> Vec<Machine> {
    let mut machines: Vec<Machine> = Vec::new();
    for piece in pieces {
        if !machines.iter().any(|it| same(it, &piece.machine)) {
            machines.push(piece.machine.clone());
        }
    }
    machines
}

/// Whether two measurements were made on machines that cannot be told apart.
fn same(a: &Machine, b: &Machine) -> bool {
    let of = |it: &Machine| (it.cpu.clone(), it.cpus, it.kernel.clone(), it.os.clone());
    of(a) == of(b)
}

fn machine_table(machines: &[Machine]) -> Markup {
    let row = |name: &str, of: &dyn Fn(&Machine) -> String| {
        html! {
            tr {
                td { (name) }
                @for machine in machines { td.words { (of(machine)) } }
            }
        }
    };
    html! {
        div.scroll {
            table {
                (row("Processor", &|it| it.cpu.clone()))
                (row("CPUs", &|it| it.cpus.to_string()))
                (row("Instruction set", &|it| it.arch.clone()))
                (row("For sealing", &|it| it.features.join(", ")))
                (row("Clock governor", &|it| it.governor.clone().unwrap_or_else(|| "not told".into())))
                (row("Virtual machine", &|it| if it.virtual_machine { "yes" } else { "no" }.into()))
                (row("Kernel", &|it| it.kernel.clone()))
                (row("Distribution", &|it| it.os.clone()))
            }
        }
        p.soft {
            "Figures are medians of several runs, with the least and the greatest beside them. Ratios are taken between runs
            of the same round, because what else a machine does disturbs both alike."
        }
    }
}
