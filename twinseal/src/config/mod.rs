//! `twinseal.toml`: what a node must know before a controller can talk to it.
//!
//! Every mistake is reported with file, line, column, field and fix, and all of them at once. Only `node.name` must be
//! given; `docs/examples` has files with all fields explained.

mod access;
mod collect;
mod file;
mod sinks;
mod users;

pub(crate) use file::SOCKET_DIR;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::control::access::AccessConfig;
use crate::control::events::file::EventsConfig;
use crate::control::lines::Output;
use crate::control::model::Limits;
use crate::control::usage::UsageConfig;
use crate::text::{self, sentence, word};
use twinseal_runtime::workers::PoolConfig;

/// A node's configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name: 1 to 64 of `A-Z a-z 0-9 _ . -`, the first a letter or digit.
    pub name: String,
    /// Whether a core dump of the process may be written, with the secrets in it. Off unless asked for.
    pub allow_core_dumps: bool,
    /// The control socket.
    pub socket: PathBuf,
    /// Its permission bits.
    pub socket_mode: u32,
    /// Who may do what: root and the daemon's own user everything, and those configured.
    pub access: AccessConfig,
    /// The file of the audit log.
    pub audit: Option<Output>,
    /// Where the burned secrets are recorded. It must outlive restarts.
    pub state_dir: PathBuf,
    /// Whether the tables are stored there, and restored at the start.
    pub keep_tables: bool,
    /// The library that seals and opens.
    pub provider: String,
    /// Bits of a replay window: a power of two.
    pub window_bits: u32,
    /// The first counter of a lane that is not used: a key is exhausted there.
    pub lane_limit: u64,
    /// When a key stops to transmit, unless it says otherwise itself.
    pub key_limits: Limits,
    /// The workers and their packet memory.
    pub pool: PoolConfig,
    /// Where events go.
    pub events: EventsConfig,
    /// How usage is accounted.
    pub usage: UsageConfig,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError::Read`] if it cannot be read, [`ConfigError::Invalid`] with every mistake in it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    /// Checks the text of a file; `path` is only for messages.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with every mistake in it.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        file::parse(&Source { path, text }).map_err(ConfigError::Invalid)
    }
}

/// Why a configuration was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {}: {source}; name a readable file with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file has mistakes.
    #[error("{}", lines(.0))]
    Invalid(Vec<Mistake>),
}

fn lines(mistakes: &[Mistake]) -> String {
    mistakes
        .iter()
        .map(Mistake::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// One thing that is wrong in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// The file.
    pub path: PathBuf,
    /// Its line, from 1.
    pub line: usize,
    /// The character of the line, from 1.
    pub column: usize,
    /// The field, like `crypto.window_bits`; empty if the text could not be read that far.
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub fix: String,
}

impl Mistake {
    /// What is wrong at a line and column, from 1. What it quotes may be as long as a file, and is shortened.
    pub(crate) fn new(
        path: &Path,
        (line, column): (usize, usize),
        field: &str,
        reason: &str,
        fix: &str,
    ) -> Self {
        Self {
            path: path.to_owned(),
            line,
            column,
            field: word(field).into_owned(),
            reason: sentence(reason).into_owned(),
            fix: sentence(fix).into_owned(),
        }
    }

    /// Where it is, as `PATH:LINE:COLUMN`.
    pub(crate) fn place(&self) -> String {
        // A store's key, if it is no file.
        let path = text::path(&self.path);
        format!("{path}:{}:{}", self.line, self.column)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place())?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.reason, self.fix)
    }
}

/// A file's text, to find places in.
pub(crate) struct Source<'a> {
    pub(crate) path: &'a Path,
    pub(crate) text: &'a str,
}

impl Source<'_> {
    /// The line and column, from 1, of a byte offset.
    pub(crate) fn place(&self, offset: usize) -> (usize, usize) {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        let start = before
            .iter()
            .rposition(|&b| b == b'\n')
            .map_or(0, |i| i + 1);
        let line = 1 + before.iter().filter(|&&b| b == b'\n').count();
        (
            line,
            1 + String::from_utf8_lossy(&before[start..]).chars().count(),
        )
    }

    /// The text of a line, from 1.
    pub(crate) fn line(&self, line: usize) -> &str {
        self.text
            .lines()
            .nth(line.saturating_sub(1))
            .unwrap_or_default()
    }
}

/// What stands between the first two backticks: parsers name fields so.
pub(crate) fn backticked(message: &str) -> Option<&str> {
    message.split('`').nth(1)
}

/// What to do about a parser's message.
pub(crate) fn fix_for(message: &str) -> &'static str {
    if message.contains("unknown field") {
        "correct its name or remove it"
    } else if message.contains("missing field") {
        "add it"
    } else if message.contains("unknown variant") {
        "write one of these"
    } else if message.contains("duplicate") {
        "keep one of them"
    } else if message.starts_with("expected")
        || message.contains("invalid type")
        || message.contains("invalid value")
    {
        "write a value of that kind"
    } else {
        "correct the text there"
    }
}

#[cfg(test)]
mod tests;
