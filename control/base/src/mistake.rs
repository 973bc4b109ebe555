//! Mistakes in files that people write: each with its place, the field, what is wrong and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::text;
use crate::text::{sentence, word};

/// All mistakes, a line each.
pub fn lines(mistakes: &[Mistake]) -> String {
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
    pub fn new(
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
    pub fn place(&self) -> String {
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
pub struct Source<'a> {
    /// The file.
    pub path: &'a Path,
    /// What is in it.
    pub text: &'a str,
}

impl Source<'_> {
    /// The line and column, from 1, of a byte offset.
    pub fn place(&self, offset: usize) -> (usize, usize) {
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
    pub fn line(&self, line: usize) -> &str {
        self.text
            .lines()
            .nth(line.saturating_sub(1))
            .unwrap_or_default()
    }
}

/// What stands between the first two backticks: parsers name fields so.
pub fn backticked(message: &str) -> Option<&str> {
    message.split('`').nth(1)
}

/// What to do about a parser's message.
pub fn fix_for(message: &str) -> &'static str {
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
