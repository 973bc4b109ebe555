//! `twinseal-bench report`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use twinseal_bench::page::{Kind, Piece, render};

/// One HTML page of all results, with plots, that needs no other file.
///
/// Of the results in the files given, or without any of short runs of everything, made now: some minutes. What could not
/// be measured is said on the page.
#[derive(Args)]
pub(crate) struct Report {
    /// What other subcommands printed with --json. Two of the same kind both get their place.
    results: Vec<PathBuf>,
    /// Where to write the page.
    #[arg(
        long,
        short,
        value_name = "FILE",
        default_value = "twinseal-bench.html"
    )]
    output: PathBuf,
}

/// How each kind is measured shortly; soaking is never short.
const QUICK: [(Kind, &[&str]); 8] = [
    (Kind::Compare, &["--quick", "--xdp", "native"]),
    (
        Kind::Compare,
        &["--quick", "--xdp", "generic", "--only", "kernel,twinseal"],
    ),
    (Kind::Rfc2544, &["--quick"]),
    (Kind::L2fwd, &["--runs", "3", "--millis", "300"]),
    (Kind::Pipeline, &["--seconds", "10"]),
    (Kind::Seal, &["--seconds", "10"]),
    (
        Kind::Tables,
        &["--v4", "100000", "--v6", "20000", "--rounds", "3"],
    ),
    (
        Kind::Load,
        &[
            "--v4",
            "100000",
            "--v6",
            "20000",
            "--vrfs",
            "100",
            "--circuits",
            "10000",
            "--links",
            "1000",
            "--seconds",
            "2",
        ],
    ),
];

impl Report {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let (mut pieces, mut missing) = (Vec::new(), Vec::new());
        for file in &self.results {
            pieces.push(Piece::read(file)?);
        }
        if self.results.is_empty() {
            for (kind, arguments) in QUICK {
                eprintln!("twinseal-bench {} {}", kind.name(), arguments.join(" "));
                match Piece::measure(kind, arguments) {
                    Ok(piece) => pieces.push(piece),
                    Err(error) => {
                        eprintln!("{error:#}");
                        missing.push((kind, format!("{error:#}")));
                    }
                }
            }
        }
        let place = || self.output.display().to_string();
        std::fs::write(&self.output, render(&pieces, &missing)).with_context(place)?;
        eprintln!("{} has {} results", place(), pieces.len());
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::Cli;

    #[test]
    fn every_kind_has_the_arguments_that_it_is_measured_with() {
        for (kind, arguments) in QUICK {
            let line = ["twinseal-bench", kind.name(), "--json"];
            let parsed = Cli::try_parse_from(line.iter().chain(arguments));
            assert!(parsed.is_ok(), "{}", parsed.err().unwrap());
        }
        let measured = |kind: &Kind| QUICK.iter().any(|(it, _)| it == kind);
        let not: Vec<_> = Kind::ALL.into_iter().filter(|it| !measured(it)).collect();
        assert_eq!(not, [Kind::Soak]);
    }
}
