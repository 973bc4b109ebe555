//! The results that a page is made of: JSON of this program's subcommands.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;
use serde_json::Value;

use crate::Machine;

/// A subcommand that gives results, in the order of the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `compare`.
    Compare,
    /// `rfc2544`.
    Rfc2544,
    /// `l2fwd`.
    L2fwd,
    /// `pipeline`.
    Pipeline,
    /// `seal`.
    Seal,
    /// `tables`.
    Tables,
    /// `load`.
    Load,
    /// `soak`.
    Soak,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 8] = [
        Kind::Compare,
        Kind::Rfc2544,
        Kind::L2fwd,
        Kind::Pipeline,
        Kind::Seal,
        Kind::Tables,
        Kind::Load,
        Kind::Soak,
    ];

    /// The subcommand's name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Compare => "compare",
            Kind::Rfc2544 => "rfc2544",
            Kind::L2fwd => "l2fwd",
            Kind::Pipeline => "pipeline",
            Kind::Seal => "seal",
            Kind::Tables => "tables",
            Kind::Load => "load",
            Kind::Soak => "soak",
        }
    }
}

/// The results of one run of a subcommand.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Which subcommand's.
    pub kind: Kind,
    /// Where it was measured, and how to measure it again.
    pub machine: Machine,
    /// All of it.
    pub results: Value,
}

impl Piece {
    /// What a subcommand printed with `--json`.
    ///
    /// # Errors
    /// If it is not that, or of a subcommand that gives no results.
    pub fn parse(json: &str) -> anyhow::Result<Self> {
        let results: Value = serde_json::from_str(json).context("not JSON")?;
        let machine = results.get("machine").cloned();
        let machine = machine.context("no field machine: print it with --json of this program")?;
        let machine: Machine = serde_json::from_value(machine).context("machine")?;
        let word = machine.command.split(' ').nth(1).unwrap_or_default();
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == word);
        let kind = kind.with_context(|| format!("{:?} gives no results", machine.command))?;
        Ok(Self {
            kind,
            machine,
            results,
        })
    }

    /// What a file holds.
    ///
    /// # Errors
    /// As [`Piece::parse`], with the file's name.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Runs a subcommand of this program, with these arguments beside `--json`.
    ///
    /// # Errors
    /// If it fails.
    pub fn measure(kind: Kind, arguments: &[&str]) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("where is this program?")?;
        let done = Command::new(program)
            .args([kind.name(), "--json"])
            .args(arguments)
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| kind.name())?;
        let text = String::from_utf8(done.stdout)?;
        // Results that came with a failure (a peer that did not start, a packet that was lost) belong on the page.
        if text.trim().is_empty() {
            anyhow::bail!(
                "{} printed nothing and ended with {}",
                kind.name(),
                done.status
            );
        }
        Self::parse(&text).context(kind.name())
    }
}
